//! Messages against the reference peer's bytes, and both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::{Challenge, ErrorCode, Status, Transaction, form};

fn bytes(hex: &str) -> Bytes {
    HEXLOWER.decode(hex.replace(' ', "").as_bytes()).unwrap().into()
}

fn hex(message: &Message) -> String {
    HEXLOWER.encode(&message.encode())
}

fn form(text: &str) -> Value {
    form::read(text).unwrap()
}

#[test]
fn golden_requests() {
    // facts/convex.md 2.5
    assert_eq!(hex(&Message::status(1)), "80023302535211 01".replace(' ', ""));
    assert_eq!(hex(&Message::query(1, form("(+ 1 2)"), None).unwrap()), "8004330151110181031102110132012b00");
    assert_eq!(hex(&Message::ping(7)), "8002330450494e471107");
    assert_eq!(hex(&Message::goodbye()), "80013303425945");
    let request = Message::data_request(5, &[ValueId([0xab; 32])]).unwrap();
    assert_eq!(hex(&request), format!("8003330244521105 3120{}", "ab".repeat(32)).replace(' ', ""));
    assert_eq!(hex(&Message::result(1, form("3")).unwrap()), "dd0511011103000000");
    // The length goes before: facts 1.1.
    assert_eq!(Message::ping(7).frame()[0], 10);
}

/// What a peer of 0.8.0 and one of 0.8.6 sent, as it came (interop/live/convex).
#[test]
fn answers_of_the_reference_peer() {
    let status = bytes(
        "dd0511012007acfbc31447ace632c16d8d5655247c693703517ccfdb62cf2cb0fb0fd15a6c000000813c800931206ef38f187d299b69e168ced15d9da7e32a74\
         a8d705fdfa4eebec6964053b1af2312098109a12ab6f7b87b1c7a4d124ada00afdd851dd7009329467b4d9a3a5ea346b31201c60f5f3add9a4596ebc7ab95f6b\
         8951bf2ddeba96b676ca9f2ce65b4872f66331204cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29312098109a12ab6f7b87b1c7\
         a4d124ada00afdd851dd7009329467b4d9a3a5ea346b11011101110180041101110111011101",
    );
    let message = Message::decode(&status).unwrap();
    assert_eq!((message.kind(), message.id(), message.encode()), (Kind::Result, Some(1), status));
    let Payload::Result(outcome) = message.parse().unwrap() else { panic!() };
    let status = Status::read(&message.value(&outcome.value).unwrap()).unwrap();
    assert_eq!(status.genesis.to_string(), "1c60f5f3add9a4596ebc7ab95f6b8951bf2ddeba96b676ca9f2ce65b4872f663");
    assert_eq!((status.consensus, status.proposal, status.blocks), (Some(1), Some(1), Some(1)));

    let three = bytes("dd051101110300800082033304666565731235f23306736f7572636533045045455233056a75696365120245");
    let message = Message::decode(&three).unwrap();
    let Payload::Result(outcome) = message.parse().unwrap() else { panic!() };
    assert_eq!(message.value(&outcome.value).unwrap(), Value { cells: message.body().cells(), ..form("3") });
    let info = message.value(&outcome.info).unwrap();
    assert_eq!(info.get("source").unwrap().cell, form(":PEER").cell);
    assert_eq!(info.get("juice").unwrap().cell, form("581").cell);
    assert_eq!(info.get("none"), None);

    // facts 3.3: LOAD
    let load = bytes("dd05 1105 300c547278206f7665726c6f6164 33044c4f4144 00 8201 3306736f75726365 330450454552");
    let message = Message::decode(&load).unwrap();
    let Payload::Result(outcome) = message.parse().unwrap() else { panic!() };
    assert_eq!((outcome.id, outcome.error), (Some(5), Some(ErrorCode::Load)));
    assert_eq!(outcome.value.embedded().unwrap().as_string().unwrap(), "Trx overload");
}

/// `[:DATA cell...]` of so many cells, each a branch.
fn data(cells: usize) -> Message {
    let cells: String = (0..cells).map(|i| format!(" 0x{i:0400}")).collect();
    Message::new(Body::of(form(&format!("[:DATA{cells}]"))))
}

#[test]
fn each_kind_is_inferred_and_parsed() {
    let key = SigningKey::from_bytes(&[1; 32]);
    let signed = Transaction::Transfer { origin: 11, sequence: 1, target: 12, amount: 5 }.sign(&key).unwrap();
    let challenge = Challenge { token: [1; 32], target: None, context: None }.sign(&key).unwrap();
    let long = Transaction::Invoke { origin: 11, sequence: 1, command: form(&format!("0x{}", "07".repeat(200))) }.sign(&key).unwrap();
    let Cell::Signed(order) = &signed.cell else { panic!() };
    let messages = [
        (Message::status(1), Kind::Status),
        (Message::ping(1), Kind::Ping),
        (Message::query(1, form("*balance*"), Some(12)).unwrap(), Kind::Query),
        (Message::transact(1, signed.clone()).unwrap(), Kind::Transact),
        (Message::transact(1, long).unwrap(), Kind::Transact),
        (Message::challenge(1, challenge).unwrap(), Kind::Challenge),
        (Message::data_request(1, &(0..254).map(|i| ValueId([i as u8; 32])).collect::<Vec<_>>()).unwrap(), Kind::DataRequest),
        (Message::error(Some(1), &ErrorCode::Format, "no"), Kind::Result),
        (Message::goodbye(), Kind::Goodbye),
        (Message::new(Body::new(Cell::Signed(order.clone()))), Kind::Belief),
        (Message::decode(&bytes("d4018400")).unwrap(), Kind::Belief),
        (data(2), Kind::Data),
        (data(254), Kind::Data),
        (Message::new(Body::of(form("[:LV [:a] 5]"))), Kind::LatticeValue),
        (Message::new(Body::of(form("[:LV 1 [:a] 5]"))), Kind::LatticeValue),
        (Message::new(Body::of(form("[:LQ 1 [:a]]"))), Kind::LatticeQuery),
    ];
    for (message, kind) in messages {
        assert_eq!(message.kind(), kind);
        let again = Message::decode(&message.encode()).unwrap();
        assert_eq!(again, message);
        let payload = message.parse().unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_ne!(payload, Payload::Unknown);
        let numbered = message.clone().with_id(i64::MAX);
        let has_id = message.id().is_some();
        assert_eq!(numbered.id(), has_id.then_some(i64::MAX), "{kind}");
        assert_eq!(numbered.body().branches.len(), message.body().branches.len(), "{kind}");
        assert_eq!(numbered.clone().with_id(1), if has_id { message } else { numbered }, "{kind}");
    }
    assert!(matches!(data(254).parse(), Ok(Payload::Data { cells }) if cells.len() == 254));
    assert!(matches!(data(255).parse(), Err(MessageError::Shape { .. })));
    let Payload::DataRequest { hashes, .. } = Message::data_request(9, &[ValueId([1; 32]), ValueId([2; 32])]).unwrap().parse().unwrap()
    else {
        panic!()
    };
    assert_eq!(hashes, [ValueId([1; 32]), ValueId([2; 32])]);
    assert!(Message::data_request(1, &[ValueId([0; 32]); 255]).is_err());
}

#[test]
fn what_means_nothing_is_unknown_and_what_is_wrong_is_told() {
    for text in ["nil", "[]", "[1]", "[:XX 1]", "[:QR 1 2 nil]", "{}", "[[:SR] 1]"] {
        let message = Message::new(Body::of(form(text)));
        assert_eq!((message.kind(), message.parse()), (Kind::Unknown, Ok(Payload::Unknown)), "{text}");
    }
    for text in [
        "[:Q 1 2]",
        "[:Q 1 2 nil 4]",
        "[:Q nil 2 nil]",
        "[:Q 1 2 3]",
        "[:SR]",
        "[:SR nil]",
        "[:SR 9999999999999999999999]",
        "[:TX 1]",
        "[:CH 1]",
        "[:DR 1 0x00]",
        "[:DATA]",
        "[:DATA 1]",
        "[:PING :x]",
    ] {
        let message = Message::new(Body::of(form(text)));
        assert!(matches!(message.parse(), Err(MessageError::Shape { .. })), "{text}");
    }
    assert!(Message::decode(&bytes("dd0411011103000000")).is_err());
    assert!(matches!(
        Message::decode(&bytes("dd03110111030 0".replace(' ', "").as_str())).unwrap().parse(),
        Err(MessageError::Shape { .. })
    ));
    // A data request whose tree of hashes didn't come.
    let mut request = Message::data_request(1, &[ValueId([3; 32]); 40]).unwrap();
    request.body.branches.pop();
    assert!(matches!(request.parse(), Err(MessageError::Partial { .. })));
    request.body.branches.clear();
    assert_eq!(Message::new(request.body).kind(), Kind::Unknown);
}

proptest! {
    #[test]
    fn noise_never_panics(body in prop::collection::vec(any::<u8>(), 0..300), start in prop::sample::select(vec!["80", "8002330253", "8004330151", "dd05", "d401", "90", "80ff"])) {
        let bytes: Vec<u8> = [HEXLOWER.decode(&start.as_bytes()[..start.len() / 2 * 2]).unwrap(), body].concat();
        if let Ok(message) = Message::decode(&bytes.clone().into()) {
            let _ = (message.parse(), message.id(), message.body().missing(10));
            prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        }
    }
}
