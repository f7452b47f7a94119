//! What a Convex peer sends, and what people type.

use bytes::{BufMut, Bytes};
use peerlane_convex::{Body, Challenge, Frames, LegacyMessage, Message, Payload, Transaction, form, legacy_frames};

/// Enough for any of these; a peer's own limit is 50,000,000.
const MAX: usize = 4096;

/// A message's body: what is accepted comes back the same, whatever it means.
pub fn convex_message(data: &[u8]) {
    let input = Bytes::copy_from_slice(data);
    if let Ok(message) = Message::decode(&input) {
        let again = message.encode();
        assert_eq!(again.len(), message.encoded_len());
        assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
        if let Some(id) = message.id() {
            // A long vector is put together anew, without branches that nobody refers to.
            assert_eq!(message.clone().with_id(id).kind(), message.kind());
            assert_eq!(message.clone().with_id(id.wrapping_add(1)).id(), Some(id.wrapping_add(1)));
        }
        let _ = message.body().missing(10);
        match message.parse() {
            Ok(Payload::Transact { signed, .. } | Payload::Challenge { signed, .. }) => {
                if let Some(signed) = message.value(&signed) {
                    let _ = Challenge::verify(&signed, &[1; 32], None);
                }
            }
            Ok(Payload::Query { form, .. }) => {
                if let Some(value) = message.value(&form) {
                    let _ = (Transaction::read(&value), form::print(&value, MAX));
                }
            }
            _ => {}
        }
    }
    if let Ok(body) = Body::decode(&input) {
        assert_eq!(body.encode().len(), body.encoded_len());
    }
    if let Ok(message) = LegacyMessage::decode(&input) {
        let _ = message.id();
        assert!(message.frame().is_some());
    }
}

/// A text: a form is printed within its bound, and what's printed whole of a readable one is the same form.
pub fn convex_form(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(value) = form::read(text) else { return };
    assert!(form::print(&value, 10).len() < 10 + 4 * text.len() + 1000);
    if let Ok(again) = form::read(&form::print(&value, 1 << 20)) {
        assert_eq!(again.id(), value.id());
    }
}

/// A stream of bytes, in parts: frames within the limit, or an end. No buffer grows beyond what came.
pub fn convex_frame(data: &[u8]) {
    for mut frames in [Frames::new(MAX), legacy_frames()] {
        'stream: for part in data.chunks(7) {
            frames.buffer().put_slice(part);
            loop {
                match frames.next_frame() {
                    Ok(Some(body)) => assert!(body.len() <= data.len()),
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
        }
        assert!(frames.buffer().capacity() <= 4 * data.len() + 1024);
    }
}
