//! From a value to text.
//!
//! What the reader knows is printed so that it's read again as the same value. The rest (records, indexes, signed cells, branches that
//! aren't held, names with odd bytes) is printed for people, and the reader refuses it.

use std::fmt::Write as _;

use peerlane_cell::{Blob, Cell, Name, Ref, Signed, Vector};

use super::{
    number,
    read::{CHARACTERS, is_name, is_word},
};
use crate::{
    limits::MAX_NESTING,
    value::{Value, as_address},
};

/// How much is printed where nobody says, in bytes.
pub const DEFAULT_PRINT: usize = 64 * 1024;

/// Names of dense records, by the low half of the tag, with their fields'.
const RECORDS: [(u8, &str, &[&str]); 13] = [
    (0x0, "Invoke", &["origin", "sequence", "command"]),
    (0x1, "Transfer", &["origin", "sequence", "target", "amount"]),
    (0x2, "Call", &["origin", "sequence", "target", "offer", "call", "args"]),
    (0x3, "Multi", &["origin", "sequence", "mode", "txs"]),
    (0x4, "Belief", &["orders"]),
    (0x5, "State", &[]),
    (0x6, "Block", &["timestamp", "transactions"]),
    (0x7, "Order", &["timestamp", "consensus", "blocks"]),
    (0x8, "AccountStatus", &[]),
    (0x9, "PeerStatus", &[]),
    (0xd, "Result", &["id", "result", "error", "log", "info"]),
    (0xe, "BlockResult", &[]),
    (0xf, "Fn", &[]),
];

/// A value as text of about `max` bytes at most; what is cut off is shown by `…`.
#[must_use]
pub fn print(value: &Value, max: usize) -> String {
    let mut printer = Printer { value, out: String::new(), max };
    printer.cell(&value.cell, 0);
    printer.out
}

struct Printer<'a> {
    value: &'a Value,
    out: String,
    max: usize,
}

impl Printer<'_> {
    /// Is there room for more? Says `…` once when there isn't.
    fn room(&mut self) -> bool {
        let room = self.out.len() < self.max;
        if !room && !self.out.ends_with('…') {
            self.out.push('…');
        }
        room
    }

    fn child(&mut self, child: &Ref, depth: usize) {
        match self.value.reader().resolve(child) {
            Ok(cell) => self.cell(&cell, depth + 1),
            Err(_) => match child.branch() {
                Some(id) => drop(write!(self.out, "#missing[{id}]")),
                None => self.out.push('…'),
            },
        }
    }

    fn cell(&mut self, cell: &Cell, depth: usize) {
        if !self.room() {
            return;
        }
        if depth > MAX_NESTING {
            self.out.push('…');
            return;
        }
        match cell {
            Cell::Nil => self.out.push_str("nil"),
            Cell::Bool(b) => drop(write!(self.out, "{b}")),
            Cell::Integer(i) => drop(write!(self.out, "{i}")),
            Cell::BigInteger(i) => self.out.push_str(&number::print(i)),
            Cell::Double(bits) => self.double(f64::from_bits(*bits)),
            Cell::String(blob) => self.string(blob),
            Cell::Blob(blob) => self.blob(blob),
            Cell::Symbol(name) => self.symbol(name),
            Cell::Keyword(name) => {
                self.out.push(':');
                self.name(name);
            }
            Cell::Character(point) => self.character(*point),
            Cell::Vector(v) => self.vector(v, "[", "]", depth),
            Cell::List(v) => self.list(v, depth),
            Cell::Map(_) => self.map(cell, depth),
            Cell::Set(_) => self.set(cell, depth),
            Cell::Index(index) => {
                let entries = self.value.reader().index_iter(index);
                self.entries("#Index {", entries, depth);
            }
            Cell::Syntax(pair) => {
                self.out.push('^');
                self.child(&pair[1], depth);
                self.out.push(' ');
                self.child(&pair[0], depth);
            }
            Cell::Signed(signed) => self.signed(signed, depth),
            Cell::Record(kind, fields) => self.record(*kind, fields, depth),
            Cell::Extension(kind, number) => match as_address(cell) {
                Some(number) => drop(write!(self.out, "#{number}")),
                None => drop(write!(self.out, "#[e{kind:x}:{number}]")),
            },
            other => drop(write!(self.out, "#[{}]", data_encoding::HEXLOWER.encode(&peerlane_cell::encode(other)))),
        }
    }

    fn double(&mut self, double: f64) {
        let text = if double.is_nan() {
            "##NaN".into()
        } else if double.is_infinite() {
            if double > 0.0 { "##Inf".into() } else { "##-Inf".into() }
        } else {
            format!("{double:?}")
        };
        self.out.push_str(&text);
    }

    /// One whose name reads as something else is shown by its bytes.
    fn symbol(&mut self, name: &Name) {
        let bytes = &name.as_bytes()[..];
        match is_word(bytes) || bytes.starts_with(b":") {
            true => drop(write!(self.out, "#name[{}]", data_encoding::HEXLOWER.encode(bytes))),
            false => self.name(name),
        }
    }

    fn name(&mut self, name: &Name) {
        let bytes = &name.as_bytes()[..];
        let plain = bytes.strip_prefix(b"#%").unwrap_or(bytes);
        let plain = &plain[plain.iter().take_while(|b| **b == b':').count()..];
        match std::str::from_utf8(bytes) {
            Ok(text) if is_name(plain) => self.out.push_str(text),
            _ => drop(write!(self.out, "#name[{}]", data_encoding::HEXLOWER.encode(bytes))),
        }
    }

    fn character(&mut self, point: u32) {
        let Some(c) = char::from_u32(point) else {
            let _ = write!(self.out, "#character[{point:x}]");
            return;
        };
        self.out.push('\\');
        match CHARACTERS.iter().find(|(_, named)| *named == c) {
            Some((name, _)) => self.out.push_str(name),
            None if c.is_control() && point <= 0xffff => drop(write!(self.out, "u{point:04x}")),
            None => self.out.push(c),
        }
    }

    /// The bytes of a blob or string, as far as there's room; `None` when one of its branches isn't held.
    fn bytes(&self, blob: &Blob, max: usize) -> Option<bytes::Bytes> {
        self.value.reader().blob_bytes(blob, max).ok()
    }

    fn string(&mut self, blob: &Blob) {
        let Some(bytes) = self.bytes(blob, self.max) else {
            let _ = write!(self.out, "#string[{} bytes]", blob.len());
            return;
        };
        self.out.push('"');
        for part in bytes.utf8_chunks() {
            for c in part.valid().chars() {
                match c {
                    '"' => self.out.push_str("\\\""),
                    '\\' => self.out.push_str("\\\\"),
                    '\n' => self.out.push_str("\\n"),
                    '\r' => self.out.push_str("\\r"),
                    '\t' => self.out.push_str("\\t"),
                    c if c.is_control() && u32::from(c) <= 0xffff => drop(write!(self.out, "\\u{:04x}", u32::from(c))),
                    c => self.out.push(c),
                }
            }
            for byte in part.invalid() {
                let _ = write!(self.out, "\\{byte:03o}");
            }
        }
        self.out.push('"');
    }

    fn blob(&mut self, blob: &Blob) {
        match self.bytes(blob, self.max / 2) {
            Some(bytes) => drop(write!(self.out, "0x{}", data_encoding::HEXLOWER.encode(&bytes))),
            None => drop(write!(self.out, "#blob[{} bytes]", blob.len())),
        }
    }

    fn vector(&mut self, vector: &Vector, open: &str, close: &str, depth: usize) {
        self.out.push_str(open);
        for (i, item) in self.value.reader().vector_iter(vector, 0..vector.len()).enumerate() {
            if !self.room() {
                break;
            }
            if i > 0 {
                self.out.push(' ');
            }
            match item {
                Ok(item) => self.child(&item, depth),
                Err(error) => drop(write!(self.out, "#missing[{error}]")),
            }
        }
        self.out.push_str(close);
    }

    fn list(&mut self, vector: &Vector, depth: usize) {
        self.out.push('(');
        for i in (0..vector.len()).rev() {
            if !self.room() {
                break;
            }
            match self.value.reader().vector_get(vector, i) {
                Ok(Some(item)) => self.child(&item, depth),
                _ => {
                    self.out.push('…');
                    break;
                }
            }
            if i > 0 {
                self.out.push(' ');
            }
        }
        self.out.push(')');
    }

    fn map(&mut self, cell: &Cell, depth: usize) {
        if let Ok(entries) = self.value.reader().map_iter(cell) {
            self.entries("{", entries, depth);
        }
    }

    fn entries(&mut self, open: &str, entries: impl Iterator<Item = Result<(Ref, Ref), peerlane_cell::TreeError>>, depth: usize) {
        self.out.push_str(open);
        for (i, entry) in entries.enumerate() {
            if !self.room() {
                break;
            }
            if i > 0 {
                self.out.push(' ');
            }
            match entry {
                Ok((key, value)) => {
                    self.child(&key, depth);
                    self.out.push(' ');
                    self.child(&value, depth);
                }
                Err(error) => drop(write!(self.out, "#missing[{error}]")),
            }
        }
        self.out.push('}');
    }

    fn set(&mut self, cell: &Cell, depth: usize) {
        self.out.push_str("#{");
        let items = self.value.reader().set_iter(cell).into_iter().flatten();
        for (i, item) in items.enumerate() {
            if !self.room() {
                break;
            }
            if i > 0 {
                self.out.push(' ');
            }
            match item {
                Ok((item, _)) => self.child(&item, depth),
                Err(error) => drop(write!(self.out, "#missing[{error}]")),
            }
        }
        self.out.push('}');
    }

    fn signed(&mut self, signed: &Signed, depth: usize) {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let key = signed.key().map_or_else(|| "nil".into(), |key| format!("0x{}", hex(key)));
        let _ = write!(self.out, "#Signed {{:key {key} :signature 0x{} :value ", hex(signed.signature()));
        self.child(signed.value(), depth);
        self.out.push('}');
    }

    fn record(&mut self, kind: u8, fields: &Vector, depth: usize) {
        let known = RECORDS.iter().find(|(known, ..)| *known == kind);
        let Some((_, name, names)) = known else {
            let _ = write!(self.out, "#Record{kind:x} ");
            return self.vector(fields, "[", "]", depth);
        };
        if names.len() as u64 != fields.len() {
            let _ = write!(self.out, "#{name} ");
            return self.vector(fields, "[", "]", depth);
        }
        let _ = write!(self.out, "#{name} {{");
        for (i, (name, field)) in names.iter().zip(fields.tail()).enumerate() {
            let _ = write!(self.out, "{}:{name} ", if i > 0 { " " } else { "" });
            self.child(field, depth);
        }
        self.out.push('}');
    }
}
