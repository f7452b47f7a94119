//! Token buckets and the bounded tables that hold them.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

/// A budget that refills: `burst` at once, then one for each `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens in a full bucket. Zero: always denied.
    pub burst: u32,
    /// Time in which one token comes back. Zero: never denied.
    pub interval: Duration,
}

/// A token bucket, kept as the moment at which it will be full again (the generic cell rate algorithm): no counter to
/// refill, and a bucket whose moment has passed is as good as none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// `None`: full.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Whether there's a token.
    pub(super) fn has(&self, rate: Rate, now: Instant) -> bool {
        let missing = self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        // One token more must be no more than the whole burst.
        missing.saturating_add(rate.interval) <= rate.interval.saturating_mul(rate.burst) && rate.burst > 0
    }

    /// Takes a token that [`Bucket::has`] found.
    pub(super) fn spend(&mut self, rate: Rate, now: Instant) {
        let from = self.full_at.map_or(now, |full_at| full_at.max(now));
        // An interval beyond the clock's range is the operator's own: the bucket then stays as it is.
        self.full_at = from.checked_add(rate.interval).or(self.full_at);
    }

    /// Puts a token back; more than full it never gets, since a moment in the past counts as now.
    pub(super) fn give_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.and_then(|full_at| full_at.checked_sub(rate.interval));
    }
}

/// A table of what was used recently, bounded: two generations, of which the older is thrown away when the younger
/// is full. What is used moves to the younger. Every operation takes constant time, amortised, whatever a peer does.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Most entries of one generation.
    half: usize,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    /// A table of `capacity` entries at most, and 2 at least.
    pub(super) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (capacity / 2).max(1) }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if !self.young.contains_key(&key) && self.young.len() >= self.half {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

impl<K: Copy + Eq + Hash, V: Default> Recent<K, V> {
    /// The entry, which is young from now on.
    pub(super) fn get_or_default(&mut self, key: K) -> &mut V {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_default();
            self.insert(key, value);
        }
        self.young.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const RATE: Rate = Rate { burst: 3, interval: Duration::from_secs(10) };

    /// Takes as many tokens as there are, and says how many.
    fn drain(bucket: &mut Bucket, rate: Rate, now: Instant) -> u32 {
        let mut taken = 0;
        while taken < 100 && bucket.has(rate, now) {
            bucket.spend(rate, now);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_bucket_holds_its_burst_and_refills_one_per_interval() {
        let start = Instant::now();
        let mut bucket = Bucket::default();
        assert_eq!(drain(&mut bucket, RATE, start), 3);
        let just_before = start + RATE.interval - Duration::from_nanos(1);
        assert_eq!(drain(&mut bucket, RATE, just_before), 0);
        assert_eq!(drain(&mut bucket, RATE, start + RATE.interval), 1);
        // However long it rests, it's full and no more.
        assert_eq!(drain(&mut bucket, RATE, start + RATE.interval * 1000), 3);
    }

    #[test]
    fn what_is_given_back_can_be_spent_again_and_never_overfills() {
        let now = Instant::now();
        let mut bucket = Bucket::default();
        drain(&mut bucket, RATE, now);
        bucket.give_back(RATE);
        assert_eq!(drain(&mut bucket, RATE, now), 1);
        for _ in 0..10 {
            bucket.give_back(RATE);
        }
        assert_eq!(drain(&mut bucket, RATE, now), 3);
        // Refilled meanwhile, then given back: still no more than full.
        let later = now + RATE.interval * 3;
        bucket.give_back(RATE);
        assert_eq!(drain(&mut bucket, RATE, later), 3);
    }

    #[test]
    fn the_extremes_neither_panic_nor_open_the_gate() {
        let now = Instant::now();
        let none = Rate { burst: 0, ..RATE };
        assert_eq!(drain(&mut Bucket::default(), none, now), 0);
        let endless = Rate { burst: 1, interval: Duration::ZERO };
        assert_eq!(drain(&mut Bucket::default(), endless, now), 100);
        let mut bucket = Bucket::default();
        let longest = Rate { burst: u32::MAX, interval: Duration::MAX };
        bucket.has(longest, now);
        bucket.spend(longest, now);
        bucket.give_back(longest);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_used() {
        let mut table: Recent<u32, u32> = Recent::new(100);
        table.insert(0, 7);
        for key in 1..10_000 {
            *table.get_or_default(key) = 1;
            assert_eq!(*table.get_or_default(0), 7, "after {key}");
            assert!(table.len() <= 100);
        }
        assert!(table.get(&1).is_none());
        assert!(table.get(&9_999).is_some());
    }

    #[test]
    fn a_key_is_in_one_generation_at_most() {
        let mut table: Recent<u32, u32> = Recent::new(4);
        table.insert(1, 1);
        table.insert(2, 2);
        table.insert(3, 3);
        assert!(table.old.contains_key(&1));
        table.insert(1, 9);
        assert_eq!(table.get(&1), Some(&9));
        assert!(!table.old.contains_key(&1));
        *table.get_mut(&2).unwrap() = 8;
        assert_eq!(table.get(&2), Some(&8));
    }
}
