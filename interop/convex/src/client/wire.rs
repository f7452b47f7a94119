//! The two tasks of a connection: one reads and hands out, one writes.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use peerlane_cell::ValueId;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use super::{ClientError, CloseReason, Shared};
use crate::{Challenge, ErrorCode, Frames, Kind, Message, Payload, Value};

/// How much is asked of the socket at once, in bytes.
const READ: usize = 64 * 1024;

pub(super) fn start(stream: TcpStream, shared: Arc<Shared>, frames: mpsc::Receiver<Bytes>) {
    let (reader, writer) = stream.into_split();
    let (stop, ours) = (shared.stop.clone(), shared.clone());
    tokio::spawn(async move {
        let reason = tokio::select! {
            () = stop.cancelled() => CloseReason::Local,
            reason = write(writer, frames) => reason,
        };
        ours.close(reason);
    });
    tokio::spawn(async move {
        let stop = shared.stop.clone();
        let reason = tokio::select! {
            () = stop.cancelled() => CloseReason::Local,
            reason = read(reader, &shared) => reason,
        };
        shared.close(reason);
    });
}

async fn write(mut writer: OwnedWriteHalf, mut frames: mpsc::Receiver<Bytes>) -> CloseReason {
    while let Some(frame) = frames.recv().await {
        if let Err(error) = writer.write_all(&frame).await {
            return CloseReason::Io(Arc::new(error));
        }
    }
    CloseReason::Local
}

async fn read(mut reader: OwnedReadHalf, shared: &Shared) -> CloseReason {
    let mut frames = Frames::new(shared.config.max_frame);
    loop {
        loop {
            match frames.next_frame() {
                Ok(Some(body)) => take(&body, shared),
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        // Grows with what has come, by doubling: never with what is declared.
        frames.buffer().reserve(READ);
        match reader.read_buf(frames.buffer()).await {
            Ok(0) => return CloseReason::Remote,
            Ok(_) => {}
            Err(error) => return CloseReason::Io(Arc::new(error)),
        }
    }
}

fn take(body: &Bytes, shared: &Shared) {
    let message = match Message::decode(body) {
        Ok(message) => message,
        Err(error) => {
            tracing::debug!(%error, "a message that isn't in canonical form");
            // Whoever waits for it shall not wait for its deadline.
            if let Some(waiter) = result_id(body).and_then(|id| shared.pending().remove(&id)) {
                let _ = waiter.send(Err(ClientError::Malformed("an answer that isn't in canonical form")));
            }
            return;
        }
    };
    match message.kind() {
        Kind::Result => match message.id().and_then(|id| shared.pending().remove(&id)) {
            Some(waiter) => drop(waiter.send(Ok(message))),
            None => tracing::debug!(id = message.id(), "an answer that nobody waits for"),
        },
        Kind::Challenge => reply(challenged(&message, shared.config.key.as_ref(), shared.config.network.as_ref()), shared),
        Kind::Ping => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
            let clock = Value::leaf(peerlane_cell::Cell::Integer(now));
            reply(message.id().and_then(|id| Message::result(id, clock).ok()), shared);
        }
        kind => {
            let taken = shared.config.inbox.as_ref().is_some_and(|inbox| inbox.try_send(message).is_ok());
            if !taken {
                tracing::debug!(%kind, "a message that nobody takes");
            }
        }
    }
}

/// Answers, if there's room: the peer can't have us keep what it doesn't read.
fn reply(message: Option<Message>, shared: &Shared) {
    if let Some(message) = message
        && shared.frames.try_send(message.frame()).is_err()
    {
        tracing::debug!("no room for an answer");
    }
}

/// The answer to the peer's challenge.
pub(crate) fn challenged(message: &Message, key: Option<&SigningKey>, network: Option<&ValueId>) -> Option<Message> {
    let Ok(Payload::Challenge { id, signed }) = message.parse() else {
        return Some(Message::error(message.id(), &ErrorCode::Format, "Wrong element count"));
    };
    let Some(key) = key else {
        return Some(Message::error(Some(id), &ErrorCode::Trust, "No signing key"));
    };
    let own = key.verifying_key().to_bytes();
    let verified = message.value(&signed).ok_or(crate::ChallengeError::Format);
    match verified.and_then(|signed| Challenge::verify(&signed, &own, network)) {
        Ok((challenger, challenge)) => Message::result(id, challenge.answer(&challenger, key).ok()?).ok(),
        Err(crate::ChallengeError::Format) => Some(Message::error(Some(id), &ErrorCode::Format, "Invalid challenge format")),
        Err(crate::ChallengeError::Target) => Some(Message::error(Some(id), &ErrorCode::Trust, "Wrong target key")),
        Err(crate::ChallengeError::Context) => Some(Message::error(Some(id), &ErrorCode::Trust, "Context mismatch")),
        Err(_) => Some(Message::error(Some(id), &ErrorCode::Trust, "Invalid challenge signature")),
    }
}

/// The ID of a Result whose rest may be anything: `dd 05`, then an integer of at most 8 bytes.
fn result_id(body: &[u8]) -> Option<i64> {
    let [0xdd, 5, tag @ 0x10..=0x18, rest @ ..] = body else { return None };
    let bytes = rest.get(..usize::from(tag & 0xf))?;
    let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
    Some(bytes.iter().fold(sign, |id, byte| id << 8 | i64::from(*byte)))
}
