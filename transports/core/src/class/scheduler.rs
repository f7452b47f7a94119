//! Who goes next: weighted shares, latency classes first while within their share. No I/O, no clock.
//!
//! Start-time fair queueing with a lead. Each class has a virtual time that advances by `bytes / weight` when
//! it sends; the connection's virtual time is the least of those that wait. The class furthest behind goes
//! next, so in the long run each waiting class gets its weight's share of the bytes and none starves. A
//! latency class may run ahead of the connection's virtual time by a *lead* ([`LEAD`] bytes); while it's
//! within it, it goes before every bulk class. An idle class keeps no credit: it starts again at the
//! connection's virtual time, so a long silence can't be turned into a long monopoly.
//!
//! Classes may be in several *groups*, where a transport has a byte stream for each: whoever serves a group asks for its
//! classes alone, and each group has a virtual time of its own, so that a group that can't send holds no other's back and
//! leaves none with a monopoly. Between groups it's the path that decides.
//!
//! Strict priority would let a QUERY flood stop consensus; a byte ratio alone (CometBFT's `MConnection`, its
//! ancestor) makes an urgent message wait for the class furthest behind.
//!
//! Provided: work conservation, long-run shares by weight, urgent-first within the lead.
//! Not provided: rates in time (a congestion controller's business), fairness inside a class (the queue's).

use super::table::{ClassId, ClassTable, Urgency};
use crate::limits;

/// Bytes that a latency class may be ahead of its share and still go first. Four quanta: a burst of small
/// messages or one of 64 KiB goes at once, a flood is put in its place after that.
pub const LEAD: u64 = 64 * 1024;

/// Virtual time is kept in bytes x `SCALE` / weight, so that division loses nothing that matters.
const SCALE: u64 = 1 << 12;

#[derive(Debug, Clone)]
struct Entry {
    weight: u64,
    latency: bool,
    group: u8,
    /// Virtual time: where this class stands in its group's.
    at: u64,
    waiting: bool,
}

/// The order of sending for one connection. See the module's text.
#[derive(Debug, Clone)]
pub struct Scheduler {
    classes: Vec<Entry>,
    /// Each group's virtual time: never goes back.
    now: [u64; limits::MAX_CARRIERS],
}

impl Scheduler {
    /// A scheduler for the classes of a table.
    pub fn new(table: &ClassTable) -> Self {
        let entry = |(_, class): (ClassId, &super::table::TrafficClass)| Entry {
            weight: u64::from(class.weight),
            latency: class.urgency == Urgency::Latency,
            group: 0,
            at: 0,
            waiting: false,
        };
        Self { classes: table.iter().map(entry).collect(), now: [0; limits::MAX_CARRIERS] }
    }

    /// Puts a class into another group than 0, where all begin; nothing happens if there's no such group. What it was ahead
    /// of the others or behind them, it stays.
    pub fn set_group(&mut self, class: ClassId, group: u8) {
        let Some(entry) = self.classes.get_mut(class.index()) else { return };
        let (Some(from), Some(to)) = (self.now.get(usize::from(entry.group)), self.now.get(usize::from(group))) else { return };
        entry.at = entry.at.saturating_sub(*from).saturating_add(*to);
        entry.group = group;
    }

    /// The group of a class: 0 unless it was [put into another one](Self::set_group).
    pub fn group(&self, class: ClassId) -> u8 {
        self.classes.get(class.index()).map_or(0, |entry| entry.group)
    }

    fn now(&self, group: u8) -> u64 {
        self.now.get(usize::from(group)).copied().unwrap_or(0)
    }

    /// Says whether a class has something to send. A class blocked by credit still waits.
    pub fn set_waiting(&mut self, class: ClassId, waiting: bool) {
        let now = self.now(self.group(class));
        let Some(entry) = self.classes.get_mut(class.index()) else { return };
        if waiting && !entry.waiting {
            entry.at = entry.at.max(now);
        }
        entry.waiting = waiting;
    }

    /// The class that goes next among those that wait and of which `ready` holds (in the group served, credit, room on the
    /// wire); `None` only if there's no such class.
    pub fn pick(&self, mut ready: impl FnMut(ClassId) -> bool) -> Option<ClassId> {
        let mut best: Option<(ClassId, u64)> = None;
        for (i, entry) in self.classes.iter().enumerate() {
            let id = ClassId(i as u8);
            if !entry.waiting || !ready(id) {
                continue;
            }
            if entry.latency && entry.at <= self.now(entry.group).saturating_add(LEAD * SCALE / entry.weight) {
                return Some(id);
            }
            if best.is_none_or(|(_, at)| entry.at < at) {
                best = Some((id, entry.at));
            }
        }
        best.map(|(id, _)| id)
    }

    /// Charges a class for bytes that went out.
    pub fn charge(&mut self, class: ClassId, bytes: usize) {
        let Some(entry) = self.classes.get_mut(class.index()) else { return };
        entry.at = entry.at.saturating_add((bytes as u64).saturating_mul(SCALE) / entry.weight);
        let group = entry.group;
        let least = self.classes.iter().filter(|e| e.waiting && e.group == group).map(|e| e.at).min();
        if let (Some(least), Some(now)) = (least, self.now.get_mut(usize::from(group))) {
            *now = (*now).max(least);
        }
    }

    /// Takes back a charge for bytes that didn't go out after all.
    pub fn refund(&mut self, class: ClassId, bytes: usize) {
        if let Some(entry) = self.classes.get_mut(class.index()) {
            entry.at = entry.at.saturating_sub((bytes as u64).saturating_mul(SCALE) / entry.weight);
        }
    }

    /// Tells that a waiting class of a group can't send now (credit): time goes on without it, and it keeps at most one
    /// lead of what it missed.
    pub fn skip_blocked(&mut self, group: u8, mut blocked: impl FnMut(ClassId) -> bool) {
        let Some(now) = self.now.get_mut(usize::from(group)) else { return };
        let waiting = |entry: &Entry| entry.waiting && entry.group == group;
        let open = self.classes.iter().enumerate().filter(|(i, e)| waiting(e) && !blocked(ClassId(*i as u8))).map(|(_, e)| e.at).min();
        let Some(open) = open else { return };
        *now = (*now).max(open);
        for entry in self.classes.iter_mut().filter(|entry| waiting(entry)) {
            entry.at = entry.at.max(now.saturating_sub(LEAD * SCALE / entry.weight));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::class::table::{Order, TrafficClass};

    fn table(classes: &[(u32, Urgency)]) -> ClassTable {
        let class = |(i, (weight, urgency)): (usize, &(u32, Urgency))| TrafficClass::new(&format!("c{i}"), *weight, *urgency, Order::Any);
        ClassTable::new(classes.iter().enumerate().map(class).collect()).unwrap()
    }

    fn urgency() -> impl Strategy<Value = Urgency> {
        prop_oneof![Just(Urgency::Latency), Just(Urgency::Bulk)]
    }

    proptest! {
        /// All wait all the time: bytes delivered follow the weights to within a lead and two quanta.
        #[test]
        fn shares_follow_weights(classes in prop::collection::vec((1u32..100, urgency()), 1..8), sizes in prop::collection::vec(1usize..16384, 4000)) {
            let table = table(&classes);
            let mut scheduler = Scheduler::new(&table);
            (0..classes.len()).for_each(|i| scheduler.set_waiting(ClassId(i as u8), true));
            let mut sent = vec![0u64; classes.len()];
            for size in &sizes {
                let id = scheduler.pick(|_| true).unwrap();
                scheduler.charge(id, *size);
                sent[id.index()] += *size as u64;
            }
            let (total, weights): (u64, u64) = (sent.iter().sum(), classes.iter().map(|c| u64::from(c.0)).sum());
            for (i, (weight, _)) in classes.iter().enumerate() {
                let share = total * u64::from(*weight) / weights;
                // All latency classes' leads may come off the others' shares.
                let slack = (classes.len() as u64 + 1) * (LEAD + 2 * 16384);
                prop_assert!(sent[i] + slack >= share, "class {i}: {} of {share}", sent[i]);
            }
        }

        /// A latency class that asks for less than its share never waits behind a bulk class.
        #[test]
        fn urgent_first_within_share(weight in 1u32..50, bulk in 1u32..50, message in 1usize..2000) {
            let table = table(&[(bulk, Urgency::Bulk), (weight, Urgency::Latency)]);
            let (b, l) = (ClassId(0), ClassId(1));
            let mut scheduler = Scheduler::new(&table);
            scheduler.set_waiting(b, true);
            // One urgent message per n bulk quanta, n such that the urgent class stays within its share.
            let n = message * bulk as usize / (weight as usize * 16384) + 1;
            for _ in 0..300 {
                for _ in 0..n {
                    prop_assert_eq!(scheduler.pick(|_| true), Some(b));
                    scheduler.charge(b, 16384);
                }
                scheduler.set_waiting(l, true);
                prop_assert_eq!(scheduler.pick(|_| true), Some(l));
                scheduler.charge(l, message);
                scheduler.set_waiting(l, false);
            }
        }

        /// Work-conserving: somebody goes whenever somebody waiting is ready.
        #[test]
        fn work_conserving(classes in prop::collection::vec((1u32..100, urgency()), 1..16), steps in prop::collection::vec((any::<u16>(), any::<u16>(), 1usize..70000), 200)) {
            let table = table(&classes);
            let mut scheduler = Scheduler::new(&table);
            for (waiting, ready, size) in steps {
                (0..classes.len()).for_each(|i| scheduler.set_waiting(ClassId(i as u8), waiting & (1 << i) != 0));
                let ready = |id: ClassId| ready & (1 << id.0) != 0;
                let any = (0..classes.len()).any(|i| waiting & (1 << i) != 0 && ready(ClassId(i as u8)));
                let picked = scheduler.pick(ready);
                prop_assert_eq!(picked.is_some(), any);
                if let Some(id) = picked {
                    prop_assert!(ready(id));
                    scheduler.charge(id, size);
                    scheduler.skip_blocked(0, |id| !ready(id));
                }
            }
        }
    }

    #[test]
    fn a_flood_of_queries_does_not_stop_beliefs() {
        let table = table(&[(30, Urgency::Latency), (10, Urgency::Bulk)]);
        let mut scheduler = Scheduler::new(&table);
        scheduler.set_waiting(ClassId(0), true);
        scheduler.set_waiting(ClassId(1), true);
        let mut sent = [0usize; 2];
        for _ in 0..10_000 {
            let id = scheduler.pick(|_| true).unwrap();
            scheduler.charge(id, 100);
            sent[id.index()] += 100;
        }
        assert!(sent[1] * 4 >= sent.iter().sum::<usize>() - 4 * LEAD as usize, "{sent:?}");
    }

    #[test]
    fn silence_earns_no_monopoly() {
        let table = table(&[(1, Urgency::Bulk), (1, Urgency::Bulk)]);
        let mut scheduler = Scheduler::new(&table);
        scheduler.set_waiting(ClassId(0), true);
        for _ in 0..1000 {
            scheduler.charge(ClassId(0), 16384);
        }
        scheduler.set_waiting(ClassId(1), true);
        let mut run = 0;
        while scheduler.pick(|_| true) == Some(ClassId(1)) {
            scheduler.charge(ClassId(1), 16384);
            run += 1;
            assert!(run <= 2, "the class that was silent sends alone");
        }
    }

    #[test]
    fn a_blocked_class_does_not_take_the_others_lead() {
        let table = table(&[(10, Urgency::Latency), (10, Urgency::Bulk), (10, Urgency::Bulk)]);
        let (query, stuck, bulk) = (ClassId(0), ClassId(1), ClassId(2));
        let mut scheduler = Scheduler::new(&table);
        scheduler.set_waiting(stuck, true);
        scheduler.set_waiting(bulk, true);
        for _ in 0..100 {
            for _ in 0..10 {
                scheduler.skip_blocked(0, |id| id == stuck);
                assert_eq!(scheduler.pick(|id| id != stuck), Some(bulk));
                scheduler.charge(bulk, 16384);
            }
            scheduler.skip_blocked(0, |id| id == stuck);
            scheduler.set_waiting(query, true);
            assert_eq!(scheduler.pick(|id| id != stuck), Some(query));
            scheduler.charge(query, 16384);
            scheduler.set_waiting(query, false);
        }
    }

    #[test]
    fn a_group_that_can_not_send_leaves_none_in_another_with_a_monopoly() {
        let table = table(&[(10, Urgency::Bulk), (10, Urgency::Bulk), (10, Urgency::Bulk)]);
        let [stuck, busy, late] = [ClassId(0), ClassId(1), ClassId(2)];
        let mut scheduler = Scheduler::new(&table);
        scheduler.set_group(stuck, 1);
        [stuck, busy].into_iter().for_each(|class| scheduler.set_waiting(class, true));
        let ready = |class: ClassId| class != stuck;
        for _ in 0..1000 {
            assert_eq!(scheduler.pick(ready), Some(busy));
            scheduler.charge(busy, 16384);
        }
        scheduler.set_waiting(late, true);
        let mut run = 0;
        while scheduler.pick(ready) == Some(late) {
            scheduler.charge(late, 16384);
            run += 1;
            assert!(run <= 2, "the stuck group's time holds the other's back");
        }
    }

    proptest! {
        /// Each group is served as fast as its path lets it: within each, bytes follow the weights all the same.
        #[test]
        fn shares_follow_weights_within_each_group(
            classes in prop::collection::vec((1u32..100, urgency(), 0u8..3), 2..8),
            served in prop::collection::vec((0u8..3, 1usize..16384), 6000),
        ) {
            let table = table(&classes.iter().map(|(weight, urgency, _)| (*weight, *urgency)).collect::<Vec<_>>());
            let mut scheduler = Scheduler::new(&table);
            for (i, (_, _, group)) in classes.iter().enumerate() {
                scheduler.set_group(ClassId(i as u8), *group);
                scheduler.set_waiting(ClassId(i as u8), true);
            }
            let mut sent = vec![0u64; classes.len()];
            for (group, size) in served {
                if let Some(id) = scheduler.pick(|id| classes[id.index()].2 == group) {
                    scheduler.charge(id, size);
                    sent[id.index()] += size as u64;
                }
            }
            for group in 0..3 {
                let of = |i: &usize| classes[*i].2 == group;
                let members: Vec<usize> = (0..classes.len()).filter(of).collect();
                let (total, weights): (u64, u64) = (members.iter().map(|i| sent[*i]).sum(), members.iter().map(|i| u64::from(classes[*i].0)).sum());
                for i in &members {
                    let share = total * u64::from(classes[*i].0) / weights;
                    let slack = (members.len() as u64 + 1) * (LEAD + 2 * 16384);
                    prop_assert!(sent[*i] + slack >= share, "class {i} of group {group}: {} of {share}", sent[*i]);
                }
            }
        }
    }
}
