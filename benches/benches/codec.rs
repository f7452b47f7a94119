//! Encoders and decoders: control frames, records, cells, messages.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, sync::Arc};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use peerlane::{
    cad015::Message,
    cell::{self, Cell, MemoryCells, Profile, Ref, Signed, Writer},
};
use peerlane_transport::{
    Control,
    class::{Lane, Record},
    varint,
};

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames");
    group.throughput(Throughput::Elements(1));
    let lane = Lane { class: 4, slot: 0 };
    let mut out = BytesMut::with_capacity(4096);
    group.bench_function("control: CREDIT, encode and decode", |bencher| {
        bencher.iter(|| {
            Control::Credit { lane, total: black_box(1 << 30) }.encode(&mut out);
            Control::decode(&mut out).unwrap()
        });
    });
    group.bench_function("record: head, encode and decode", |bencher| {
        bencher.iter(|| {
            let mut head = [0u8; varint::MAX_LEN];
            Record::Whole(black_box(65_536)).encode(&mut &mut head[..]);
            Record::from_varint(varint::get(&mut &head[..]).unwrap()).unwrap()
        });
    });
    group.finish();
}

/// A vector of 256 strings of 50 bytes: chunks of 16, so 16 branches and a node above them.
fn tree(cells: &mut MemoryCells) -> Cell {
    let mut writer = Writer::new(&Profile::NATIVE, cells);
    let items: Vec<Ref> = (0..256).map(|i| writer.link(Cell::string(format!("{i:050}")).unwrap()).unwrap()).collect();
    Cell::Vector(writer.vector(&items).unwrap())
}

fn cells(criterion: &mut Criterion) {
    let mut held = MemoryCells::default();
    let top = tree(&mut held);
    let leaf = held.0.values().max_by_key(|encoding| encoding.len()).unwrap().clone();
    let decoded = cell::decode(&leaf, &Profile::NATIVE).unwrap();
    let mut group = criterion.benchmark_group("cells");
    group.throughput(Throughput::Bytes(leaf.len() as u64));
    group.bench_function(format!("decode, {} B", leaf.len()), |bencher| {
        bencher.iter(|| cell::decode(black_box(&leaf), &Profile::NATIVE).unwrap());
    });
    group.bench_function(format!("encode, {} B", leaf.len()), |bencher| bencher.iter(|| cell::encode(black_box(&decoded))));
    group.bench_function(format!("ID by BLAKE3, {} B", leaf.len()), |bencher| bencher.iter(|| Profile::NATIVE.id(black_box(&leaf))));
    group.bench_function(format!("ID by SHA3-256, {} B", leaf.len()), |bencher| bencher.iter(|| Profile::CONVEX.id(black_box(&leaf))));
    group.finish();
    black_box(top);
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("messages");
    let integer = |i| Ref::Embedded(Arc::new(Cell::Integer(i)));
    let query = Message::query(300, [integer(1), Ref::Embedded(Arc::new(Cell::blob(vec![7; 80]).unwrap()))]);
    let mut held = MemoryCells::default();
    let top = tree(&mut held);
    let root = Writer::new(&Profile::NATIVE, &mut held).link(top).unwrap();
    let signed = Signed::sign(&Profile::NATIVE, &ed25519_dalek::SigningKey::from_bytes(&[3; 32]), root);
    let belief = Message::belief(signed, held.0.clone());
    for (name, message) in [("query", query), ("belief", belief)] {
        let bytes: Bytes = message.encode();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("{name}: encode, {} B", bytes.len()), |bencher| bencher.iter(|| black_box(&message).encode()));
        group.bench_function(format!("{name}: decode, {} B", bytes.len()), |bencher| {
            bencher.iter(|| Message::decode(black_box(&bytes), &Profile::NATIVE).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, frames, cells, messages);
criterion_main!(benches);
