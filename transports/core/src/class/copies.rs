//! Copies: a small urgent message is sent again, elsewhere, so that a loss doesn't hold it up.
//!
//! What a copy may cost is the same on every transport ([`CopyBudget`]). Where messages stand on a lane, one behind the
//! other, a copy names its message by its number there, which both sides count and nobody says: so the receiver knows
//! which it has ([`Arrived`]).

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    queue::cost,
    table::{ClassId, Delivery, Order, TrafficClass, Urgency},
};
use crate::limits;

/// What copies may cost: a share of the bytes sent or a small rate, whichever is more, and never more than the path bears.
#[derive(Debug)]
pub struct CopyBudget {
    tokens: u64,
    /// Bytes sent since tokens were last added.
    sent: u64,
    at: Instant,
}

impl CopyBudget {
    /// One part in so many of the bytes sent.
    const SHARE: u64 = 20;
    /// Or so many bytes per second.
    const RATE: u64 = 64_000;
    /// Bytes that may gather: a dozen full packets, so that a quiet connection's burst of queries has its copies.
    const BURST: u64 = 16 * 1024;

    /// Full.
    pub fn new(now: Instant) -> Self {
        Self { tokens: Self::BURST, sent: 0, at: now }
    }

    /// So many bytes were sent: copies may be a share of them.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Whether a copy of so many bytes may leave. `most`: the bytes per second that all copies may take, if that's known.
    pub fn take(&mut self, now: Instant, bytes: usize, most: Option<u64>) -> bool {
        let bytes = bytes as u64;
        let past = |rate: u64| (u128::from(rate) * now.saturating_duration_since(self.at).as_micros() / 1_000_000) as u64;
        let mut more = past(Self::RATE).max(self.sent / Self::SHARE);
        if let Some(most) = most {
            more = more.min(past(most));
        }
        // Below a byte nothing is lost by waiting.
        if more > 0 {
            self.tokens = self.tokens.saturating_add(more).min(Self::BURST);
            (self.sent, self.at) = (0, now);
        }
        let enough = self.tokens >= bytes;
        if enough {
            self.tokens -= bytes;
        }
        enough
    }
}

/// Whether messages of a class may be copied: they need no order, and somebody waits for them.
pub(crate) fn may_be_copied(class: &TrafficClass) -> bool {
    class.urgency == Urgency::Latency && class.order == Order::Any && class.delivery == Delivery::Reliable
}

/// A message on a class's own lane, to be sent once more.
#[derive(Debug)]
pub(crate) struct MessageCopy {
    pub(crate) class: ClassId,
    /// Whole messages that the lane carried before it.
    pub(crate) number: u64,
    pub(crate) message: Bytes,
    due: Instant,
}

/// The copies of one connection that are to leave, in order.
#[derive(Debug)]
pub(crate) struct Copies {
    after: Duration,
    waiting: VecDeque<MessageCopy>,
    /// What they cost, at most [`limits::COPIES_WAITING`].
    cost: usize,
    budget: CopyBudget,
}

impl Copies {
    /// A copy leaves so long after its message.
    pub(crate) fn new(after: Duration) -> Self {
        Self { after, waiting: VecDeque::new(), cost: 0, budget: CopyBudget::new(Instant::now()) }
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.budget.sent(bytes);
    }

    /// A message has left. Of those whose copies can't leave the oldest are given up: they have come, or are late anyway.
    pub(crate) fn add(&mut self, class: ClassId, number: u64, message: Bytes, now: Instant) {
        if !self.budget.take(now, message.len(), None) {
            return;
        }
        self.cost += cost(message.len());
        self.waiting.push_back(MessageCopy { class, number, message, due: now.checked_add(self.after).unwrap_or(now) });
        while self.cost > limits::COPIES_WAITING && self.pop().is_some() {}
    }

    fn pop(&mut self) -> Option<MessageCopy> {
        let copy = self.waiting.pop_front()?;
        self.cost -= cost(copy.message.len());
        Some(copy)
    }

    /// When the next is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|copy| copy.due)
    }

    /// The next, if it's due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<MessageCopy> {
        if self.due()? <= now { self.pop() } else { None }
    }
}

/// Which of a lane's messages have been delivered: by the lane or by a copy, never by both.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// Messages that the lane has brought.
    next: u64,
    /// Those behind them that were delivered by a copy. At most [`limits::COPIES_EARLY`].
    early: BTreeSet<u64>,
}

impl Arrived {
    /// A copy has come. `deliver` is asked if it's news, and says whether there was room for it. What is too far ahead of
    /// the lane isn't taken: the lane will bring it.
    pub(crate) fn copy(&mut self, number: u64, deliver: impl FnOnce() -> bool) {
        let ahead = number.checked_sub(self.next).is_some_and(|ahead| ahead < limits::COPIES_AHEAD);
        let news = ahead && self.early.len() < limits::COPIES_EARLY && !self.early.contains(&number);
        if news && deliver() {
            self.early.insert(number);
        }
    }

    /// Whether the lane's next message has been delivered.
    pub(crate) fn next_is_early(&self) -> bool {
        self.early.first() == Some(&self.next)
    }

    /// The lane has brought its next message whole. Whether it's to be delivered.
    pub(crate) fn lane(&mut self) -> bool {
        let early = self.next_is_early();
        if early {
            self.early.pop_first();
        }
        self.next = self.next.saturating_add(1);
        !early
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn copies_are_a_share_of_the_bytes_or_a_small_rate_and_never_much_of_the_path() {
        let start = Instant::now();
        let spend = |sent: u64, most: Option<u64>| {
            let mut budget = CopyBudget::new(start);
            budget.tokens = 0;
            let mut spent = 0;
            for ms in 1..=1000 {
                budget.sent += sent / 1000;
                while budget.take(start + Duration::from_millis(ms), 100, most) {
                    spent += 100;
                }
            }
            spent
        };
        assert!((63_000..=64_000).contains(&spend(0, None)), "{}", spend(0, None));
        assert!((290_000..=300_000).contains(&spend(6_000_000, None)), "{}", spend(6_000_000, None));
        assert!((9_000..=10_000).contains(&spend(0, Some(10_000))), "{}", spend(0, Some(10_000)));
        let mut fresh = CopyBudget::new(start);
        assert!(fresh.take(start, CopyBudget::BURST as usize, None) && !fresh.take(start, 1, None), "a burst is bounded");
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_leaves_when_its_due_and_what_can_not_leave_is_bounded() {
        let after = Duration::from_millis(2);
        let mut copies = Copies::new(after);
        let start = Instant::now();
        copies.add(ClassId(1), 7, Bytes::from_static(b"ask"), start);
        assert!(copies.take(start + after - Duration::from_micros(1)).is_none());
        let copy = copies.take(start + after).unwrap();
        assert_eq!((copy.class, copy.number, &copy.message[..]), (ClassId(1), 7, &b"ask"[..]));
        // The byte stream for copies stands still, and messages go on. Enough is sent that the budget isn't what bounds them.
        for number in 0..100_000u64 {
            copies.sent(1_000_000);
            copies.add(ClassId(1), number, Bytes::from(vec![0; (number % 4096) as usize]), start + Duration::from_micros(number));
            assert!(copies.cost <= limits::COPIES_WAITING);
        }
        assert_eq!(copies.waiting.back().unwrap().number, 99_999, "the newest are kept");
        assert_eq!(copies.cost, copies.waiting.iter().map(|copy| cost(copy.message.len())).sum::<usize>());
    }

    /// Delivers, or has no room.
    fn copy(arrived: &mut Arrived, number: u64, room: bool) -> bool {
        let mut delivered = false;
        arrived.copy(number, || {
            delivered = room;
            room
        });
        delivered
    }

    #[test]
    fn a_message_is_delivered_once_whichever_comes_first() {
        let mut arrived = Arrived::default();
        assert!(arrived.lane(), "0 came first");
        assert!(!copy(&mut arrived, 0, true), "an old number");
        assert!(copy(&mut arrived, 2, true) && !copy(&mut arrived, 2, true));
        assert!(!copy(&mut arrived, 1, false));
        assert!(!arrived.next_is_early() && arrived.lane(), "1's copy found no room");
        assert!(arrived.next_is_early() && !arrived.lane(), "2's copy was first");
        assert!(arrived.lane() && arrived.early.is_empty());
    }

    #[test]
    fn what_a_peer_says_of_numbers_takes_no_memory() {
        let mut arrived = Arrived::default();
        let delivered = (0..100_000).filter(|number| copy(&mut arrived, number * 3, true)).count();
        assert_eq!(delivered, limits::COPIES_EARLY);
        assert!(!copy(&mut arrived, u64::MAX, true) && !copy(&mut arrived, limits::COPIES_AHEAD, true));
        let brought = (0..2 * limits::COPIES_AHEAD).filter(|_| arrived.lane()).count() as u64;
        assert_eq!(brought, 2 * limits::COPIES_AHEAD - delivered as u64);
        assert!(arrived.early.is_empty());
    }
}
