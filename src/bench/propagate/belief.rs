//! The messages: operations that travel by gossip, and the large belief of a flood.

use bytes::Bytes;
use ed25519_dalek::SigningKey;

use super::{NETWORK, failed};
use crate::{
    bench::error::LabError,
    cad015::Message,
    cell::{Cell, MemoryCells, Profile, Reader, encode},
    peer::{Account, Edit, Include, MAX_BELIEF, Operation, Store, Verified},
};

/// The author's secret key, and that of the account in the flood's belief: any two.
const AUTHOR: [u8; 32] = [7; 32];
const STRANGER: [u8; 32] = [8; 32];
/// Keys that the author writes over and over.
const KEYS: u64 = 64;
/// Bytes of a cell that only fills: the longest that a leaf of a blob has.
const FILLING: usize = 4096;
/// What is left for the last two of them, so that neither is too long, nor too short for a branch.
const TAIL: usize = 2 * FILLING - 256;

/// The profile of the cells.
pub(super) fn profile() -> Profile {
    Profile::NATIVE.in_network(NETWORK)
}

/// Whose operations travel.
pub(super) fn author() -> Account {
    SigningKey::from_bytes(&AUTHOR).verifying_key().to_bytes()
}

/// An operation that an account appends, with its cells.
pub(super) type Appendable = (Verified, MemoryCells);

/// The author's first `count` operations, each with a value of so many bytes.
pub(super) fn operations(count: usize, value: usize) -> Result<Vec<Appendable>, LabError> {
    (1..=count as u64).map(|sequence| operation(&AUTHOR, sequence, value)).collect()
}

fn operation(key: &[u8; 32], sequence: u64, value: usize) -> Result<Appendable, LabError> {
    let (key, profile) = (SigningKey::from_bytes(key), profile());
    let value: Bytes = (0..value).map(|at| (at as u8).wrapping_mul(151).wrapping_add(sequence as u8)).collect();
    let edit = Edit::Put { key: format!("key {}", sequence % KEYS).into(), value };
    let mut cells = MemoryCells::default();
    let signed = Operation::sign(&edit, sequence, &key, &profile, &mut cells).map_err(failed)?;
    let operation = Operation::read(&signed, &Reader::new(&profile, &cells)).map_err(failed)?;
    Ok((Verified::new(operation, &profile).map_err(failed)?, cells))
}

/// A belief of exactly so many bytes, encoded: a stranger's, about one operation, filled up with cells that nobody refers to.
/// Who has merged it once knows it by its bytes, so that it costs a flooded peer little more than its transport.
pub(super) fn large(bytes: usize) -> Result<Bytes, LabError> {
    let profile = profile();
    let store = Store::in_memory(NETWORK, Profile::NATIVE).map_err(failed)?;
    let (verified, cells) = operation(&STRANGER, 1, 1)?;
    store.append(vec![verified], &cells).map_err(failed)?;
    let belief = store.belief(0, Include::All).messages(&SigningKey::from_bytes(&STRANGER), 1, MAX_BELIEF, &profile).map_err(failed)?;
    let mut message = belief.into_iter().next().ok_or_else(|| failed("a belief of no message"))?;
    while message.encoded_len() + TAIL < bytes {
        message = fill(message, FILLING, &profile)?;
    }
    let half = bytes.saturating_sub(message.encoded_len()) / 2;
    message = fill(message, half, &profile)?;
    let left = bytes.saturating_sub(message.encoded_len());
    // A cell has a few bytes beside its content; how many depends on its size.
    for size in (left.saturating_sub(16)..=left).rev() {
        let filled = fill(message.clone(), size, &profile)?;
        if filled.encoded_len() == bytes {
            return Ok(filled.encode());
        }
    }
    Err(failed(format!("no belief has {bytes} bytes")))
}

/// Adds a cell of a blob of so many bytes, unlike those before.
fn fill(message: Message, size: usize, profile: &Profile) -> Result<Message, LabError> {
    let nth = message.branches.len();
    let content: Bytes = (0..size).map(|at| (at as u8).wrapping_mul(31).wrapping_add((nth * 7) as u8)).collect();
    let cell = Cell::blob(content).ok_or_else(|| failed(format!("no cell has {size} bytes")))?;
    let encoding = encode(&cell);
    Ok(message.with_branches([(profile.id(&encoding), encoding)]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::peer::Belief;

    #[test]
    fn a_large_belief_has_its_size_and_is_one() {
        for bytes in [super::super::LEAST_BELIEF, 10_000, 65_535, 65_536, 65_537, 200_000] {
            let encoded = large(bytes).unwrap();
            assert_eq!(encoded.len(), bytes);
            let message = Message::decode(&encoded, &profile()).unwrap();
            assert_eq!(message.encoded_len(), bytes, "no filling is there twice");
            assert!(Belief::open(&message, &profile()).unwrap().is_last());
        }
    }

    #[test]
    fn operations_follow_each_other() {
        let store = Store::in_memory(NETWORK, Profile::NATIVE).unwrap();
        for (verified, cells) in operations(3, 100).unwrap() {
            assert!(store.append(vec![verified], &cells).unwrap()[0].is_ok());
        }
        assert_eq!(store.snapshot().unwrap().next_sequence(&author()).unwrap(), 4);
    }
}
