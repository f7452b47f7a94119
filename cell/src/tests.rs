//! Cells against the reference implementation's bytes, and properties of every encoding.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;

const VECTORS: &str = include_str!("vectors.txt");

fn vectors() -> Vec<(&'static str, Bytes, Option<ValueId>)> {
    let rows = VECTORS.lines().filter(|l| !l.starts_with('#')).map(|line| {
        let [name, encoding, id] = line.split(" | ").collect::<Vec<_>>().try_into().unwrap();
        (name, Bytes::from(HEXLOWER.decode(encoding.as_bytes()).unwrap()), id.parse().ok())
    });
    let rows: Vec<_> = rows.collect();
    assert!(rows.len() > 35, "the vectors are there");
    rows
}

fn int(i: i64) -> Ref {
    Ref::Embedded(Arc::new(Cell::Integer(i)))
}

fn link(cell: Cell) -> Ref {
    Writer::new(&Profile::CONVEX, &mut MemoryCells::default()).link(cell).unwrap()
}

fn key(name: &'static str) -> Ref {
    link(Cell::Keyword(Name::new(name).unwrap()))
}

fn vector(items: &[Ref]) -> Cell {
    Cell::Vector(Writer::new(&Profile::CONVEX, &mut MemoryCells::default()).vector(items).unwrap())
}

fn blob(bytes: &[u8]) -> Cell {
    let mut cells = MemoryCells::default();
    Writer::new(&Profile::CONVEX, &mut cells).blob(Bytes::copy_from_slice(bytes)).unwrap()
}

fn list(kind: fn(Vector) -> Cell, items: &[Ref]) -> Cell {
    let Cell::Vector(v) = vector(items) else { panic!() };
    kind(v)
}

/// Each value of `vectors.txt`, built by this crate.
fn build(name: &str) -> Cell {
    let symbol = |name: &'static str| Cell::Symbol(Name::new(name).unwrap());
    let index = |entries: &[(&'static [u8], i64)]| {
        let mut cells = MemoryCells::default();
        let mut w = Writer::new(&Profile::CONVEX, &mut cells);
        Cell::Index(w.index(entries.iter().map(|(k, v)| (*k, int(*v)))).unwrap())
    };
    let mut cells = MemoryCells::default();
    let mut w = Writer::new(&Profile::CONVEX, &mut cells);
    // a list is stored in reversed order
    let plus = || link(list(Cell::List, &[int(2), int(1), link(symbol("+"))]));
    let address = |n| link(Cell::Extension(10, n));
    match name {
        "nil" => Cell::Nil,
        "true" => Cell::Bool(true),
        "0" | "1" | "-1" | "19" | "128" | "-128" => Cell::Integer(name.parse().unwrap()),
        "2^63-1" => Cell::Integer(i64::MAX),
        "2^63" => Cell::BigInteger(BigInteger::new(Bytes::from_static(&[0, 0x80, 0, 0, 0, 0, 0, 0, 0])).unwrap()),
        "1.0" => Cell::Double(1f64.to_bits()),
        "\"Hello\"" => Cell::string("Hello").unwrap(),
        "0x (empty blob)" => blob(&[]),
        "0xcafebabe" => blob(&[0xca, 0xfe, 0xba, 0xbe]),
        "foo (symbol)" => symbol("foo"),
        ":foo" => Cell::Keyword(Name::new("foo").unwrap()),
        "#13 (address)" => Cell::Extension(10, 13),
        "#128" => Cell::Extension(10, 128),
        "[]" => vector(&[]),
        "[1]" => vector(&[int(1)]),
        "[-1]" => vector(&[int(-1)]),
        "[1 2 3]" => vector(&[int(1), int(2), int(3)]),
        "[101 \"Hello\" #{}]" => {
            let set = w.set([]).unwrap();
            vector(&[int(101), link(Cell::string("Hello").unwrap()), link(set)])
        }
        "dense record, tag df, fields 1 2 3" => {
            let Cell::Vector(v) = vector(&[int(1), int(2), int(3)]) else { panic!() };
            Cell::Record(0xf, v)
        }
        "{:a 1 :b 2 :c 3}" => w.map([(key("a"), int(1)), (key("b"), int(2)), (key("c"), int(3))]).unwrap(),
        "#{1 2 3}" => w.set([int(3), int(1), int(2)]).unwrap(),
        "vector 0..16 (17 items)" => vector(&(0..17).map(int).collect::<Vec<_>>()),
        "Index {0x1234 1, 0x1256 2}" => index(&[(&[0x12, 0x34], 1), (&[0x12, 0x56], 2)]),
        "Index {0x12 3, 0x1234 1, 0x1256 2}" => index(&[(&[0x12], 3), (&[0x12, 0x34], 1), (&[0x12, 0x56], 2)]),
        "Blob of 137 zero bytes (embedded, 140 bytes)" => blob(&[0; 137]),
        "Blob of 138 zero bytes (branch)" => blob(&[0; 138]),
        "[Blob138]" => vector(&[link(blob(&[0; 138]))]),
        "Blob of 4097 zeros" => blob(&[0; 4097]),
        "[:SR 1]" => vector(&[key("SR"), int(1)]),
        "[:Q 1 (+ 1 2) nil]" => vector(&[key("Q"), int(1), plus(), Ref::nil()]),
        "[:PING 7]" => vector(&[key("PING"), int(7)]),
        "[:BYE]" => vector(&[key("BYE")]),
        "Invoke(#11, seq 1, (+ 1 2))" => list(|v| Cell::Record(0, v), &[address(11), int(1), plus()]),
        "Transfer(#11, seq 2, #12, 1000)" => list(|v| Cell::Record(1, v), &[address(11), int(2), address(12), int(1000)]),
        "Result(1, 3)" => list(|v| Cell::Record(0xd, v), &[int(1), int(3), Ref::nil(), Ref::nil(), Ref::nil()]),
        "Signed(1) by seed 00..01" => {
            let mut seed = [0; 32];
            seed[31] = 1;
            Cell::Signed(Box::new(Signed::sign(&Profile::CONVEX, &SigningKey::from_bytes(&seed), int(1))))
        }
        other => panic!("no builder for {other}"),
    }
}

#[test]
fn golden_vectors_both_ways() {
    for (name, encoding, id) in vectors() {
        let decoded = decode(&encoding, &Profile::CONVEX).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(encode(&decoded), encoding, "{name}");
        assert_eq!(encoded_len(&decoded), encoding.len(), "{name}");
        assert_eq!(build(name), decoded, "{name}");
        if let Some(id) = id {
            assert_eq!(Profile::CONVEX.id(&encoding), id, "{name}");
        }
        for cut in 0..encoding.len() {
            assert!(decode(&encoding.slice(..cut), &Profile::CONVEX).is_err(), "{name} cut at {cut}");
        }
        let mut longer = encoding.to_vec();
        longer.push(0);
        assert_eq!(decode(&longer.into(), &Profile::CONVEX), Err(DecodeError::Trailing(1)), "{name}");
    }
}

#[test]
fn signatures_bind_value_key_and_context() {
    let signer = SigningKey::from_bytes(&[7; 32]);
    let native = Signed::sign(&Profile::NATIVE, &signer, int(1));
    native.verify(&Profile::NATIVE).unwrap();
    assert_eq!(native.verify(&Profile::CONVEX), Err(SignatureError::BadSignature), "the context counts");
    assert_eq!(Signed { value: int(2), ..native.clone() }.verify(&Profile::NATIVE), Err(SignatureError::BadSignature));
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
    assert_eq!(native.verify_with(&Profile::NATIVE, &other), Err(SignatureError::BadSignature));
    assert_eq!(Signed { key: None, ..native.clone() }.verify(&Profile::NATIVE), Err(SignatureError::NoKey));
    // the identity point: small order
    let mut weak = [0; 32];
    weak[0] = 1;
    assert_eq!(native.verify_with(&Profile::NATIVE, &weak), Err(SignatureError::BadKey));
    let embedded = link(Cell::Signed(Box::new(native)));
    assert!(embedded.embedded().is_some());
}

fn refused(hex: &str) -> DecodeError {
    decode(&Bytes::from(HEXLOWER.decode(hex.as_bytes()).unwrap()), &Profile::NATIVE).expect_err(hex)
}

#[test]
fn what_is_not_canonical_is_refused() {
    for tag in ["01", "1a", "1c", "34", "3b", "40", "7f", "85", "8f", "92", "f0", "ff"] {
        assert!(matches!(refused(tag), DecodeError::UnknownTag(_)), "{tag}");
    }
    let branch = format!("20{}", "11".repeat(32));
    let rules = [
        "1100".to_owned(),
        "120001".into(),
        "12ff80".into(),
        "1908ffffffffffffffff".into(),
        "1909000000000000000001".into(),
        "19a001".into(),
        "3200".into(),
        "3381".to_owned() + &"41".repeat(0x81),
        "3d0041".into(),
        "3f00110000".into(),
        "3f01100000".into(),
        // the order and the uniqueness of keys
        "830311011102 1103".replace(' ', ""),
        "830211011101".into(),
        "8202110100110100".into(),
        // a tree of 16 entries with one child, with too few entries, with a shift of 64
        format!("8210000001{branch}"),
        "83100000031101 1102".replace(' ', ""),
        format!("8210400003{branch}{branch}"),
        // an index node with one child and no entry; a wrong marker; a depth that isn't the key's; the wrong digit
        format!("8402000000 01{branch}").replace(' ', ""),
        format!("8402200000 03{branch}{branch}").replace(' ', ""),
        format!("840280311201 0a 0001{branch}").replace(' ', ""),
        "84020002002084013102123411018401310212561102".into(),
        "84020002001884013102123411018401310212561102".into(),
        "84030002002884013102123411018401310212561102".into(),
        "8401110111 01".replace(' ', ""),
        "84018000 1101".replace(' ', ""),
        // metadata that's an empty map, a nil field in a sparse record
        "8811018200".into(),
        "a00100".into(),
        // 17 items whose prefix is no vector of 16; a short tail of a blob as a branch
        "80111110".to_owned() + "1101",
        "80111110".to_owned() + "80011101",
        format!("31a001{branch}{branch}"),
        // an embedded child of 141 bytes
        format!("800131810a{}", "00".repeat(138)),
    ];
    for hex in rules {
        assert!(matches!(refused(&hex), DecodeError::NotCanonical(_)), "{hex}: {:?}", refused(&hex));
    }
    assert!(matches!(refused("31800100"), DecodeError::Count(_)));
    assert_eq!(refused(&branch), DecodeError::UnknownTag(0x20), "a reference is no cell");
    assert_eq!(refused("30ffffffffffffff7f"), DecodeError::Truncated, "a declared length reserves nothing");
    // 90 fields of 100 bytes are within the embedding rule, and 9,000 bytes above the native limit
    let fields = format!("a0ffffffffffffffff7f{}", format!("3180 64{}", "00".repeat(100)).replace("80 ", "").repeat(63));
    assert!(decode(&Bytes::from(HEXLOWER.decode(fields.as_bytes()).unwrap()), &Profile::NATIVE).is_ok());
    let fields = format!("a0ffffffffffffffff7f{}", format!("318109{}", "00".repeat(137)).repeat(63));
    assert_eq!(refused(&fields), DecodeError::TooLarge { max: 8192 });
}

#[test]
fn nesting_is_bounded() {
    // Coded values nest with one byte each; 200 of them can't be in an embedded child of 140 bytes.
    let deep = [vec![0xc0; 200], vec![0; 201]].concat();
    assert!(decode(&deep.into(), &Profile::NATIVE).is_err());
    let deep = [vec![0xc0; 70], vec![0; 71]].concat();
    let cell = decode(&deep.clone().into(), &Profile::NATIVE).unwrap();
    assert_eq!(encode(&cell), deep);
}

#[test]
fn a_missing_branch_is_named() {
    let mut cells = MemoryCells::default();
    let mut w = Writer::new(&Profile::NATIVE, &mut cells);
    let chunk = w.blob(vec![9; 10_000].into()).unwrap();
    let Cell::Blob(tree) = &chunk else { panic!() };
    let first = refs(&chunk).next().unwrap();
    let reader = Reader::new(&Profile::NATIVE, &cells);
    assert_eq!(reader.blob_bytes(tree, 10_000).unwrap(), vec![9; 10_000]);
    assert_eq!(reader.blob_bytes(tree, 9_999), Err(TreeError::TooLarge { size: 10_000, max: 9_999 }));
    cells.0.remove(&first);
    let reader = Reader::new(&Profile::NATIVE, &cells);
    assert_eq!(reader.blob_bytes(tree, 10_000), Err(TreeError::Missing(first)));
    // a branch of another shape than its place demands, and one that had to be embedded
    cells.0.insert(first, encode(&Cell::blob(vec![9; 200]).unwrap()));
    assert!(matches!(Reader::new(&Profile::NATIVE, &cells).blob_bytes(tree, 10_000), Err(TreeError::Malformed { .. })));
    cells.0.insert(first, encode(&Cell::Nil));
    assert!(matches!(Reader::new(&Profile::NATIVE, &cells).load(&first), Err(TreeError::Malformed { .. })));
}

#[test]
fn pushing_gives_the_same_vector_as_building() {
    let mut cells = MemoryCells::default();
    let items: Vec<Ref> = (0..700).map(int).collect();
    let mut pushed = Vector::empty();
    for n in 0..=items.len() {
        let mut w = Writer::new(&Profile::NATIVE, &mut cells);
        if n <= 300 || n % 37 == 0 || n == items.len() {
            assert_eq!(pushed, w.vector(&items[..n]).unwrap(), "{n}");
        }
        if let Some(item) = items.get(n) {
            pushed = w.vector_push(&pushed, item.clone()).unwrap();
        }
    }
    let reader = Reader::new(&Profile::NATIVE, &cells);
    let all: Vec<Ref> = reader.vector_iter(&pushed, 0..u64::MAX).map(Result::unwrap).collect();
    assert_eq!(all, items);
    let some: Vec<Ref> = reader.vector_iter(&pushed, 250..260).map(Result::unwrap).collect();
    assert_eq!(some, items[250..260]);
    assert_eq!(reader.vector_get(&pushed, 699).unwrap(), Some(int(699)));
    assert_eq!(reader.vector_get(&pushed, 700).unwrap(), None);
    for cut in (0..40).chain([255, 256, 257, 271, 272, 273, 512, 640, 687, 688, 689, 699, 700]) {
        let mut w = Writer::new(&Profile::NATIVE, &mut cells);
        assert_eq!(w.vector_prefix(&pushed, cut as u64).unwrap(), w.vector(&items[..cut]).unwrap(), "{cut}");
        let longer = w.vector(&items[..688]).unwrap();
        assert_eq!(w.vector_prefix(&longer, cut as u64).unwrap(), w.vector(&items[..cut.min(688)]).unwrap(), "{cut} of 688");
    }
    let mut changed = items.clone();
    let mut set = pushed;
    for i in [0, 15, 16, 255, 256, 511, 687, 688, 699] {
        changed[i as usize] = int(-1);
        let mut w = Writer::new(&Profile::NATIVE, &mut cells);
        set = w.vector_set(&set, i, int(-1)).unwrap();
        assert_eq!(set, w.vector(&changed).unwrap(), "{i}");
    }
}

/// A tree of scalars, vectors, maps, sets, indexes and records, with branches made on the way.
fn any_cell() -> impl Strategy<Value = (Cell, MemoryCells)> {
    let leaf = prop_oneof![
        Just(Cell::Nil),
        any::<bool>().prop_map(Cell::Bool),
        (2u8..16).prop_map(Cell::Flag),
        any::<i64>().prop_map(Cell::Integer),
        (-300i64..300).prop_map(Cell::Integer),
        any::<u64>().prop_map(Cell::Double),
        (0u32..0x11_0000).prop_map(Cell::Character),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|b| Cell::blob(b).unwrap()),
        "[a-zé]{1,40}".prop_map(|s| Cell::string(s).unwrap()),
        "[a-z]{1,40}".prop_map(|s| Cell::Keyword(Name::new(s).unwrap())),
        "[a-z]{1,40}".prop_map(|s| Cell::Symbol(Name::new(s).unwrap())),
        (0u8..16, 0..vlq::MAX).prop_map(|(k, n)| Cell::Extension(k, n)),
        proptest::collection::vec(any::<u8>(), 9..40)
            .prop_filter_map("shortest form", |b| Some(Cell::BigInteger(BigInteger::new(b.into())?))),
    ]
    .prop_map(|cell| (cell, MemoryCells::default()));
    leaf.prop_recursive(4, 120, 24, |inner| {
        (0u8..9, proptest::collection::vec(inner, 2..40)).prop_map(|(kind, parts)| {
            let mut cells = MemoryCells::default();
            let mut children = Vec::new();
            for (cell, below) in parts {
                cells.0.extend(below.0);
                children.push(Writer::new(&Profile::NATIVE, &mut cells).link(cell).unwrap());
            }
            let mut w = Writer::new(&Profile::NATIVE, &mut cells);
            let pair = || Box::new([children[0].clone(), children[1].clone()]);
            let cell = match kind {
                0 => Cell::Vector(w.vector(&children).unwrap()),
                1 => Cell::List(w.vector(&children).unwrap()),
                2 => Cell::Record(3, w.vector(&children).unwrap()),
                3 => w.set(children.iter().cloned()).unwrap(),
                4 => w.map(children.iter().cloned().zip(children.iter().rev().cloned())).unwrap(),
                5 => {
                    let entries = children.iter().enumerate().map(|(i, c)| (vec![7u8; i % 5 + 1], c.clone()));
                    Cell::Index(w.index(entries).unwrap())
                }
                6 => Cell::Coded(2, pair()),
                7 => Cell::Syntax(Box::new([children[0].clone(), Ref::nil()])),
                _ => Cell::Signed(Box::new(Signed { key: None, signature: [5; 64], value: children[0].clone() })),
            };
            (cell, cells)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn encode_and_decode_are_inverse((cell, cells) in any_cell()) {
        for encoding in std::iter::once(encode(&cell)).chain(cells.0.values().cloned()) {
            let decoded = decode(&encoding, &Profile::NATIVE).unwrap();
            prop_assert_eq!(encode(&decoded), encoding);
        }
        prop_assert_eq!(decode(&encode(&cell), &Profile::NATIVE).unwrap(), cell);
    }

    /// What is accepted after a change encodes to exactly the changed bytes: no value has two encodings.
    #[test]
    fn a_changed_encoding_is_refused_or_canonical((cell, _) in any_cell(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = encode(&cell).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let bytes = Bytes::from(bytes);
        if let Ok(decoded) = decode(&bytes, &Profile::NATIVE) {
            prop_assert_eq!(encode(&decoded), bytes.clone());
        }
        let cut = cut.index(bytes.len());
        if let Ok((decoded, used)) = decode_prefix(&bytes.slice(cut..), &Profile::NATIVE) {
            prop_assert_eq!(encode(&decoded), bytes.slice(cut..cut + used));
        }
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        if let Ok((decoded, used)) = decode_prefix(&bytes, &Profile::CONVEX) {
            prop_assert_eq!(encode(&decoded), bytes.slice(..used));
        }
    }

    /// Maps, sets and indexes: adding one by one in any order gives the tree that building gives.
    #[test]
    fn order_of_insertion_leaves_no_trace(keys in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..5), 1..80)) {
        let mut cells = MemoryCells::default();
        let mut w = Writer::new(&Profile::NATIVE, &mut cells);
        let refs: Vec<Ref> = keys.iter().map(|k| w.link(Cell::blob(k.clone()).unwrap()).unwrap()).collect();
        let pairs: Vec<(Ref, Ref)> = refs.iter().cloned().zip((0..).map(int)).collect();
        let (mut map, mut set, mut index) = (w.map([]).unwrap(), w.set([]).unwrap(), Index::empty());
        for (bytes, (key, value)) in keys.iter().zip(&pairs) {
            map = w.map_assoc(&map, key.clone(), value.clone()).unwrap();
            set = w.set_insert(&set, key.clone()).unwrap();
            index = w.index_assoc(&index, bytes, value.clone()).unwrap();
        }
        prop_assert_eq!(&map, &w.map(pairs.clone()).unwrap());
        prop_assert_eq!(&set, &w.set(refs.clone()).unwrap());
        prop_assert_eq!(&index, &w.index(keys.iter().cloned().zip(pairs.iter().map(|p| p.1.clone()))).unwrap());
        let r = w.reader();
        for (bytes, key) in keys.iter().zip(&refs) {
            let last = pairs.iter().rev().find(|p| p.0 == *key).map(|p| p.1.clone());
            prop_assert_eq!(r.map_get(&map, key).unwrap(), last.clone());
            prop_assert!(r.set_contains(&set, key).unwrap());
            prop_assert_eq!(r.index_get(&index, bytes).unwrap(), last);
        }
        prop_assert_eq!(r.map_get(&map, &int(-5)).unwrap(), None);
        prop_assert_eq!(r.index_get(&index, &[9, 9]).unwrap(), None);
        let mut sorted = keys.clone();
        sorted.sort();
        sorted.dedup();
        let iterated: Vec<Vec<u8>> = r.index_iter(&index).map(|e| match e.unwrap().0.embedded().unwrap() {
            Cell::Blob(b) => b.bytes().unwrap().to_vec(),
            _ => panic!(),
        }).collect();
        prop_assert_eq!(&iterated, &sorted);
        prop_assert_eq!(index.len(), sorted.len() as u64);
        prop_assert_eq!(r.map_iter(&map).unwrap().count(), sorted.len());
        prop_assert!(r.set_iter(&set).unwrap().all(|e| e.is_ok()));
        for cell in [map, set, Cell::Index(index)] {
            let encoding = encode(&cell);
            prop_assert_eq!(decode(&encoding, &Profile::NATIVE).unwrap(), cell);
        }
    }
}
