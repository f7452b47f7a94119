//! The join: a semilattice, resumable, and blind to what's equal.

use std::cell::RefCell;
use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::cad015::Staging;

/// Counts what's asked of a source.
struct Counted<'a>(&'a MemoryCells, RefCell<usize>);

impl CellSource for Counted<'_> {
    fn get(&self, id: &ValueId) -> Option<Bytes> {
        *self.1.borrow_mut() += 1;
        self.0.get(id)
    }
}

#[test]
fn sequences_are_contiguous_and_repeats_harmless() {
    let mut replica = Replica::new();
    let (ops, cells) = run(0, 1, 3, "a");
    assert_eq!(replica.append((ops.clone(), cells.clone())), vec![Ok(Appended::New); 3]);
    let before = replica.id();
    assert_eq!(replica.append((ops, cells)), vec![Ok(Appended::Already); 3]);
    let (other, cells) = run(0, 2, 1, "b");
    assert_eq!(replica.append((other, cells)), vec![Err(WrongSequence { got: 2, next: 4 })]);
    let (gap, cells) = run(0, 5, 1, "a");
    assert_eq!(replica.append((gap, cells)), vec![Err(WrongSequence { got: 5, next: 4 })]);
    assert_eq!(replica.id(), before);
    // in one batch, what comes before a wrong one counts, what its account has behind it doesn't, and others' does
    let (mut mixed, mut cells) = run(0, 4, 2, "a");
    let (bad, more) = run(0, 9, 1, "a");
    let (other, others) = run(1, 1, 1, "a");
    cells.0.extend(more.0.into_iter().chain(others.0));
    mixed.insert(1, bad[0].clone());
    mixed.push(other[0].clone());
    let results = replica.append((mixed, cells));
    let wrong = |got| Err(WrongSequence { got, next: 5 });
    assert_eq!(results, vec![Ok(Appended::New), wrong(9), wrong(5), Ok(Appended::New)]);
}

#[test]
fn batches_and_single_appends_give_one_root() {
    let (ops, cells) = run(0, 1, 300, "a");
    let mut whole = Replica::new();
    whole.append((ops.clone(), cells.clone()));
    let mut single = Replica::new();
    for op in ops {
        single.append((vec![op], cells.clone()));
    }
    assert_eq!(whole.id(), single.id());
    assert!(whole.cells.0.len() < single.cells.0.len(), "a batch writes no roots in between");
    // O(log n): the last append wrote its operation, its value, the log's root, perhaps a few nodes, and the index
    let before: HashSet<ValueId> = single.cells.0.keys().copied().collect();
    let (op, cells) = run(0, 301, 1, "a");
    single.append((op, cells));
    assert!(single.cells.0.keys().filter(|id| !before.contains(id)).count() < 10);
}

#[test]
fn a_merge_enters_only_what_differs() {
    let mut ours = Replica::new();
    for n in 0..60 {
        ours.append(run(n, 1, 40, "a"));
    }
    let mut theirs = ours.clone();
    theirs.append(run(7, 41, 1, "a"));
    let source = Counted(&theirs.cells, RefCell::new(0));
    let step = merge(&NATIVE, &ours.cells, &source, &ours.root, &theirs.root(), 100).unwrap();
    assert!(*source.1.borrow() < 60, "{} cells of 5,000 were looked at", source.1.borrow());
    ours.take(step.change);
    assert_eq!(ours.id(), theirs.id());
    // an older root of ours is nothing new, and nothing of it is missing, even if its cells are gone
    let old = {
        let mut old = Replica::new();
        old.append(run(7, 1, 23, "a"));
        old
    };
    let source = Counted(&old.cells, RefCell::new(0));
    let step = merge(&NATIVE, &ours.cells, &source, &ours.root, &old.root(), 100).unwrap();
    assert!(step.change.is_none() && step.missing.is_empty());
    assert!(*source.1.borrow() < 30, "{} cells were looked at", source.1.borrow());
}

#[test]
fn an_equivocation_is_settled_alike_everywhere_and_reported() {
    let mut left = Replica::new();
    left.append(run(0, 1, 20, "same"));
    let mut right = left.clone();
    left.append(run(0, 21, 30, "left"));
    right.append(run(0, 21, 5, "right"));
    left.append(run(1, 1, 5, "honest"));
    let (mut l, mut r) = (left.clone(), right.clone());
    let (seen_l, seen_r) = (l.join(&right), r.join(&left));
    assert_eq!(l.id(), r.id());
    assert_eq!(seen_l, seen_r);
    assert_eq!((seen_l.len(), seen_l[0].account, seen_l[0].sequence), (1, account(0), 21));
    assert!(seen_l[0].kept < seen_l[0].dropped);
    assert_eq!(l.log(&account(1)).len(), 5, "the honest account's log is whole");
    let length = l.log(&account(0)).len();
    assert!(length == 50 || length == 25);
}

/// Fetches what's missing, `limit` cells a round, from the other's cells, and keeps only what isn't merged yet.
fn acquire(ours: &mut Replica, theirs: &Replica, limit: usize) -> (usize, usize) {
    let mut staging = Staging::new(usize::MAX);
    let (mut rounds, mut most) = (0, 0);
    loop {
        let step = merge(&NATIVE, &ours.cells, &staging, &ours.root, &theirs.root(), limit).unwrap();
        let progress = step.change.is_some();
        ours.take(step.change);
        staging.prune(&ours.cells);
        if step.missing.is_empty() {
            if !step.more {
                return (rounds, most);
            }
            assert!(progress);
            continue;
        }
        assert!(step.missing.len() <= limit);
        assert!(step.missing.iter().all(|id| !staging.has(id) && !ours.cells.has(id)), "nothing is asked for twice");
        rounds += 1;
        assert!(rounds < 10_000);
        staging.add(step.missing.iter().map(|id| (*id, theirs.cells.get(id).unwrap())));
        most = most.max(staging.bytes());
    }
}

#[test]
fn a_merge_resumes_and_adopts_what_is_whole() {
    let mut theirs = Replica::new();
    theirs.append(run(0, 1, 1500, "a"));
    theirs.append(run(1, 1, 3, "b"));
    let total: usize = theirs.cells.0.values().map(Bytes::len).sum();
    let mut ours = Replica::new();
    let (rounds, most) = acquire(&mut ours, &theirs, 100);
    assert_eq!(ours.id(), theirs.id());
    assert!(most < total / 5, "staging held {most} of {total} bytes: what's adopted was let go");
    assert!(rounds < 60, "{rounds} rounds for 3,100 cells");
    // limits of 1 work too
    let mut small = Replica::new();
    small.append(run(0, 1, 5, "a"));
    let mut other = small.clone();
    other.append(run(0, 6, 30, "a"));
    acquire(&mut small, &other, 1);
    assert_eq!(small.id(), other.id());
}

#[test]
fn an_invalid_operation_condemns_the_root() {
    let mut cells = MemoryCells::default();
    let good = put(0, 1, "k", b"v", &mut cells);
    let forged = put(1, 2, "k", b"v", &mut cells);
    let skipped = put(0, 3, "k", b"v", &mut cells);
    for (bad, sequence) in [(forged, 2), (skipped, 2)] {
        let mut writer = Writer::new(&NATIVE, &mut cells);
        let items: Vec<Ref> = [good.clone(), bad].into_iter().map(|s| writer.link(Cell::Signed(Box::new(s))).unwrap()).collect();
        let log = writer.vector(&items).unwrap();
        let log = writer.link(Cell::Vector(log)).unwrap();
        let root = writer.index([(account(0).to_vec(), log)]).unwrap();
        let root = writer.link(Cell::Index(root)).unwrap();
        let error = merge(&NATIVE, &NoCells, &cells, &Index::empty(), &root, 10).unwrap_err();
        assert!(matches!(error, MergeError::Operation { sequence: s, .. } if s == sequence), "{error}");
    }
    let mut writer = Writer::new(&NATIVE, &mut cells);
    for root in [Cell::Nil, Cell::blob(vec![1; 10]).unwrap()] {
        let root = writer.link(root).unwrap();
        assert!(matches!(merge(&NATIVE, &NoCells, &NoCells, &Index::empty(), &root, 10), Err(MergeError::Shape(_))));
    }
    let value = writer.link(Cell::Integer(1)).unwrap();
    for key in [vec![1; 31], account(0).to_vec()] {
        let root = writer.index([(key, value.clone())]).unwrap();
        let root = writer.link(Cell::Index(root)).unwrap();
        assert!(matches!(merge(&NATIVE, &NoCells, &NoCells, &Index::empty(), &root, 10), Err(MergeError::Shape(_))));
    }
}

#[test]
fn a_changed_signature_is_found() {
    let mut theirs = Replica::new();
    let (ops, mut cells) = run(0, 1, 1, "a");
    let signed = Cell::Signed(Box::new(ops[0].signed.clone()));
    let mut bytes = crate::cell::encode(&signed).to_vec();
    bytes[40] ^= 1;
    let broken = crate::cell::decode(&bytes.into(), &NATIVE).unwrap();
    let mut writer = Writer::new(&NATIVE, &mut cells);
    let item = writer.link(broken).unwrap();
    let log = writer.vector(&[item]).unwrap();
    let log = writer.link(Cell::Vector(log)).unwrap();
    theirs.root = writer.index([(account(0).to_vec(), log)]).unwrap();
    theirs.cells = cells;
    theirs.cells.put(theirs.id(), crate::cell::encode(&Cell::Index(theirs.root.clone())));
    let error = merge(&NATIVE, &NoCells, &theirs.cells, &Index::empty(), &theirs.root(), 10).unwrap_err();
    assert!(matches!(error, MergeError::Operation { sequence: 1, error: OperationError::Signature(_), .. }));
}

/// Two histories for each of three accounts, equal up to a point; a replica holds some length of one of them for each.
fn universe() -> impl Strategy<Value = Vec<Replica>> {
    let account = (0u64..20, 1u64..25, 1u64..25);
    let choice = proptest::array::uniform3((any::<bool>(), 0u64..45));
    (proptest::array::uniform3(account), proptest::collection::vec(choice, 3)).prop_map(|(shapes, replicas)| {
        let histories: Vec<_> = (0u8..)
            .zip(shapes)
            .map(|(n, (same, left, right))| {
                let (mut a, mut cells) = run(n, 1, same, "same");
                let mut b = a.clone();
                for (log, count, mark) in [(&mut a, left, "left"), (&mut b, right, "right")] {
                    let (ops, more) = run(n, same + 1, count, mark);
                    log.extend(ops);
                    cells.0.extend(more.0);
                }
                (a, b, cells)
            })
            .collect();
        let make = |choices: [(bool, u64); 3]| {
            let mut replica = Replica::new();
            for ((first, length), (a, b, cells)) in choices.into_iter().zip(&histories) {
                let ops = if first { a } else { b };
                let ops = ops[..ops.len().min(length as usize)].to_vec();
                replica.append((ops, cells.clone()));
            }
            replica
        };
        replicas.into_iter().map(make).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_join_is_a_semilattice(replicas in universe()) {
        let [a, b, c] = <[Replica; 3]>::try_from(replicas).ok().unwrap();
        let join = |x: &Replica, y: &Replica| { let mut x = x.clone(); x.join(y); x };
        prop_assert_eq!(join(&a, &a).id(), a.id(), "idempotent");
        prop_assert_eq!(join(&a, &b).id(), join(&b, &a).id(), "commutative");
        prop_assert_eq!(join(&join(&a, &b), &c).id(), join(&a, &join(&b, &c)).id(), "associative");
        let all = join(&join(&c, &b), &a);
        for part in [&a, &b, &c] {
            prop_assert_eq!(join(&all, part).id(), all.id(), "an upper bound");
        }
        // and the same by way of acquisition, cell by cell
        let mut slow = a.clone();
        acquire(&mut slow, &b, 7);
        prop_assert_eq!(slow.id(), join(&a, &b).id());
        for held in refs(&Cell::Index(all.root.clone())) {
            prop_assert!(all.cells.has(&held));
        }
    }
}
