//! `peerlane convex` as a user runs it, with `--json`, against a scripted peer. Against the real one: interop/live/convex.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};

use ed25519_dalek::SigningKey;
use peerlane_convex::{
    Build, CONVEX, Challenge, ErrorCode, Frames, Message, Payload, Transaction, Value,
    cell::{Cell, CellSource as _, MemoryCells, Ref, ValueId, decode, encode},
    form,
};
use serde_json::json;

const NETWORK: ValueId = ValueId([7; 32]);

fn key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

/// What the peer holds: a tree of some cells, its state.
fn state() -> Value {
    form::read(&format!("[0x{} [1 2 \"{}\"]]", "ab".repeat(9000), "y".repeat(300))).unwrap()
}

fn store() -> MemoryCells {
    let value = state();
    let mut cells = value.cells.clone();
    cells.0.insert(value.id(), encode(&value.cell));
    cells
}

/// The answer to a message; `None`: silence.
fn answer(message: &Message) -> Option<Message> {
    let result = |id, value| Some(Message::result(id, value).unwrap());
    match message.parse().unwrap() {
        Payload::Status { id } => {
            let mut build = Build::default();
            let own = key().verifying_key().to_bytes();
            let state = state().id().0;
            let hashes = [&[1; 32], &state, &NETWORK.0, &own, &state].map(|hash| build.blob32(hash));
            let numbers = [3, 4, 5].map(|n| build.integer(n));
            let vector = build.vector(&[&hashes[..], &numbers[..]].concat()).unwrap();
            result(id, build.finish(vector))
        }
        Payload::Query { id, form, .. } => {
            let form = message.value(&form).unwrap();
            match form::print(&form, 100).as_str() {
                "*sequence*" => result(id, form::read("4").unwrap()),
                "(silence)" => None,
                "(fail)" => Some(Message::error(Some(id), &ErrorCode::Funds, "too few")),
                _ => result(id, form),
            }
        }
        Payload::Transact { id, signed } => {
            let signed = message.value(&signed).unwrap();
            let Cell::Signed(cell) = &signed.cell else { panic!() };
            cell.verify(&CONVEX).unwrap();
            match Transaction::read(&signed.child(cell.value()).unwrap()).unwrap() {
                Transaction::Invoke { origin: 11, sequence: 5, command } => result(id, command),
                Transaction::Transfer { origin: 11, sequence: 9, target: 12, amount } => result(id, Value::leaf(Cell::Integer(amount))),
                _ => Some(Message::error(Some(id), &ErrorCode::Sequence, "Old sequence number")),
            }
        }
        Payload::DataRequest { id, hashes } => {
            let (mut build, held) = (Build::default(), store());
            let cell = |hash: &ValueId| held.get(hash).map(|encoding| decode(&encoding, &CONVEX).unwrap());
            let items: Vec<Ref> = hashes.iter().map(|hash| cell(hash).map_or_else(Ref::nil, |cell| build.link(cell).unwrap())).collect();
            let vector = build.vector(&items).unwrap();
            result(id, build.finish(vector))
        }
        Payload::Challenge { id, signed } => {
            let own = key().verifying_key().to_bytes();
            let verified = Challenge::verify(&message.value(&signed).unwrap(), &own, Some(&NETWORK));
            let Ok((challenger, challenge)) = verified else {
                return Some(Message::error(Some(id), &ErrorCode::Trust, "Wrong target key"));
            };
            result(id, challenge.answer(&challenger, &key()).unwrap())
        }
        _ => None,
    }
}

fn serve(mut stream: TcpStream) {
    let (mut frames, mut buffer) = (Frames::new(1 << 20), vec![0; 1 << 16]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        frames.buffer().extend_from_slice(&buffer[..n]);
        while let Some(body) = frames.next_frame().unwrap() {
            if let Some(answer) = answer(&Message::decode(&body).unwrap()) {
                let _ = stream.write_all(&answer.frame());
            }
        }
    }
}

/// A scripted peer; it ends with the test's process.
fn peer() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().for_each(|stream| drop(thread::spawn(|| serve(stream.unwrap())))));
    at
}

/// The exit code, the JSON printed (null if nothing), and what was said on standard error.
fn run(args: &[&str]) -> (i32, serde_json::Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_peerlane")).arg("convex").args(args).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let json = if text.is_empty() { json!(null) } else { serde_json::from_str(&text).unwrap() };
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), json, said)
}

#[test]
fn every_command_prints_json() {
    let (dir, at) = (tempfile::tempdir().unwrap(), peer());
    let file = dir.path().join("key.pem");
    let file = file.to_str().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_peerlane")).args(["key", "new", "--out", file]).output().unwrap();
    assert!(made.status.success());
    let good = |args: &[&str]| {
        let (code, json, said) = run(args);
        assert_eq!(code, 0, "{args:?}: {said}");
        json
    };
    let own: String = key().verifying_key().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();

    let cell = good(&["cell", "--form", "[:SR 1]", "--json"]);
    assert_eq!((&cell["encoding"], &cell["message"]), (&json!("8002330253521101"), &json!("status")));
    assert_eq!(cell["id"], "93785829d0ae95264390d1940b684592ed9928b486f58aa6804e7a41804d4eb9");
    let long = good(&["cell", "--form", &format!("[0x{}]", "00".repeat(138)), "--json"]);
    assert_eq!(long["branches"][0]["id"], "4ba956d5c84485313a9341f6fdd3077e5d9c73e3617fab3cb1b7068e3f1a3802");
    assert_eq!(good(&["cell", "--hex", long["encoding"].as_str().unwrap(), "--json"])["missing"][0], long["branches"][0]["id"]);

    let status = good(&["status", "--to", &at, "--json"]);
    assert_eq!((&status["key"], &status["proven"], &status["blocks"]), (&json!(own), &json!(false), &json!(5)));
    assert_eq!((&status["genesis"], &status["state"]), (&json!(NETWORK.to_string()), &json!(state().id().to_string())));

    let query = good(&["query", "--to", &at, "--account", "11", "--json", "{:a [1 2]}"]);
    assert_eq!((&query["value"], &query["error"]), (&json!("{:a [1 2]}"), &json!(null)));

    let transact = ["transact", "--to", &at, "--account", "11", "--account-key", file, "--json"];
    let invoked = good(&[&transact[..], &["(+ 1 2)"]].concat());
    assert_eq!((&invoked["value"], &invoked["sequence"]), (&json!("(+ 1 2)"), &json!(5)));
    let transfer = [&transact[..], &["--sequence", "9", "--transfer-to", "12", "--amount", "1000"]].concat();
    assert_eq!(good(&transfer)["value"], "1000");

    let fetched = good(&["fetch", "--to", &at, "--json"]);
    assert_eq!((&fetched["root"], &fetched["cells"]), (&json!(state().id().to_string()), &json!(store().0.len())));

    let challenge = ["challenge", "--to", &at, "--key", file, "--json"];
    for args in [challenge.to_vec(), [&challenge[..], &["--expect", &own]].concat()] {
        let proven = good(&args);
        assert_eq!((&proven["key"], &proven["proven"], &proven["network"]), (&json!(own), &json!(true), &json!(NETWORK.to_string())));
    }

    // What fails says so in its exit code, and an answer of the peer's in its JSON too.
    let (code, json, said) = run(&["query", "--to", &at, "--json", "(fail)"]);
    assert_eq!((code, &json["error"], &json["value"]), (1, &json!("FUNDS"), &json!("\"too few\"")));
    assert!(said.contains(":FUNDS too few"), "{said}");
    let (code, json, _) = run(&[&transact[..], &["--sequence", "2", "1"]].concat());
    assert_eq!((code, &json["error"], &json["sequence"]), (1, &json!("SEQUENCE"), &json!(2)));
    for (args, word) in [
        (vec!["query", "--to", &at, "--timeout", "1", "--json", "(silence)"], "no answer within 1s"),
        (vec!["query", "--to", &at, "--max-frame", "100", "--json", &format!("0x{}", "00".repeat(200))], "at most 100 are sent"),
        (vec!["fetch", "--to", &at, "--max-frame", "1000", "--json"], "at most 1000 are taken here"),
        (vec!["fetch", "--to", &at, "--max-cells", "2", "--json"], "more than 2 cells"),
        (vec!["fetch", "--to", &at, "--json", &NETWORK.to_string()], "has no cell"),
        ([&challenge[..], &["--expect", &"11".repeat(32)]].concat(), ":TRUST"),
        (vec!["status", "--to", "127.0.0.1:1", "--json"], "can't connect"),
    ] {
        let (code, json, said) = run(&args);
        assert_eq!((code, json), (1, json!(null)), "{args:?}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
}
