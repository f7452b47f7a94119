//! Cells (CAD003) and messages (CAD015).

use bytes::Bytes;
use peerlane::{
    cad015::{Cad015, Message, Payload},
    cell::{self, Profile},
    peer::{Belief, Query},
    protocol::Protocol,
};
use peerlane_transport::ClassTable;

/// A cell: what is accepted is canonical, so it's encoded as it came.
pub fn cell(data: &[u8]) {
    let input = Bytes::copy_from_slice(data);
    for profile in [Profile::NATIVE, Profile::CONVEX] {
        if let Ok(cell) = cell::decode(&input, &profile) {
            assert_eq!(cell::encode(&cell), input);
            assert_eq!(cell::encoded_len(&cell), input.len());
        }
        if let Ok((_, used)) = cell::decode_prefix(&input, &profile) {
            assert!(used <= input.len());
            assert!(cell::decode(&input.slice(..used), &profile).is_ok(), "a prefix that isn't a cell by itself");
        }
    }
}

/// A message, by itself and as the protocol takes it from each class; a belief is opened as the peer opens it.
pub fn message(data: &[u8]) {
    let input = Bytes::copy_from_slice(data);
    let profile = Profile::NATIVE;
    if let Ok(message) = Message::decode(&input, &profile) {
        let again = message.encode();
        assert_eq!(again.len(), message.encoded_len());
        assert_eq!(Message::decode(&again, &profile).as_ref(), Ok(&message));
        if let Ok(Payload::Query { form, .. }) = message.parse(&profile) {
            let _ = Query::read(&form, &message.cells(), &profile);
        }
        let _ = Belief::open(&message, &profile);
        if let Some(id) = message.id() {
            assert_eq!(message.clone().with_id(id), message);
        }
    }
    let protocol = Cad015::new(profile);
    for (class, _) in ClassTable::standard().iter() {
        let _ = protocol.decode(class, input.clone());
        if let Ok(Some(head)) = protocol.decode_head(class, &input) {
            assert!(head.length <= input.len());
        }
    }
}
