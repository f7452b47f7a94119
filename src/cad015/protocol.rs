//! CAD015 as a [`Protocol`]: which class a message travels in, which ID it has, what it gets under load.

use bytes::Bytes;
use peerlane_transport::{ClassId, ClassTable};

use super::{ErrorCode, Message, MessageType, peek_id, peek_kind};
use crate::{
    cell::Profile,
    protocol::{Malformed, Overflow, Protocol},
};

/// CAD015 in peerlane's native dialect, over the standard classes.
#[derive(Debug, Clone)]
pub struct Cad015 {
    profile: Profile,
    classes: ClassTable,
    ids: Ids,
}

#[derive(Debug, Clone, Copy)]
struct Ids {
    control: ClassId,
    query: ClassId,
    transact: ClassId,
    data: ClassId,
    belief: ClassId,
}

impl Cad015 {
    /// Over [`ClassTable::standard`], with the profile's hash and limits.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        let classes = ClassTable::standard();
        // In the standard table's order, which a test holds on to.
        let ids = Ids { control: ClassId(0), query: ClassId(1), transact: ClassId(2), data: ClassId(3), belief: ClassId(4) };
        Self { profile, classes, ids }
    }

    /// The profile of its cells.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The class for beliefs.
    #[must_use]
    pub const fn belief_class(&self) -> ClassId {
        self.ids.belief
    }

    /// The class of a type; `None` for a RESULT, which travels in its request's.
    fn class(&self, kind: MessageType) -> Option<ClassId> {
        match kind {
            MessageType::Query => Some(self.ids.query),
            MessageType::Transact => Some(self.ids.transact),
            MessageType::Data | MessageType::MissingData => Some(self.ids.data),
            MessageType::Belief | MessageType::RequestBelief => Some(self.ids.belief),
            MessageType::Result => None,
            _ => Some(self.ids.control),
        }
    }
}

impl Protocol for Cad015 {
    type Message = Message;

    fn classes(&self) -> ClassTable {
        self.classes.clone()
    }

    fn class_of(&self, message: &Message) -> ClassId {
        self.class(message.kind).unwrap_or(self.ids.query)
    }

    fn encode(&self, message: &Message) -> Bytes {
        message.encode()
    }

    fn decode(&self, class: ClassId, bytes: Bytes) -> Result<Message, Malformed<Message>> {
        let Some(kind) = peek_kind(&bytes) else { return Err(Malformed::close("an empty message")) };
        // A type in another class would take that class's place in the queue. Unknown types are nobody's.
        let fits = matches!(kind, MessageType::Unknown(_)) || self.class(kind).is_none_or(|own| own == class);
        if !fits {
            return Err(Malformed::close("a message in a class that isn't its type's"));
        }
        Message::decode(&bytes, &self.profile).map_err(|_| {
            let why = "a message that isn't in canonical form";
            match peek_id(&bytes).filter(|_| kind.is_request()) {
                Some(id) => Malformed::answer(Message::error(id, &ErrorCode::Format, why), why),
                None => Malformed::ignore(why),
            }
        })
    }

    fn request_id(&self, message: &Message) -> Option<u64> {
        message.id().filter(|_| message.kind.is_request())
    }

    fn reply_to(&self, message: &Message) -> Option<u64> {
        message.id().filter(|_| message.kind.is_reply())
    }

    fn with_id(&self, message: &mut Message, id: u64) {
        let kind = message.kind;
        let taken = std::mem::replace(message, Message::new(kind, crate::cell::Cell::Nil));
        *message = taken.with_id(id);
    }

    fn cancel(&self, id: u64) -> Option<Message> {
        Some(Message::cancel(id))
    }

    fn cancels(&self, message: &Message) -> Option<u64> {
        message.cancels()
    }

    fn overloaded(&self, message: &Message) -> Option<Message> {
        let id = self.request_id(message)?;
        Some(Message::error(id, &ErrorCode::Load, "the peer is busy; try again later"))
    }

    fn overflow(&self, class: ClassId) -> Overflow {
        if class == self.ids.belief {
            // A newer belief says all that an older one did.
            Overflow::DropOldest
        } else if class == self.ids.data {
            Overflow::Wait
        } else {
            Overflow::Answer
        }
    }

    fn kind(&self, message: &Message) -> &'static str {
        match message.kind {
            MessageType::Challenge => "challenge",
            MessageType::Response => "response",
            MessageType::Data => "data",
            MessageType::Command => "command",
            MessageType::MissingData => "missing_data",
            MessageType::Query => "query",
            MessageType::Transact => "transact",
            MessageType::Result => "result",
            MessageType::Belief => "belief",
            MessageType::RequestBelief => "request_belief",
            MessageType::Goodbye => "goodbye",
            MessageType::Status => "status",
            MessageType::Ping => "ping",
            MessageType::Cancel => "cancel",
            MessageType::Unknown(_) => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::cell::{Cell, Ref};

    fn protocol() -> Cad015 {
        Cad015::new(Profile::NATIVE)
    }

    fn nil() -> [Ref; 1] {
        [Ref::nil()]
    }

    #[test]
    fn the_class_ids_are_the_standard_tables() {
        let protocol = protocol();
        let by_name = |name| protocol.classes.by_name(name).unwrap();
        let Ids { control, query, transact, data, belief } = protocol.ids;
        assert_eq!(by_name(ClassTable::CONTROL), control);
        assert_eq!(by_name(ClassTable::QUERY), query);
        assert_eq!(by_name(ClassTable::TRANSACT), transact);
        assert_eq!(by_name(ClassTable::DATA), data);
        assert_eq!(by_name(ClassTable::BELIEF), belief);
    }

    #[test]
    fn a_result_may_come_in_any_class_and_nothing_else_may() {
        let protocol = protocol();
        for class in (0..5).map(ClassId) {
            assert!(protocol.decode(class, Message::result(1, Ref::nil()).encode()).is_ok());
            let query = protocol.decode(class, Message::query(1, nil()).encode());
            assert_eq!(query.is_ok(), class == protocol.ids.query);
            assert!(query.err().is_none_or(|malformed| malformed.close));
        }
    }

    #[test]
    fn a_malformed_request_is_answered_by_its_id_and_others_are_counted() {
        let protocol = protocol();
        let mut bytes = Message::query(7, nil()).encode().to_vec();
        bytes.extend([1, 0]);
        let answer = protocol.decode(protocol.ids.query, bytes.into()).unwrap_err().answer.unwrap();
        assert_eq!((answer.kind, answer.id()), (MessageType::Result, Some(7)));
        let mut bytes = Message::belief_without_cells().encode().to_vec();
        bytes.push(0);
        let malformed = protocol.decode(protocol.ids.belief, bytes.into()).unwrap_err();
        assert!(malformed.answer.is_none() && !malformed.close);
    }

    #[test]
    fn an_unknown_type_is_passed_on_to_be_counted() {
        let message = protocol().decode(ClassId(3), Bytes::from_static(&[99, 1, 2, 3])).unwrap();
        assert_eq!(message.kind, MessageType::Unknown(99));
        assert_eq!(protocol().overloaded(&message), None);
    }

    #[test]
    fn requests_get_load_and_nothing_else_does() {
        let protocol = protocol();
        let load = protocol.overloaded(&Message::query(9, nil())).unwrap();
        assert_eq!(load.id(), Some(9));
        assert!(protocol.overloaded(&Message::result(9, Ref::nil())).is_none());
        let mut request = Message::status(1);
        protocol.with_id(&mut request, 55);
        assert_eq!(protocol.request_id(&request), Some(55));
    }

    impl Message {
        fn belief_without_cells() -> Self {
            let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
            let signed = crate::cell::Signed::sign(&Profile::NATIVE, &key, Ref::Embedded(Cell::Nil.into()));
            Self::belief(signed, [])
        }
    }
}
