//! Copies: a small urgent message is sent again as a datagram while it isn't acknowledged.
//!
//! A lost packet costs its message a round trip and more until it's repaired. That sets the tail of urgent traffic on a
//! lossy path, however short the queues are. A copy a few milliseconds later arrives instead, if that packet isn't lost
//! too; the copies are spread, so that one burst of loss doesn't take them all. They're bounded: see [`CopyBudget`].
//!
//! The message itself is on a stream of its own (`messages`), so the receiver knows by the stream's number that it has
//! it already ([`Arrivals`]).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::{Pin, pin},
    task::{Context, Waker},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use peerlane_transport::{ClassId, class::CopyBudget, varint};
use quinn::{Connection, SendStream};
use tokio::time::{Instant, Sleep};

/// A datagram that carries nothing: it's acknowledged, which is what it's for.
pub(crate) const PROBE: u8 = 2 << 4;
/// First byte of a datagram that carries a copy: this, or the class's index in the low half.
pub(crate) const COPY: u8 = 1 << 4;
/// Before the message: that byte, and the stream's number.
const HEAD: usize = 1 + varint::MAX_LEN;
/// Messages that copies are kept of. Count; each is smaller than a packet.
const MAX_KEPT: usize = 256;

struct Kept {
    stream: SendStream,
    class: ClassId,
    message: Bytes,
    sent: Instant,
    /// Which copy is next.
    turn: usize,
}

/// The messages of one connection that may be copied, and when.
pub(crate) struct Copies {
    /// When copies leave, counted from the message's own departure, in order.
    after: Vec<Duration>,
    due: BTreeMap<(Instant, u64), Kept>,
    /// Those whose copies have all left, in the order of their departure: for a rescue.
    left: VecDeque<Kept>,
    added: u64,
    timer: Pin<Box<Sleep>>,
    budget: CopyBudget,
}

impl Copies {
    pub(crate) fn new(mut after: Vec<Duration>) -> Self {
        after.sort_unstable();
        let now = Instant::now();
        Self {
            after,
            due: BTreeMap::new(),
            left: VecDeque::new(),
            added: 0,
            timer: Box::pin(tokio::time::sleep_until(now)),
            budget: CopyBudget::new(now),
        }
    }

    /// So many bytes were handed to quinn: copies may be a share of them.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.budget.sent(bytes);
    }

    /// A message has left on a stream of its own, which ends with it. `datagram`: the largest that there may be.
    pub(crate) fn add(&mut self, stream: SendStream, class: ClassId, message: Bytes, datagram: Option<usize>) {
        let fits = datagram.is_some_and(|max| HEAD + message.len() <= max);
        if fits && self.due.len() < MAX_KEPT {
            self.keep(Kept { stream, class, message, sent: Instant::now(), turn: 0 });
        }
    }

    fn keep(&mut self, kept: Kept) {
        let Some(after) = self.after.get(kept.turn) else {
            if !self.after.is_empty() {
                self.left.push_back(kept);
            }
            while self.left.len() > MAX_KEPT || self.left.front_mut().is_some_and(Kept::has_arrived) {
                self.left.pop_front();
            }
            return;
        };
        self.added += 1;
        self.due.insert((kept.sent + *after, self.added), kept);
    }

    /// Sends what is due, and wakes the task when the next is. `most`: the bytes per second that all copies may take.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection, most: Option<u64>) {
        while let Some(((at, _), _)) = self.due.first_key_value() {
            if *at > Instant::now() {
                let at = *at;
                self.timer.as_mut().reset(at);
                if self.timer.as_mut().poll(cx).is_pending() {
                    return;
                }
                continue;
            }
            let Some((_, mut kept)) = self.due.pop_first() else { return };
            if kept.has_arrived() {
                continue;
            }
            let datagram = encode(&kept);
            // Never instead of a message that is a datagram itself and waits in quinn.
            if connection.datagram_send_buffer_space() >= datagram.len() && self.budget.take(Instant::now(), datagram.len(), most) {
                let _ = connection.send_datagram(datagram);
            }
            kept.turn += 1;
            self.keep(kept);
        }
    }
}

impl Copies {
    /// A packet is to leave, whatever is in flight: with the oldest message that hasn't arrived, if there's one.
    pub(crate) fn probe(&mut self, connection: &Connection) {
        self.left.retain_mut(|kept| !kept.has_arrived());
        let oldest = self.left.front().or_else(|| self.due.first_key_value().map(|(_, kept)| kept));
        // What waits for the window anyway is as good a probe, and an older one.
        let _ = connection.send_datagram(oldest.map_or(Bytes::from_static(&[PROBE]), encode));
    }
}

impl Kept {
    /// It's acknowledged.
    fn has_arrived(&mut self) -> bool {
        pin!(self.stream.stopped()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}

fn encode(kept: &Kept) -> Bytes {
    let mut datagram = BytesMut::with_capacity(HEAD + kept.message.len());
    datagram.put_u8(COPY | kept.class.0);
    varint::put(&mut datagram, kept.stream.id().index());
    datagram.put_slice(&kept.message);
    datagram.freeze()
}

/// Which of the other side's message streams have been delivered: by the stream or by a copy of it, never by both.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Delivered, by the stream's number; the [`Arrivals::WINDOW`] highest are kept.
    done: BTreeSet<u64>,
    /// Delivered by a copy, while the stream is still to come.
    early: BTreeSet<u64>,
}

impl Arrivals {
    /// Numbers that are kept. A copy of a stream older than these is dropped: it has come long ago, or will.
    const WINDOW: usize = 1024;
    /// How far ahead of what has arrived a stream's number may be: more than the streams that may be open.
    const AHEAD: u64 = 1024;
    /// Copies delivered whose streams are still to come; streams that may be open are fewer.
    const MAX_EARLY: usize = 128;

    /// A copy of a stream has come. `deliver` is asked if it's news, and says whether there was room for it.
    pub(crate) fn copy<E>(&mut self, stream: u64, deliver: impl FnOnce() -> Result<bool, E>) -> Result<(), E> {
        let oldest = if self.done.len() < Self::WINDOW { 0 } else { self.done.first().copied().unwrap_or(0) };
        let newest = self.done.last().copied().unwrap_or(0);
        let news = stream >= oldest && stream <= newest.saturating_add(Self::AHEAD) && !self.done.contains(&stream);
        if news && self.early.len() < Self::MAX_EARLY && deliver()? {
            self.early.insert(stream);
            self.mark(stream);
        }
        Ok(())
    }

    /// A stream has come whole. Whether its message is to be delivered.
    pub(crate) fn stream(&mut self, stream: u64) -> bool {
        if self.early.remove(&stream) {
            return false;
        }
        self.mark(stream);
        true
    }

    fn mark(&mut self, stream: u64) {
        self.done.insert(stream);
        if self.done.len() > Self::WINDOW {
            self.done.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_message_is_delivered_once_whichever_comes_first() {
        let mut arrivals = Arrivals::default();
        let mut delivered = Vec::new();
        let mut copy = |arrivals: &mut Arrivals, stream, room| {
            let deliver = || {
                if room {
                    delivered.push(stream);
                }
                Ok::<_, Infallible>(room)
            };
            arrivals.copy(stream, deliver).unwrap();
        };
        copy(&mut arrivals, 3, true);
        copy(&mut arrivals, 3, true);
        assert!(!arrivals.stream(3), "its copy was first");
        assert!(arrivals.stream(4), "it's first");
        copy(&mut arrivals, 4, true);
        copy(&mut arrivals, 5, false);
        assert!(arrivals.stream(5), "its copy found no room");
        assert_eq!(delivered, [3]);
    }

    #[test]
    fn what_a_peer_says_of_streams_takes_no_memory() {
        let mut arrivals = Arrivals::default();
        for stream in 0..100_000 {
            arrivals.copy(stream * 7, || Ok::<_, Infallible>(true)).unwrap();
        }
        assert!(arrivals.early.len() <= Arrivals::MAX_EARLY);
        for stream in 0..100_000 {
            arrivals.stream(stream);
        }
        assert!(arrivals.done.len() <= Arrivals::WINDOW);
        let mut asked = false;
        arrivals.copy(1 << 60, || Ok::<_, Infallible>(std::mem::replace(&mut asked, true))).unwrap();
        arrivals.copy(5, || Ok::<_, Infallible>(std::mem::replace(&mut asked, true))).unwrap();
        assert!(!asked, "a stream that can't be open, and one that is long past");
    }
}
