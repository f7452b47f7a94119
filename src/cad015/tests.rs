//! Messages: golden bytes, bounds, and what a wrong one gets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::cell::{Cell, CellSink, DecodeError, MemoryCells, Name, NoCells, Profile, Ref, Signed, ValueId, Writer, decode, encode, refs};

const NATIVE: Profile = Profile::NATIVE;

fn int(i: i64) -> Ref {
    Ref::Embedded(Arc::new(Cell::Integer(i)))
}

fn blob(byte: u8, len: usize) -> (Ref, (ValueId, Bytes)) {
    let encoding = encode(&Cell::blob(vec![byte; len]).unwrap());
    let id = NATIVE.id(&encoding);
    (Ref::Branch(id), (id, encoding))
}

fn signed(value: Ref) -> Signed {
    Signed::sign(&NATIVE, &SigningKey::from_bytes(&[3; 32]), value)
}

/// One of each, with and without branches.
fn all() -> Vec<Message> {
    let (long, branch) = blob(1, 300);
    let hashes: Vec<ValueId> = (0..MAX_HASHES as u8).map(|i| ValueId([i; 32])).collect();
    let cells: Vec<_> = (0..60u8).map(|i| (i % 3 > 0).then(|| blob(i, 200).1)).collect();
    vec![
        Message::status(0),
        Message::ping(MAX_REQUEST_ID),
        Message::query(300, [int(1), long.clone()]).with_branches([branch.clone()]),
        Message::transact(5, [signed(int(1))], &NATIVE).unwrap(),
        Message::transact(6, (0..40).map(|i| signed(int(i))), &NATIVE).unwrap(),
        Message::result(7, long.clone()).with_branches([branch.clone(), branch.clone()]),
        Message::error(8, &ErrorCode::Load, &"overload é".repeat(20)),
        Message::missing_data(9, &hashes[..1], &NATIVE).unwrap(),
        Message::missing_data(10, &hashes, &NATIVE).unwrap(),
        Message::data(11, &cells, 1 << 20, &NATIVE).unwrap(),
        Message::belief(signed(long), [branch]),
        Message::challenge(12, [int(1), int(2)]),
        Message::response(13, [int(3)]),
        Message::goodbye("done"),
    ]
}

#[test]
fn every_message_comes_back() {
    for message in all() {
        let bytes = message.encode();
        assert_eq!(bytes.len(), message.encoded_len());
        let decoded = Message::decode(&bytes, &NATIVE).unwrap();
        assert_eq!(decoded, message);
        decoded.parse(&NATIVE).unwrap_or_else(|e| panic!("{}: {e}", message.kind));
        assert_eq!(peek_kind(&bytes), Some(message.kind));
        assert_eq!(peek_id(&bytes), message.id(), "{}", message.kind);
        assert_eq!(message.id().is_some(), message.kind.is_request() || message.kind.is_reply());
        assert_eq!(decoded.missing(&NoCells, &NATIVE, 300).unwrap(), vec![], "{} is whole", message.kind);
        for id in [0, 127, 128, 1 << 40, MAX_REQUEST_ID] {
            let renamed = message.clone().with_id(id);
            assert_eq!(peek_id(&renamed.encode()), message.id().map(|_| id));
            assert_eq!(renamed.branches, message.branches);
        }
        for cut in 0..bytes.len() {
            // A cut between two branches leaves a shorter message; anywhere else it's an error, and never a panic.
            if let Ok(short) = Message::decode(&bytes.slice(..cut), &NATIVE) {
                assert_eq!(short.branches[..], message.branches[..short.branches.len()]);
                assert!(short.branches.len() < message.branches.len());
            }
        }
    }
}

#[test]
fn golden_bytes() {
    let hex = |m: Message| HEXLOWER.encode(&m.encode());
    assert_eq!(hex(Message::status(1)), "0c80011101");
    assert_eq!(hex(Message::ping(0)), "10800110");
    assert_eq!(hex(Message::goodbye("bye")), "0b80013003627965");
    assert_eq!(hex(Message::error(2, &ErrorCode::Load, "full")), "0880041102300466 756c6c33044c4f414400".replace(' ', ""));
    let hash = "07".repeat(32);
    assert_eq!(hex(Message::missing_data(1, &[ValueId([7; 32])], &NATIVE).unwrap()), format!("0580021101800131 20{hash}").replace(' ', ""));
    let (_, (id, encoding)) = blob(0, 138);
    let data = Message::data(1, &[Some((id, encoding)), None], 4096, &NATIVE).unwrap();
    assert_eq!(hex(data), format!("03800211018002 20{id}00 810d 31810a{}", "00".repeat(138)).replace(' ', ""));
}

#[test]
fn what_each_payload_says() {
    let parsed: Vec<Payload> = all().iter().map(|m| m.parse(&NATIVE).unwrap()).collect();
    assert!(matches!(&parsed[2], Payload::Query { id: 300, form } if form.len() == 2));
    assert!(matches!(&parsed[4], Payload::Transact { id: 6, operations } if operations.len() == 40 && operations[39] == signed(int(39))));
    assert!(matches!(&parsed[6], Payload::Result(Outcome { id: 8, error: Some(ErrorCode::Load), .. })));
    assert!(matches!(&parsed[8], Payload::MissingData { id: 10, hashes } if hashes.len() == MAX_HASHES && hashes[253].0[0] == 253));
    assert!(matches!(&parsed[9], Payload::Data { id: 11, cells } if cells.iter().flatten().count() == 40 && cells[0].is_none()));
    assert!(matches!(&parsed[10], Payload::Belief(root) if root.verify(&NATIVE).is_ok()));
    assert!(matches!(&parsed[13], Payload::Goodbye { text } if text == "done"));
    for code in ["LOAD", "SEQUENCE", "SIGNATURE", "FORMAT", "MISSING", "NOBODY", "TRUST", "ARGUMENT", "STATE", "NEW"] {
        let code = ErrorCode::from_name(&Name::new(code).unwrap());
        let Payload::Result(outcome) = Message::error(1, &code, "").parse(&NATIVE).unwrap() else { panic!() };
        assert_eq!(outcome.error.as_ref(), Some(&code));
        assert_eq!(matches!(code, ErrorCode::Other(_)), code.name() == "NEW");
    }
}

#[test]
fn type_numbers_are_their_own_inverse() {
    for code in 0..=255 {
        assert_eq!(MessageType::from_code(code).code(), code);
    }
    for kind in MessageType::KNOWN {
        assert_eq!(MessageType::from_code(kind.code()), kind);
    }
    let unknown = Message::decode(&Bytes::from_static(&[200, 1, 2, 3]), &NATIVE).unwrap();
    assert_eq!((unknown.kind, unknown.parse(&NATIVE).unwrap()), (MessageType::Unknown(200), Payload::Other));
}

#[test]
fn a_partial_message_names_what_is_missing() {
    let mut cells = MemoryCells::default();
    let mut writer = Writer::new(&NATIVE, &mut cells);
    let bytes: Vec<u8> = (0..60_000).map(|i| (i / 4096) as u8).collect();
    let tree = writer.blob(bytes.into()).unwrap();
    let root = writer.link(tree).unwrap();
    let top = *root.branch().unwrap();
    let chunks: Vec<ValueId> = refs(&decode(&cells.0[&top], &NATIVE).unwrap()).collect();
    let message = Message::result(1, root);
    assert_eq!(message.missing(&NoCells, &NATIVE, 254).unwrap(), vec![top]);
    let message = message.with_branches([(top, cells.0[&top].clone())]);
    assert_eq!(message.missing(&NoCells, &NATIVE, 254).unwrap(), chunks);
    assert_eq!(message.missing(&NoCells, &NATIVE, 1).unwrap(), chunks[..1]);
    let mut store = MemoryCells::default();
    store.put(chunks[1], cells.0[&chunks[1]].clone());
    assert_eq!(message.missing(&store, &NATIVE, 254).unwrap(), [&chunks[..1], &chunks[2..]].concat());
    assert_eq!(message.missing(&cells, &NATIVE, 254).unwrap(), vec![]);
}

#[test]
fn data_stays_within_its_budget_and_must_carry_what_it_names() {
    let cells: Vec<_> = (0..40u8).map(|i| Some(blob(i, 1000).1)).collect();
    let whole = Message::data(1, &cells, 1 << 20, &NATIVE).unwrap();
    for max in [0, 500, 2_000, 10_000, whole.encoded_len() - 1] {
        let message = Message::data(1, &cells, max, &NATIVE).unwrap();
        let Payload::Data { cells: got, .. } = message.parse(&NATIVE).unwrap() else { panic!() };
        assert_eq!(got.len(), 40);
        assert!(got.iter().flatten().count() < 40);
        assert!(message.encoded_len() <= max.max(2_000), "{max}: {}", message.encoded_len());
    }
    let mut lying = whole;
    lying.branches.retain(|(id, _)| *id != cells[0].as_ref().unwrap().0);
    assert!(matches!(lying.parse(&NATIVE), Err(MessageError::Payload { .. })));
}

#[test]
fn wrong_messages_are_refused() {
    let decode = |hex: &str| Message::decode(&Bytes::from(HEXLOWER.decode(hex.replace(' ', "").as_bytes()).unwrap()), &NATIVE);
    assert_eq!(decode(""), Err(MessageError::Empty));
    assert_eq!(decode("0c"), Err(MessageError::Cell(DecodeError::Truncated)));
    assert_eq!(decode("0c 80011101 00"), Err(MessageError::BranchEmbedded));
    assert_eq!(decode("0c 80011101 02 1101"), Err(MessageError::BranchEmbedded));
    assert_eq!(decode("0c 80011101 810d"), Err(MessageError::BranchLength { len: 141, max: 0 }));
    assert!(matches!(decode("0c 80011101 ffffffffffffffff7f 00"), Err(MessageError::BranchLength { .. })));
    // longer than its cell; no cell at all
    assert_eq!(decode(&format!("0c 80011101 810e 31810a{}", "00".repeat(139))), Err(MessageError::Cell(DecodeError::Trailing(1))));
    assert!(matches!(decode(&format!("0c 80011101 810d {}", "ff".repeat(141))), Err(MessageError::Cell(_))));
    for wrong in [
        "0c 8000",
        "0c 8001 11ff",
        "0c 1101",
        "06 80011101",
        "05 80021101 8000",
        "07 80021101 80011101",
        "08 80021101 1101",
        "0b 8000",
        "09 1101",
    ] {
        let message = decode(wrong).unwrap();
        assert!(matches!(message.parse(&NATIVE), Err(MessageError::Payload { .. })), "{wrong}");
    }
    assert!(Message::missing_data(1, &[ValueId([0; 32]); MAX_HASHES + 1], &NATIVE).is_err());
    assert!(Message::transact(1, [], &NATIVE).is_err());
    // a list whose root isn't carried
    let mut message = Message::missing_data(1, &[ValueId([0; 32]); 20], &NATIVE).unwrap();
    message.branches.clear();
    assert!(matches!(message.parse(&NATIVE), Err(MessageError::Tree(_))));
    assert_eq!(peek_id(&HEXLOWER.decode(b"0c800111ff").unwrap()), None, "no negative ID");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_changed_message_never_panics(which in 0usize..14, at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = all()[which].encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = peek_id(&bytes);
        let bytes = Bytes::from(bytes);
        if let Ok(message) = Message::decode(&bytes, &NATIVE) {
            let _ = message.parse(&NATIVE);
            let _ = message.missing(&NoCells, &NATIVE, 254);
            if !matches!(message.kind, MessageType::Unknown(_)) {
                // canonical but for repeated branches, which are left out
                prop_assert!(message.encode().len() <= bytes.len());
                prop_assert_eq!(Message::decode(&message.encode(), &NATIVE).unwrap(), message);
            }
        }
    }
}
