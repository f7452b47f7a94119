//! One operation of an account: a signed put or delete, numbered from 1.
//!
//! Cells: `Signed<[:put sequence key value]>`, `Signed<[:del sequence key]>`; key and value are blobs. Parts above 140 bytes are branches
//! that travel beside it.

use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use crate::cad015::ErrorCode;
use crate::cell::{Cell, CellSink, CellSource, Name, Profile, Reader, Ref, SignatureError, Signed, TreeError, ValueId, Vector, Writer};

/// An account: its Ed25519 public key.
pub type Account = [u8; 32];

/// The longest key in bytes: a path or a name. It stands in the derived state's index, and in every answer to a prefix query.
pub const MAX_KEY: usize = 512;

/// The longest value in bytes: one belief message's worth.
pub const MAX_VALUE: usize = 65_536;

/// Below this many signatures a second thread costs more than it saves.
const PARALLEL_FROM: usize = 64;

/// What an account wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Sets a key.
    Put {
        /// 1 to [`MAX_KEY`] bytes.
        key: Bytes,
        /// At most [`MAX_VALUE`] bytes.
        value: Bytes,
    },
    /// Removes a key. Removing one that isn't there is no error.
    Del {
        /// 1 to [`MAX_KEY`] bytes.
        key: Bytes,
    },
}

impl Edit {
    /// The key that it touches.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Del { key } => key,
        }
    }
}

/// Why a signed cell is no acceptable operation. Its author, or whoever passed it on, is at fault, but for `Missing`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// A branch of it isn't there.
    #[error("cell {0} of the operation is missing")]
    Missing(ValueId),
    /// Its cells are malformed.
    #[error("the operation is malformed: {0}")]
    Format(String),
    /// The key or the value is too long, or the key empty.
    #[error("{what} has {size} bytes; {min} to {max} are allowed")]
    Size {
        /// `the key` or `the value`.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// The signature doesn't hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl OperationError {
    /// The code for a RESULT.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Missing(_) => ErrorCode::Missing,
            Self::Format(_) => ErrorCode::Format,
            Self::Size { .. } => ErrorCode::Argument,
            Self::Signature(_) => ErrorCode::Signature,
        }
    }
}

impl From<TreeError> for OperationError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Missing(id) => Self::Missing(id),
            TreeError::TooLarge { size, max } => {
                Self::Size { what: "the value", size, min: 0, max: usize::try_from(max).unwrap_or(usize::MAX) }
            }
            other => Self::Format(other.to_string()),
        }
    }
}

/// A signed operation taken apart. Its form and its size have been checked, its signature has not: see [`Verified`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Whose it is: the signer.
    pub account: Account,
    /// Its number in the account's log, from 1.
    pub sequence: u64,
    /// The key that it touches.
    pub key: Bytes,
    /// The value put, a blob with all its chunks in the source it was read from; `None` for a delete.
    pub value: Option<Ref>,
    /// The cell as it was signed.
    pub signed: Signed,
}

impl Operation {
    /// Makes and signs an operation; what isn't embedded in it goes to `cells`.
    ///
    /// # Errors
    /// [`OperationError::Size`] when the key or the value is out of bounds.
    pub fn sign<S: CellSource + CellSink>(
        edit: &Edit,
        sequence: u64,
        key: &SigningKey,
        profile: &Profile,
        cells: &mut S,
    ) -> Result<Signed, OperationError> {
        check_key(edit.key())?;
        let mut writer = Writer::new(profile, cells);
        let name = match edit {
            Edit::Put { .. } => "put",
            Edit::Del { .. } => "del",
        };
        let sequence = i64::try_from(sequence).map_err(|_| OperationError::Format("the sequence exceeds 63 bits".into()))?;
        let mut parts = vec![keyword(name), Ref::Embedded(Arc::new(Cell::Integer(sequence)))];
        let cell = writer.blob(edit.key().clone())?;
        parts.push(writer.link(cell)?);
        if let Edit::Put { value, .. } = edit {
            check_value(value.len() as u64)?;
            let cell = writer.blob(value.clone())?;
            parts.push(writer.link(cell)?);
        }
        let operation = writer.link(Cell::Vector(Vector::short(parts)))?;
        Ok(Signed::sign(profile, key, operation))
    }

    /// Takes a signed cell apart, resolving everything below it, so that what passes is complete in the reader's source.
    ///
    /// # Errors
    /// [`OperationError`], except that the signature isn't looked at.
    pub fn read(signed: &Signed, reader: &Reader<'_>) -> Result<Self, OperationError> {
        let form = |what: &str| OperationError::Format(what.to_owned());
        let account = *signed.key().ok_or_else(|| form("it names its signer"))?;
        let cell = reader.resolve(signed.value())?;
        let parts = cell.as_short_vector().ok_or_else(|| form("it is a vector"))?;
        let name = parts.first().and_then(Ref::embedded).and_then(Cell::as_keyword).ok_or_else(|| form("it starts with a keyword"))?;
        let (sequence, key, value) = match (&name.as_bytes()[..], parts) {
            (b"put", [_, sequence, key, value]) => (sequence, key, Some(value)),
            (b"del", [_, sequence, key]) => (sequence, key, None),
            _ => return Err(form("it is [:put sequence key value] or [:del sequence key]")),
        };
        let sequence = sequence.embedded().and_then(Cell::as_integer).and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        let sequence = sequence.ok_or_else(|| form("its sequence is an integer from 1"))?;
        let Cell::Blob(key) = &*reader.resolve(key)? else { return Err(form("its key is a blob")) };
        let key = key.bytes().cloned().unwrap_or_else(|| Bytes::from_static(&[0; MAX_KEY + 1]));
        check_key(&key)?;
        if let Some(value) = value {
            let Cell::Blob(blob) = &*reader.resolve(value)? else { return Err(form("its value is a blob")) };
            check_value(blob.len())?;
            // Not for the bytes: a chunk that's missing or malformed shows here.
            reader.blob_bytes(blob, MAX_VALUE)?;
        }
        Ok(Self { account, sequence, key, value: value.cloned(), signed: signed.clone() })
    }
}

fn check_key(key: &Bytes) -> Result<(), OperationError> {
    let ok = (1..=MAX_KEY).contains(&key.len());
    if ok { Ok(()) } else { Err(OperationError::Size { what: "the key", size: key.len() as u64, min: 1, max: MAX_KEY }) }
}

fn check_value(size: u64) -> Result<(), OperationError> {
    let ok = size <= MAX_VALUE as u64;
    if ok { Ok(()) } else { Err(OperationError::Size { what: "the value", size, min: 0, max: MAX_VALUE }) }
}

pub(super) fn keyword(name: &'static str) -> Ref {
    Ref::Embedded(Arc::new(Name::new(name).map_or(Cell::Nil, Cell::Keyword)))
}

/// An operation whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified(Operation);

impl Verified {
    /// Verifies the signature.
    ///
    /// # Errors
    /// [`OperationError::Signature`].
    pub fn new(operation: Operation, profile: &Profile) -> Result<Self, OperationError> {
        operation.signed.verify_with(profile, &operation.account)?;
        Ok(Self(operation))
    }

    /// Verifies many, on several threads when it's worth it. Blocks until all are done or the first fails in each thread.
    ///
    /// # Errors
    /// The lowest index that fails, and why.
    pub fn all(operations: Vec<Operation>, profile: &Profile) -> Result<Vec<Self>, (usize, OperationError)> {
        let threads = if operations.len() < PARALLEL_FROM { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let size = operations.len().div_ceil(threads).max(1);
        let check = |part: &[Operation], start: usize| {
            let failed = part.iter().enumerate().find_map(|(i, op)| Some((i, op.signed.verify_with(profile, &op.account).err()?)));
            failed.map(|(i, error)| (start + i, OperationError::from(error)))
        };
        let failed = if threads == 1 {
            check(&operations, 0)
        } else {
            std::thread::scope(|scope| {
                let spawn = |(n, part): (usize, _)| {
                    let thread = std::thread::Builder::new().spawn_scoped(scope, move || check(part, n * size));
                    // No thread to be had: here, then.
                    thread.map_err(|_| check(part, n * size))
                };
                let parts: Vec<_> = operations.chunks(size).enumerate().map(spawn).collect();
                // A thread that panicked has verified nothing.
                let panicked = |n: usize| Some((n * size, OperationError::Signature(SignatureError::BadSignature)));
                let results = parts.into_iter().enumerate().map(|(n, part)| match part {
                    Ok(thread) => thread.join().unwrap_or_else(|_| panicked(n)),
                    Err(checked) => checked,
                });
                results.collect::<Vec<_>>().into_iter().flatten().next()
            })
        };
        failed.map_or_else(|| Ok(operations.into_iter().map(Self).collect()), Err)
    }

    /// The operation.
    #[must_use]
    pub const fn operation(&self) -> &Operation {
        &self.0
    }
}

impl std::ops::Deref for Verified {
    type Target = Operation;

    fn deref(&self) -> &Operation {
        &self.0
    }
}
