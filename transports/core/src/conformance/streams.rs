//! What the checks send, and how they know that it arrived: every message says its number and its length, and its
//! bytes follow from them.

use std::{collections::BTreeSet, sync::OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use super::report::{Stop, Verdict, ensure, fail};
use crate::{ClassId, Connection, Inbound, MessageReader, MessageWriter, RecvError, SendError, limits};

/// Length of the noise that all contents are cut from. Bytes. Longer than any message of the suite by so much that
/// two messages seldom begin alike.
const NOISE: usize = 4 * 1024 * 1024;
/// Number (8 bytes) and length (4 bytes) at a message's front.
pub(super) const HEAD: usize = 12;

/// Noise of any length up to 2 MiB, another for each seed; it isn't copied.
pub(super) fn noise(seed: u64, len: usize) -> Bytes {
    static ALL: OnceLock<Bytes> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut noise = vec![0; NOISE];
        blake3::Hasher::new_derive_key("peerlane conformance noise").finalize_xof().fill(&mut noise);
        noise.into()
    });
    let from = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % (NOISE / 2);
    all.slice(from..from.saturating_add(len).min(NOISE))
}

/// Message `number`, of `len` bytes: [`HEAD`] at least.
pub(super) fn message(number: u64, len: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(len.max(HEAD));
    message.put_u64(number);
    message.put_u32(len as u32);
    message.put_slice(&noise(number, len.saturating_sub(HEAD)));
    message.freeze()
}

/// The number of a message that is exactly as [`message`] made it.
pub(super) fn number(found: &Bytes) -> Result<u64, Stop> {
    ensure!(found.len() >= HEAD, "a message of {} bytes that nobody sent", found.len());
    let number = found.iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte));
    ensure!(*found == message(number, found.len()), "message {number} ({} bytes) isn't as it was sent", found.len());
    Ok(number)
}

/// The numbers of the messages received.
#[derive(Debug, Default)]
pub(super) struct Numbers(BTreeSet<u64>);

impl Numbers {
    /// Takes a message in: as it was sent, and for the first time.
    pub(super) fn add(&mut self, message: &Bytes) -> Result<u64, Stop> {
        let number = number(message)?;
        ensure!(self.0.insert(number), "message {number} arrived twice");
        Ok(number)
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// All of 0 to `count` - 1 have arrived, and no other.
    pub(super) fn exactly(&self, count: u64) -> Verdict {
        let missing = (0..count).find(|n| !self.0.contains(n));
        ensure!(missing.is_none() && self.len() == count, "{} of {count} messages arrived; the first missing: {missing:?}", self.len());
        Ok(())
    }
}

/// The next message of a class, which must be a whole one.
pub(super) async fn whole(connection: &Connection, class: ClassId) -> Result<Bytes, Stop> {
    match connection.recv(class).await? {
        Inbound::Whole(bytes) => Ok(bytes),
        Inbound::Streamed(_) => fail!("a streamed message where a whole one was sent"),
    }
}

/// The next message of a class, which must be a streamed one.
pub(super) async fn streamed(connection: &Connection, class: ClassId) -> Result<MessageReader, Stop> {
    match connection.recv(class).await? {
        Inbound::Streamed(reader) => Ok(reader),
        Inbound::Whole(bytes) => fail!("a whole message of {} bytes where a streamed one was sent", bytes.len()),
    }
}

/// A streamed message's number, length and hash, on either side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Digest {
    pub(super) number: u64,
    len: u64,
    hash: [u8; 32],
}

/// Writes streamed message `number` in pieces of mixed sizes until `enough` says so of the bytes written, and ends it.
pub(super) async fn pour(mut writer: MessageWriter, number: u64, enough: impl Fn(u64) -> bool) -> Result<Digest, Stop> {
    let (mut hasher, mut len) = (blake3::Hasher::new(), 0u64);
    let mut piece = Bytes::copy_from_slice(&number.to_be_bytes());
    for step in 1.. {
        hasher.update(&piece);
        len += piece.len() as u64;
        writer.write(&mut piece).await?;
        if enough(len) {
            break;
        }
        let size = [limits::QUANTUM, 1, 3 * limits::QUANTUM + 7, 1000][step as usize % 4];
        piece = noise(number << 32 | step, size);
    }
    writer.finish()?;
    Ok(Digest { number, len, hash: hasher.finalize().into() })
}

/// Reads a streamed message that [`pour`] wrote.
pub(super) async fn taste(mut reader: MessageReader) -> Result<Digest, RecvError> {
    let (mut hasher, mut len, mut number) = (blake3::Hasher::new(), 0u64, 0);
    while let Some(chunk) = reader.read().await? {
        for byte in chunk.iter().take(8usize.saturating_sub(len as usize)) {
            number = number << 8 | u64::from(*byte);
        }
        hasher.update(&chunk);
        len += chunk.len() as u64;
    }
    Ok(Digest { number, len, hash: hasher.finalize().into() })
}

/// Writes until the message is refused: why. Nobody takes so much unread, so it ends.
pub(super) async fn write_until_refused(writer: &mut MessageWriter) -> Result<SendError, Stop> {
    for n in 0..500 {
        if let Err(error) = writer.write(&mut noise(n, 50_000)).await {
            return Ok(error);
        }
    }
    fail!("a streamed message that nobody reads takes 25 MB: no backpressure, or its writer isn't told that it has ended")
}
