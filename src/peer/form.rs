//! What a QUERY asks and what its RESULT holds: both directions of each, for the peer and its clients.
//!
//! | form | value of the RESULT |
//! |---|---|
//! | `:get account key` | the value, a blob; nil if there's none |
//! | `:prefix account prefix after limit` | `[[key value]...]` in order of the keys, from the first one after `after` (nil: from the start) |
//! | `:accounts after limit` | `[[account operations]...]` in order of the accounts |
//! | `:next account` | the account's next sequence, an integer |
//! | `:count` | `[accounts operations keys cells]` |
//! | `:root` | the value ID of the root, a blob of 32 bytes |
//!
//! Keys, accounts and value IDs are blobs, limits are integers. A page may hold fewer entries than asked for: it's over
//! when one is empty.

use std::sync::Arc;

use bytes::Bytes;

use super::{Account, Counts, MAX_KEY, MAX_VALUE, Snapshot, StoreError};
use crate::{
    cad015::Message,
    cell::{Cell, CellSource, MemoryCells, Name, Profile, Reader, Ref, TreeError, ValueId, Vector, Writer},
};

/// Most entries of one page.
pub const MAX_PAGE: usize = 1000;
/// Most bytes of keys and values of one page; one entry is given even if it's larger. A page and its cells stay below
/// the query class's 256 KiB.
pub const MAX_PAGE_BYTES: usize = 128 * 1024;

/// A question to a peer's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// The value of a key.
    Get {
        /// Whose.
        account: Account,
        /// Which.
        key: Bytes,
    },
    /// A page of the keys that start with a prefix, and their values.
    Prefix {
        /// Whose.
        account: Account,
        /// The prefix.
        prefix: Bytes,
        /// The last key of the page before.
        after: Option<Bytes>,
        /// Most entries.
        limit: usize,
    },
    /// A page of the accounts, and how many operations each has.
    Accounts {
        /// The last account of the page before.
        after: Option<Account>,
        /// Most entries.
        limit: usize,
    },
    /// The account's next sequence.
    Next {
        /// Whose.
        account: Account,
    },
    /// How much there is.
    Count,
    /// The value ID of the root.
    Root,
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::Get`].
    Value(Option<Bytes>),
    /// To [`Query::Prefix`].
    Entries(Vec<(Bytes, Bytes)>),
    /// To [`Query::Accounts`].
    Accounts(Vec<(Account, u64)>),
    /// To [`Query::Next`].
    Next(u64),
    /// To [`Query::Count`].
    Counts(Counts),
    /// To [`Query::Root`].
    Root(ValueId),
}

/// A form or a value that isn't what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// No such form, or one of its arguments is of another type.
    #[error("{0}")]
    Shape(&'static str),
    /// Part of it isn't carried.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

fn keyword(name: &'static str) -> Ref {
    Ref::Embedded(Arc::new(Name::new(name).map_or(Cell::Nil, Cell::Keyword)))
}

fn integer(n: u64) -> Ref {
    Ref::Embedded(Arc::new(Cell::Integer(i64::try_from(n).unwrap_or(i64::MAX))))
}

fn account_ref(account: &Account) -> Ref {
    Ref::Embedded(Arc::new(Cell::blob(Bytes::copy_from_slice(account)).unwrap_or(Cell::Nil)))
}

fn as_account(r: &Ref) -> Option<Account> {
    r.embedded().and_then(Cell::as_blob32)
}

fn as_number(r: &Ref) -> Option<u64> {
    r.embedded().and_then(Cell::as_integer).and_then(|n| u64::try_from(n).ok())
}

fn as_bytes(reader: &Reader<'_>, r: &Ref, max: usize) -> Result<Bytes, FormError> {
    match &*reader.resolve(r)? {
        Cell::Blob(blob) => Ok(reader.blob_bytes(blob, max)?),
        _ => Err(FormError::Shape("a blob is expected")),
    }
}

fn is_nil(r: &Ref) -> bool {
    r.embedded().is_some_and(Cell::is_nil)
}

impl Query {
    /// The QUERY message; the node gives it its ID.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`], which no profile of this crate meets.
    pub fn message(&self, profile: &Profile) -> Result<Message, TreeError> {
        let mut cells = MemoryCells::default();
        let mut writer = Writer::new(profile, &mut cells);
        let mut bytes = |bytes: &Bytes| {
            let cell = writer.blob(bytes.clone())?;
            writer.link(cell)
        };
        let form = match self {
            Self::Get { account, key } => vec![keyword("get"), account_ref(account), bytes(key)?],
            Self::Prefix { account, prefix, after, limit } => {
                let after = after.as_ref().map_or(Ok(Ref::nil()), &mut bytes)?;
                vec![keyword("prefix"), account_ref(account), bytes(prefix)?, after, integer(*limit as u64)]
            }
            Self::Accounts { after, limit } => {
                vec![keyword("accounts"), after.as_ref().map_or_else(Ref::nil, account_ref), integer(*limit as u64)]
            }
            Self::Next { account } => vec![keyword("next"), account_ref(account)],
            Self::Count => vec![keyword("count")],
            Self::Root => vec![keyword("root")],
        };
        Ok(Message::query(0, form).with_branches(cells.0))
    }

    /// Reads a QUERY's form.
    ///
    /// # Errors
    /// [`FormError`].
    pub fn read(form: &[Ref], cells: &dyn CellSource, profile: &Profile) -> Result<Self, FormError> {
        let reader = Reader::new(profile, cells);
        let [name, arguments @ ..] = form else { return Err(FormError::Shape("a form starts with a keyword")) };
        let name = name.embedded().and_then(Cell::as_keyword).ok_or(FormError::Shape("a form starts with a keyword"))?;
        let account = |r: &Ref| as_account(r).ok_or(FormError::Shape("an account is a blob of 32 bytes"));
        let limit = |r: &Ref| {
            as_number(r).map(|n| usize::try_from(n).unwrap_or(MAX_PAGE).min(MAX_PAGE)).ok_or(FormError::Shape("a limit is an integer"))
        };
        Ok(match (&name.as_bytes()[..], arguments) {
            (b"get", [whose, key]) => Self::Get { account: account(whose)?, key: as_bytes(&reader, key, MAX_KEY)? },
            (b"prefix", [whose, prefix, after, most]) => Self::Prefix {
                account: account(whose)?,
                prefix: as_bytes(&reader, prefix, MAX_KEY)?,
                after: if is_nil(after) { None } else { Some(as_bytes(&reader, after, MAX_KEY)?) },
                limit: limit(most)?,
            },
            (b"accounts", [after, most]) => {
                Self::Accounts { after: if is_nil(after) { None } else { Some(account(after)?) }, limit: limit(most)? }
            }
            (b"next", [whose]) => Self::Next { account: account(whose)? },
            (b"count", []) => Self::Count,
            (b"root", []) => Self::Root,
            _ => return Err(FormError::Shape("no such form: :get, :prefix, :accounts, :next, :count and :root are known")),
        })
    }

    /// Answers from a store. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn answer(&self, snapshot: &Snapshot) -> Result<Answer, StoreError> {
        Ok(match self {
            Self::Get { account, key } => Answer::Value(snapshot.value(account, key)?),
            Self::Prefix { account, prefix, after, limit } => {
                Answer::Entries(snapshot.prefix(account, prefix, after.as_deref(), (*limit).min(MAX_PAGE), MAX_PAGE_BYTES)?)
            }
            Self::Accounts { after, limit } => Answer::Accounts(snapshot.accounts(after.as_ref(), (*limit).min(MAX_PAGE))?),
            Self::Next { account } => Answer::Next(snapshot.next_sequence(account)?),
            Self::Count => Answer::Counts(snapshot.counts()?),
            Self::Root => Answer::Root(snapshot.root()?),
        })
    }

    /// Reads the value of the RESULT to this query.
    ///
    /// # Errors
    /// [`FormError`] if it's no answer to this query.
    pub fn read_answer(&self, value: &Ref, cells: &dyn CellSource, profile: &Profile) -> Result<Answer, FormError> {
        let reader = Reader::new(profile, cells);
        let wrong = || FormError::Shape("the answer isn't what the form asks for");
        let cell = reader.resolve(value)?;
        let items = |cell: &Cell| -> Result<Vec<Ref>, FormError> {
            let Cell::Vector(vector) = cell else { return Err(wrong()) };
            let count = vector.len().min(MAX_PAGE as u64);
            Ok(reader.vector_iter(vector, 0..count).collect::<Result<_, _>>()?)
        };
        let pair = |r: &Ref| -> Result<(Ref, Ref), FormError> {
            match reader.resolve(r)?.as_short_vector() {
                Some([a, b]) => Ok((a.clone(), b.clone())),
                _ => Err(wrong()),
            }
        };
        Ok(match self {
            Self::Get { .. } if cell.is_nil() => Answer::Value(None),
            Self::Get { .. } => Answer::Value(Some(as_bytes(&reader, value, MAX_VALUE)?)),
            Self::Prefix { .. } => {
                let entry = |r: &Ref| {
                    let (key, value) = pair(r)?;
                    Ok((as_bytes(&reader, &key, MAX_KEY)?, as_bytes(&reader, &value, MAX_VALUE)?))
                };
                Answer::Entries(items(&cell)?.iter().map(entry).collect::<Result<_, FormError>>()?)
            }
            Self::Accounts { .. } => {
                let entry = |r: &Ref| {
                    let (account, count) = pair(r)?;
                    Ok((as_account(&account).ok_or_else(wrong)?, as_number(&count).ok_or_else(wrong)?))
                };
                Answer::Accounts(items(&cell)?.iter().map(entry).collect::<Result<_, FormError>>()?)
            }
            Self::Next { .. } => Answer::Next(as_number(value).ok_or_else(wrong)?),
            Self::Count => match &items(&cell)?.iter().map(as_number).collect::<Option<Vec<_>>>().ok_or_else(wrong)?[..] {
                [accounts, operations, keys, cells] => {
                    Answer::Counts(Counts { accounts: *accounts, operations: *operations, keys: *keys, cells: *cells })
                }
                _ => return Err(wrong()),
            },
            Self::Root => Answer::Root(ValueId(cell.as_blob32().ok_or_else(wrong)?)),
        })
    }
}

impl Answer {
    /// The RESULT to the request of this ID. One that doesn't fit its class is an error to the asker.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`], which no profile of this crate meets.
    pub fn message(&self, id: u64, profile: &Profile) -> Result<Message, TreeError> {
        let mut cells = MemoryCells::default();
        let mut writer = Writer::new(profile, &mut cells);
        let value = match self {
            Self::Value(None) => Ref::nil(),
            Self::Value(Some(value)) => {
                let cell = writer.blob(value.clone())?;
                writer.link(cell)?
            }
            Self::Entries(entries) => {
                let mut pairs = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let (key, value) = (writer.blob(key.clone())?, writer.blob(value.clone())?);
                    let pair = [writer.link(key)?, writer.link(value)?];
                    pairs.push(writer.link(Cell::Vector(Vector::short(pair)))?);
                }
                let vector = writer.vector(&pairs)?;
                writer.link(Cell::Vector(vector))?
            }
            Self::Accounts(accounts) => {
                let pair = |(account, count): &(Account, u64)| {
                    Ref::Embedded(Arc::new(Cell::Vector(Vector::short([account_ref(account), integer(*count)]))))
                };
                let pairs: Vec<Ref> = accounts.iter().map(pair).collect();
                let vector = writer.vector(&pairs)?;
                writer.link(Cell::Vector(vector))?
            }
            Self::Next(next) => integer(*next),
            Self::Counts(Counts { accounts, operations, keys, cells }) => {
                let numbers = [accounts, operations, keys, cells].map(|n| integer(*n));
                Ref::Embedded(Arc::new(Cell::Vector(Vector::short(numbers))))
            }
            Self::Root(root) => account_ref(root.as_bytes()),
        };
        Ok(Message::result(id, value).with_branches(cells.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::cad015::Payload;

    const NATIVE: Profile = Profile::NATIVE;

    #[test]
    fn queries_and_answers_come_back() {
        let account = [7; 32];
        let long = Bytes::from(vec![9; 40_000]);
        let counts = Counts { accounts: 1, operations: 2, keys: 3, cells: 4 };
        let entries = vec![(Bytes::from_static(b"k"), long.clone()), (Bytes::from_static(b"l"), Bytes::new())];
        for (query, answer) in [
            (Query::Get { account, key: Bytes::from_static(b"key") }, Answer::Value(None)),
            (Query::Get { account, key: Bytes::from(vec![1; MAX_KEY]) }, Answer::Value(Some(long))),
            (Query::Prefix { account, prefix: Bytes::new(), after: None, limit: 5 }, Answer::Entries(entries)),
            (
                Query::Prefix { account, prefix: Bytes::new(), after: Some(Bytes::from(vec![1; 200])), limit: MAX_PAGE },
                Answer::Entries(vec![]),
            ),
            (Query::Accounts { after: None, limit: 1 }, Answer::Accounts((0..40).map(|i| ([i; 32], u64::from(i))).collect())),
            (Query::Accounts { after: Some(account), limit: 1 }, Answer::Accounts(vec![])),
            (Query::Next { account }, Answer::Next(1)),
            (Query::Count, Answer::Counts(counts)),
            (Query::Root, Answer::Root(ValueId([3; 32]))),
        ] {
            let message = Message::decode(&query.message(&NATIVE).unwrap().encode(), &NATIVE).unwrap();
            let Payload::Query { form, .. } = message.parse(&NATIVE).unwrap() else { panic!() };
            assert_eq!(Query::read(&form, &message.cells(), &NATIVE).unwrap(), query);
            let result = Message::decode(&answer.message(5, &NATIVE).unwrap().encode(), &NATIVE).unwrap();
            let Payload::Result(outcome) = result.parse(&NATIVE).unwrap() else { panic!() };
            assert_eq!(query.read_answer(&outcome.value, &result.cells(), &NATIVE).unwrap(), answer);
        }
    }

    #[test]
    fn a_full_page_fits_the_query_class() {
        let key = |i: u32| Bytes::from(format!("{i:0>512}"));
        let pages = [
            vec![(key(0), Bytes::from(vec![7; MAX_PAGE_BYTES - MAX_KEY])), (key(1), Bytes::from(vec![8; MAX_VALUE]))],
            (0..MAX_PAGE as u32)
                .map(|i| (Bytes::copy_from_slice(&i.to_be_bytes()), Bytes::from(vec![1; MAX_PAGE_BYTES / MAX_PAGE - 4])))
                .collect(),
        ];
        let limit = peerlane_transport::ClassTable::standard()[peerlane_transport::ClassId(1)].max_message;
        for page in pages {
            assert!(Answer::Entries(page).message(u64::MAX, &NATIVE).unwrap().encoded_len() <= limit);
        }
    }

    #[test]
    fn wrong_forms_are_named() {
        let read = |form: &[Ref]| Query::read(form, &MemoryCells::default(), &NATIVE);
        assert!(read(&[]).is_err());
        assert!(read(&[integer(1)]).is_err());
        assert!(read(&[keyword("eval")]).is_err());
        assert!(read(&[keyword("get"), integer(1), integer(2)]).is_err());
        assert!(matches!(read(&[keyword("get"), account_ref(&[1; 32]), Ref::Branch(ValueId([1; 32]))]), Err(FormError::Tree(_))));
        assert!(read(&[keyword("prefix"), account_ref(&[1; 32]), Ref::nil(), Ref::nil(), integer(1)]).is_err());
    }
}
