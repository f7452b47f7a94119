//! The store: cells, the root, and what's derived from them for reading, in one redb file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | format, network, hash, root, number of operations |
//! | `cells` | value ID | encoding |
//! | `accounts` | account | length of its log |
//! | `state` | account, then key | reference to the value: embedded blob, or 0x20 and its ID |
//! | `equivocations` | account, sequence (big-endian) | kept ID, dropped ID |
//!
//! *Durable.* Each change is one write transaction, and the call returns after its fsync: what's acknowledged survives kill -9. Callers
//! with many operations give them in one batch and pay for one fsync.
//!
//! *Complete.* A cell is written in the transaction that makes it part of the root, with everything below it. So what's held is whole, and a
//! merge needs to look only at what isn't held. Cells that a newer root no longer uses stay: a peer may be acquiring the
//! older root. They're collected now and then ([`Store::collect`]), so that the store holds at most half again what it needs.
//!
//! *Equivocation.* When one is decided against operations held here, the account's derived state is played again from its first
//! operation: O(length of its log), the one change that isn't O(log n). Only an account that signs twice pays with its log; who passes
//! such logs on in numbers is a peer to be blocked.
//!
//! *After a failure.* A disk that was full, say: `reopen.rs`.
//!
//! All calls block on the disk, and writers on each other; async callers use a blocking thread. Readers don't wait for writers.
//! [`Store::root`], [`Store::version`] and [`Store::belief`] touch no disk and wait for none: any thread may call them.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool};
use std::time::Instant;

use bytes::Bytes;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, StorageError, TableDefinition, TableError,
    WriteTransaction,
};

use super::belief::{BeliefDelta, in_use};
use super::collect::{Growth, Since};
use super::lattice::{self, Appended, Change, Equivocation, MergeError, Step, WrongSequence};
use super::operation::{Account, Verified};
use super::reopen::Reopening;
use super::snapshot::Snapshot;
use super::surroundings::{Simulation, Surroundings};
use crate::cell::{
    Cell, CellSink as _, CellSource, HashKind, Index, MAX_EMBEDDED, MemoryCells, Profile, Ref, TreeError, ValueId, decode, encode,
    encode_ref_into,
};

/// The layout that this code writes and reads.
pub const FORMAT: u32 = 2;

/// The file within the data directory.
const FILE: &str = "peer.redb";
/// What it's called while it's made.
const MAKING: &str = "peer.redb.new";

/// Cells of recent changes kept in memory for beliefs, in bytes. When a belief is due after more than this, it names what it leaves out by
/// its root, and receivers ask for it.
pub const MAX_RECENT: usize = 8 << 20;

/// Equivocations remembered. Each takes 104 bytes; more are reported but not kept.
pub const MAX_EQUIVOCATIONS: u64 = 10_000;

/// Pages that redb keeps in memory, in bytes. Its default is 1 GiB.
pub(super) const CACHE: usize = 64 << 20;

pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const CELLS: TableDefinition<'static, [u8; 32], &[u8]> = TableDefinition::new("cells");
pub(super) const ACCOUNTS: TableDefinition<'static, [u8; 32], u64> = TableDefinition::new("accounts");
pub(super) const STATE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("state");
const EQUIVOCATIONS: TableDefinition<'static, At, Pair> = TableDefinition::new("equivocations");

/// Account and sequence.
type At = ([u8; 32], u64);
/// Two value IDs.
type Pair = ([u8; 32], [u8; 32]);

/// Why the store can't be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("the data directory {} is in use by another process", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// It was written by another version.
    #[error("the data directory {} has format {found}, this version reads format {FORMAT}: take an empty one, and what other peers hold comes from them; or run the version that wrote it", path.display())]
    Version {
        /// The data directory.
        path: PathBuf,
        /// Its format.
        found: String,
    },
    /// It belongs to another network.
    #[error("the data directory {} belongs to network {found:?}, not {wanted:?}", path.display())]
    Network {
        /// The data directory.
        path: PathBuf,
        /// The network it was made for, with its hash.
        found: String,
        /// The network asked for.
        wanted: String,
    },
    /// It's not a store, or damaged.
    #[error("{} is no store of a peer, or damaged: {what}", path.display())]
    Damaged {
        /// The data directory.
        path: PathBuf,
        /// What doesn't fit.
        what: String,
    },
    /// The directory can't be made or opened.
    #[error("the data directory {}: {error}", path.display())]
    Io {
        /// The data directory.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A read or a write failed.
    #[error("the store failed: {0}")]
    Database(Box<redb::Error>),
    /// It failed, and can't be opened again yet; it's tried once in a second.
    #[error("the store failed, and can't be opened again yet")]
    Failed,
    /// Its own cells don't fit together.
    #[error("the store's cells: {0}")]
    Cells(#[from] TreeError),
}

macro_rules! database_errors {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}
database_errors!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// Why a merge stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreMergeError {
    /// The foreign root is proven invalid; its signer is at fault.
    #[error(transparent)]
    Invalid(#[from] MergeError),
    /// We failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// Operations that are new to us.
    pub operations: u64,
    /// Accounts whose log changed.
    pub accounts: u64,
    /// Equivocations seen for the first time.
    pub equivocations: Vec<Equivocation>,
    /// Cells to acquire before calling again; empty when everything is merged.
    pub missing: Vec<ValueId>,
}

/// What a belief carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Cells of operations appended here. Where all peers are connected to each other, their authors send the rest.
    Own,
    /// Those that came by merges too.
    All,
}

/// The store of a peer. One per data directory.
#[derive(Debug)]
pub struct Store {
    pub(super) database: Reopening,
    profile: Profile,
    path: PathBuf,
    /// The network, with its hash.
    made_for: String,
    /// Writers take turns: held over a whole change, the disk's sync included. When a database that failed was last opened again.
    pub(super) writing: Mutex<Option<Instant>>,
    /// Held for a moment only: async callers ask for the root while a change is being written.
    state: Mutex<State>,
    /// One collection at a time.
    pub(super) collecting: Mutex<()>,
    /// No collection any more: the process is to end.
    pub(super) ending: AtomicBool,
    pub(super) surroundings: Surroundings,
}

/// What's known without asking the database.
#[derive(Debug)]
pub(super) struct State {
    pub(super) root: Index,
    version: u64,
    recent: VecDeque<Recent>,
    recent_bytes: usize,
    pub(super) growth: Growth,
    /// What has changed since a collection began.
    pub(super) since: Option<Since>,
}

#[derive(Debug)]
struct Recent {
    version: u64,
    own: bool,
    cells: Vec<(ValueId, Bytes)>,
    bytes: usize,
}

impl Store {
    /// Opens the store in a directory, making both if they aren't there. Its signatures are bound to the network.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Version`], [`StoreError::Network`], [`StoreError::Damaged`], [`StoreError::Io`]; nothing is changed then.
    pub fn open(directory: &Path, network: &str, profile: Profile) -> Result<Self, StoreError> {
        let io = |error| StoreError::Io { path: directory.to_path_buf(), error };
        std::fs::create_dir_all(directory).map_err(io)?;
        let file = directory.join(FILE);
        let making = directory.join(MAKING);
        if !file.try_exists().map_err(io)? {
            // Made under another name, and complete when it gets its own: whoever is killed meanwhile leaves no half of one.
            let database = match Self::database(&making, directory) {
                // A half of one: nobody has it open, and nothing in it was acknowledged.
                Err(StoreError::Damaged { .. }) => {
                    std::fs::remove_file(&making).map_err(io)?;
                    Self::database(&making, directory)?
                }
                database => database?,
            };
            // It's made once: what fails here is given up.
            let once = Mutex::new(Some(database));
            let taken = move || once.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(StoreError::Failed);
            let made = Self::start(Reopening::new(taken)?, directory, network, profile)?;
            match std::fs::hard_link(&making, &file) {
                // Another process was faster; which of the two has it shows below.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                // Not on every file system.
                Err(_) => std::fs::rename(&making, &file).map_err(io)?,
                Ok(()) => {}
            }
            std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
            drop(made);
        }
        // Whoever was killed between the two left a second name.
        let _ = std::fs::remove_file(&making);
        let at = directory.to_path_buf();
        Self::start(Reopening::new(move || Self::database(&file, &at))?, directory, network, profile)
    }

    /// Opens a file, or makes it.
    fn database(file: &Path, directory: &Path) -> Result<Database, StoreError> {
        let path = || directory.to_path_buf();
        Database::builder().set_cache_size(CACHE).create(file).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path() },
            DatabaseError::UpgradeRequired(version) => StoreError::Version { path: path(), found: format!("redb {version}") },
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() != std::io::ErrorKind::InvalidData => {
                StoreError::Io { path: path(), error }
            }
            other => StoreError::Damaged { path: path(), what: other.to_string() },
        })
    }

    /// A store in memory, for tests and simulations.
    ///
    /// # Errors
    /// [`StoreError::Database`], which memory doesn't give.
    pub fn in_memory(network: &str, profile: Profile) -> Result<Self, StoreError> {
        let memory = || Database::builder().create_with_backend(redb::backends::InMemoryBackend::new());
        let opener = move || memory().map_err(|error| StoreError::Database(Box::new(error.into())));
        Self::start(Reopening::new(opener)?, Path::new("memory"), network, profile)
    }

    /// A store on a backend of redb's, which a test makes fail.
    #[cfg(test)]
    pub(super) fn on<B: redb::StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
        network: &str,
        profile: Profile,
    ) -> Result<Self, StoreError> {
        Self::on_backend(backend, network, profile)
    }

    /// A store on a backend of redb's, which is asked for again when the disk has failed, whose peer has a simulation's disk and clock: nothing
    /// of it depends on threads or on the time of day, so the same seed gives the same run.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for what's about directories.
    pub fn simulated<B: redb::StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
        network: &str,
        profile: Profile,
        simulation: Simulation,
    ) -> Result<Self, StoreError> {
        let mut store = Self::on_backend(backend, network, profile)?;
        store.surroundings = Surroundings(Some(simulation));
        Ok(store)
    }

    fn on_backend<B: redb::StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
        network: &str,
        profile: Profile,
    ) -> Result<Self, StoreError> {
        Self::start(Reopening::on(backend)?, Path::new("backend"), network, profile)
    }

    fn start(database: Reopening, path: &Path, network: &str, profile: Profile) -> Result<Self, StoreError> {
        let hash = match profile.hash {
            HashKind::Blake3 => "blake3",
            HashKind::Sha3_256 => "sha3-256",
        };
        let wanted = format!("{network} {hash}");
        let profile = profile.in_network(network);
        let root = match read_root(&database, path, &wanted, &profile)? {
            Some(root) => root,
            None => {
                let transaction = database.begin_write()?;
                {
                    let mut meta = transaction.open_table(META)?;
                    meta.insert("format", &FORMAT.to_be_bytes()[..])?;
                    meta.insert("network", wanted.as_bytes())?;
                    meta.insert("root", &encode(&Cell::Index(Index::empty()))[..])?;
                    meta.insert("operations", &0u64.to_be_bytes()[..])?;
                    transaction.open_table(CELLS)?;
                    transaction.open_table(ACCOUNTS)?;
                    transaction.open_table(STATE)?;
                    transaction.open_table(EQUIVOCATIONS)?;
                }
                transaction.commit()?;
                Index::empty()
            }
        };
        Ok(Self {
            database,
            profile,
            path: path.to_path_buf(),
            made_for: wanted,
            writing: Mutex::default(),
            state: Mutex::new(State { root, version: 0, recent: VecDeque::new(), recent_bytes: 0, growth: Growth::UNKNOWN, since: None }),
            collecting: Mutex::default(),
            ending: AtomicBool::new(false),
            surroundings: Surroundings::default(),
        })
    }

    /// The profile that the store was opened with, in its network.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left the database's own transaction aborted; the state changes after commits only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After the database was opened again, in a writer's turn: begins from what's in it.
    pub(super) fn begin_again(&self) -> Result<(), StoreError> {
        let root = read_root(&self.database, &self.path, &self.made_for, &self.profile)?;
        let root = root.ok_or_else(|| StoreError::Damaged { path: self.path.clone(), what: "it's empty".into() })?;
        let mut state = self.lock();
        // What a collection has marked was of the database before.
        state.since = None;
        if state.root != root {
            // The change that failed is in it. Its cells aren't kept for beliefs: who is told of the root asks for them.
            state.root = root;
            state.version += 1;
        }
        Ok(())
    }

    /// The value ID of the root. Peers with equal roots hold the same logs.
    #[must_use]
    pub fn root(&self) -> ValueId {
        let root = self.lock().root.clone();
        root_ref(&root, &self.profile).id(&self.profile)
    }

    /// Counts the changes since the store was opened.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// A consistent view for reading, also a source of all cells held.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        if self.database.failed() {
            drop(self.turn()?);
        }
        self.view()
    }

    /// The same, in a writer's turn.
    pub(super) fn view(&self) -> Result<Snapshot, StoreError> {
        self.database.note(self.database.begin_read().and_then(|transaction| Snapshot::new(transaction, self.profile)))
    }

    /// Appends operations, durably: when this returns, those that succeeded survive a crash.
    ///
    /// `staged` holds what they refer to. Operations are applied in the batch's order; after one with a wrong sequence, those
    /// of the same account that follow are refused too.
    ///
    /// # Errors
    /// [`StoreError`] when nothing of the batch was stored.
    pub fn append(&self, batch: Vec<Verified>, staged: &dyn CellSource) -> Result<Vec<Result<Appended, WrongSequence>>, StoreError> {
        let _turn = self.turn()?;
        let root = self.lock().root.clone();
        let snapshot = self.view()?;
        let (change, results) = lattice::append(&self.profile, &snapshot, staged, &root, batch)?;
        if let Some(change) = change {
            self.commit(change, &[], true)?;
        }
        Ok(results)
    }

    /// Joins a foreign root, durably, as far as the cells in `staged` allow; at most `limit` of the missing ones are named.
    ///
    /// Call again with the same root when they're there. What's adopted on the way is valid and stays.
    ///
    /// # Errors
    /// [`StoreMergeError::Invalid`] when the root is proven invalid. Valid operations adopted before stay.
    pub fn merge(&self, theirs: &Ref, staged: &dyn CellSource, limit: usize) -> Result<Merged, StoreMergeError> {
        let mut merged = Merged::default();
        loop {
            let _turn = self.turn()?;
            let root = self.lock().root.clone();
            let snapshot = self.view()?;
            let Step { change, missing, more, equivocations } = lattice::merge(&self.profile, &snapshot, staged, &root, theirs, limit)?;
            let stuck = change.is_none();
            let new = if equivocations.is_empty() { Vec::new() } else { snapshot_new(&self.database.begin_read()?, equivocations)? };
            if let Some(change) = change {
                merged.operations += change.accounts.iter().map(|a| a.added.len() as u64).sum::<u64>();
                merged.accounts += change.accounts.len() as u64;
                self.commit(change, &new, false)?;
            } else if !new.is_empty() {
                self.remember(&new)?;
            }
            merged.equivocations.extend(new);
            merged.missing = missing;
            if !more || stuck {
                return Ok(merged);
            }
        }
    }

    fn remember(&self, equivocations: &[Equivocation]) -> Result<(), StoreError> {
        self.write(|transaction| write_equivocations(transaction, equivocations))
    }

    /// One transaction, in a writer's turn.
    pub(super) fn write(&self, what: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let write = || {
            let transaction = self.database.begin_write()?;
            what(&transaction)?;
            Ok(transaction.commit()?)
        };
        self.database.note(write())
    }

    /// In a writer's turn.
    fn commit(&self, change: Change, equivocations: &[Equivocation], own: bool) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut cells = transaction.open_table(CELLS)?;
            for (id, encoding) in &change.cells {
                cells.insert(id.0, &encoding[..])?;
            }
            let mut accounts = transaction.open_table(ACCOUNTS)?;
            let mut entries = transaction.open_table(STATE)?;
            let mut delta = 0i64;
            for account in &change.accounts {
                accounts.insert(account.account, account.log.len())?;
                delta += account.added.len() as i64 - (account.before - account.kept) as i64;
                if account.kept < account.before {
                    // The rest of the old log is void: its effects go, and the kept part is played again.
                    let (start, end) = (state_key(&account.account, &[]), account_end(&account.account));
                    entries.retain_in(&start[..]..=&end[..], |_, _| false)?;
                    for operation in Snapshot::over(&cells, self.profile, &account.log, account.kept)? {
                        apply(&mut entries, &operation?)?;
                    }
                }
                for operation in &account.added {
                    apply(&mut entries, operation)?;
                }
            }
            let mut meta = transaction.open_table(META)?;
            let count = meta.get("operations")?.and_then(|v| v.value().try_into().ok()).map_or(0, u64::from_be_bytes);
            meta.insert("operations", &count.saturating_add_signed(delta).to_be_bytes()[..])?;
            meta.insert("root", &encode(&Cell::Index(change.root.clone()))[..])?;
            write_equivocations(transaction, equivocations)
        })?;
        // Copied: a slice would keep the whole message alive that it came in, unaccounted.
        let cells: Vec<_> = change.cells.iter().map(|(id, encoding)| (*id, Bytes::copy_from_slice(encoding))).collect();
        let bytes = cells.iter().map(|(_, encoding)| encoding.len() + ValueId::LEN).sum();
        let mut guard = self.lock();
        let state = &mut *guard;
        state.growth.written = state.growth.written.saturating_add(cells.len() as u64);
        if let Some(since) = &mut state.since {
            since.note(&change.root, &cells, &self.profile);
        }
        state.root = change.root;
        state.version += 1;
        state.recent.push_back(Recent { version: state.version, own, cells, bytes });
        state.recent_bytes += bytes;
        while state.recent_bytes > MAX_RECENT {
            let Some(oldest) = state.recent.pop_front() else { break };
            state.recent_bytes -= oldest.bytes;
        }
        Ok(())
    }

    /// What's new since a version, 0 for all that's remembered.
    #[must_use]
    pub fn belief(&self, since: u64, include: Include) -> BeliefDelta {
        let state = self.lock();
        let mut cells = MemoryCells::default();
        for recent in state.recent.iter().filter(|r| r.version > since && (r.own || include == Include::All)) {
            for (id, encoding) in &recent.cells {
                cells.put(*id, encoding.clone());
            }
        }
        let (root, version) = (root_ref(&state.root, &self.profile), state.version);
        drop(state);
        let cells = in_use(&root, &cells, &self.profile);
        BeliefDelta { version, root, cells }
    }

    /// The equivocations remembered, at most [`MAX_EQUIVOCATIONS`].
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn equivocations(&self) -> Result<Vec<Equivocation>, StoreError> {
        if self.database.failed() {
            drop(self.turn()?);
        }
        let table = self.database.begin_read()?.open_table(EQUIVOCATIONS)?;
        let mut all = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            let ((account, sequence), (kept, dropped)) = (key.value(), value.value());
            all.push(Equivocation { account, sequence, kept: ValueId(kept), dropped: ValueId(dropped) });
        }
        Ok(all)
    }
}

pub(super) fn root_ref(root: &Index, profile: &Profile) -> Ref {
    let cell = Cell::Index(root.clone());
    let encoding = encode(&cell);
    if encoding.len() <= MAX_EMBEDDED { Ref::Embedded(std::sync::Arc::new(cell)) } else { Ref::Branch(profile.id(&encoding)) }
}

pub(super) fn state_key(account: &Account, key: &[u8]) -> Vec<u8> {
    [&account[..], key].concat()
}

/// Above every key of an account: longer than any, and of 0xff.
fn account_end(account: &Account) -> Vec<u8> {
    state_key(account, &[0xff; super::operation::MAX_KEY + 1])
}

fn apply(state: &mut redb::Table<'_, &[u8], &[u8]>, operation: &super::operation::Operation) -> Result<(), StoreError> {
    let key = state_key(&operation.account, &operation.key);
    match &operation.value {
        Some(value) => {
            let mut bytes = Vec::new();
            encode_ref_into(value, &mut bytes);
            state.insert(&key[..], &bytes[..])?;
        }
        None => {
            state.remove(&key[..])?;
        }
    }
    Ok(())
}

/// Those that aren't remembered yet.
fn snapshot_new(transaction: &ReadTransaction, seen: Vec<Equivocation>) -> Result<Vec<Equivocation>, StoreError> {
    let table = transaction.open_table(EQUIVOCATIONS)?;
    let mut new = BTreeSet::new();
    for equivocation in seen {
        if table.get((equivocation.account, equivocation.sequence))?.is_none() {
            new.insert(equivocation);
        }
    }
    Ok(new.into_iter().collect())
}

fn write_equivocations(transaction: &redb::WriteTransaction, new: &[Equivocation]) -> Result<(), StoreError> {
    if new.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(EQUIVOCATIONS)?;
    for e in new {
        if table.len()? < MAX_EQUIVOCATIONS {
            table.insert((e.account, e.sequence), (e.kept.0, e.dropped.0))?;
        }
    }
    Ok(())
}

/// The root of a database that fits; `None` in a new one.
fn read_root(database: &Reopening, path: &Path, wanted: &str, profile: &Profile) -> Result<Option<Index>, StoreError> {
    let path = || path.to_path_buf();
    let Some(meta) = Meta::read(database)? else { return Ok(None) };
    if meta.format != FORMAT.to_be_bytes() {
        let found = <[u8; 4]>::try_from(&meta.format[..]).map_or_else(|_| "unknown".into(), |f| u32::from_be_bytes(f).to_string());
        return Err(StoreError::Version { path: path(), found });
    }
    if meta.network != wanted.as_bytes() {
        let found = String::from_utf8_lossy(&meta.network).into_owned();
        return Err(StoreError::Network { path: path(), found, wanted: wanted.to_owned() });
    }
    match decode(&meta.root.into(), profile) {
        Ok(Cell::Index(root)) => Ok(Some(root)),
        _ => Err(StoreError::Damaged { path: path(), what: "its root is no index".into() }),
    }
}

/// What `meta` says; `None` in a new database.
struct Meta {
    format: Vec<u8>,
    network: Vec<u8>,
    root: Vec<u8>,
}

impl Meta {
    fn read(database: &Reopening) -> Result<Option<Self>, StoreError> {
        let table = match database.begin_read()?.open_table(META) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(other) => return Err(other.into()),
        };
        let value = |name| Ok::<_, StorageError>(table.get(name)?.map(|v| v.value().to_vec()).unwrap_or_default());
        Ok(Some(Self { format: value("format")?, network: value("network")?, root: value("root")? }))
    }
}
