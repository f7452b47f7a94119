//! Writes the seeds of the corpora: `cargo run --example seeds` in this directory. Small, one of each kind.

use std::{fs, path::Path, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use peerlane::{
    cad015::{ErrorCode, Message},
    cell::{Cell, MemoryCells, Profile, Ref, Signed, ValueId, Writer, encode},
};
use peerlane_transport::{
    CloseCode, Control,
    admission::{Terms, hello},
    class::{Lane, Record},
    identity::{Identity, PeerAddr},
    varint,
};

type Failed = Box<dyn std::error::Error>;

fn put(target: &str, name: &str, seed: &[u8]) -> Result<(), Failed> {
    let directory = Path::new("corpus").join(target);
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(name), seed)?)
}

fn controls(terms: &Terms) -> Vec<(&'static str, Control)> {
    let lane = Lane { class: 4, slot: 1 };
    vec![
        ("hello", Control::Hello(hello::encode(terms))),
        ("accept", Control::Accept),
        ("ping", Control::Ping(1)),
        ("pong", Control::Pong(u64::MAX)),
        ("credit", Control::Credit { lane: Lane { class: 4, slot: 0 }, total: 1 << 20 }),
        ("release", Control::Release(lane)),
        ("stop", Control::Stop { lane, number: 0, code: 7 }),
        ("finished", Control::Finished { messages: 1 }),
        ("drained", Control::Drained),
        ("join", Control::Join { carrier: 1, token: [7; 48].into() }),
        ("moved", Control::Moved(1)),
        ("close", Control::Close { code: CloseCode::Done.number(), reason: Bytes::from_static(b"done") }),
    ]
}

/// Frames of class framing: lane, length, payload.
fn frame(out: &mut BytesMut, lane: u8, payload: &[u8]) {
    out.put_u8(lane);
    varint::put(out, payload.len() as u64);
    out.put_slice(payload);
}

fn records(records: &[(Record, &[u8])]) -> BytesMut {
    let mut out = BytesMut::new();
    for (record, bytes) in records {
        record.encode(&mut out);
        out.put_slice(bytes);
    }
    out
}

fn wire(terms: &Terms) -> Result<(), Failed> {
    put("hello", "standard", &hello::encode(terms))?;
    put(
        "record",
        "heads",
        &records(&[
            (Record::Whole(0), b""),
            (Record::Start(70), b""),
            (Record::Part(16_384), b""),
            (Record::End, b""),
            (Record::Abort(9), b""),
        ]),
    )?;
    // A datagram, a probe, copies of streams 1 and 2, the streams themselves, and a clock's question.
    put("quic", "kinds", b"\x03\x04hi\x01\x20\x04\x11\x01hi\x04\x11\x02hi\x41\x01\x41\x02\x05\x30\x01\x02\x03\x04")?;
    for (name, control) in controls(terms) {
        let (mut bytes, mut framed) = (BytesMut::new(), BytesMut::new());
        control.encode(&mut bytes);
        put("control", name, &bytes)?;
        framed.put_u8(0);
        frame(&mut framed, 0xff, &bytes);
        put("framing", &format!("control-{name}"), &framed)?;
    }
    let whole = records(&[(Record::Whole(5), b"hello"), (Record::Whole(0), b"")]);
    let streamed = records(&[(Record::Start(0), b""), (Record::Part(3), b"abc"), (Record::Part(0), b""), (Record::End, b"")]);
    let aborted = records(&[(Record::Start(1), b""), (Record::Part(1), b"a"), (Record::Abort(3), b"")]);
    let large = records(&[(Record::Whole(65_537), b"the rest never comes")]);
    for mode in [0u8, 1] {
        let mut all = BytesMut::new();
        all.put_u8(mode);
        for (lane, payload) in [(0x10, &whole), (0x20, &streamed), (0x21, &aborted), (0x41, &aborted), (0x31, &large)] {
            frame(&mut all, lane, payload);
        }
        frame(&mut all, 0x41, b"");
        put("framing", &format!("lanes-{mode}"), &all)?;
    }
    Ok(())
}

fn files() -> Result<(), Failed> {
    let identity = Identity::from_seed(&[1; 32])?;
    let id = identity.peer_id();
    for (name, host) in [("ipv4", "127.0.0.1:18888"), ("ipv6", "[::1]:1"), ("name", "peer.example:65535")] {
        let text = format!("{id}@{host}");
        text.parse::<PeerAddr>()?;
        put("address", name, text.as_bytes())?;
    }
    put("lists", "two", format!("# friends\n{id}\n\n  {id} # twice\n").as_bytes())?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("key");
    identity.save_new(&path)?;
    put("key_file", "own", &fs::read(path)?)
}

fn cells() -> Result<(), Failed> {
    for line in fs::read_to_string("../src/cell/vectors.txt")?.lines().filter(|line| !line.starts_with('#')) {
        let hex: Vec<u8> = line.split(" | ").nth(1).unwrap_or_default().bytes().collect();
        let seed: Option<Vec<u8>> = hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        let seed = seed.ok_or("a vector isn't hex")?;
        if seed.len() <= 512 {
            put("cell", &format!("vector-{:02x}-{}", seed.first().unwrap_or(&0), seed.len()), &seed)?;
        }
    }
    Ok(())
}

fn messages() -> Result<(), Failed> {
    let profile = Profile::NATIVE;
    let integer = |i| Ref::Embedded(Arc::new(Cell::Integer(i)));
    let signed = |value| Signed::sign(&profile, &ed25519_dalek::SigningKey::from_bytes(&[3; 32]), value);
    let long = encode(&Cell::blob(vec![7; 200]).ok_or("a blob of 200 bytes")?);
    let branch = (profile.id(&long), long);
    let mut held = MemoryCells::default();
    let long_vector = Writer::new(&profile, &mut held).vector(&(0..40).map(integer).collect::<Vec<_>>())?;
    let root = Writer::new(&profile, &mut held).link(Cell::Vector(long_vector))?;
    let all = [
        ("status", Message::status(0)),
        ("ping", Message::ping(1)),
        ("query", Message::query(300, [integer(1), Ref::Branch(branch.0)]).with_branches([branch.clone()])),
        ("transact", Message::transact(5, (0..3).map(|i| signed(integer(i))), &profile)?),
        ("result", Message::result(7, integer(1))),
        ("error", Message::error(8, &ErrorCode::Load, "overload")),
        ("missing", Message::missing_data(9, &[ValueId([1; 32]), ValueId([2; 32])], &profile)?),
        ("data", Message::data(11, &[Some(branch.clone()), None], 1 << 20, &profile)?),
        ("belief", Message::belief(signed(root), held.0)),
        ("partial", Message::belief(signed(Ref::Branch(branch.0)), [])),
        ("challenge", Message::challenge(12, [integer(1), integer(2)])),
        ("goodbye", Message::goodbye("done")),
    ];
    for (name, message) in all {
        put("message", name, &message.encode())?;
    }
    Ok(())
}

fn profiles() -> Result<(), Failed> {
    for name in ["wan", "blackhole", "wan-jitter-loss1", "shared"] {
        put("profile", name, &fs::read(format!("../netem/profiles/{name}.toml"))?)?;
    }
    Ok(())
}

/// What a client does: see `src/stateful.rs` for the operations.
fn stateful() -> Result<(), Failed> {
    let each = |op: u8, rest: &[&[u8]]| rest.iter().flat_map(|rest| [&[op], *rest].concat()).collect::<Vec<u8>>();
    let every: Vec<u8> = (0..40).flat_map(|n| [0, n, n + 1]).collect();
    put("stateful", "every-message", &every)?;
    put("stateful", "every-datagram", &(0..40).flat_map(|n| [4, n, n + 1]).collect::<Vec<u8>>())?;
    put("stateful", "mutated", &(0..40).flat_map(|n| [5, n, 1, n * 6, n, 1, 0, 0, 0]).collect::<Vec<u8>>())?;
    // A streamed message on a slot of DATA, in pieces, aborted and ended; then pieces of none.
    put("stateful", "records", &each(7, &[&[0x31, 1, 0, 0, 0], &[0x31, 2, 3, 3, 1, 2, 3, 0], &[0x31, 3, 0, 255], &[0x31, 4, 7, 0, 0]]))?;
    put("stateful", "declared", &each(7, &[&[0x10, 0, 251, 2, 1, 1, 0], &[0x20, 0, 255, 0, 0], &[0x41, 1, 254, 0, 0]]))?;
    put("stateful", "beyond-credit", &each(10, &[&[0x31, 248, 0], &[0x41, 249, 1], &[0x10, 246, 0]]))?;
    let controls: Vec<u8> = (0..12).flat_map(|kind| [11, kind, 0x31, 255, 1, 14, 250]).collect();
    put("stateful", "controls", &controls)?;
    let comings: Vec<u8> = (0..12).flat_map(|n| [15, 0, 0, n, n, 14, 100, 15, 200]).collect();
    put("stateful", "comings", &comings)
}

fn main() -> Result<(), Failed> {
    let terms = Terms::new("fuzz")?;
    wire(&terms)?;
    files()?;
    cells()?;
    messages()?;
    stateful()?;
    profiles()
}
