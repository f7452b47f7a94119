//! Small decoders: control frames, the hello, records, addresses.

use bytes::{Bytes, BytesMut};
use peerlane_transport::{
    Control,
    admission::{Terms, hello},
    class::{Lane, Record},
    identity::PeerAddr,
    limits, varint,
};

/// Control frames: what is accepted is encoded alike; what isn't never waits for more than a frame's bound.
pub fn control(data: &[u8]) {
    let mut input = BytesMut::from(data);
    loop {
        let before = input.len();
        match Control::decode(&mut input) {
            Ok(Some(frame)) => {
                assert!(input.len() < before, "a frame of no bytes");
                let mut again = BytesMut::new();
                frame.encode(&mut again);
                if matches!(&frame, Control::Close { reason, .. } if reason.len() > limits::MAX_REASON) {
                    // Cut when it's sent.
                    continue;
                }
                assert_eq!(Control::decode(&mut again), Ok(Some(frame)));
                assert!(again.is_empty());
            }
            Ok(None) => {
                assert!(before <= limits::MAX_HELLO + 1 + varint::MAX_LEN, "it waits for more than a frame has");
                return;
            }
            Err(_) => return,
        }
    }
}

/// The hello's judge: whatever is agreed is a class table that passes its own check, which `judge` itself relies on.
pub fn hello(data: &[u8]) {
    let Ok(terms) = Terms::new("fuzz") else { unreachable!("four letters are a name") };
    let _ = hello::judge(&terms, Bytes::copy_from_slice(data));
}

/// Variable-length integers, heads of records, lanes.
pub fn record(data: &[u8]) {
    let mut rest = data;
    while let Some(head) = varint::get(&mut rest) {
        let mut out = BytesMut::new();
        varint::put(&mut out, head);
        assert_eq!(varint::get(&mut &out[..]), Some(head));
        assert_eq!(out.len(), varint::len(head));
        if let Some(record) = Record::from_varint(head) {
            let mut out = BytesMut::new();
            record.encode(&mut out);
            assert_eq!(varint::get(&mut &out[..]).and_then(Record::from_varint), Some(record));
        }
    }
    for byte in rest {
        assert_eq!(Lane::from_byte(*byte).to_byte(), *byte);
    }
}

/// `PEERID@host:port`: what is read is printed so that it's read again as the same.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(addr) = text.parse::<PeerAddr>() {
        assert_eq!(addr.to_string().parse::<PeerAddr>().as_ref(), Ok(&addr));
    }
}
