//! What the payload of each message type holds.
//!
//! | type | payload | answer |
//! |---|---|---|
//! | STATUS, PING | `[id]` | RESULT |
//! | QUERY | `[id form...]`, 1 to 15 forms | RESULT |
//! | TRANSACT | `[id [Signed...]]`, 1 to 1,024 operations | RESULT |
//! | RESULT | `[id value error info]`: error a keyword or nil, info a map or nil | |
//! | MISSING_DATA | `[id [hash...]]`, 1 to 254 hashes, blobs of 32 bytes | DATA |
//! | DATA | `[id [cell-or-nil...]]`: references to cells carried as branches, in the request's order; nil: not held or no room | |
//! | CHALLENGE, RESPONSE | `[id part...]`, 1 to 15 parts | RESPONSE |
//! | BELIEF | a Signed cell; new cells as branches | |
//! | GOODBYE | `[text]` | |
//! | CANCEL | `[id]`, of a request sent before | |
//!
//! Lists that may exceed 15 stand in a vector of their own, so that the ID stays in the message's first bytes.

use std::sync::Arc;

use bytes::Bytes;

use super::kind::{ErrorCode, MessageType};
use super::message::{Carried, Message, MessageError, branch_len, id_ref};
use crate::cell::{Cell, CellSink as _, Profile, Reader, Ref, Signed, ValueId, Vector, Writer};

/// The most hashes in a MISSING_DATA (Convex: 254 per data request).
pub const MAX_HASHES: usize = 254;

/// The most operations in a TRANSACT (Convex: 1,024 transactions per block).
pub const MAX_OPERATIONS: usize = 1024;

/// The most elements of a vector in one cell, the ID among them.
const SHORT: usize = 16;

/// The longest text of an error or GOODBYE made here, in bytes: it embeds.
const TEXT_MAX: usize = 137;

/// The content of a RESULT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The request's ID.
    pub id: u64,
    /// The value asked for; with an error, usually a text.
    pub value: Ref,
    /// Why it failed.
    pub error: Option<ErrorCode>,
    /// Further facts, a map, or nil.
    pub info: Ref,
}

/// A payload, taken apart by the message's type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload {
    /// Prove that you hold your key.
    Challenge {
        /// The request's ID.
        id: u64,
        /// What CHALLENGE defines.
        parts: Vec<Ref>,
    },
    /// The answer to it.
    Response {
        /// The request's ID.
        id: u64,
        /// What CHALLENGE defines.
        parts: Vec<Ref>,
    },
    /// Cells asked for.
    Data {
        /// The request's ID.
        id: u64,
        /// In the request's order: the cell's ID if the message carries it, `None` if the sender hasn't got it or had no room.
        cells: Vec<Option<ValueId>>,
    },
    /// Send these cells.
    MissingData {
        /// The request's ID.
        id: u64,
        /// Their value IDs, 1 to [`MAX_HASHES`].
        hashes: Vec<ValueId>,
    },
    /// Read.
    Query {
        /// The request's ID.
        id: u64,
        /// What to read, 1 to 15 parts.
        form: Vec<Ref>,
    },
    /// Signed operations, to be applied in this order.
    Transact {
        /// The request's ID.
        id: u64,
        /// 1 to [`MAX_OPERATIONS`]; signatures are not verified yet.
        operations: Vec<Signed>,
    },
    /// The answer to a request.
    Result(Outcome),
    /// A signed root, not verified yet.
    Belief(Signed),
    /// The sender is about to close.
    Goodbye {
        /// Why, for a log.
        text: Bytes,
    },
    /// How are you?
    Status {
        /// The request's ID.
        id: u64,
    },
    /// What's your clock?
    Ping {
        /// The request's ID.
        id: u64,
    },
    /// Nobody waits for the answer any more.
    Cancel {
        /// The ID of the request taken back.
        id: u64,
    },
    /// A type that has no payload defined, or that this version doesn't know.
    Other,
}

fn embed(cell: Cell) -> Ref {
    Ref::Embedded(Arc::new(cell))
}

/// Cuts a text at a character's start.
fn text(text: &str) -> Ref {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    embed(Cell::string(Bytes::copy_from_slice(&text.as_bytes()[..end])).unwrap_or(Cell::Nil))
}

impl Message {
    /// STATUS `[id]`.
    #[must_use]
    pub fn status(id: u64) -> Self {
        Self::short(MessageType::Status, id, [])
    }

    /// PING `[id]`.
    #[must_use]
    pub fn ping(id: u64) -> Self {
        Self::short(MessageType::Ping, id, [])
    }

    /// CANCEL `[id]`: nobody waits for the answer to this request any more.
    #[must_use]
    pub fn cancel(id: u64) -> Self {
        Self::short(MessageType::Cancel, id, [])
    }

    /// QUERY `[id form...]`; forms after the fifteenth are left out. What the forms refer to is added by [`Message::with_branches`].
    #[must_use]
    pub fn query(id: u64, form: impl IntoIterator<Item = Ref>) -> Self {
        Self::short(MessageType::Query, id, form)
    }

    /// CHALLENGE `[id part...]`; parts after the fifteenth are left out.
    #[must_use]
    pub fn challenge(id: u64, parts: impl IntoIterator<Item = Ref>) -> Self {
        Self::short(MessageType::Challenge, id, parts)
    }

    /// RESPONSE `[id part...]`; parts after the fifteenth are left out.
    #[must_use]
    pub fn response(id: u64, parts: impl IntoIterator<Item = Ref>) -> Self {
        Self::short(MessageType::Response, id, parts)
    }

    /// RESULT of a request that succeeded.
    #[must_use]
    pub fn result(id: u64, value: Ref) -> Self {
        Self::short(MessageType::Result, id, [value, Ref::nil(), Ref::nil()])
    }

    /// RESULT of a request that failed; the text is cut at 137 bytes.
    #[must_use]
    pub fn error(id: u64, code: &ErrorCode, message: &str) -> Self {
        Self::short(MessageType::Result, id, [text(message), embed(code.cell()), Ref::nil()])
    }

    /// RESULT with everything said.
    #[must_use]
    pub fn outcome(outcome: Outcome) -> Self {
        let error = outcome.error.map_or(Cell::Nil, |code| code.cell());
        Self::short(MessageType::Result, outcome.id, [outcome.value, embed(error), outcome.info])
    }

    /// GOODBYE `[text]`; the text is cut at 137 bytes.
    #[must_use]
    pub fn goodbye(why: &str) -> Self {
        Self::new(MessageType::Goodbye, Cell::Vector(Vector::short([text(why)])))
    }

    /// BELIEF: a signed root and the cells new below it.
    #[must_use]
    pub fn belief(root: Signed, new: impl IntoIterator<Item = (ValueId, Bytes)>) -> Self {
        Self::new(MessageType::Belief, Cell::Signed(Box::new(root))).with_branches(new)
    }

    /// TRANSACT `[id [Signed...]]`. Branches below the operations are added by [`Message::with_branches`].
    ///
    /// # Errors
    /// [`MessageError::Payload`] unless there are 1 to [`MAX_OPERATIONS`].
    pub fn transact(id: u64, operations: impl IntoIterator<Item = Signed>, profile: &Profile) -> Result<Self, MessageError> {
        let kind = MessageType::Transact;
        let mut carried = Carried::default();
        let mut writer = Writer::new(profile, &mut carried);
        let mut items = Vec::new();
        for operation in operations {
            items.push(writer.link(Cell::Signed(Box::new(operation)))?);
            bound(kind, items.len(), MAX_OPERATIONS)?;
        }
        bound(kind, items.len(), MAX_OPERATIONS)?;
        Self::with_list(kind, id, &items, carried, profile)
    }

    /// MISSING_DATA `[id [hash...]]`.
    ///
    /// # Errors
    /// [`MessageError::Payload`] unless there are 1 to [`MAX_HASHES`].
    pub fn missing_data(id: u64, hashes: &[ValueId], profile: &Profile) -> Result<Self, MessageError> {
        bound(MessageType::MissingData, hashes.len(), MAX_HASHES)?;
        let hash = |id: &ValueId| embed(Cell::blob(Bytes::copy_from_slice(id.as_bytes())).unwrap_or(Cell::Nil));
        let items: Vec<Ref> = hashes.iter().map(hash).collect();
        Self::with_list(MessageType::MissingData, id, &items, Carried::default(), profile)
    }

    /// DATA `[id [cell-or-nil...]]`: the cells asked for, in the request's order, `None` where one isn't held. Cells that
    /// would take the message over `max_bytes` are left out as if they weren't held; the requester asks again.
    ///
    /// # Errors
    /// [`MessageError::Payload`] unless there are 1 to [`MAX_HASHES`].
    pub fn data(id: u64, cells: &[Option<(ValueId, Bytes)>], max_bytes: usize, profile: &Profile) -> Result<Self, MessageError> {
        bound(MessageType::Data, cells.len(), MAX_HASHES)?;
        // The list itself: 33 bytes a reference, and the nodes of its tree.
        let mut room = max_bytes.saturating_sub(64 + cells.len() * 40);
        let mut carried = Carried::default();
        let mut items = Vec::with_capacity(cells.len());
        for cell in cells {
            let fits = cell.as_ref().filter(|(_, encoding)| branch_len(encoding) <= room);
            items.push(fits.map_or_else(Ref::nil, |(id, encoding)| {
                room -= branch_len(encoding);
                carried.put(*id, encoding.clone());
                Ref::Branch(*id)
            }));
        }
        Self::with_list(MessageType::Data, id, &items, carried, profile)
    }

    fn short(kind: MessageType, id: u64, rest: impl IntoIterator<Item = Ref>) -> Self {
        let items = std::iter::once(id_ref(id)).chain(rest).take(SHORT);
        Self::new(kind, Cell::Vector(Vector::short(items)))
    }

    fn with_list(kind: MessageType, id: u64, items: &[Ref], mut carried: Carried, profile: &Profile) -> Result<Self, MessageError> {
        let mut writer = Writer::new(profile, &mut carried);
        let list = writer.vector(items)?;
        let list = writer.link(Cell::Vector(list))?;
        Ok(Self { branches: carried.branches, ..Self::short(kind, id, [list]) })
    }

    /// Takes the payload apart.
    ///
    /// # Errors
    /// [`MessageError::Payload`] when it isn't what its type demands, [`MessageError::Tree`] when its own structure
    /// isn't carried.
    pub fn parse(&self, profile: &Profile) -> Result<Payload, MessageError> {
        let kind = self.kind;
        let wrong = |what| MessageError::Payload { kind, what };
        match (&self.payload, kind) {
            (_, MessageType::Unknown(_) | MessageType::Command | MessageType::RequestBelief) => return Ok(Payload::Other),
            (Cell::Signed(signed), MessageType::Belief) => return Ok(Payload::Belief((**signed).clone())),
            (_, MessageType::Belief) => return Err(wrong("the payload is a signed cell")),
            _ => {}
        }
        let items = self.payload.as_short_vector().ok_or_else(|| wrong("the payload is a vector of at most 16 elements"))?;
        if kind == MessageType::Goodbye {
            let text = match items {
                [text] => text.embedded().and_then(Cell::as_string),
                _ => None,
            };
            return Ok(Payload::Goodbye { text: text.ok_or_else(|| wrong("the payload is [text]"))?.clone() });
        }
        if kind == MessageType::Cancel {
            return Ok(Payload::Cancel { id: self.cancels().ok_or_else(|| wrong("the payload is [id]"))? });
        }
        let id = self.id().ok_or_else(|| wrong("element 0 is the request's ID, an integer of 0 to 2^63 - 1"))?;
        let rest = &items[1..];
        let some = || if rest.is_empty() { Err(wrong("the payload has elements after the ID")) } else { Ok(rest.to_vec()) };
        Ok(match kind {
            MessageType::Status | MessageType::Ping if !rest.is_empty() => return Err(wrong("the payload is [id]")),
            MessageType::Status => Payload::Status { id },
            MessageType::Ping => Payload::Ping { id },
            MessageType::Query => Payload::Query { id, form: some()? },
            MessageType::Challenge => Payload::Challenge { id, parts: some()? },
            MessageType::Response => Payload::Response { id, parts: some()? },
            MessageType::Result => Payload::Result(self.parse_result(id, rest)?),
            MessageType::MissingData => {
                let hash = |item: &Ref| item.embedded().and_then(Cell::as_blob32).map(ValueId);
                let hashes = self.list(rest, MAX_HASHES, profile)?.iter().map(hash).collect::<Option<_>>();
                Payload::MissingData { id, hashes: hashes.ok_or_else(|| wrong("a hash is a blob of 32 bytes"))? }
            }
            MessageType::Data => {
                let mut cells = Vec::new();
                for item in self.list(rest, MAX_HASHES, profile)? {
                    cells.push(match &item {
                        Ref::Branch(id) => Some(*id),
                        Ref::Embedded(cell) if cell.is_nil() => None,
                        Ref::Embedded(_) => return Err(wrong("each element is a reference to a cell, or nil")),
                    });
                }
                let carried = self.cells();
                if cells.iter().flatten().any(|id| !carried.0.contains_key(id)) {
                    return Err(wrong("each cell named is carried"));
                }
                Payload::Data { id, cells }
            }
            MessageType::Transact => {
                let carried = self.cells();
                let reader = Reader::new(profile, &carried);
                let mut operations = Vec::new();
                for item in self.list(rest, MAX_OPERATIONS, profile)? {
                    match &*reader.resolve(&item)? {
                        Cell::Signed(signed) => operations.push((**signed).clone()),
                        _ => return Err(wrong("each operation is a signed cell")),
                    }
                }
                Payload::Transact { id, operations }
            }
            _ => Payload::Other,
        })
    }

    fn parse_result(&self, id: u64, rest: &[Ref]) -> Result<Outcome, MessageError> {
        let wrong = |what| MessageError::Payload { kind: self.kind, what };
        let [value, error, info] = rest else { return Err(wrong("the payload is [id value error info]")) };
        let error = match error.embedded() {
            Some(Cell::Nil) => None,
            Some(Cell::Keyword(name)) => Some(ErrorCode::from_name(name)),
            _ => return Err(wrong("the error is a keyword or nil")),
        };
        if info.embedded().is_some_and(|info| !matches!(info, Cell::Nil | Cell::Map(_))) {
            return Err(wrong("the info is a map or nil"));
        }
        Ok(Outcome { id, value: value.clone(), error, info: info.clone() })
    }

    /// The vector after the ID, with 1 to `max` elements.
    fn list(&self, rest: &[Ref], max: usize, profile: &Profile) -> Result<Vec<Ref>, MessageError> {
        let wrong = |what| MessageError::Payload { kind: self.kind, what };
        let [list] = rest else { return Err(wrong("the payload is [id vector]")) };
        let carried = self.cells();
        let reader = Reader::new(profile, &carried);
        let list = reader.resolve(list)?;
        let Cell::Vector(vector) = &*list else { return Err(wrong("the payload is [id vector]")) };
        bound(self.kind, usize::try_from(vector.len()).unwrap_or(usize::MAX), max)?;
        Ok(reader.vector_iter(vector, 0..vector.len()).collect::<Result<_, _>>()?)
    }
}

fn bound(kind: MessageType, len: usize, max: usize) -> Result<(), MessageError> {
    let what = if len == 0 { "the list is empty" } else { "the list is too long" };
    if (1..=max).contains(&len) { Ok(()) } else { Err(MessageError::Payload { kind, what }) }
}
