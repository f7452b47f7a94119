//! Transactions: what an account signs. The account's key, never the peer's.

use ed25519_dalek::SigningKey;
use peerlane_cell::{Cell, Name, Ref, Signed, TreeError};

use crate::value::{Build, CONVEX, Value, as_address};

/// Low halves of the dense record tags.
const INVOKE: u8 = 0;
const TRANSFER: u8 = 1;
const CALL: u8 = 2;
const MULTI: u8 = 3;

/// The most transactions in a Multi that is read here. The peer's own bounds are juice and the cell's size.
const MAX_PARTS: u64 = 1024;

/// How the parts of a Multi are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultiMode {
    /// All of them, whatever comes of each.
    Any = 0,
    /// All, or none if one fails (`:CHILD`).
    All = 1,
    /// Until one succeeds.
    First = 2,
    /// Until one fails.
    Until = 3,
}

/// A transaction. The sequence is the account's current one plus 1; each attempt that is executed uses it up, failed ones too.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transaction {
    /// `d0`: runs a form.
    Invoke {
        /// The account.
        origin: u64,
        /// Its sequence.
        sequence: i64,
        /// The form.
        command: Value,
    },
    /// `d1`: sends coins.
    Transfer {
        /// The account.
        origin: u64,
        /// Its sequence.
        sequence: i64,
        /// To whom.
        target: u64,
        /// Coppers.
        amount: i64,
    },
    /// `d2`: calls a function of an actor.
    Call {
        /// The account.
        origin: u64,
        /// Its sequence.
        sequence: i64,
        /// The actor.
        target: u64,
        /// Coppers offered.
        offer: i64,
        /// The function's name.
        function: Name,
        /// Its arguments.
        arguments: Vec<Value>,
    },
    /// `d3`: several as one. The sequences of the parts are ignored; their accounts are the origin or controlled by it.
    Multi {
        /// The account.
        origin: u64,
        /// Its sequence.
        sequence: i64,
        /// How the parts are run.
        mode: MultiMode,
        /// The parts; no Multi among them is read here.
        parts: Vec<Self>,
    },
}

impl Transaction {
    /// The record and the branches below it.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`] for a cell above 16,383 bytes.
    pub fn value(&self) -> Result<Value, TreeError> {
        let mut build = Build::default();
        let cell = self.cell(&mut build)?;
        Ok(build.finish(cell))
    }

    fn cell(&self, build: &mut Build) -> Result<Cell, TreeError> {
        Ok(match self {
            Self::Invoke { origin, sequence, command } => {
                let command = build.value(command.clone())?;
                build.record(INVOKE, [build.address(*origin), build.integer(*sequence), command])
            }
            Self::Transfer { origin, sequence, target, amount } => {
                let fields = [build.address(*origin), build.integer(*sequence), build.address(*target), build.integer(*amount)];
                build.record(TRANSFER, fields)
            }
            Self::Call { origin, sequence, target, offer, function, arguments } => {
                let arguments: Result<Vec<Ref>, TreeError> = arguments.iter().map(|value| build.value(value.clone())).collect();
                let arguments = build.vector(&arguments?)?;
                let arguments = build.link(arguments)?;
                let function = build.link(Cell::Symbol(function.clone()))?;
                let head = [build.address(*origin), build.integer(*sequence), build.address(*target), build.integer(*offer)];
                build.record(CALL, head.into_iter().chain([function, arguments]))
            }
            Self::Multi { origin, sequence, mode, parts } => {
                let mut linked = Vec::with_capacity(parts.len());
                for part in parts {
                    let cell = part.cell(build)?;
                    linked.push(build.link(cell)?);
                }
                let parts = build.vector(&linked)?;
                let parts = build.link(parts)?;
                let head = [build.address(*origin), build.integer(*sequence), build.integer(*mode as i64)];
                build.record(MULTI, head.into_iter().chain([parts]))
            }
        })
    }

    /// Signs it: Ed25519 over the reference to the record (its encoding, or 0x20 and its hash when it's longer than 140 bytes).
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn sign(&self, key: &SigningKey) -> Result<Value, TreeError> {
        let mut build = Build::default();
        let cell = self.cell(&mut build)?;
        let record = build.link(cell)?;
        Ok(build.finish(Cell::Signed(Box::new(Signed::sign(&CONVEX, key, record)))))
    }

    /// Reads a transaction's record; `None` for any other value, and when a branch that it needs isn't held.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        Self::read_part(value, true)
    }

    fn read_part(value: &Value, multi: bool) -> Option<Self> {
        let Cell::Record(kind, fields) = &value.cell else { return None };
        let [origin, sequence, rest @ ..] = fields.tail() else { return None };
        let number = |r: &Ref| r.embedded()?.as_integer();
        let (origin, sequence) = (as_address(origin.embedded()?)?, number(sequence)?);
        Some(match (*kind, rest) {
            (INVOKE, [command]) => Self::Invoke { origin, sequence, command: value.child(command)? },
            (TRANSFER, [target, amount]) => {
                Self::Transfer { origin, sequence, target: as_address(target.embedded()?)?, amount: number(amount)? }
            }
            (CALL, [target, offer, function, arguments]) => {
                let target = as_address(target.embedded()?)?;
                let Cell::Symbol(function) = function.embedded()?.clone() else { return None };
                let arguments = items(value, arguments)?.iter().map(|item| value.child(item)).collect::<Option<Vec<_>>>()?;
                Self::Call { origin, sequence, target, offer: number(offer)?, function, arguments }
            }
            (MULTI, [mode, parts]) if multi => {
                let mode = match number(mode)? {
                    0 => MultiMode::Any,
                    1 => MultiMode::All,
                    2 => MultiMode::First,
                    3 => MultiMode::Until,
                    _ => return None,
                };
                let parts =
                    items(value, parts)?.iter().map(|part| Self::read_part(&value.child(part)?, false)).collect::<Option<Vec<_>>>()?;
                Self::Multi { origin, sequence, mode, parts }
            }
            _ => return None,
        })
    }
}

/// The items of a vector of at most [`MAX_PARTS`].
fn items(value: &Value, child: &Ref) -> Option<Vec<Ref>> {
    let cell = value.reader().resolve(child).ok()?;
    let Cell::Vector(vector) = &*cell else { return None };
    if vector.len() > MAX_PARTS {
        return None;
    }
    value.reader().vector_iter(vector, 0..vector.len()).collect::<Result<Vec<_>, _>>().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use data_encoding::HEXLOWER;
    use peerlane_cell::encode;

    use super::*;
    use crate::form;

    fn hex(value: &Value) -> String {
        HEXLOWER.encode(&encode(&value.cell))
    }

    fn invoke(text: &str) -> Transaction {
        Transaction::Invoke { origin: 11, sequence: 1, command: form::read(text).unwrap() }
    }

    #[test]
    fn golden_records() {
        // facts/convex.md 2.5
        let value = invoke("(+ 1 2)").value().unwrap();
        assert_eq!(hex(&value), "d003ea0b110181031102110132012b");
        assert_eq!(value.id().to_string(), "20f788457c6bcf8a1e62590d2d49faf5175a0c7f41453c443a718a3c6984ac65");
        let value = Transaction::Transfer { origin: 11, sequence: 2, target: 12, amount: 1000 }.value().unwrap();
        assert_eq!(hex(&value), "d104ea0b1102ea0c1203e8");
        assert_eq!(value.id().to_string(), "0939be86b49332066283df07f059ef6ea8bf5a6631e469d2bb87e2cce7b45eba");
    }

    #[test]
    fn what_is_made_is_read_and_its_signature_holds() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let long = format!("[0x{} \"{}\"]", "ab".repeat(300), "x".repeat(5000));
        let parts = vec![invoke("(+ 1 2)"), invoke(&long), Transaction::Transfer { origin: 11, sequence: 0, target: 12, amount: i64::MAX }];
        let call = Transaction::Call {
            origin: 11,
            sequence: 4,
            target: 40,
            offer: 5,
            function: Name::new("f").unwrap(),
            arguments: vec![form::read(&long).unwrap(), Value::nil()],
        };
        let many = (0..40).map(|i| Transaction::Transfer { origin: 11, sequence: 0, target: i, amount: 1 }).collect();
        let multi = |parts| Transaction::Multi { origin: 11, sequence: 3, mode: MultiMode::All, parts };
        for transaction in [invoke(&long), call, multi(parts), multi(many)] {
            let signed = transaction.sign(&key).unwrap();
            let Cell::Signed(cell) = &signed.cell else { panic!() };
            cell.verify(&CONVEX).unwrap();
            let read = Transaction::read(&signed.child(cell.value()).unwrap()).unwrap();
            assert_eq!(hex(&read.value().unwrap()), hex(&transaction.value().unwrap()));
        }
        let nested = multi(vec![multi(vec![])]).value().unwrap();
        assert_eq!(Transaction::read(&nested), None);
        assert_eq!(Transaction::read(&Value::nil()), None);
    }
}
