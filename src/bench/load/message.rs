//! The messages: opaque to a transport, so only their sizes count. `tag (1) | ID (8, big-endian) | filling`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The shortest query or result, in bytes: tag and ID.
pub(crate) const HEAD: usize = 9;

/// Kinds of message, told apart by their tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    Query = 1,
    Result = 2,
    Belief = 3,
}

/// A message of `len` bytes; one shorter than [`HEAD`] is cut.
pub(crate) fn message(tag: Tag, id: u64, len: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(len.max(HEAD));
    message.put_u8(tag as u8);
    message.put_u64(id);
    // Not constant, in case something on the way compresses.
    message.extend((HEAD..len).map(|i| (i as u8).wrapping_mul(151).wrapping_add(id as u8)));
    message.truncate(len);
    message.freeze()
}

/// The ID of a message of this kind.
pub(crate) fn id(tag: Tag, mut message: &[u8]) -> Option<u64> {
    (message.len() >= HEAD && message.get_u8() == tag as u8).then(|| message.get_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_size_and_gives_its_id_back() {
        for len in [HEAD, 100, 300] {
            let query = message(Tag::Query, 0x0102_0304_0506_0708, len);
            assert_eq!(query.len(), len);
            assert_eq!(id(Tag::Query, &query), Some(0x0102_0304_0506_0708));
            assert_eq!(id(Tag::Result, &query), None);
        }
        assert_eq!(message(Tag::Belief, 1, 1).len(), 1);
        assert_eq!(id(Tag::Query, &[1; HEAD - 1]), None);
    }
}
