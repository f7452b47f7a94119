//! The pen: partial messages wait here, bounded in number and time, until their missing cells are acquired.
//!
//! A partial message names what it lacks. It's penned under the ID of what it's about; a second message about the same
//! thing adds its cells and makes its sender a further source for the rest. One that nobody completes is discarded.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::Staging;
use crate::cell::ValueId;

/// Bounds of a pen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PenLimits {
    /// Things waited for at once. Worst-case memory: this many times `bytes`.
    pub entries: usize,
    /// The most of them that one sender may have begun.
    pub per_sender: usize,
    /// Sources remembered of each.
    pub sources: usize,
    /// Bytes of cells kept for each.
    pub bytes: usize,
    /// A thing for which no cell has come for so long is discarded.
    pub patience: Duration,
    /// A thing that isn't complete after so long is discarded, whatever has come for it: who sends a cell now and then
    /// doesn't keep a place for ever. What was adopted of it by then stays.
    pub total: Duration,
}

impl Default for PenLimits {
    fn default() -> Self {
        Self {
            entries: 16,
            per_sender: 4,
            sources: 8,
            bytes: 4 * 1024 * 1024,
            patience: Duration::from_secs(10),
            total: Duration::from_secs(60),
        }
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Penned {
    /// It's the first about this: acquire what it lacks.
    First,
    /// Others were here before: its cells and its sender were added.
    Joined,
    /// There's no room: it's dropped.
    Full,
}

#[derive(Debug)]
struct Entry<S> {
    begun_by: S,
    begun: Instant,
    /// One of its sources is trusted.
    trusted: bool,
    sources: Vec<S>,
    staging: Option<Staging>,
    /// Cells that came while the staging was away with whoever acquires the rest.
    arrived: BTreeMap<ValueId, Bytes>,
    arrived_bytes: usize,
    last: Instant,
}

/// See the module's text. `S` is a sender.
#[derive(Debug)]
pub struct Pen<S> {
    limits: PenLimits,
    entries: BTreeMap<ValueId, Entry<S>>,
    discarded: u64,
}

impl<S: Clone + Eq> Pen<S> {
    /// An empty pen.
    #[must_use]
    pub fn new(limits: PenLimits) -> Self {
        Self { limits, entries: BTreeMap::new(), discarded: 0 }
    }

    /// Puts a message in: what it's about, who sent it, the cells that it carries. A copy that brings nothing new buys no
    /// time, or whoever repeats it would keep its place for ever. Who has begun most gives way to who has begun nothing, and
    /// who isn't trusted gives way to who is.
    pub fn put(
        &mut self,
        about: ValueId,
        from: &S,
        trusted: bool,
        cells: impl IntoIterator<Item = (ValueId, Bytes)>,
        now: Instant,
    ) -> Penned {
        let limits = self.limits;
        if let Some(entry) = self.entries.get_mut(&about) {
            entry.trusted |= trusted;
            // A trusted source has its place among them.
            if trusted && !entry.sources.contains(from) && entry.sources.len() >= limits.sources {
                entry.sources.pop();
            }
            if !entry.sources.contains(from) && entry.sources.len() < limits.sources {
                entry.sources.push(from.clone());
            }
            let news = match &mut entry.staging {
                Some(staging) => {
                    let before = staging.bytes();
                    staging.add(cells);
                    staging.bytes() > before
                }
                None => {
                    let before = entry.arrived_bytes;
                    for (id, encoding) in cells {
                        if !entry.arrived.contains_key(&id) && entry.arrived_bytes + encoding.len() <= limits.bytes {
                            entry.arrived_bytes += encoding.len();
                            entry.arrived.insert(id, Bytes::copy_from_slice(&encoding));
                        }
                    }
                    entry.arrived_bytes > before
                }
            };
            if news {
                entry.last = now;
            }
            return Penned::Joined;
        }
        let begun = self.begun_by(from);
        if self.entries.len() >= limits.entries && begun < limits.per_sender && (trusted || begun == 0) {
            self.evict(trusted, begun == 0);
        }
        if self.entries.len() >= limits.entries || begun >= limits.per_sender {
            self.discarded += 1;
            return Penned::Full;
        }
        let mut staging = Staging::new(limits.bytes);
        staging.add(cells);
        let entry = Entry {
            begun_by: from.clone(),
            begun: now,
            trusted,
            sources: vec![from.clone()],
            staging: Some(staging),
            arrived: BTreeMap::new(),
            arrived_bytes: 0,
            last: now,
        };
        self.entries.insert(about, entry);
        Penned::First
    }

    fn begun_by(&self, sender: &S) -> usize {
        self.entries.values().filter(|entry| entry.begun_by == *sender).count()
    }

    /// Makes room: discards the stalest thing that isn't trusted, for one that is; else the stalest of the sender that has
    /// begun most, if that's more than one. What isn't trusted never takes the place of what is.
    fn evict(&mut self, trusted: bool, first: bool) {
        let stalest = |which: &dyn Fn(&Entry<S>) -> bool| {
            let entries = self.entries.iter().filter(|(_, entry)| which(entry));
            entries.min_by_key(|(_, entry)| entry.last).map(|(about, _)| *about)
        };
        let below = if trusted { stalest(&|entry| !entry.trusted) } else { None };
        let candidates = || self.entries.values().filter(|entry| trusted || !entry.trusted);
        let most = candidates().map(|entry| self.begun_by(&entry.begun_by)).max().unwrap_or(0);
        let greedy = || stalest(&|entry| (trusted || !entry.trusted) && first && most > 1 && self.begun_by(&entry.begun_by) == most);
        if let Some(about) = below.or_else(greedy) {
            self.entries.remove(&about);
            self.discarded += 1;
        }
    }

    /// Takes the cells out, to work on them; `None` if they're out already or it isn't penned.
    pub fn take(&mut self, about: &ValueId) -> Option<Staging> {
        let entry = self.entries.get_mut(about)?;
        let mut staging = entry.staging.take()?;
        entry.arrived_bytes = 0;
        staging.add(std::mem::take(&mut entry.arrived));
        Some(staging)
    }

    /// Puts the cells back.
    pub fn give_back(&mut self, about: &ValueId, mut staging: Staging, progress: bool, now: Instant) {
        if let Some(entry) = self.entries.get_mut(about) {
            entry.arrived_bytes = 0;
            staging.add(std::mem::take(&mut entry.arrived));
            entry.staging = Some(staging);
            if progress {
                entry.last = now;
            }
        }
    }

    /// Who may have what is missing.
    #[must_use]
    pub fn sources(&self, about: &ValueId) -> Vec<S> {
        self.entries.get(about).map(|entry| entry.sources.clone()).unwrap_or_default()
    }

    /// A source didn't have what it should.
    pub fn no_source(&mut self, about: &ValueId, source: &S) {
        if let Some(entry) = self.entries.get_mut(about) {
            entry.sources.retain(|s| s != source);
        }
    }

    /// It's whole, or proven invalid: it's no longer waited for.
    pub fn done(&mut self, about: &ValueId) {
        self.entries.remove(about);
    }

    /// When its time is up at the latest.
    #[must_use]
    pub fn deadline(&self, about: &ValueId) -> Option<Instant> {
        self.entries.get(about)?.begun.checked_add(self.limits.total)
    }

    /// Whether its time is up, or no source is left; then it's discarded.
    pub fn expire(&mut self, about: &ValueId, now: Instant) -> bool {
        let PenLimits { patience, total, .. } = self.limits;
        let late =
            |entry: &Entry<S>| now.saturating_duration_since(entry.last) >= patience || now.saturating_duration_since(entry.begun) >= total;
        let over = |entry: &Entry<S>| entry.sources.is_empty() || late(entry);
        let expired = self.entries.get(about).is_none_or(over);
        if expired && self.entries.remove(about).is_some() {
            self.discarded += 1;
        }
        expired
    }

    /// Whether this is waited for.
    #[must_use]
    pub fn contains(&self, about: &ValueId) -> bool {
        self.entries.contains_key(about)
    }

    /// Things waited for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing is waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Messages that found no room, and things that nobody completed.
    #[must_use]
    pub const fn discarded(&self) -> u64 {
        self.discarded
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cell::CellSource;

    fn id(n: u8) -> ValueId {
        ValueId([n; 32])
    }

    fn cell(n: u8, len: usize) -> (ValueId, Bytes) {
        (id(n), Bytes::from(vec![n; len]))
    }

    #[tokio::test(start_paused = true)]
    async fn copies_add_cells_and_sources() {
        let mut pen = Pen::new(PenLimits::default());
        let now = Instant::now();
        assert_eq!(pen.put(id(1), &"a", false, [cell(10, 200)], now), Penned::First);
        assert_eq!(pen.put(id(1), &"b", false, [cell(11, 200)], now), Penned::Joined);
        assert_eq!(pen.sources(&id(1)), ["a", "b"]);
        let staging = pen.take(&id(1)).unwrap();
        assert!(staging.has(&id(10)) && staging.has(&id(11)));
        assert!(pen.take(&id(1)).is_none(), "one works on it at a time");
        assert_eq!(pen.put(id(1), &"c", false, [cell(12, 200)], now), Penned::Joined);
        pen.give_back(&id(1), staging, true, now);
        assert!(pen.take(&id(1)).unwrap().has(&id(12)), "what came meanwhile isn't lost");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded_in_number_per_sender_and_in_bytes() {
        let limits = PenLimits { entries: 3, per_sender: 2, bytes: 500, sources: 2, ..PenLimits::default() };
        let mut pen = Pen::new(limits);
        let now = Instant::now();
        assert_eq!(pen.put(id(1), &"a", false, [], now), Penned::First);
        assert_eq!(pen.put(id(2), &"a", false, [], now), Penned::First);
        assert_eq!(pen.put(id(3), &"a", false, [], now), Penned::Full, "one sender doesn't fill it");
        assert_eq!(pen.put(id(3), &"b", false, [], now), Penned::First);
        assert_eq!(pen.put(id(4), &"b", false, [], now), Penned::Full);
        for source in ["b", "c", "d"] {
            assert_eq!(pen.put(id(1), &source, false, (0..9).map(|n| cell(n, 200)), now), Penned::Joined);
        }
        assert_eq!(pen.sources(&id(1)).len(), 2);
        assert!(pen.take(&id(1)).unwrap().bytes() <= 500);
        assert_eq!((pen.len(), pen.discarded()), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_without_news_buys_no_time_whether_the_cells_are_in_or_out() {
        let patience = PenLimits::default().patience;
        for out in [false, true] {
            let mut pen = Pen::new(PenLimits::default());
            let start = Instant::now();
            assert_eq!(pen.put(id(1), &"a", false, [cell(10, 200)], start), Penned::First);
            let staging = out.then(|| pen.take(&id(1)).unwrap());
            assert_eq!(pen.put(id(1), &"a", false, [cell(11, 200)], start + patience / 4), Penned::Joined);
            for n in 2..8 {
                assert_eq!(pen.put(id(1), &"a", false, [cell(11, 200)], start + patience * n / 4), Penned::Joined);
            }
            if let Some(staging) = staging {
                pen.give_back(&id(1), staging, false, start + patience * 2);
            }
            assert!(pen.expire(&id(1), start + patience * 5 / 4), "out: {out}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_senders_dont_shut_the_others_out() {
        let mut pen = Pen::new(PenLimits::default());
        let now = Instant::now();
        for n in 0..16u8 {
            let sender = ["a", "b", "c", "d"][usize::from(n) / 4];
            assert_eq!(pen.put(id(n), &sender, false, [], now + Duration::from_millis(n.into())), Penned::First);
        }
        assert_eq!(pen.put(id(99), &"honest", false, [], now), Penned::First);
        assert!(pen.contains(&id(99)) && pen.len() == 16 && pen.discarded() == 1);
        assert_eq!(pen.put(id(98), &"honest", false, [], now), Penned::Full, "one place, not more");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_trusted_gives_way_to_who_is_and_never_the_other_way_round() {
        let limits = PenLimits { entries: 4, per_sender: 2, ..PenLimits::default() };
        let mut pen = Pen::new(limits);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        // Strangers, each with one: nobody is greedy.
        for n in 0..4u8 {
            assert_eq!(pen.put(id(n), &["a", "b", "c", "d"][usize::from(n)], false, [], at(n.into())), Penned::First);
        }
        assert_eq!(pen.put(id(10), &"e", false, [], at(10)), Penned::Full);
        for n in 20..22u8 {
            assert_eq!(pen.put(id(n), &"friend", true, [], at(n.into())), Penned::First);
        }
        assert!(!pen.contains(&id(0)) && !pen.contains(&id(1)) && pen.contains(&id(2)), "the stalest went");
        assert_eq!(pen.put(id(22), &"friend", true, [], at(22)), Penned::Full, "no more than its share");
        // One that a trusted peer vouches for as well is as good as its own.
        assert_eq!(pen.put(id(2), &"friend", true, [], at(23)), Penned::Joined);
        assert_eq!(pen.put(id(23), &"other friend", true, [], at(24)), Penned::First);
        assert!(pen.contains(&id(2)) && !pen.contains(&id(3)));
        for n in 30..40u8 {
            assert_eq!(pen.put(id(n), &"stranger", false, [], at(n.into())), Penned::Full);
        }
        assert_eq!(pen.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cell_now_and_then_buys_no_more_than_the_total_time() {
        let limits = PenLimits::default();
        let mut pen = Pen::new(limits);
        let start = Instant::now();
        assert_eq!(pen.put(id(1), &"a", false, [], start), Penned::First);
        let mut at = start;
        let mut n = 0;
        while !pen.expire(&id(1), at) {
            n += 1;
            at += limits.patience / 2;
            assert_eq!(pen.put(id(1), &"a", false, [cell(n, 200)], at), Penned::Joined);
            assert!(at <= start + limits.total, "held for {:?}", at - start);
        }
        assert_eq!(pen.deadline(&id(1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_completes_is_discarded() {
        let mut pen = Pen::new(PenLimits::default());
        let start = Instant::now();
        let patience = PenLimits::default().patience;
        assert_eq!(pen.put(id(1), &"a", false, [], start), Penned::First);
        assert!(!pen.expire(&id(1), start + patience - Duration::from_millis(1)));
        let staging = pen.take(&id(1)).unwrap();
        pen.give_back(&id(1), staging, true, start + patience / 2);
        assert!(!pen.expire(&id(1), start + patience), "progress buys time");
        assert!(pen.expire(&id(1), start + patience + patience / 2));
        assert!(!pen.contains(&id(1)));
        assert_eq!(pen.put(id(2), &"a", false, [], start), Penned::First);
        pen.no_source(&id(2), &"a");
        assert!(pen.expire(&id(2), start), "no source is left");
    }
}
