//! A store whose disk failed, a full one say: redb refuses everything after the first failure until it's opened again, and so it is.
//!
//! *Nothing acknowledged is lost.* The new database begins with the last commit that's whole in the file, which is the last one
//! acknowledged, or the one that failed: a commit whose last step failed may be in the file all the same. So the root is read again.
//! Who was told of the failure sends the operation again, and it's *already there*: none is applied twice.
//!
//! *When.* By whoever comes next, in a writer's turn: no transaction is under way then. At most once in [`PAUSE`], because opening
//! reads what's in the file; who comes in between gets [`StoreError::Failed`]. A snapshot taken before holds what redb had in memory,
//! and reads nothing more. A collection under way ends.
//!
//! *Not provided.* A disk that reports an error when it's asked to sync, and has dropped what it was to write: opening reads the
//! kernel's memory of the file, as starting the process again would.

use std::{
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redb::{Database, ReadTransaction, ReadableDatabase as _, StorageBackend, WriteTransaction};

use super::store::{CACHE, Store, StoreError};

/// Between two attempts to open a database that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A database, and the way to it.
pub(super) struct Reopening {
    opener: Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>,
    /// `None`: it couldn't be opened again yet.
    database: RwLock<Option<Database>>,
    failed: AtomicBool,
}

impl std::fmt::Debug for Reopening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reopening").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Reopening {
    pub(super) fn new(opener: impl Fn() -> Result<Database, StoreError> + Send + Sync + 'static) -> Result<Self, StoreError> {
        let database = RwLock::new(Some(opener()?));
        Ok(Self { opener: Box::new(opener), database, failed: AtomicBool::new(false) })
    }

    /// On a backend of redb's, which is asked for again when the disk has failed.
    pub(super) fn on<B: StorageBackend>(backend: impl Fn() -> B + Send + Sync + 'static) -> Result<Self, StoreError> {
        Self::new(move || {
            let database = Database::builder().set_cache_size(CACHE).create_with_backend(backend());
            database.map_err(|error| StoreError::Database(Box::new(error.into())))
        })
    }

    fn get(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.get().as_ref().ok_or(StoreError::Failed)?.begin_read()?)
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        Ok(self.get().as_ref().ok_or(StoreError::Failed)?.begin_write()?)
    }

    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Whether an error of the database is one after which it must be opened again.
    pub(super) fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Database(error)) = &result
            && matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo)
        {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    /// In a writer's turn.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The one must be gone before the other comes: a file is locked by who has it open.
        *database = None;
        *database = Some((self.opener)()?);
        Ok(())
    }
}

/// A writer's turn, over a database that works as far as is known.
pub(super) type Turn<'a> = std::sync::MutexGuard<'a, Option<Instant>>;

impl Store {
    /// A writer's turn. It holds when a database that failed was last opened again.
    pub(super) fn turn(&self) -> Result<Turn<'_>, StoreError> {
        let mut turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.database.failed() {
            if turn.is_some_and(|last| last.elapsed() < PAUSE) {
                return Err(StoreError::Failed);
            }
            let reopened = self.reopen();
            // From its end: opening may take longer than the pause.
            *turn = Some(Instant::now());
            if let Err(error) = &reopened {
                tracing::error!(%error, "the store failed and can't be opened again yet");
            }
            reopened?;
        }
        Ok(turn)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.database.reopen()?;
        self.begin_again()?;
        self.database.failed.store(false, Ordering::Release);
        tracing::warn!("the store failed and was opened again");
        Ok(())
    }
}
