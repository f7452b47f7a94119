//! From text to a value.

use std::borrow::Cow;

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use peerlane_cell::{Cell, Name, Ref, TreeError, decode};

use super::number;
use crate::{
    limits::{MAX_NESTING, MAX_TEXT},
    value::{Build, CONVEX, Value, address},
};

/// Why a text is no form. Whoever wrote it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// What's there isn't allowed there.
    #[error("{what} (at byte {at})")]
    Syntax {
        /// Where, in bytes from the start.
        at: usize,
        /// The rule broken.
        what: &'static str,
    },
    /// The text is longer than [`MAX_TEXT`].
    #[error("a form has at most {MAX_TEXT} bytes")]
    TooLong,
    /// A cell can't be made of it.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Reads one form; nothing but space and comments may follow it.
///
/// # Errors
/// [`FormError`], saying where.
pub fn read(text: &str) -> Result<Value, FormError> {
    let mut forms = read_all(text)?;
    match (forms.pop(), forms.is_empty()) {
        (Some(form), true) => Ok(form),
        (None, _) => Err(FormError::Syntax { at: text.len(), what: "there is no form" }),
        (Some(_), false) => Err(FormError::Syntax { at: text.len(), what: "more than one form; `(do ...)` makes one of several" }),
    }
}

/// Reads all forms of a text.
///
/// # Errors
/// [`FormError`], saying where.
pub fn read_all(text: &str) -> Result<Vec<Value>, FormError> {
    if text.len() > MAX_TEXT {
        return Err(FormError::TooLong);
    }
    let mut reader = Reader { text, at: 0, build: Build::default() };
    let mut forms = Vec::new();
    while let Some(cell) = reader.next(0)? {
        forms.push(std::mem::take(&mut reader.build).finish(cell));
    }
    match reader.peek() {
        None => Ok(forms),
        Some(_) => Err(reader.wrong("a closing bracket without an opening one")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    build: Build,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn wrong(&self, what: &'static str) -> FormError {
        FormError::Syntax { at: self.at, what }
    }

    fn take(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_space(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | ','));
            if self.peek() != Some(';') {
                return;
            }
            self.take_while(|c| c != '\n' && c != '\r');
        }
    }

    /// The next form; `None` at the end, and before a closing bracket.
    fn next(&mut self, depth: usize) -> Result<Option<Cell>, FormError> {
        if depth > MAX_NESTING {
            return Err(self.wrong("forms nest too deep"));
        }
        loop {
            self.skip_space();
            if !self.take("#_") {
                break;
            }
            self.form(depth + 1)?;
        }
        let Some(first) = self.peek() else { return Ok(None) };
        let mut cell = match first {
            ')' | ']' | '}' => return Ok(None),
            '(' => self.list(depth)?,
            '[' => {
                let items = self.items(1, ']', depth)?;
                self.build.vector(&items)?
            }
            '{' => self.map(depth)?,
            '"' => self.string()?,
            '\\' => self.character()?,
            ':' => self.keyword()?,
            '#' => self.hash(depth)?,
            '\'' => return self.quoted(1, "quote", depth),
            '`' => return self.quoted(1, "quasiquote", depth),
            '~' if self.rest().starts_with("~@") => return self.quoted(2, "unquote-splicing", depth),
            '~' => return self.quoted(1, "unquote", depth),
            '@' => {
                self.at += 1;
                let name = self.plain_symbol()?;
                self.list_of(&[symbol("resolve"), name])?
            }
            '^' => self.syntax(depth)?,
            _ => self.atom()?,
        };
        // `#12/name` and `actor/name` look a name up.
        while self.rest().starts_with('/') && self.rest()[1..].starts_with(|c| c == '/' || symbol_first(c)) {
            self.at += 1;
            let name = self.plain_symbol()?;
            cell = self.list_of(&[symbol("lookup"), cell, name])?;
        }
        Ok(Some(cell))
    }

    fn form(&mut self, depth: usize) -> Result<Cell, FormError> {
        self.next(depth)?.ok_or_else(|| self.wrong("a form is missing here"))
    }

    /// Forms up to a closing bracket; `open` bytes are its opening one.
    fn items(&mut self, open: usize, close: char, depth: usize) -> Result<Vec<Ref>, FormError> {
        self.at += open;
        let mut items = Vec::new();
        while let Some(cell) = self.next(depth + 1)? {
            items.push(self.build.link(cell)?);
        }
        if self.peek() != Some(close) {
            return Err(self.wrong("a bracket isn't closed, or by another one"));
        }
        self.at += 1;
        Ok(items)
    }

    fn list(&mut self, depth: usize) -> Result<Cell, FormError> {
        let items = self.items(1, ')', depth)?;
        self.reversed(items)
    }

    /// A list's items are stored in reversed order.
    fn reversed(&mut self, mut items: Vec<Ref>) -> Result<Cell, FormError> {
        items.reverse();
        Ok(Cell::List(self.build.writer().vector(&items)?))
    }

    fn list_of(&mut self, cells: &[Cell]) -> Result<Cell, FormError> {
        let items: Result<Vec<Ref>, TreeError> = cells.iter().map(|cell| self.build.link(cell.clone())).collect();
        self.reversed(items?)
    }

    fn map(&mut self, depth: usize) -> Result<Cell, FormError> {
        let items = self.items(1, '}', depth)?;
        if !items.len().is_multiple_of(2) {
            return Err(self.wrong("a map has a value for each key"));
        }
        let entries = items.chunks_exact(2).map(|entry| (entry[0].clone(), entry[1].clone()));
        Ok(self.build.writer().map(entries)?)
    }

    fn quoted(&mut self, mark: usize, name: &'static str, depth: usize) -> Result<Option<Cell>, FormError> {
        self.at += mark;
        let form = self.form(depth + 1)?;
        self.list_of(&[symbol(name), form]).map(Some)
    }

    /// `^meta form`: the value first, then the metadata; a keyword stands for `{keyword true}`.
    fn syntax(&mut self, depth: usize) -> Result<Cell, FormError> {
        self.at += 1;
        let meta = match self.form(depth + 1)? {
            keyword @ Cell::Keyword(_) => {
                let entry = (self.build.link(keyword)?, self.build.link(Cell::Bool(true))?);
                self.build.writer().map([entry])?
            }
            map @ Cell::Map(_) => map,
            _ => return Err(self.wrong("metadata is a map or a keyword")),
        };
        let value = self.form(depth + 1)?;
        let pair = [self.build.link(value)?, self.build.link(meta)?];
        Ok(Cell::Syntax(Box::new(pair)))
    }

    fn hash(&mut self, depth: usize) -> Result<Cell, FormError> {
        let rest = self.rest().as_bytes();
        match rest.get(1) {
            Some(b'{') => {
                let items = self.items(2, '}', depth)?;
                Ok(self.build.writer().set(items)?)
            }
            Some(b'[') => self.encoding(),
            Some(b'%') => {
                self.at += 2;
                match self.symbol()? {
                    Cell::Symbol(name) => self.name([b"#%", &name.as_bytes()[..]].concat()).map(Cell::Symbol),
                    other => Ok(other),
                }
            }
            Some(b'#') => self.special(),
            Some(b'0'..=b'9') => {
                self.at += 1;
                let digits = self.take_while(|c| c.is_ascii_digit());
                let number = digits.parse().ok().filter(|number| i64::try_from(*number).is_ok());
                number.map(address).ok_or_else(|| self.wrong("an address is # and a number of at most 63 bits"))
            }
            _ => Err(self.wrong("no form begins so")),
        }
    }

    /// `#[hex]`: one cell's encoding.
    fn encoding(&mut self) -> Result<Cell, FormError> {
        self.at += 2;
        let digits = self.take_while(|c| c.is_ascii_hexdigit());
        let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| self.wrong("bytes are pairs of hex digits"))?;
        let cell = decode(&Bytes::from(bytes), &CONVEX).map_err(|_| self.wrong("these bytes are no canonical cell"))?;
        if self.take("]") { Ok(cell) } else { Err(self.wrong("#[ is closed by ]")) }
    }

    fn special(&mut self) -> Result<Cell, FormError> {
        for (name, double) in [("##NaN", f64::NAN), ("##Inf", f64::INFINITY), ("##-Inf", f64::NEG_INFINITY)] {
            if self.take(name) {
                return Ok(Cell::Double(double.to_bits()));
            }
        }
        Err(self.wrong("the literals with ## are ##NaN, ##Inf and ##-Inf"))
    }

    fn string(&mut self) -> Result<Cell, FormError> {
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let plain = self.take_while(|c| c != '"' && c != '\\');
            bytes.extend_from_slice(plain.as_bytes());
            if self.take("\"") {
                return Ok(self.build.writer().string(bytes.into())?);
            }
            if !self.take("\\") {
                return Err(self.wrong("a string isn't closed"));
            }
            self.escape(&mut bytes)?;
        }
    }

    /// What follows a backslash in a string. An octal escape is a byte, so that any string can be written.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), FormError> {
        let Some(c) = self.peek() else { return Err(self.wrong("a string isn't closed")) };
        if c.is_digit(8) {
            let digits = self.rest().bytes().take(if c < '4' { 3 } else { 2 }).take_while(|b| (b'0'..b'8').contains(b)).count();
            let byte = self.rest()[..digits].bytes().fold(0u8, |byte, digit| byte << 3 | (digit - b'0'));
            self.at += digits;
            bytes.push(byte);
            return Ok(());
        }
        self.at += c.len_utf8();
        let plain = match c {
            'b' => '\u{8}',
            't' => '\t',
            'n' => '\n',
            'f' => '\u{c}',
            'r' => '\r',
            '"' | '\'' | '\\' => c,
            'u' => self.unicode()?,
            _ => return Err(self.wrong("no escape in a string begins so")),
        };
        bytes.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn unicode(&mut self) -> Result<char, FormError> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let point = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
        let point = point.ok_or_else(|| self.wrong("\\u has four hex digits of a code point that is no surrogate"))?;
        self.at += 4;
        Ok(point)
    }

    fn character(&mut self) -> Result<Cell, FormError> {
        self.at += 1;
        for (name, c) in CHARACTERS {
            if self.take(name) {
                return Ok(Cell::Character(u32::from(c)));
            }
        }
        let escaped = self.rest().strip_prefix('u').and_then(|rest| rest.as_bytes().first()).is_some_and(u8::is_ascii_hexdigit);
        if escaped {
            self.at += 1;
            return self.unicode().map(|c| Cell::Character(u32::from(c)));
        }
        let c = self.peek().ok_or_else(|| self.wrong("a character is missing"))?;
        self.at += c.len_utf8();
        Ok(Cell::Character(u32::from(c)))
    }

    fn keyword(&mut self) -> Result<Cell, FormError> {
        self.at += 1;
        // Further colons are part of the name.
        let start = self.at;
        self.take_while(|c| c == ':');
        self.symbol_text()?;
        self.name(self.text.as_bytes()[start..self.at].to_vec()).map(Cell::Keyword)
    }

    fn name(&self, bytes: impl Into<Bytes>) -> Result<Name, FormError> {
        Name::new(bytes).ok_or_else(|| self.wrong("a name has 1 to 128 bytes"))
    }

    /// `/`, or a name.
    fn symbol_text(&mut self) -> Result<Cow<'a, str>, FormError> {
        if self.take("/") {
            return Ok("/".into());
        }
        let mut first = true;
        let text = self.take_while(|c| if std::mem::take(&mut first) { symbol_first(c) } else { symbol_following(c) });
        if text.is_empty() || is_number(text.as_bytes()) { Err(self.wrong("no name begins so")) } else { Ok(text.into()) }
    }

    fn symbol(&mut self) -> Result<Cell, FormError> {
        let text = self.symbol_text()?;
        self.name(text.into_owned()).map(Cell::Symbol)
    }

    /// One that stands for itself.
    fn plain_symbol(&mut self) -> Result<Cell, FormError> {
        match self.symbol()? {
            Cell::Symbol(name) if is_word(name.as_bytes()) => Err(self.wrong("nil, true and false are no names")),
            symbol => Ok(symbol),
        }
    }

    fn atom(&mut self) -> Result<Cell, FormError> {
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        if rest.starts_with("0x") {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_alphanumeric());
            let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| self.wrong("a blob is pairs of hex digits"))?;
            return Ok(self.build.writer().blob(bytes.into())?);
        }
        if digits.starts_with(|c: char| c.is_ascii_digit()) {
            return self.number();
        }
        match self.symbol()? {
            Cell::Symbol(name) => Ok(match &name.as_bytes()[..] {
                b"nil" => Cell::Nil,
                b"true" => Cell::Bool(true),
                b"false" => Cell::Bool(false),
                _ => Cell::Symbol(name),
            }),
            other => Ok(other),
        }
    }

    fn number(&mut self) -> Result<Cell, FormError> {
        // A number ends where space or a bracket is.
        let text = self.take_while(|c| !" \t\n\r,;()[]{}".contains(c));
        let wrong = |reader: &Self| reader.wrong("not a number, or one of more than 4,096 bytes");
        if !text.contains(['.', 'e', 'E']) {
            return number::read(text).ok_or_else(|| wrong(self));
        }
        let shape = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'e' | b'E'));
        let point = text.split_once('.').is_none_or(|(_, after)| after.starts_with(|c: char| c.is_ascii_digit()));
        let double = text.parse::<f64>().ok().filter(|_| shape && point);
        double.map(|double| Cell::Double(double.to_bits())).ok_or_else(|| wrong(self))
    }
}

/// Names of characters.
pub(super) const CHARACTERS: [(&str, char); 6] =
    [("newline", '\n'), ("return", '\r'), ("space", ' '), ("tab", '\t'), ("formfeed", '\u{c}'), ("backspace", '\u{8}')];

fn symbol(name: &'static str) -> Cell {
    Name::new(name).map_or(Cell::Nil, Cell::Symbol)
}

fn symbol_first(c: char) -> bool {
    c.is_ascii_alphabetic() || ".*+!-_?$%&=<>".contains(c)
}

fn symbol_following(c: char) -> bool {
    symbol_first(c) || c.is_ascii_digit() || c == ':' || c == '#'
}

/// What begins so is read as a number wherever a form may stand.
fn is_number(bytes: &[u8]) -> bool {
    matches!(bytes, [b'-', b'0'..=b'9', ..])
}

/// Words that are read as something else than symbols.
pub(super) fn is_word(bytes: &[u8]) -> bool {
    matches!(bytes, b"nil" | b"true" | b"false")
}

/// May these bytes be read as a symbol's or keyword's name?
pub(super) fn is_name(bytes: &[u8]) -> bool {
    let mut chars = bytes.iter().map(|b| char::from(*b));
    bytes == b"/" || !is_number(bytes) && (chars.next().is_some_and(symbol_first) && chars.all(symbol_following))
}
