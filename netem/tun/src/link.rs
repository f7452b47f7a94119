//! One way of a path: netem's arithmetic (net/sched/sch_netem.c), without its kernel.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::random::Random;
use crate::{Loss, Shape};

/// What travels on a link.
pub trait Packet: Clone {
    /// Bytes that it takes on the link, frame headers included.
    fn size(&self) -> usize;

    /// Makes one bit wrong; `draw` gives a number from 0 to below its argument.
    fn corrupt(&mut self, draw: impl FnMut(usize) -> usize);
}

/// What a link counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that came.
    pub arrived: u64,
    /// Further copies of them that were made.
    pub copied: u64,
    /// Packets and copies that the shape lost.
    pub lost: u64,
    /// Packets and copies that found the limit reached.
    pub overflowed: u64,
    /// Packets that left.
    pub left: u64,
    /// Bytes that left, frame headers included.
    pub left_bytes: u64,
    /// Packets inside.
    pub held: u64,
    /// Bytes inside, frame headers included.
    pub held_bytes: u64,
}

impl Counters {
    /// Packets that were dropped for either reason.
    pub fn dropped(&self) -> u64 {
        self.lost + self.overflowed
    }
}

/// One way of a path. Times are since any beginning, and the same calls give the same packets at the same times.
#[derive(Debug)]
pub struct Link<P> {
    shape: Shape,
    random: Random,
    /// The Gilbert-Elliott state.
    is_bad: bool,
    /// At most `shape.limit` of them.
    waiting: BinaryHeap<Reverse<Waiting<P>>>,
    /// Due, but not yet fetched.
    due: VecDeque<(Duration, P)>,
    /// When the last of `waiting` is due.
    last: Duration,
    number: u64,
    counters: Counters,
}

impl<P: Packet> Link<P> {
    /// An empty link.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            random: Random::new(seed),
            is_bad: false,
            waiting: BinaryHeap::new(),
            due: VecDeque::new(),
            last: Duration::ZERO,
            number: 0,
            counters: Counters::default(),
        }
    }

    /// Another shape from now on. Packets that are inside leave at the times that they had, as with netem's `change`.
    pub fn reshape(&mut self, shape: Shape) {
        if std::mem::discriminant(&self.shape.loss) != std::mem::discriminant(&shape.loss) {
            self.is_bad = false;
        }
        self.shape = shape;
    }

    /// A packet comes.
    pub fn arrive(&mut self, now: Duration, mut packet: P) {
        // Whoever is due by now has left, however late it's fetched: that's the reader's lateness, not the queue's length.
        self.release(now);
        self.counters.arrived += 1;
        let copy = self.random.chance(self.shape.duplicate).then(|| packet.clone());
        self.counters.copied += u64::from(copy.is_some());
        // netem drops one of two: the copy takes the place of the original.
        let mut copy = match (self.loses(), copy) {
            (true, None) => return self.counters.lost += 1,
            (true, Some(_)) => {
                self.counters.lost += 1;
                None
            }
            (false, copy) => copy,
        };
        self.maybe_corrupt(&mut packet);
        self.enter(now, packet);
        if let Some(mut copy) = copy.take() {
            // It goes through everything once more, but isn't copied again.
            if self.loses() {
                self.counters.lost += 1;
            } else {
                self.maybe_corrupt(&mut copy);
                self.enter(now, copy);
            }
        }
    }

    /// A packet that's due by now, and since when.
    pub fn depart(&mut self, now: Duration) -> Option<(Duration, P)> {
        self.release(now);
        self.due.pop_front()
    }

    /// When the next packet is due, if there's one.
    pub fn next_due(&self) -> Option<Duration> {
        let fetched = self.due.front().map(|(due, _)| *due);
        fetched.or_else(|| self.waiting.peek().map(|Reverse(waiting)| waiting.due))
    }

    /// What it counted by now.
    pub fn counters(&mut self, now: Duration) -> Counters {
        self.release(now);
        self.counters
    }

    fn enter(&mut self, now: Duration, packet: P) {
        if self.waiting.len() >= self.shape.limit as usize {
            self.counters.overflowed += 1;
            return;
        }
        let due = if self.shape.reorder > 0.0 && self.random.chance(self.shape.reorder) { now } else { self.due(now, packet.size()) };
        // Of those that are inside: an earlier one has no say.
        self.last = if self.waiting.is_empty() { due } else { self.last.max(due) };
        self.counters.held += 1;
        self.counters.held_bytes += packet.size() as u64;
        self.number += 1;
        self.waiting.push(Reverse(Waiting { due, number: self.number, packet }));
    }

    /// With a rate, a packet follows the one before: it's ready for the link after its delay, and the link for it when
    /// the last one has passed. So the delay comes first, and the rate at its end.
    fn due(&mut self, now: Duration, bytes: usize) -> Duration {
        let ready = now + self.delay();
        match self.shape.rate {
            None => ready,
            Some(_) if self.waiting.is_empty() => ready + self.shape.transmission(bytes),
            Some(_) => ready.max(self.last) + self.shape.transmission(bytes),
        }
    }

    fn delay(&mut self) -> Duration {
        let Some(jitter) = self.shape.jitter else { return self.shape.delay };
        let offset = jitter.spread.as_secs_f64() * jitter.distribution.quantile(self.random.unit());
        // A tail that would be before its sending: at once.
        Duration::try_from_secs_f64(self.shape.delay.as_secs_f64() + offset).unwrap_or_default()
    }

    fn loses(&mut self) -> bool {
        match self.shape.loss {
            Loss::Random(share) => self.random.chance(share),
            Loss::Bursts { enter, leave, bad, good } => {
                let (change, lost) = if self.is_bad { (leave, bad) } else { (enter, good) };
                self.is_bad ^= self.random.chance(change);
                self.random.chance(lost)
            }
        }
    }

    fn maybe_corrupt(&mut self, packet: &mut P) {
        if self.random.chance(self.shape.corrupt) {
            packet.corrupt(|bound| self.random.below(bound));
        }
    }

    /// Lets go whoever is due.
    fn release(&mut self, now: Duration) {
        while self.waiting.peek().is_some_and(|Reverse(first)| first.due <= now) {
            let Some(Reverse(Waiting { due, packet, .. })) = self.waiting.pop() else { break };
            let bytes = packet.size() as u64;
            self.counters.held -= 1;
            self.counters.held_bytes -= bytes;
            self.counters.left += 1;
            self.counters.left_bytes += bytes;
            self.due.push_back((due, packet));
        }
    }
}

/// Ordered by when it's due, and of those due at once by when it came.
#[derive(Debug)]
struct Waiting<P> {
    due: Duration,
    number: u64,
    packet: P,
}

impl<P> Ord for Waiting<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl<P> PartialOrd for Waiting<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Waiting<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for Waiting<P> {}
