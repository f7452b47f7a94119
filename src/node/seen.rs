//! A bounded, time-limited memory of what was seen, so that gossip ends.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

/// Keys seen lately: at most `capacity` of them, each for `ttl`. The oldest go first.
///
/// It reads no clock: the time comes in. Worst-case memory: `capacity` times two keys, an [`Instant`] and the map's slot.
#[derive(Debug)]
pub struct SeenSet<K> {
    capacity: usize,
    ttl: Duration,
    /// When each was seen last counts; the queue may hold stale entries of keys that were refreshed or removed, which
    /// are skipped. It never holds more than twice the capacity.
    seen: HashMap<K, Instant>,
    order: VecDeque<(Instant, K)>,
}

impl<K: Clone + Eq + Hash> SeenSet<K> {
    /// An empty set. A capacity of 0 is taken for 1.
    pub fn new(capacity: usize, ttl: Duration) -> Self {
        Self { capacity: capacity.max(1), ttl, seen: HashMap::new(), order: VecDeque::new() }
    }

    /// Notes `key`, and says whether it's new: not seen within the time, or forgotten for want of room.
    pub fn insert(&mut self, key: K, now: Instant) -> bool {
        self.expire(now);
        if self.seen.contains_key(&key) {
            return false;
        }
        while self.seen.len() >= self.capacity {
            self.forget_oldest();
        }
        self.seen.insert(key.clone(), now);
        self.order.push_back((now, key));
        if self.order.len() > self.capacity.saturating_mul(2) {
            let seen = &self.seen;
            self.order.retain(|(at, key)| seen.get(key) == Some(at));
        }
        true
    }

    /// Whether `key` was seen within the time.
    pub fn contains(&self, key: &K, now: Instant) -> bool {
        self.seen.get(key).is_some_and(|at| now.saturating_duration_since(*at) < self.ttl)
    }

    /// Forgets `key`, so that it's new again.
    pub fn remove(&mut self, key: &K) -> bool {
        self.seen.remove(key).is_some()
    }

    /// Keys held now, those whose time is up included.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.ttl) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((at, key)) = self.order.pop_front()
            && self.seen.get(&key) == Some(&at)
        {
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn a_key_is_new_once_until_its_time_is_up() {
        let mut set = SeenSet::new(10, TTL);
        let start = Instant::now();
        assert!(set.insert(1, start));
        assert!(!set.insert(1, start + TTL - Duration::from_millis(1)));
        assert!(set.contains(&1, start + TTL - Duration::from_millis(1)));
        assert!(!set.contains(&1, start + TTL));
        assert!(set.insert(1, start + TTL));
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let mut set = SeenSet::new(3, TTL);
        let now = Instant::now();
        for key in 0..100 {
            assert!(set.insert(key, now));
            assert!(set.len() <= 3);
        }
        assert!(!set.insert(99, now) && !set.insert(97, now));
        assert!(set.insert(96, now));
    }

    #[test]
    fn removing_and_inserting_doesnt_let_the_order_grow() {
        let mut set = SeenSet::new(4, TTL);
        let now = Instant::now();
        for i in 0..1000u64 {
            assert!(set.insert(1, now + Duration::from_nanos(i)));
            assert!(set.remove(&1));
            assert!(set.order.len() <= 9);
        }
        assert!(set.is_empty());
    }
}
