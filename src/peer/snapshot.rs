//! Reading the store: a consistent view, unaffected by writers.

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata as _};

use super::operation::{Account, MAX_VALUE, Operation};
use super::store::{ACCOUNTS, CELLS, META, STATE, StoreError, root_ref, state_key};
use crate::cell::{Cell, CellSource, Profile, Reader, Ref, TreeError, ValueId, Vector, decode, decode_ref};

/// A view of the store at one moment. It holds no lock; old pages stay in the file while it lives, so it's for one request.
pub struct Snapshot {
    cells: ReadOnlyTable<[u8; 32], &'static [u8]>,
    accounts: ReadOnlyTable<[u8; 32], u64>,
    state: ReadOnlyTable<&'static [u8], &'static [u8]>,
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
    profile: Profile,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The numbers of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accounts with a log.
    pub accounts: u64,
    /// Operations in all logs.
    pub operations: u64,
    /// Keys that have a value.
    pub keys: u64,
    /// Cells held, those of older roots included.
    pub cells: u64,
}

impl Snapshot {
    pub(super) fn new(transaction: ReadTransaction, profile: Profile) -> Result<Self, StoreError> {
        Ok(Self {
            cells: transaction.open_table(CELLS)?,
            accounts: transaction.open_table(ACCOUNTS)?,
            state: transaction.open_table(STATE)?,
            meta: transaction.open_table(META)?,
            profile,
        })
    }

    /// The first `count` operations of a log, from cells in a write transaction.
    pub(super) fn over(
        cells: &redb::Table<'_, [u8; 32], &'static [u8]>,
        profile: Profile,
        log: &Vector,
        count: u64,
    ) -> Result<Vec<Result<Operation, StoreError>>, StoreError> {
        let source = Written(cells);
        let reader = Reader::new(&profile, &source);
        Ok(reader.vector_iter(log, 0..count).map(|item| operation(&reader, &item?)).collect())
    }

    /// The value IDs of all cells held, in order.
    pub(super) fn ids(&self) -> Result<impl Iterator<Item = Result<ValueId, StoreError>> + use<>, StoreError> {
        Ok(self.cells.range::<[u8; 32]>(..)?.map(|entry| Ok(ValueId(entry?.0.value()))))
    }

    /// The value ID of the root.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn root(&self) -> Result<ValueId, StoreError> {
        let bytes = self.meta.get("root")?.map(|v| Bytes::copy_from_slice(v.value())).unwrap_or_default();
        match decode(&bytes, &self.profile) {
            Ok(Cell::Index(root)) => Ok(root_ref(&root, &self.profile).id(&self.profile)),
            _ => Err(TreeError::WrongType("index").into()),
        }
    }

    /// The account's next sequence, 1 if it has no log.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn next_sequence(&self, account: &Account) -> Result<u64, StoreError> {
        Ok(self.accounts.get(account)?.map_or(0, |length| length.value()) + 1)
    }

    /// The value of a key, `None` if it has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn value(&self, account: &Account, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(entry) = self.state.get(&state_key(account, key)[..])? else { return Ok(None) };
        Ok(Some(self.stored_value(entry.value())?))
    }

    /// The keys that start with a prefix, and their values, in order, from the first key after `after`, until `limit` entries or `max_bytes`
    /// of keys and values are reached. One entry is given even if it exceeds `max_bytes`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn prefix(
        &self,
        account: &Account,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let first = state_key(account, prefix);
        let after = after.map(|key| state_key(account, key));
        let start = after.as_ref().map_or(&first, |after| after.max(&first));
        let mut found = Vec::new();
        let mut bytes = 0usize;
        for entry in self.state.range(&start[..]..)? {
            let (key, value) = entry?;
            if !key.value().starts_with(&first) || found.len() == limit {
                break;
            }
            if Some(key.value()) == after.as_deref() {
                continue;
            }
            let (key, value) = (Bytes::copy_from_slice(&key.value()[account.len()..]), self.stored_value(value.value())?);
            bytes = bytes.saturating_add(key.len() + value.len());
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push((key, value));
        }
        Ok(found)
    }

    /// Accounts and the lengths of their logs, in order, from the first after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn accounts(&self, after: Option<&Account>, limit: usize) -> Result<Vec<(Account, u64)>, StoreError> {
        let start = after.copied().unwrap_or_default();
        let mut found = Vec::new();
        for entry in self.accounts.range(start..)? {
            let (account, length) = entry?;
            if found.len() == limit {
                break;
            }
            if Some(&account.value()) != after {
                found.push((account.value(), length.value()));
            }
        }
        Ok(found)
    }

    /// How much there is.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let operations = self.meta.get("operations")?.and_then(|v| v.value().try_into().ok()).map_or(0, u64::from_be_bytes);
        Ok(Counts { accounts: self.accounts.len()?, operations, keys: self.state.len()?, cells: self.cells.len()? })
    }

    fn stored_value(&self, stored: &[u8]) -> Result<Bytes, StoreError> {
        let wrong = || StoreError::Cells(TreeError::WrongType("value"));
        let value = decode_ref(&Bytes::copy_from_slice(stored), &self.profile).map_err(|_| wrong())?;
        let reader = Reader::new(&self.profile, self);
        match &*reader.resolve(&value)? {
            Cell::Blob(blob) => Ok(reader.blob_bytes(blob, MAX_VALUE)?),
            _ => Err(wrong()),
        }
    }
}

fn operation(reader: &Reader<'_>, item: &Ref) -> Result<Operation, StoreError> {
    match &*reader.resolve(item)? {
        Cell::Signed(signed) => Operation::read(signed, reader).map_err(|_| TreeError::WrongType("operation").into()),
        _ => Err(TreeError::WrongType("operation").into()),
    }
}

/// A read that fails is logged and counts as a cell that isn't held: it's asked for elsewhere, or the request fails.
fn get<T: ReadableTable<[u8; 32], &'static [u8]>>(table: &T, id: &ValueId) -> Option<Bytes> {
    match table.get(id.0) {
        Ok(entry) => entry.map(|bytes| Bytes::copy_from_slice(bytes.value())),
        Err(error) => {
            tracing::error!(cell = %id, %error, "the store can't read a cell");
            None
        }
    }
}

impl CellSource for Snapshot {
    fn get(&self, id: &ValueId) -> Option<Bytes> {
        get(&self.cells, id)
    }

    fn has(&self, id: &ValueId) -> bool {
        self.cells.get(id.0).is_ok_and(|entry| entry.is_some())
    }
}

/// The cells of a write transaction.
struct Written<'a, 'txn>(&'a redb::Table<'txn, [u8; 32], &'static [u8]>);

impl CellSource for Written<'_, '_> {
    fn get(&self, id: &ValueId) -> Option<Bytes> {
        get(self.0, id)
    }
}
