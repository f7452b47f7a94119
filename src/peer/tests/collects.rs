//! What is out of use goes, what is in use stays: under repeated overwrites, beside writers, and when the power goes.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::{crashes::Disk, *};

fn held(store: &Store) -> u64 {
    store.snapshot().unwrap().counts().unwrap().cells
}

fn append_one_by_one(store: &Store, from: u64, count: u64) {
    for sequence in from..from + count {
        let (ops, cells) = run(0, sequence, 1, "a");
        assert!(store.append(ops, &cells).unwrap().iter().all(Result::is_ok));
    }
}

/// Another store can take all of it, and says the same.
fn assert_whole(store: &Store) {
    let view = store.snapshot().unwrap();
    let fresh = Store::in_memory("test", *NATIVE).unwrap();
    let merged = fresh.merge(&store.belief(0, Include::All).root, &view, 10).unwrap();
    assert_eq!((merged.missing, fresh.root()), (vec![], store.root()));
    let all = |snapshot: &Snapshot| snapshot.prefix(&account(0), b"", None, 1000, usize::MAX).unwrap();
    assert_eq!(all(&view), all(&fresh.snapshot().unwrap()));
}

#[test]
fn a_store_that_is_written_again_and_again_holds_no_more_than_half_again_what_it_needs() {
    let store = Store::in_memory("test", *NATIVE).unwrap();
    assert!(store.wants_collection(), "nothing is known of one that was just opened");
    assert_eq!(store.collect().unwrap(), Collected { live: 0, removed: 0, complete: true });
    let (mut most, mut live, mut removed, mut runs) = (0, 0, 0, 0);
    for sequence in 1..=4000 {
        append_one_by_one(&store, sequence, 1);
        most = most.max(held(&store).saturating_sub(live + live / 2));
        if store.wants_collection() {
            let collected = store.collect().unwrap();
            assert!(collected.complete);
            assert_eq!(held(&store), collected.live, "all that's out of use is gone");
            assert!(!store.wants_collection());
            (live, removed, runs) = (collected.live, removed + collected.removed, runs + 1);
        }
    }
    assert!(most <= SLACK + 64, "{most} cells beyond half again of what's in use");
    assert!(runs >= 2 && removed > 2000, "{runs} collections removed {removed}");
    assert_whole(&store);
}

#[test]
fn a_log_that_is_cut_back_finds_what_it_needs() {
    // Equivocation: whichever of two operations is kept, the log is cut to it and the cells behind it go.
    for loser in ["b", "c", "d", "e"] {
        let (ours, theirs) = (Store::in_memory("test", *NATIVE).unwrap(), Store::in_memory("test", *NATIVE).unwrap());
        append_one_by_one(&ours, 1, 40);
        let (ops, cells) = run(0, 1, 40, "a");
        theirs.append(ops, &cells).unwrap();
        append_one_by_one(&ours, 41, 40);
        let (ops, cells) = run(0, 41, 3, loser);
        theirs.append(ops, &cells).unwrap();
        ours.collect().unwrap();
        let view = theirs.snapshot().unwrap();
        assert_eq!(ours.merge(&theirs.belief(0, Include::All).root, &view, 100).unwrap().missing, vec![]);
        assert_whole(&ours);
        assert!(ours.collect().unwrap().complete);
        assert_whole(&ours);
        let view = ours.snapshot().unwrap();
        assert_eq!(theirs.merge(&ours.belief(0, Include::All).root, &view, 100).unwrap().missing, vec![]);
        assert_eq!(ours.root(), theirs.root());
    }
}

#[test]
fn writers_and_a_collection_go_on_beside_each_other() {
    let store = Store::in_memory("test", *NATIVE).unwrap();
    append_one_by_one(&store, 1, 200);
    let done = AtomicBool::new(false);
    let removed = std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let mut removed = 0;
            while !done.load(Ordering::SeqCst) {
                removed += store.collect_by(3).unwrap().removed;
            }
            removed
        });
        append_one_by_one(&store, 201, 300);
        done.store(true, Ordering::SeqCst);
        collecting.join().unwrap()
    });
    assert!(removed > 100, "{removed}");
    assert_whole(&store);
    assert_eq!(store.snapshot().unwrap().counts().unwrap().operations, 500);
}

#[test]
fn a_cell_that_comes_into_use_again_ends_the_collection() {
    let store = Store::in_memory("test", *NATIVE).unwrap();
    append_one_by_one(&store, 1, 20);
    let view = store.snapshot().unwrap();
    let old = store.lock().root.clone();
    append_one_by_one(&store, 21, 20);
    // As a change would that makes the older root the newest again, just when the marking is done.
    store.lock().since = Some(Default::default());
    let log = refs(&Cell::Index(old)).next().unwrap();
    let garbage: std::collections::BTreeMap<ValueId, u32> = [(log, 0)].into();
    assert!(store.sweep(&[], &garbage).unwrap(), "nothing has changed");
    assert!(view.has(&log));
    let user = crate::cell::encode(&Cell::Vector(Vector::short([Ref::Branch(log)])));
    store.lock().since.as_mut().unwrap().note(&Index::empty(), &[(NATIVE.id(&user), user)], &NATIVE);
    assert!(!store.sweep(&[], &garbage).unwrap(), "it's in use again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn a_collection_that_the_power_ends_leaves_all_that_is_in_use(left in 0usize..400, seed in any::<u64>()) {
        let mut state = seed | 1;
        let mut luck = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % 3 > 0
        };
        let disk = Disk::new(Vec::new(), usize::MAX);
        let store = Store::on(disk.opener(), "test", *NATIVE).unwrap();
        append_one_by_one(&store, 1, 60);
        let (root, before) = (store.root(), held(&store));
        disk.ration(left);
        // Many transactions.
        let ended = store.collect_by(3);
        let image = disk.after_crash(&mut luck);
        drop(store);
        let store = Store::on(Disk::new(image, usize::MAX).opener(), "test", *NATIVE).expect("it opens again");
        prop_assert_eq!(store.root(), root);
        prop_assert!(held(&store) <= before);
        assert_whole(&store);
        let collected = store.collect().unwrap();
        prop_assert!(collected.complete && held(&store) == collected.live);
        prop_assert!(ended.is_err() || held(&store) < before);
        assert_whole(&store);
        append_one_by_one(&store, 61, 5);
        assert_whole(&store);
    }
}
