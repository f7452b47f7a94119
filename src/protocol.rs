//! What a [`Node`](crate::node::Node) must know of the messages it carries, and nothing more.
//!
//! A [`Protocol`] names its classes, turns messages into bytes and back, and points at three numbers within a message:
//! the ID of a request, the ID that a reply answers, and the key under which a newer message replaces an older one.
//! What messages mean is the [`Handler`](crate::node::Handler)'s business.
//!
//! A protocol does no I/O and keeps no connection's state: its methods are called on many tasks at once, for all peers.

use bytes::Bytes;
use peerlane_transport::{ClassId, ClassTable, varint};

/// A family of messages and how they travel. CAD015 is one, 16 channels of opaque bytes are another
/// (`examples/opaque.rs`).
pub trait Protocol: Send + Sync + 'static {
    /// A message, decoded. Cloned only where one message goes to several places, so [`Bytes`] inside keep that cheap.
    type Message: Clone + std::fmt::Debug + Send + Sync + 'static;

    /// The classes of traffic. The same ones stand in the [`Terms`](peerlane_transport::admission::Terms) of the local
    /// peer; [`NodeBuilder::start`](crate::node::NodeBuilder::start) refuses to start otherwise.
    fn classes(&self) -> ClassTable;

    /// The class in which a message is sent. A reply travels in the class of its request: the node sees to that, and
    /// asks for a reply's class only if it's sent outside of a handler.
    fn class_of(&self, message: &Self::Message) -> ClassId;

    /// The message's bytes. Called once per message, however many peers it goes to. No length is written: the
    /// transport delimits messages.
    fn encode(&self, message: &Self::Message) -> Bytes;

    /// Reads a message that arrived in `class`. The bytes come from a peer: nothing may be allocated from a length
    /// declared in them, and nothing may panic. Slices of `bytes` may be kept, they're shared.
    ///
    /// # Errors
    /// [`Malformed`]: what to answer, if anything, and whether the connection is to be closed.
    fn decode(&self, class: ClassId, bytes: Bytes) -> Result<Self::Message, Malformed<Self::Message>>;

    /// The ID of a request; `None` for a message that expects no reply.
    fn request_id(&self, message: &Self::Message) -> Option<u64> {
        let _ = message;
        None
    }

    /// The ID of the request that this message answers; `None` for a message that answers nothing.
    fn reply_to(&self, message: &Self::Message) -> Option<u64> {
        let _ = message;
        None
    }

    /// Gives a request its ID, a number of up to 63 bits. Nothing happens to a message that is no request.
    fn with_id(&self, message: &mut Self::Message, id: u64) {
        let _ = (message, id);
    }

    /// What tells the other side that nobody waits for the reply to the request of this ID any more, so that it stops
    /// working on it. It's sent when the future of a request is dropped or its deadline has passed. `None`, the default:
    /// the other side isn't told, and goes on.
    ///
    /// Its class should have room while its request's is full: a control class.
    fn cancel(&self, id: u64) -> Option<Self::Message> {
        let _ = id;
        None
    }

    /// The ID of the request that this message takes back, as made by [`cancel`](Self::cancel). The node sees to it: no
    /// handler gets the message.
    fn cancels(&self, message: &Self::Message) -> Option<u64> {
        let _ = message;
        None
    }

    /// What a request gets that there's no room for: a RESULT with LOAD, say. `None`: the message is dropped.
    fn overloaded(&self, message: &Self::Message) -> Option<Self::Message> {
        let _ = message;
        None
    }

    /// Messages of one key replace each other while they wait to be sent; `None` for those that all must go.
    fn latest_key(&self, message: &Self::Message) -> Option<u64> {
        let _ = message;
        None
    }

    /// What happens when a class has no room for one more received message.
    fn overflow(&self, class: ClassId) -> Overflow {
        let _ = class;
        Overflow::Wait
    }

    /// Whether a reply that nobody waits for (any more) is handed to the handler. If not, it's dropped and counted.
    fn handles_unmatched(&self, message: &Self::Message) -> bool {
        let _ = message;
        false
    }

    /// What a received message is called in metrics and logs: one of few words, never a peer's bytes.
    fn kind(&self, message: &Self::Message) -> &'static str {
        let _ = message;
        "message"
    }

    /// The head of a streamed message: what comes before its body, so that the other side can tell which request it
    /// answers. The default is the length (varint, [`MAX_HEAD`] at most), then the encoded message; a length of 0 for
    /// a streamed message without a head.
    fn encode_head(&self, head: Option<&Self::Message>) -> Bytes {
        let head = head.map(|message| self.encode(message)).unwrap_or_default();
        let mut out = bytes::BytesMut::with_capacity(head.len() + 4);
        varint::put(&mut out, head.len() as u64);
        out.extend_from_slice(&head);
        out.freeze()
    }

    /// Reads what [`encode_head`](Self::encode_head) wrote, from the first bytes of a streamed message. `Ok(None)`
    /// asks for more of them; [`MAX_HEAD`] bytes and a length are the most it gets.
    ///
    /// # Errors
    /// [`Malformed`], as [`decode`](Self::decode); the streamed message is then stopped.
    fn decode_head(&self, class: ClassId, start: &Bytes) -> Result<Option<StreamHead<Self::Message>>, Malformed<Self::Message>> {
        let mut rest = &start[..];
        let Some(len) = varint::get(&mut rest) else { return Ok(None) };
        let at = start.len() - rest.len();
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MAX_HEAD {
            return Err(Malformed::close("the head of a streamed message is too long"));
        }
        match (len, start.get(at..at + len)) {
            (0, _) => Ok(Some(StreamHead { message: None, length: at })),
            (_, None) => Ok(None),
            (_, Some(_)) => self.decode(class, start.slice(at..at + len)).map(|m| Some(StreamHead { message: Some(m), length: at + len })),
        }
    }
}

/// Longest head of a streamed message, in bytes. It's held whole until it's read: four per class and connection at most.
pub const MAX_HEAD: usize = 16 * 1024;

/// The head of a streamed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHead<M> {
    /// The message that came before the body, if any.
    pub message: Option<M>,
    /// Bytes of the head; the body begins behind them.
    pub length: usize,
}

/// What happens to a message for which its class has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The class isn't read until there's room: the other side's senders of this class wait. Other classes go on. Replies
    /// of this class wait too: so a handler doesn't wait for a reply in its own class.
    Wait,
    /// It gets [`Protocol::overloaded`] at once, or is dropped and counted if that is `None`.
    Answer,
    /// The oldest waiting message is dropped and counted. The peer with the most waiting messages loses one.
    DropOldest,
}

/// A message that doesn't parse, or may not be where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed<M> {
    /// What to answer, in the class in which it arrived.
    pub answer: Option<M>,
    /// Whether the connection is closed, with the code [`Application`](peerlane_transport::CloseCode::Application) and `why`.
    pub close: bool,
    /// What is wrong, for logs and the close reason. Never a peer's bytes.
    pub why: &'static str,
}

impl<M> Malformed<M> {
    /// Counted, not answered.
    pub const fn ignore(why: &'static str) -> Self {
        Self { answer: None, close: false, why }
    }

    /// Answered.
    pub const fn answer(answer: M, why: &'static str) -> Self {
        Self { answer: Some(answer), close: false, why }
    }

    /// The connection is closed.
    pub const fn close(why: &'static str) -> Self {
        Self { answer: None, close: true, why }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Messages are their bytes; an empty one doesn't parse.
    struct Raw;

    impl Protocol for Raw {
        type Message = Bytes;

        fn classes(&self) -> ClassTable {
            ClassTable::standard()
        }

        fn class_of(&self, _: &Bytes) -> ClassId {
            ClassId(0)
        }

        fn encode(&self, message: &Bytes) -> Bytes {
            message.clone()
        }

        fn decode(&self, _: ClassId, bytes: Bytes) -> Result<Bytes, Malformed<Bytes>> {
            if bytes.is_empty() { Err(Malformed::ignore("empty")) } else { Ok(bytes) }
        }
    }

    proptest! {
        #[test]
        fn a_head_is_read_once_it_is_whole_and_the_body_begins_behind_it(len in 0usize..20_000, cut in 0usize..20_010, body in 0usize..100) {
            let message = Bytes::from(vec![5; len]);
            let head = Raw.encode_head((len > 0).then_some(&message));
            let start = Bytes::from([&head[..], &vec![9; body]].concat());
            let read = Raw.decode_head(ClassId(0), &start);
            if len > MAX_HEAD {
                prop_assert!(read.is_err());
            } else {
                prop_assert_eq!(read.unwrap().unwrap(), StreamHead { message: (len > 0).then_some(message), length: head.len() });
                if cut < head.len() {
                    prop_assert_eq!(Raw.decode_head(ClassId(0), &start.slice(..cut)), Ok(None));
                }
            }
        }

        #[test]
        fn any_bytes_make_a_head_an_error_or_a_wish_for_more(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some(head)) = Raw.decode_head(ClassId(0), &bytes.clone().into()) {
                prop_assert!(head.length <= bytes.len());
            }
        }
    }
}
