//! Messages that can be told apart.

use bytes::{BufMut, Bytes, BytesMut};

use crate::Failed;

/// Different messages, made in advance: making them is no part of the job.
const DISTINCT: usize = 64;

/// A run of messages of one size.
#[derive(Debug, Clone)]
pub struct Messages(Vec<Bytes>);

impl Messages {
    /// Messages of `size` bytes, at least 8.
    pub fn new(size: usize) -> Self {
        let message = |number: usize| {
            let mut message = BytesMut::with_capacity(size.max(8));
            message.put_u64(number as u64);
            message.extend((8..size).map(|i| (i as u8).wrapping_mul(31) ^ number as u8));
            message.freeze()
        };
        Self((0..DISTINCT).map(message).collect())
    }

    /// Bytes of each.
    pub fn size(&self) -> usize {
        self.0[0].len()
    }

    /// The message that goes as number `i`.
    pub fn get(&self, i: usize) -> &Bytes {
        &self.0[i % DISTINCT]
    }

    /// Whether this is what went as number `i`: its length, both ends, and thereby its place.
    ///
    /// # Errors
    /// [`Failed::Mixed`].
    pub fn check(&self, i: usize, message: &[u8]) -> Result<(), Failed> {
        let sent = self.get(i);
        let same = message.len() == sent.len() && message[..8] == sent[..8] && message[message.len() - 8..] == sent[sent.len() - 8..];
        if same { Ok(()) } else { Err(Failed::Mixed { number: i, len: message.len() }) }
    }
}
