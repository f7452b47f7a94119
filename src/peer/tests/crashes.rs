//! A disk that dies: what was synced stays, of what wasn't any part may.

use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

/// The unit in which a write can be torn.
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Pending {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Default)]
struct Platter {
    /// As of the last sync.
    durable: Vec<u8>,
    /// What reads see.
    now: Vec<u8>,
    /// Since the last sync.
    pending: Vec<Pending>,
    /// Operations until the power goes.
    left: usize,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    pub(super) fn new(image: Vec<u8>, left: usize) -> Self {
        Self(Arc::new(Mutex::new(Platter { durable: image.clone(), now: image, pending: Vec::new(), left })))
    }

    pub(super) fn opener(&self) -> impl Fn() -> Self + Send + Sync + 'static {
        let disk = self.clone();
        move || disk.clone()
    }

    /// Lets so many operations through from now on.
    pub(super) fn ration(&self, left: usize) {
        self.0.lock().unwrap().left = left;
    }

    fn change(&self, change: impl FnOnce(&mut Platter)) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.left = platter.left.checked_sub(1).ok_or_else(|| io::Error::other("the power is gone"))?;
        change(&mut platter);
        Ok(())
    }

    /// What's on it after the power went: each sector of each unsynced write may or may not have got there, in any order.
    pub(super) fn after_crash(&self, mut luck: impl FnMut() -> bool) -> Vec<u8> {
        let platter = self.0.lock().unwrap();
        let mut image = platter.durable.clone();
        for pending in &platter.pending {
            match pending {
                Pending::Length(len) if luck() => image.resize(*len, 0),
                Pending::Length(_) => {}
                Pending::Write(at, bytes) => {
                    for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                        let at = at + i * SECTOR;
                        if luck() && image.len() >= at + sector.len() {
                            image[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        image
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        let at = offset as usize;
        out.copy_from_slice(platter.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|platter| {
            platter.now.resize(len as usize, 0);
            platter.pending.push(Pending::Length(len as usize));
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|platter| {
            platter.durable.clone_from(&platter.now);
            platter.pending.clear();
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|platter| {
            let at = offset as usize;
            platter.now[at..at + data.len()].copy_from_slice(data);
            platter.pending.push(Pending::Write(at, data.to_vec()));
        })
    }
}

/// Appends runs of operations until the disk dies or there are enough; the roots acknowledged, and the one that wasn't.
fn use_until_it_dies(disk: &Disk, replica: &mut Replica, next: &mut u64) -> (Vec<ValueId>, Option<ValueId>) {
    let Ok(store) = Store::on(disk.opener(), "test", *NATIVE) else { return (Vec::new(), None) };
    let mut acknowledged = vec![store.root()];
    for round in 0..12 {
        let count = 1 + round % 4 * 20;
        let (ops, cells) = run(0, *next, count, "a");
        let before = replica.clone();
        replica.append((ops.clone(), cells.clone()));
        match store.append(ops, &cells) {
            Ok(results) => {
                assert!(results.iter().all(Result::is_ok));
                assert_eq!(store.root(), replica.id());
                acknowledged.push(store.root());
                *next += count;
            }
            Err(_) => {
                let unsure = replica.id();
                *replica = before;
                return (acknowledged, Some(unsure));
            }
        }
    }
    (acknowledged, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn acknowledged_operations_survive_a_dying_disk(left in 1usize..400, seed in any::<u64>()) {
        let mut state = seed;
        let mut luck = || {
            // xorshift: any sequence will do, the same one for the same seed
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % 3 > 0
        };
        state_is_whole(left, &mut luck);
    }
}

#[test]
fn a_disk_that_fails_anywhere_and_works_again_loses_and_doubles_nothing() {
    for left in 0.. {
        let disk = Disk::new(Vec::new(), usize::MAX);
        let store = Store::on(disk.opener(), "test", *NATIVE).unwrap();
        let mut replica = Replica::new();
        let mut failed = 0;
        for round in 0..4 {
            let (ops, cells) = run(0, round * 20 + 1, 20, "a");
            replica.append((ops.clone(), cells.clone()));
            if round == 1 {
                disk.ration(left);
            }
            if let Err(error) = store.append(ops.clone(), &cells) {
                disk.ration(usize::MAX);
                failed += 1;
                // As a client would that was told of the failure.
                let again = store.append(ops, &cells).unwrap_or_else(|again| panic!("{left}: {error}, then {again}"));
                assert!(again.iter().all(Result::is_ok));
            }
            assert_eq!(store.root(), replica.id(), "{left}");
        }
        let view = store.snapshot().unwrap();
        let fresh = Store::in_memory("test", *NATIVE).unwrap();
        let merged = fresh.merge(&store.belief(0, Include::All).root, &view, 10).unwrap();
        assert_eq!((merged.missing, fresh.root()), (vec![], store.root()));
        assert_eq!(view.counts().unwrap().operations, 80);
        assert_eq!(view.counts().unwrap().keys, fresh.snapshot().unwrap().counts().unwrap().keys);
        // The next process finds the same.
        disk.ration(usize::MAX);
        drop((view, store));
        assert_eq!(Store::on(disk.opener(), "test", *NATIVE).unwrap().root(), replica.id());
        if failed == 0 {
            assert!(left > 5, "it never failed");
            break;
        }
    }
}

fn state_is_whole(left: usize, luck: &mut impl FnMut() -> bool) {
    // The format itself is written undisturbed; then the power is rationed.
    let calm = Disk::new(Vec::new(), usize::MAX);
    drop(Store::on(calm.opener(), "test", *NATIVE).unwrap());
    let image = calm.0.lock().unwrap().now.clone();
    let disk = Disk::new(image, left);
    let (mut replica, mut next) = (Replica::new(), 1);
    let (acknowledged, unsure) = use_until_it_dies(&disk, &mut replica, &mut next);
    let store = Store::on(Disk::new(disk.after_crash(luck), usize::MAX).opener(), "test", *NATIVE).expect("it opens again");
    let root = store.root();
    let last = acknowledged.last().copied().unwrap_or_else(|| Replica::new().id());
    assert!(root == last || Some(root) == unsure, "neither the last acknowledged root nor the one under way");
    // whole: another store can take all of it
    let view = store.snapshot().unwrap();
    let fresh = Store::in_memory("test", *NATIVE).unwrap();
    let merged = fresh.merge(&store.belief(0, Include::All).root, &view, 10).unwrap();
    assert_eq!((merged.missing, fresh.root()), (vec![], root));
    let counts = (view.counts().unwrap(), fresh.snapshot().unwrap().counts().unwrap());
    assert_eq!((counts.0.operations, counts.0.keys), (counts.1.operations, counts.1.keys), "the derived tables fit the log");
    if root == last {
        // and it goes on from there
        let (ops, cells) = run(0, next, 5, "a");
        assert!(store.append(ops, &cells).unwrap().iter().all(Result::is_ok));
    }
}

#[test]
fn a_kill_while_the_store_is_made_leaves_nothing_that_cant_be_opened() {
    for left in 0.. {
        // kill -9: what was written stays, in its order, synced or not.
        let disk = Disk::new(Vec::new(), left);
        let whole = Store::on(disk.opener(), "test", *NATIVE).is_ok();
        let directory = tempfile::tempdir().unwrap();
        let image = disk.0.lock().unwrap().now.clone();
        std::fs::write(directory.path().join("peer.redb.new"), image).unwrap();
        for _ in 0..2 {
            let again = Store::open(directory.path(), "test", *NATIVE);
            assert!(again.is_ok(), "after {left} operations on the file: {:?}", again.err());
        }
        let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, ["peer.redb"]);
        if whole {
            break;
        }
    }
}
