//! Convex's own messages as a [`Protocol`]: a node carries them over `peerlane_convex`'s transport to a peer in Java, which it
//! [adopts](crate::node::NodeHandle::adopt), or among its own kind over QUIC. Requests, deadlines, overload and metrics are those of every
//! protocol.

use bytes::Bytes;
use peerlane_convex::{ErrorCode, Kind, Message, class_of, classes};
use peerlane_transport::{ClassId, ClassTable};

use crate::{
    cad015,
    protocol::{Malformed, Overflow, Protocol},
};

/// The messages of Convex since 0.8.0, over [`classes`].
#[derive(Debug, Clone)]
pub struct Convex {
    classes: ClassTable,
}

impl Default for Convex {
    fn default() -> Self {
        Self { classes: classes() }
    }
}

impl Protocol for Convex {
    type Message = Message;

    fn classes(&self) -> ClassTable {
        self.classes.clone()
    }

    fn class_of(&self, message: &Message) -> ClassId {
        class_of(message.kind())
    }

    fn encode(&self, message: &Message) -> Bytes {
        message.encode()
    }

    fn decode(&self, class: ClassId, bytes: Bytes) -> Result<Message, Malformed<Message>> {
        let why = "a message that isn't in canonical form";
        let malformed = |_| Malformed::answer(Message::error(None, &ErrorCode::Format, why), why);
        let message = Message::decode(&bytes).map_err(malformed)?;
        // A kind in another class would take that class's place in the queue. Unknown ones are nobody's.
        let fits = matches!(message.kind(), Kind::Result | Kind::Unknown) || class_of(message.kind()) == class;
        if fits { Ok(message) } else { Err(Malformed::close("a message in a class that isn't its kind's")) }
    }

    fn request_id(&self, message: &Message) -> Option<u64> {
        message.id().filter(|_| message.kind().is_request()).and_then(|id| u64::try_from(id).ok())
    }

    fn reply_to(&self, message: &Message) -> Option<u64> {
        message.id().filter(|_| message.kind() == Kind::Result).and_then(|id| u64::try_from(id).ok())
    }

    fn with_id(&self, message: &mut Message, id: u64) {
        // 63 bits, says the trait.
        *message = message.clone().with_id((id & i64::MAX as u64) as i64);
    }

    fn overloaded(&self, message: &Message) -> Option<Message> {
        let id = message.id().filter(|_| message.kind().is_request())?;
        Some(Message::error(Some(id), &ErrorCode::Load, "the peer is busy; try again later"))
    }

    fn overflow(&self, class: ClassId) -> Overflow {
        if class == class_of(Kind::Belief) {
            // Deltas: what a dropped one had is acquired by MISSING_DATA.
            Overflow::DropOldest
        } else if class == class_of(Kind::Data) {
            Overflow::Wait
        } else {
            Overflow::Answer
        }
    }

    fn kind(&self, message: &Message) -> &'static str {
        message.kind().name()
    }
}

/// Convex's code as CAD015's of our own dialect: both are keywords, so by name.
impl From<&ErrorCode> for cad015::ErrorCode {
    fn from(code: &ErrorCode) -> Self {
        let other = || Self::State;
        crate::cell::Name::new(code.name()).map_or_else(other, |name| Self::from_name(&name))
    }
}

/// And back.
impl From<&cad015::ErrorCode> for ErrorCode {
    fn from(code: &cad015::ErrorCode) -> Self {
        let other = || Self::State;
        crate::cell::Name::new(code.name()).map_or_else(other, |name| Self::from_name(&name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::{sync::Arc, time::Duration};

    use peerlane_convex::{ConvexAddr, ConvexTcp, ConvexTcpConfig, Payload, Transaction, Value, form};
    use peerlane_tcp::{TcpConfig, TcpTransport};
    use peerlane_transport::{
        AnyTransport, Listener as _, Transport as _, Upgrade as _,
        admission::{Lists, LocalPeer, Terms},
        identity::Identity,
    };

    use super::*;
    use crate::node::{Context, Handler, Node};

    /// Answers each query with its own form, STATUS with nil, data requests with what it has: nothing. Takes no transactions.
    struct Echo;

    impl Handler<Convex> for Echo {
        async fn handle(&self, context: Context<Convex>, message: Message) {
            let answer = match message.parse() {
                Ok(Payload::Query { id, form, .. }) => Message::result(id, message.value(&form).unwrap_or_else(Value::nil)).unwrap(),
                Ok(Payload::Status { id }) => Message::result(id, Value::nil()).unwrap(),
                Ok(Payload::DataRequest { id, .. }) => Message::result(id, form::read("[nil]").unwrap()).unwrap(),
                Ok(Payload::Transact { id, .. }) => Message::error(Some(id), &ErrorCode::Sequence, "Old sequence number"),
                other => panic!("{other:?}"),
            };
            let _ = context.reply(&answer).await;
        }
    }

    fn terms() -> Terms {
        let mut terms = Terms::new("convex").unwrap();
        terms.classes = classes();
        terms
    }

    async fn node(seed: u8, handler: impl Handler<Convex>) -> Node<Convex> {
        let identity = Identity::from_seed(&[seed; 32]).unwrap();
        let local = LocalPeer::new(&identity, Arc::new(Lists::everybody()), terms()).unwrap();
        let tcp = TcpTransport::new(local.clone(), TcpConfig::default()).unwrap();
        Node::builder(Convex::default(), local).transport(AnyTransport::new(tcp)).handler(handler).start().await.unwrap()
    }

    #[tokio::test]
    async fn requests_go_through_the_same_call_as_among_our_own_peers() {
        let (asking, answering) = (node(1, crate::node::Silent).await, node(2, Echo).await);
        let transport = ConvexTcp::new(terms(), ConvexTcpConfig::default()).unwrap();
        let mut listener = transport.listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = ConvexAddr(listener.local().to_string());
        let (dialed, accepted) = tokio::join!(transport.dial(&addr), async { listener.accept().await.unwrap().upgrade().await });
        let peer = asking.adopt(dialed.unwrap()).unwrap();
        answering.adopt(accepted.unwrap()).unwrap();
        for text in ["(+ 1 2)", "{:a [1 2 3]}"] {
            let query = Message::query(0, form::read(text).unwrap(), Some(11)).unwrap();
            let answer = asking.request(peer.clone(), query, Duration::from_secs(20)).await.unwrap();
            let Ok(Payload::Result(outcome)) = answer.parse() else { panic!() };
            assert_eq!(form::print(&answer.value(&outcome.value).unwrap(), 1000), text);
        }
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        let transfer = Transaction::Transfer { origin: 11, sequence: 1, target: 12, amount: 5 }.sign(&key).unwrap();
        for (request, value, error) in [
            (Message::status(0), "nil", None),
            (Message::data_request(0, &[crate::cell::ValueId([1; 32])]).unwrap(), "[nil]", None),
            (Message::transact(0, transfer).unwrap(), "\"Old sequence number\"", Some(cad015::ErrorCode::Sequence)),
        ] {
            let answer = asking.request(peer.clone(), request, Duration::from_secs(20)).await.unwrap();
            let Ok(Payload::Result(outcome)) = answer.parse() else { panic!() };
            assert_eq!(form::print(&answer.value(&outcome.value).unwrap(), 1000), value);
            assert_eq!(outcome.error.as_ref().map(cad015::ErrorCode::from), error);
        }
        asking.shutdown().await;
        answering.shutdown().await;
    }

    #[test]
    fn under_load_requests_are_refused_and_nonsense_gets_format() {
        let convex = Convex::default();
        let query = Message::query(7, Value::nil(), None).unwrap();
        for request in [Message::status(7), query.clone(), Message::data_request(7, &[]).unwrap()] {
            let Payload::Result(outcome) = convex.overloaded(&request).unwrap().parse().unwrap() else { panic!() };
            assert_eq!((outcome.id, outcome.error), (Some(7), Some(ErrorCode::Load)));
        }
        let belief = Bytes::from_static(&[0xd4, 1, 0x84, 0]);
        assert_eq!(convex.overloaded(&Message::decode(&belief).unwrap()), None);
        assert_eq!(convex.overflow(class_of(Kind::Belief)), Overflow::DropOldest);
        let malformed = convex.decode(class_of(Kind::Query), Bytes::from_static(&[0xff])).unwrap_err();
        let Payload::Result(outcome) = malformed.answer.unwrap().parse().unwrap() else { panic!() };
        assert_eq!((outcome.id, outcome.error, malformed.close), (None, Some(ErrorCode::Format), false));
        assert!(convex.decode(class_of(Kind::Query), query.encode()).is_ok());
        assert!(convex.decode(class_of(Kind::Query), belief).unwrap_err().close, "a flood of beliefs takes no query's place");
    }

    #[test]
    fn codes_map_both_ways() {
        for name in [
            "LOAD",
            "SEQUENCE",
            "SIGNATURE",
            "FORMAT",
            "MISSING",
            "NOBODY",
            "TRUST",
            "ARGUMENT",
            "STATE",
            "FUNDS",
            "JUICE",
            "UNDECLARED",
            "CAST",
            "CHILD",
            "TIMEOUT",
            "MINE",
        ] {
            let code = ErrorCode::from_name(&crate::cell::Name::new(name).unwrap());
            let ours = cad015::ErrorCode::from(&code);
            assert_eq!((ours.to_string(), ErrorCode::from(&ours)), (name.into(), code));
        }
    }
}
