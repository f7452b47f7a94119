//! A value as a whole: its root cell and the branches below it, and how one is put together.

use std::sync::Arc;

use bytes::Bytes;
use peerlane_cell::{
    Cell, CellSink as _, CellSource as _, MemoryCells, Name, Profile, Reader, Ref, TreeError, ValueId, Vector, Writer, decode, encode,
};

/// What cells are in Convex: SHA3-256, 16,383 bytes, signatures without a context.
pub const CONVEX: Profile = Profile::CONVEX;

/// The tag's low half of an address among the extension values (`ea`).
const ADDRESS: u8 = 0xa;

/// A root cell and the branches below it, as far as they're held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The root.
    pub cell: Cell,
    /// Branches by ID; there may be some that the root doesn't refer to.
    pub cells: MemoryCells,
}

impl Value {
    /// A value of one cell.
    #[must_use]
    pub fn leaf(cell: Cell) -> Self {
        Self { cell, cells: MemoryCells::default() }
    }

    /// nil.
    #[must_use]
    pub fn nil() -> Self {
        Self::leaf(Cell::Nil)
    }

    /// What a child of some cell is; `None` if it's a branch that isn't held (or isn't canonical).
    #[must_use]
    pub fn resolve(child: &Ref, cells: MemoryCells) -> Option<Self> {
        let cell = match child {
            Ref::Embedded(cell) => (**cell).clone(),
            Ref::Branch(id) => decode(&cells.get(id)?, &CONVEX).ok()?,
        };
        Some(Self { cell, cells })
    }

    /// The value ID: SHA3-256 of the root's encoding.
    #[must_use]
    pub fn id(&self) -> ValueId {
        CONVEX.id(&encode(&self.cell))
    }

    /// Reads below the root.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&CONVEX, &self.cells)
    }

    /// A child of its root (or of any cell below it) with what of it is held.
    #[must_use]
    pub fn child(&self, child: &Ref) -> Option<Self> {
        Self::resolve(child, self.cells.clone())
    }

    /// The value of a keyword in a map.
    #[must_use]
    pub fn get(&self, keyword: &'static str) -> Option<Self> {
        let key = Ref::Embedded(Arc::new(Cell::Keyword(Name::new(keyword)?)));
        let found = self.reader().map_get(&self.cell, &key).ok()??;
        self.child(&found)
    }
}

/// The number of an address.
#[must_use]
pub const fn as_address(cell: &Cell) -> Option<u64> {
    match cell {
        Cell::Extension(ADDRESS, number) => Some(*number),
        _ => None,
    }
}

/// The cell of an address.
#[must_use]
pub const fn address(number: u64) -> Cell {
    Cell::Extension(ADDRESS, number)
}

/// Puts values together: cells go in, children come out, [`finish`](Self::finish) gives the whole.
#[derive(Debug, Default)]
pub struct Build {
    cells: MemoryCells,
}

impl Build {
    /// The writer of trees, into what is being built.
    pub fn writer(&mut self) -> Writer<'_> {
        Writer::new(&CONVEX, &mut self.cells)
    }

    /// A child: embedded, or a branch that is kept.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] above 16,383 bytes.
    pub fn link(&mut self, cell: Cell) -> Result<Ref, TreeError> {
        self.writer().link(cell)
    }

    /// A child that is a whole value.
    ///
    /// # Errors
    /// As [`link`](Self::link).
    pub fn value(&mut self, value: Value) -> Result<Ref, TreeError> {
        for (id, encoding) in value.cells.0 {
            self.cells.put(id, encoding);
        }
        self.link(value.cell)
    }

    /// A child that is an integer.
    #[must_use]
    pub fn integer(&self, integer: i64) -> Ref {
        Ref::Embedded(Arc::new(Cell::Integer(integer)))
    }

    /// A child that is an address.
    #[must_use]
    pub fn address(&self, number: u64) -> Ref {
        Ref::Embedded(Arc::new(address(number)))
    }

    /// A child that is a blob of 32 bytes: a hash or a key.
    #[must_use]
    pub fn blob32(&self, bytes: &[u8; 32]) -> Ref {
        Ref::Embedded(Arc::new(Cell::blob(Bytes::copy_from_slice(bytes)).unwrap_or(Cell::Nil)))
    }

    /// A child that is a keyword of our own (1 to 128 bytes).
    #[must_use]
    pub fn keyword(&self, name: &'static str) -> Ref {
        Ref::Embedded(Arc::new(Name::new(name).map_or(Cell::Nil, Cell::Keyword)))
    }

    /// A vector cell.
    ///
    /// # Errors
    /// As [`link`](Self::link).
    pub fn vector(&mut self, items: &[Ref]) -> Result<Cell, TreeError> {
        self.writer().vector(items).map(Cell::Vector)
    }

    /// A dense record of at most 16 fields.
    #[must_use]
    pub fn record(&self, kind: u8, fields: impl IntoIterator<Item = Ref>) -> Cell {
        Cell::Record(kind, Vector::short(fields))
    }

    /// The value with this root.
    #[must_use]
    pub fn finish(self, root: Cell) -> Value {
        Value { cell: root, cells: self.cells }
    }
}
