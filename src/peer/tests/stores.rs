//! The store on disk: what's acknowledged stays, and what's wrong is said.

use std::path::Path;

use super::*;
use crate::cad015::Staging;

fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(path, "test", *NATIVE)
}

fn fill(store: &Store, (ops, cells): (Vec<Verified>, MemoryCells)) {
    assert!(store.append(ops, &cells).unwrap().iter().all(Result::is_ok));
}

#[test]
fn reads_see_puts_and_deletes() {
    let store = Store::in_memory("test", *NATIVE).unwrap();
    let mut cells = MemoryCells::default();
    let long = vec![7; MAX_VALUE];
    let ops = [
        put(0, 1, "a/1", b"one", &mut cells),
        put(0, 2, "a/2", &long, &mut cells),
        put(0, 3, "b", b"three", &mut cells),
        put(0, 4, "a/1", b"four", &mut cells),
        put(0, 5, &"k".repeat(MAX_KEY), b"", &mut cells),
        del(0, 6, "b"),
        del(0, 7, "never there"),
        put(1, 1, "a/1", b"another account", &mut cells),
    ];
    let ops: Vec<Verified> = ops.iter().map(|op| verified(op, &cells)).collect();
    fill(&store, (ops, cells));
    let read = store.snapshot().unwrap();
    assert_eq!(read.value(&account(0), b"a/1").unwrap().unwrap(), "four");
    assert_eq!(read.value(&account(0), b"a/2").unwrap().unwrap(), long);
    assert_eq!(read.value(&account(0), b"b").unwrap(), None);
    assert_eq!(read.value(&account(0), "k".repeat(MAX_KEY).as_bytes()).unwrap().unwrap(), "");
    assert_eq!(read.value(&account(2), b"a/1").unwrap(), None);
    let keys = |prefix: &str, after: Option<&str>, limit, bytes| -> Vec<String> {
        let found = read.prefix(&account(0), prefix.as_bytes(), after.map(str::as_bytes), limit, bytes).unwrap();
        found.into_iter().map(|(k, _)| String::from_utf8(k.to_vec()).unwrap()).collect()
    };
    assert_eq!(keys("a/", None, 10, usize::MAX), ["a/1", "a/2"]);
    assert_eq!(keys("a/", Some("a/1"), 10, usize::MAX), ["a/2"]);
    assert_eq!(keys("a/", None, 1, usize::MAX), ["a/1"]);
    assert_eq!(keys("a/", None, 10, 100), ["a/1"]);
    assert_eq!(keys("", None, 10, usize::MAX).len(), 3);
    assert_eq!(keys("a/2", None, 10, 1), ["a/2"], "one entry whatever its size");
    let mut accounts = vec![(account(0), 7), (account(1), 1)];
    accounts.sort();
    assert_eq!(read.accounts(None, 10).unwrap(), accounts);
    assert_eq!(read.accounts(Some(&accounts[0].0), 10).unwrap(), accounts[1..]);
    assert_eq!((read.next_sequence(&account(0)).unwrap(), read.next_sequence(&account(5)).unwrap()), (8, 1));
    let counts = read.counts().unwrap();
    assert_eq!((counts.accounts, counts.operations, counts.keys), (2, 8, 4));
    assert_eq!(read.root().unwrap(), store.root());
}

#[test]
fn operations_out_of_bounds_are_refused() {
    let mut cells = MemoryCells::default();
    let mut sign = |key: usize, value: usize| {
        let edit = Edit::Put { key: vec![1; key].into(), value: vec![1; value].into() };
        Operation::sign(&edit, 1, &signer(0), &NATIVE, &mut cells)
    };
    assert!(sign(MAX_KEY, MAX_VALUE).is_ok() && sign(1, 0).is_ok());
    for (key, value) in [(0, 0), (MAX_KEY + 1, 0), (1, MAX_VALUE + 1)] {
        assert!(matches!(sign(key, value), Err(OperationError::Size { .. })));
    }
    let long = sign(3, 5000).unwrap();
    let read = |cells: &MemoryCells| Operation::read(&long, &Reader::new(&NATIVE, cells));
    assert!(read(&cells).is_ok());
    let Err(OperationError::Missing(id)) = read(&MemoryCells::default()) else { panic!() };
    assert!(cells.has(&id));
}

#[test]
fn what_is_acknowledged_survives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..6u64 {
        let store = open(directory.path()).unwrap();
        if round > 0 {
            assert_eq!(Some(&store.root()), acknowledged.last(), "round {round}");
        }
        fill(&store, run(0, round * 40 + 1, 40, "a"));
        acknowledged.push(store.root());
        // The crash: a copy of the file as it is now, with the store still open, as kill -9 would leave it.
        let copy = directory.path().join("copy");
        std::fs::create_dir_all(&copy).unwrap();
        std::fs::copy(directory.path().join("peer.redb"), copy.join("peer.redb")).unwrap();
        let crashed = open(&copy).unwrap();
        assert_eq!(crashed.root(), store.root());
        let read = crashed.snapshot().unwrap();
        assert_eq!(read.next_sequence(&account(0)).unwrap(), round * 40 + 41);
        assert_eq!(read.counts().unwrap().operations, (round + 1) * 40);
        // the whole tree is there: another store can merge it from this one's cells
        let fresh = Store::in_memory("test", *NATIVE).unwrap();
        let root = crashed.belief(0, Include::Own).root;
        let merged = fresh.merge(&root, &read, 10).unwrap();
        assert_eq!((merged.missing.len(), merged.operations, fresh.root()), (0, (round + 1) * 40, crashed.root()));
    }
}

#[test]
fn an_equivocation_rewrites_the_state_and_is_remembered_once() {
    let stores: Vec<Store> = (0..2).map(|_| Store::in_memory("test", *NATIVE).unwrap()).collect();
    for (store, mark) in stores.iter().zip(["left", "right"]) {
        fill(store, run(0, 1, 60, "same"));
        fill(store, run(0, 61, 5, mark));
        fill(store, run(1, 1, 2, "honest"));
    }
    let delta: Vec<BeliefDelta> = stores.iter().map(|s| s.belief(0, Include::All)).collect();
    let views: Vec<Snapshot> = stores.iter().map(|s| s.snapshot().unwrap()).collect();
    let first = stores[0].merge(&delta[1].root, &views[1], 10).unwrap();
    let second = stores[1].merge(&delta[0].root, &views[0], 10).unwrap();
    assert_eq!(stores[0].root(), stores[1].root());
    assert_eq!((first.equivocations.len(), &first.equivocations), (1, &second.equivocations));
    assert_eq!(first.operations + second.operations, 5, "one of the two changed");
    for store in &stores {
        let again = store.merge(&delta[0].root, &views[0], 10).unwrap();
        let other = store.merge(&delta[1].root, &views[1], 10).unwrap();
        assert_eq!((again.equivocations.len(), other.equivocations.len()), (0, 0), "reported once");
        assert_eq!(store.equivocations().unwrap(), first.equivocations);
        let read = store.snapshot().unwrap();
        let log = read.prefix(&account(0), b"", None, 1000, usize::MAX).unwrap();
        let views = stores[0].snapshot().unwrap().prefix(&account(0), b"", None, 1000, usize::MAX).unwrap();
        assert_eq!(log, views);
        // keys 11 to 15 are of the branch that stays; 10 was last set in the part that both share
        let marks: Vec<bool> =
            ["k11", "k15", "k10"].map(|k| read.value(&account(0), k.as_bytes()).unwrap().unwrap().starts_with(b"same")).to_vec();
        assert_eq!(marks, [false, false, true]);
        assert_eq!(read.counts().unwrap().operations, 67);
    }
}

#[test]
fn a_directory_in_use_or_of_another_kind_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let store = open(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }) && error.to_string().contains("data"), "{error}");
    drop(store);
    drop(open(&path).unwrap());
    let error = Store::open(&path, "other", *NATIVE).unwrap_err();
    assert!(matches!(&error, StoreError::Network { found, .. } if found == "test blake3"), "{error}");
    let convex = Profile { hash: crate::cell::HashKind::Sha3_256, ..*NATIVE };
    assert!(matches!(Store::open(&path, "test", convex), Err(StoreError::Network { .. })));
    {
        let database = redb::Database::open(path.join("peer.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
        transaction.open_table(meta).unwrap().insert("format", &99u32.to_be_bytes()[..]).unwrap();
        transaction.commit().unwrap();
    }
    let error = open(&path).unwrap_err();
    assert!(matches!(&error, StoreError::Version { found, .. } if found == "99"), "{error}");
    let foreign = directory.path().join("foreign");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("peer.redb"), b"not a database at all, but some text".repeat(200)).unwrap();
    let error = open(&foreign).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Version { .. }), "{error:?}");
    let file = directory.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    assert!(matches!(open(&file), Err(StoreError::Io { .. })));
}

#[test]
fn stores_and_views_go_to_other_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Store>();
    shared::<Snapshot>();
    shared::<Staging>();
    shared::<BeliefDelta>();
}

/// A disk whose sync takes as long as the test likes.
#[derive(Debug)]
struct Slow {
    memory: redb::backends::InMemoryBackend,
    /// While somebody holds it, nothing is synced.
    held: std::sync::Arc<std::sync::Mutex<()>>,
    syncing: std::sync::mpsc::Sender<()>,
}

impl redb::StorageBackend for Slow {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let _ = self.syncing.send(());
        let _held = self.held.lock().unwrap();
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.memory.write(offset, data)
    }
}

#[test]
fn nobody_waits_for_the_disk_to_learn_the_root() {
    let (syncing, synced) = std::sync::mpsc::channel();
    let held = std::sync::Arc::new(std::sync::Mutex::new(()));
    let slow = {
        let held = held.clone();
        move || Slow { memory: redb::backends::InMemoryBackend::new(), held: held.clone(), syncing: syncing.clone() }
    };
    let store = std::sync::Arc::new(Store::on(slow, "test", *NATIVE).unwrap());
    let (root, version) = (store.root(), store.version());
    while synced.try_recv().is_ok() {}
    let hold = held.lock().unwrap();
    let writer = std::thread::spawn({
        let store = store.clone();
        move || fill(&store, run(0, 1, 5, "a"))
    });
    synced.recv().unwrap();
    // As the gossip asks, on the runtime's own threads.
    let (answer, answered) = std::sync::mpsc::channel();
    let reader = store.clone();
    std::thread::spawn(move || answer.send((reader.root(), reader.version(), reader.belief(0, Include::All).version)));
    let now = answered.recv_timeout(std::time::Duration::from_secs(20));
    drop(hold);
    writer.join().unwrap();
    assert_eq!(now, Ok((root, version, version)), "what isn't durable yet isn't told either");
    assert!(store.version() > version && store.root() != root);
}
