//! The reference peer's lattice and store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod beliefs;
mod collects;
mod crashes;
mod joins;
mod stores;

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use super::*;
use crate::cell::{Cell, CellSink, CellSource, Index, MemoryCells, NoCells, Profile, Reader, Ref, Signed, ValueId, Vector, Writer, refs};

/// The profile of the network of these tests.
static NATIVE: std::sync::LazyLock<Profile> = std::sync::LazyLock::new(|| Profile::NATIVE.in_network("test"));

fn signer(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n + 1; 32])
}

fn account(n: u8) -> Account {
    signer(n).verifying_key().to_bytes()
}

/// Account `n` sets `key` to `value`; its cells go to `cells`.
fn put(n: u8, sequence: u64, key: &str, value: &[u8], cells: &mut MemoryCells) -> Signed {
    let edit = Edit::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value) };
    Operation::sign(&edit, sequence, &signer(n), &NATIVE, cells).unwrap()
}

fn del(n: u8, sequence: u64, key: &str) -> Signed {
    let edit = Edit::Del { key: Bytes::copy_from_slice(key.as_bytes()) };
    Operation::sign(&edit, sequence, &signer(n), &NATIVE, &mut MemoryCells::default()).unwrap()
}

fn verified(signed: &Signed, cells: &MemoryCells) -> Verified {
    Verified::new(Operation::read(signed, &Reader::new(&NATIVE, cells)).unwrap(), &NATIVE).unwrap()
}

/// `count` operations of an account from `sequence` on, 200 bytes a value, marked.
fn run(n: u8, sequence: u64, count: u64, mark: &str) -> (Vec<Verified>, MemoryCells) {
    let mut cells = MemoryCells::default();
    let ops: Vec<Signed> = (sequence..sequence + count)
        .map(|s| put(n, s, &format!("k{}", s % 50), format!("{mark} {s} {}", "x".repeat(200)).as_bytes(), &mut cells))
        .collect();
    (ops.iter().map(|op| verified(op, &cells)).collect(), cells)
}

/// A lattice value with the cells of its past and present, without a database.
#[derive(Clone)]
struct Replica {
    cells: MemoryCells,
    root: Index,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let logs = (0..3).map(|n| (n, self.log(&account(n)).len())).collect::<Vec<_>>();
        write!(f, "{} {logs:?}", self.id())
    }
}

impl Replica {
    fn new() -> Self {
        Self { cells: MemoryCells::default(), root: Index::empty() }
    }

    fn take(&mut self, change: Option<Change>) {
        if let Some(change) = change {
            self.cells.0.extend(change.cells);
            self.root = change.root;
        }
    }

    fn append(&mut self, (ops, cells): (Vec<Verified>, MemoryCells)) -> Vec<Result<Appended, WrongSequence>> {
        let (change, results) = append(&NATIVE, &self.cells, &cells, &self.root, ops).unwrap();
        self.take(change);
        results
    }

    fn root(&self) -> Ref {
        Writer::new(&NATIVE, &mut MemoryCells::default()).link(Cell::Index(self.root.clone())).unwrap()
    }

    fn id(&self) -> ValueId {
        self.root().id(&NATIVE)
    }

    /// All of the other at once: what it holds is at hand.
    fn join(&mut self, other: &Self) -> Vec<Equivocation> {
        let mut seen = Vec::new();
        loop {
            let step = merge(&NATIVE, &self.cells, &other.cells, &self.root, &other.root(), 100).unwrap();
            assert_eq!(step.missing, vec![], "the other holds all of its own tree");
            self.take(step.change);
            seen.extend(step.equivocations);
            if !step.more {
                return seen;
            }
        }
    }

    fn log(&self, account: &Account) -> Vector {
        log_of(&Reader::new(&NATIVE, &self.cells), &self.root, account).unwrap()
    }
}
