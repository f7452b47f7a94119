//! Messages of the current wire: what their first cell is, how they're made, what they mean (facts of 0.8.0 to 0.8.6, CAD015).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use peerlane_cell::{Cell, Name, Reader, Ref, Signed, TreeError, ValueId, Vector, Writer, vlq};

use crate::{
    body::{Body, BodyError},
    kind::{self, Kind},
    limits::MAX_HASHES,
    outcome::Outcome,
    value::{Build, CONVEX, Value, address, as_address},
};

/// Why a message isn't what its kind demands. Its maker is at fault, unless it's [`Partial`](Self::Partial).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Not a message at all.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The first cell isn't what its kind demands.
    #[error("{kind}: {what}")]
    Shape {
        /// The message's kind.
        kind: Kind,
        /// The rule broken.
        what: &'static str,
    },
    /// A branch that its own structure needs didn't come with it.
    #[error("{kind}: a branch of its own is missing")]
    Partial {
        /// The message's kind.
        kind: Kind,
    },
    /// A cell can't be made, or read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A message of our own that would break a limit of the wire.
    #[error("{what}: {got}, and at most {max} are allowed")]
    TooMany {
        /// What there's too much of.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many there may be.
        max: usize,
    },
}

/// A message: its kind, which follows from its body, and the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    kind: Kind,
    id: Option<i64>,
    body: Body,
}

/// What a message means. References are into the message's own cells ([`Message::value`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload {
    /// `[:SR id]`
    Status {
        /// The request's ID.
        id: i64,
    },
    /// `[:PING id]`
    Ping {
        /// The request's ID.
        id: i64,
    },
    /// `[:Q id form address]`
    Query {
        /// The request's ID.
        id: i64,
        /// What to evaluate.
        form: Ref,
        /// As which account; `None`: the peer chooses.
        account: Option<u64>,
    },
    /// `[:TX id signed]`
    Transact {
        /// The request's ID.
        id: i64,
        /// A signed transaction.
        signed: Ref,
    },
    /// `[:DR id hash...]`
    DataRequest {
        /// The request's ID.
        id: i64,
        /// The value IDs asked for, 254 at most.
        hashes: Vec<ValueId>,
    },
    /// `[:CH id signed]`
    Challenge {
        /// The request's ID.
        id: i64,
        /// The signed challenge: see [`crate::Challenge`].
        signed: Ref,
    },
    /// `[:DATA cell...]`
    Data {
        /// The cells, each a branch.
        cells: Vec<ValueId>,
    },
    /// `[:BYE]` or `[:BYE message]`
    Goodbye {
        /// Last words.
        message: Option<Ref>,
    },
    /// A Result record.
    Result(Outcome),
    /// A Belief record: its Index of orders.
    Belief {
        /// An Index from peer keys to signed orders.
        orders: Ref,
    },
    /// A signed Order by itself.
    Order(Box<Signed>),
    /// `[:LV path value]`, `[:LQ id path]`: passed on as it is.
    Lattice,
    /// Nothing with a meaning here.
    Unknown,
}

impl Message {
    /// The message that a body is.
    #[must_use]
    pub fn new(body: Body) -> Self {
        let head = head(&body);
        let kind = Kind::of(&body.top, &head);
        let id = kind::id_place(kind, &body.top).and_then(|place| head.get(place)?.embedded()?.as_integer());
        Self { kind, id, body }
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// [`BodyError`]: the reference peer answers with a Result without an ID, code `:FORMAT`, and stays connected.
    pub fn decode(input: &Bytes) -> Result<Self, BodyError> {
        Body::decode(input).map(Self::new)
    }

    /// The bytes of the body, without a length.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.body.encode()
    }

    /// The bytes of the frame: length and body.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let len = self.body.encoded_len();
        let mut out = BytesMut::with_capacity(vlq::len(len as u64) + len);
        vlq::write(len as u64, &mut out);
        self.body.encode_into(&mut out);
        out.freeze()
    }

    /// The length of the body in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.body.encoded_len()
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its cells.
    #[must_use]
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// The request's ID: an integer of at most 64 bits. Each side of a connection numbers its own requests.
    #[must_use]
    pub const fn id(&self) -> Option<i64> {
        self.id
    }

    /// The same message under another ID. One that has no place for an ID stays as it is.
    #[must_use]
    pub fn with_id(mut self, id: i64) -> Self {
        let Some(place) = kind::id_place(self.kind, &self.body.top) else { return self };
        let (Cell::Vector(items) | Cell::Record(_, items)) = &self.body.top else { return self };
        let new = Ref::Embedded(Arc::new(Cell::Integer(id)));
        if items.len() <= 16 {
            let items = items.tail().iter().enumerate();
            let renumbered = Vector::short(items.map(|(i, item)| if i == place { new.clone() } else { item.clone() }));
            if let Cell::Vector(items) | Cell::Record(_, items) = &mut self.body.top {
                *items = renumbered;
            }
        } else {
            let mut cells = self.body.cells();
            let changed = Writer::new(&CONVEX, &mut cells).vector_set(items, place as u64, new);
            // A branch on the way to element 0 isn't held: then there was no ID either.
            let Ok(changed) = changed else { return self };
            self.body = Body::of(Value { cell: Cell::Vector(changed), cells });
        }
        self.id = Some(id);
        self
    }

    /// A child of one of its cells, with what of it came with the message.
    #[must_use]
    pub fn value(&self, child: &Ref) -> Option<Value> {
        self.body.value(child)
    }

    fn request(kind: Kind, id: i64, mut build: Build, rest: &[Ref]) -> Result<Self, TreeError> {
        let tag = build.keyword(kind.tag().unwrap_or("?"));
        let items: Vec<Ref> = [tag, build.integer(id)].into_iter().chain(rest.iter().cloned()).collect();
        let top = build.vector(&items)?;
        Ok(Self { kind, id: Some(id), body: Body::of(build.finish(top)) })
    }

    fn short(kind: Kind, items: impl IntoIterator<Item = Ref>) -> Self {
        let tag = Name::new(kind.tag().unwrap_or("?")).map_or(Cell::Nil, Cell::Keyword);
        let items = std::iter::once(Ref::Embedded(Arc::new(tag))).chain(items);
        Self::new(Body::new(Cell::Vector(Vector::short(items))))
    }

    /// STATUS: answered by the status vector ([`crate::Status`]).
    #[must_use]
    pub fn status(id: i64) -> Self {
        Self::short(Kind::Status, [Build::default().integer(id)])
    }

    /// PING (0.8.3 and newer; older peers say nothing): answered by the peer's clock, milliseconds since 1970.
    #[must_use]
    pub fn ping(id: i64) -> Self {
        Self::short(Kind::Ping, [Build::default().integer(id)])
    }

    /// GOODBYE: the other side closes the connection.
    #[must_use]
    pub fn goodbye() -> Self {
        Self::short(Kind::Goodbye, [])
    }

    /// QUERY: evaluates a form as an account; with `None` the peer chooses one. It has four elements always: the reference peer
    /// closes the connection otherwise.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] for a cell that no value of this crate has.
    pub fn query(id: i64, form: Value, account: Option<u64>) -> Result<Self, TreeError> {
        let mut build = Build::default();
        let form = build.value(form)?;
        let account = build.link(account.map_or(Cell::Nil, address))?;
        Self::request(Kind::Query, id, build, &[form, account])
    }

    /// TRANSACT: a signed transaction ([`crate::Transaction::sign`]) with all its branches.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn transact(id: i64, signed: Value) -> Result<Self, TreeError> {
        let mut build = Build::default();
        let signed = build.value(signed)?;
        Self::request(Kind::Transact, id, build, &[signed])
    }

    /// DATA_REQUEST for at most [`MAX_HASHES`] cells.
    ///
    /// # Errors
    /// [`MessageError::TooMany`].
    pub fn data_request(id: i64, hashes: &[ValueId]) -> Result<Self, MessageError> {
        if hashes.len() > MAX_HASHES {
            return Err(MessageError::TooMany { what: "hashes in a data request", got: hashes.len(), max: MAX_HASHES });
        }
        let build = Build::default();
        let hashes: Vec<Ref> = hashes.iter().map(|hash| build.blob32(hash.as_bytes())).collect();
        Ok(Self::request(Kind::DataRequest, id, build, &hashes)?)
    }

    /// CHALLENGE with a signed challenge ([`crate::Challenge::sign`]).
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn challenge(id: i64, signed: Value) -> Result<Self, TreeError> {
        let mut build = Build::default();
        let signed = build.value(signed)?;
        Self::request(Kind::Challenge, id, build, &[signed])
    }

    /// A successful RESULT.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn result(id: i64, value: Value) -> Result<Self, TreeError> {
        let mut build = Build::default();
        let value = build.value(value)?;
        let top = Outcome { id: Some(id), value, error: None, log: Ref::nil(), info: Ref::nil() }.cell();
        Ok(Self { kind: Kind::Result, id: Some(id), body: Body::of(build.finish(top)) })
    }

    /// A RESULT that says what went wrong; without an ID when the request's can't be told.
    #[must_use]
    pub fn error(id: Option<i64>, code: &crate::ErrorCode, text: &'static str) -> Self {
        let value = Cell::string(text).map_or_else(Ref::nil, |text| Build::default().link(text).unwrap_or_else(|_| Ref::nil()));
        let top = Outcome { id, value, error: Some(code.clone()), log: Ref::nil(), info: Ref::nil() }.cell();
        Self { kind: Kind::Result, id, body: Body::new(top) }
    }

    /// BELIEF: a Belief record or a signed Order with the cells that are new to the other side.
    #[must_use]
    pub fn belief(belief: Cell, new: Vec<(ValueId, Bytes)>) -> Self {
        Self::new(Body { top: belief, branches: new })
    }

    /// What it means. Signatures aren't judged here.
    ///
    /// # Errors
    /// [`MessageError::Shape`] when it isn't what its kind demands, [`MessageError::Partial`] when its own structure is missing.
    pub fn parse(&self) -> Result<Payload, MessageError> {
        let kind = self.kind;
        let shape = |what| MessageError::Shape { kind, what };
        let id = || self.id.ok_or(shape("its ID is an integer of at most 64 bits"));
        match kind {
            Kind::Status => Ok(Payload::Status { id: id()? }),
            Kind::Ping => Ok(Payload::Ping { id: id()? }),
            Kind::Query => {
                let [_, _, form, account] = self.items() else { return Err(shape("it has four elements")) };
                let account = match account.embedded() {
                    Some(Cell::Nil) => None,
                    Some(cell) => Some(as_address(cell).ok_or(shape("the account is an address or nil"))?),
                    None => return Err(shape("the account is an address or nil")),
                };
                Ok(Payload::Query { id: id()?, form: form.clone(), account })
            }
            Kind::Transact | Kind::Challenge => {
                let [_, _, signed] = self.items() else { return Err(shape("it has three elements")) };
                let (id, signed) = (id()?, signed.clone());
                Ok(if kind == Kind::Transact { Payload::Transact { id, signed } } else { Payload::Challenge { id, signed } })
            }
            Kind::DataRequest => Ok(Payload::DataRequest { id: id()?, hashes: self.hashes()? }),
            Kind::Data => {
                let cells = self.all()?.into_iter().skip(1).map(|item| item.branch().copied());
                let cells: Option<Vec<ValueId>> = cells.collect();
                let cells = cells.filter(|cells| (1..=MAX_HASHES).contains(&cells.len()));
                Ok(Payload::Data { cells: cells.ok_or(shape("it has 1 to 254 cells, none of them embedded"))? })
            }
            Kind::Goodbye => Ok(Payload::Goodbye { message: self.items().get(1).cloned() }),
            Kind::Result => Outcome::read(&self.body.top).map(Payload::Result).ok_or(shape("it has five fields")),
            Kind::Belief => match &self.body.top {
                Cell::Signed(signed) => Ok(Payload::Order(signed.clone())),
                Cell::Record(_, fields) if fields.len() == 1 && !fields.tail().is_empty() => {
                    Ok(Payload::Belief { orders: fields.tail()[0].clone() })
                }
                _ => Err(shape("a belief has one field")),
            },
            Kind::LatticeValue | Kind::LatticeQuery => Ok(Payload::Lattice),
            _ => Ok(Payload::Unknown),
        }
    }

    /// The items of a vector of at most 16.
    fn items(&self) -> &[Ref] {
        self.body.top.as_short_vector().unwrap_or_default()
    }

    /// All items of a vector of at most [`MAX_HASHES`] and two more, which may be a tree.
    fn all(&self) -> Result<Vec<Ref>, MessageError> {
        let kind = self.kind;
        let Cell::Vector(vector) = &self.body.top else { return Ok(Vec::new()) };
        if vector.len() > MAX_HASHES as u64 + 2 {
            return Err(MessageError::Shape { kind, what: "it has at most 254 cells" });
        }
        let cells = self.body.cells();
        let reader = Reader::new(&CONVEX, &cells);
        let items: Result<Vec<Ref>, TreeError> = reader.vector_iter(vector, 0..vector.len()).collect();
        items.map_err(|error| match error {
            TreeError::Missing(_) => MessageError::Partial { kind },
            other => MessageError::Tree(other),
        })
    }

    fn hashes(&self) -> Result<Vec<ValueId>, MessageError> {
        let hash = |item: &Ref| item.embedded().and_then(Cell::as_blob32).map(ValueId);
        let hashes: Option<Vec<ValueId>> = self.all()?.iter().skip(2).map(hash).collect();
        let shape = MessageError::Shape { kind: self.kind, what: "a hash is a blob of 32 bytes" };
        hashes.filter(|hashes| hashes.len() <= MAX_HASHES).ok_or(shape)
    }
}

/// The first two items of a vector or record. Those of a vector of more than 16 stand in a branch, which has to be there.
fn head(body: &Body) -> Vec<Ref> {
    match &body.top {
        Cell::Vector(items) | Cell::Record(_, items) if items.len() <= 16 => items.tail().iter().take(2).cloned().collect(),
        // No message has more items than a DATA of so many cells.
        Cell::Vector(items) if items.len() <= MAX_HASHES as u64 + 2 => {
            let cells = body.cells();
            let head: Result<Vec<Ref>, TreeError> = Reader::new(&CONVEX, &cells).vector_iter(items, 0..2).collect();
            head.unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
