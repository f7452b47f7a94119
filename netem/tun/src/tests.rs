//! The link and the network: netem's arithmetic to the nanosecond, and what must hold whatever comes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MILLI: Duration = Duration::from_millis(1);

/// A number and a size.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Numbered(u32, usize, bool);

impl Packet for Numbered {
    fn size(&self) -> usize {
        self.1
    }

    fn corrupt(&mut self, mut draw: impl FnMut(usize) -> usize) {
        assert!(draw(self.1) < self.1);
        self.2 = true;
    }
}

fn wan() -> Shape {
    Shape { delay: 25 * MILLI, rate: Some(50_000_000), limit: 314, ..Shape::default() }
}

/// Sends full frames at these times, and gives number and due time of what arrives, in order.
fn through(link: &mut Link<Numbered>, times: impl IntoIterator<Item = Duration>) -> Vec<(u32, Duration)> {
    for (number, time) in times.into_iter().enumerate() {
        link.arrive(time, Numbered(number as u32, 1514, false));
    }
    std::iter::from_fn(|| link.depart(Duration::from_secs(3600))).map(|(due, packet)| (packet.0, due)).collect()
}

#[test]
fn delay_then_rate_as_netem_reckons_them() {
    let frame = Duration::from_nanos(242_240);
    let mut link = Link::new(wan(), 1);
    // Two at once, one that finds the link idle again, one close behind it.
    let found = through(&mut link, [Duration::ZERO, Duration::ZERO, 10 * MILLI, 10 * MILLI + Duration::from_micros(100)]);
    let expected = [25 * MILLI + frame, 25 * MILLI + 2 * frame, 35 * MILLI + frame, 35 * MILLI + 2 * frame];
    assert_eq!(found, (0..4).zip(expected).collect::<Vec<_>>());
}

#[test]
fn a_burst_fills_the_limit_and_the_rest_is_dropped() {
    let mut link = Link::new(wan(), 1);
    assert_eq!(through(&mut link, vec![Duration::ZERO; 400]).len(), 314);
    let counters = link.counters(Duration::from_secs(3600));
    assert_eq!((counters.overflowed, counters.lost, counters.left, counters.held), (86, 0, 314, 0));
    assert_eq!(counters.left_bytes, 314 * 1514);
}

#[test]
fn who_is_due_has_left_before_it_is_fetched() {
    let mut link = Link::new(Shape { limit: 1, ..wan() }, 1);
    let due = 25 * MILLI + Duration::from_nanos(242_240);
    link.arrive(Duration::ZERO, Numbered(0, 1514, false));
    link.arrive(due - Duration::from_nanos(1), Numbered(1, 1514, false));
    link.arrive(due, Numbered(2, 1514, false));
    assert_eq!(link.counters(due).overflowed, 1);
    assert_eq!(link.depart(due).unwrap(), (due, Numbered(0, 1514, false)));
    assert_eq!(link.depart(due), None);
    assert_eq!(link.next_due(), Some(due + due));
}

#[test]
fn packets_that_wait_leave_at_the_old_rate() {
    let mut link = Link::new(wan(), 1);
    link.arrive(Duration::ZERO, Numbered(0, 1514, false));
    link.arrive(Duration::ZERO, Numbered(1, 1514, false));
    link.reshape(Shape { rate: Some(25_000_000), ..wan() });
    link.arrive(Duration::ZERO, Numbered(2, 1514, false));
    let dues: Vec<_> = through(&mut link, []).iter().map(|(_, due)| (*due - 25 * MILLI).as_nanos()).collect();
    assert_eq!(dues, [242_240, 484_480, 968_960]);
}

#[test]
fn a_blackhole_loses_what_comes_and_not_what_is_under_way() {
    let mut link = Link::new(wan(), 1);
    link.arrive(Duration::ZERO, Numbered(0, 1514, false));
    link.reshape(Shape { loss: Loss::Random(1.0), ..wan() });
    link.arrive(MILLI, Numbered(1, 1514, false));
    link.reshape(wan());
    link.arrive(2 * MILLI, Numbered(2, 1514, false));
    assert_eq!(through(&mut link, []).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2]);
}

/// Small enough that nothing waits.
fn spaced(count: u32) -> impl Iterator<Item = Duration> {
    (0..count).map(|number| number * MILLI)
}

fn missing(found: &[(u32, Duration)], count: u32) -> Vec<u32> {
    let seen: std::collections::HashSet<_> = found.iter().map(|(number, _)| *number).collect();
    (0..count).filter(|number| !seen.contains(number)).collect()
}

#[test]
fn losses_are_as_many_as_said_and_in_bursts_as_long() {
    let mut link = Link::new(Shape { loss: Loss::Random(0.01), ..wan() }, 7);
    let lost = missing(&through(&mut link, spaced(100_000)), 100_000).len();
    assert!((874..1126).contains(&lost), "{lost}");

    let bursts = Loss::Bursts { enter: 0.002, leave: 0.2, bad: 1.0, good: 0.0 };
    let mut link = Link::new(Shape { loss: bursts, ..wan() }, 7);
    let lost = missing(&through(&mut link, spaced(300_000)), 300_000);
    let runs =
        lost.iter().zip(std::iter::once(&u32::MAX).chain(&lost)).filter(|(number, before)| **number != before.wrapping_add(1)).count();
    let (share, run) = (lost.len() as f64 / 3e5, lost.len() as f64 / runs as f64);
    assert!((share - 0.0099).abs() < 0.002 && (run - 5.0).abs() < 0.6, "{share} {run}");
}

#[test]
fn copies_and_wrong_bits_are_as_many_as_said() {
    let mut link = Link::new(Shape { duplicate: 0.01, corrupt: 0.02, ..wan() }, 3);
    let mut wrong = 0;
    for time in spaced(50_000) {
        link.arrive(time, Numbered(0, 100, false));
        wrong += std::iter::from_fn(|| link.depart(time)).filter(|(_, packet)| packet.2).count();
    }
    let counters = link.counters(Duration::from_secs(3600));
    assert!((410..590).contains(&counters.copied), "{counters:?}");
    assert_eq!(counters.left, counters.arrived + counters.copied);
    assert!((880..1140).contains(&wrong), "{wrong}");
}

#[test]
fn jitter_mixes_the_order_only_without_a_rate() {
    let jitter = Some(Jitter { spread: 5 * MILLI, distribution: Distribution::Uniform });
    let order = |shape| {
        let found = through(&mut Link::new(shape, 5), spaced(2_000));
        found.windows(2).filter(|pair| pair[1].0 < pair[0].0).count()
    };
    assert_eq!(order(Shape { jitter, limit: 10_000, ..wan() }), 0);
    assert!(order(Shape { jitter, rate: None, limit: 10_000, ..wan() }) > 400);
}

#[test]
fn a_share_skips_delay_and_rate() {
    let mut link = Link::new(Shape { reorder: 0.05, ..wan() }, 5);
    let found = through(&mut link, spaced(2_000));
    let at_once = found.iter().filter(|(number, due)| *due == *number * MILLI).count();
    assert!((65..135).contains(&at_once), "{at_once}");
}

fn shapes() -> impl Strategy<Value = Shape> {
    let share = || prop_oneof![Just(0.0), 0.0..0.5, Just(1.0)];
    let spread = prop_oneof![Just(None), (0u64..40_000, 0usize..4).prop_map(Some)];
    let rate = prop_oneof![Just(None), (100_000u64..1_000_000_000).prop_map(Some)];
    let loss = prop_oneof![
        share().prop_map(Loss::Random),
        (share(), share(), share(), share()).prop_map(|(enter, leave, bad, good)| Loss::Bursts { enter, leave, bad, good }),
    ];
    (0u64..40_000, spread, loss, (share(), share(), share()), rate, 1u32..50).prop_map(
        |(delay, spread, loss, (reorder, duplicate, corrupt), rate, limit)| {
            let distributions = [Distribution::Uniform, Distribution::Normal, Distribution::Pareto, Distribution::ParetoNormal];
            let jitter = spread.map(|(spread, index)| Jitter { spread: Duration::from_micros(spread), distribution: distributions[index] });
            Shape { delay: Duration::from_micros(delay), jitter, loss, reorder, duplicate, corrupt, rate, limit }
        },
    )
}

proptest! {
    /// Whatever the shape and the traffic: nothing early, nothing out of thin air, never more inside than the limit; with
    /// a rate and without reordering in order and never faster than the rate.
    #[test]
    fn a_link_keeps_its_promises(
        shape in shapes(),
        later in shapes(),
        sends in prop::collection::vec((0u64..3_000, 60usize..1514), 1..200),
        change_at in 0usize..200,
        seed: u64,
    ) {
        let mut link = Link::new(shape, seed);
        let (mut now, mut sent) = (Duration::ZERO, Vec::new());
        let mut found = Vec::new();
        for (number, (gap, size)) in sends.iter().enumerate() {
            now += Duration::from_micros(*gap);
            if number == change_at {
                link.reshape(later);
            }
            sent.push(now);
            found.extend(std::iter::from_fn(|| link.depart(now)).map(|(due, packet)| (due, now, packet)));
            link.arrive(now, Numbered(number as u32, *size, false));
            let counters = link.counters(now);
            prop_assert!(counters.held <= u64::from(shape.limit.max(later.limit)));
            prop_assert_eq!(counters.arrived + counters.copied, counters.lost + counters.overflowed + counters.left + counters.held);
        }
        while let Some(due) = link.next_due() {
            now = now.max(due);
            found.extend(std::iter::from_fn(|| link.depart(now)).map(|(due, packet)| (due, now, packet)));
        }
        let counters = link.counters(now);
        prop_assert_eq!((counters.held, counters.held_bytes), (0, 0));
        prop_assert_eq!(counters.left, found.len() as u64);
        for (due, fetched, packet) in &found {
            prop_assert!(due <= fetched && *due >= sent[packet.0 as usize]);
        }
        let is_changed = change_at < sends.len();
        if shape.jitter.is_none() && shape.reorder == 0.0 && !is_changed {
            for (due, _, packet) in &found {
                prop_assert!(*due >= sent[packet.0 as usize] + shape.delay + shape.transmission(packet.1));
            }
        }
        if shape.rate.is_some() && shape.reorder == 0.0 && !is_changed {
            for pair in found.windows(2) {
                let [(first, _, before), (second, _, after)] = pair else { unreachable!() };
                prop_assert!(before.0 <= after.0, "overtaken");
                prop_assert!(*second >= *first + shape.transmission(after.1), "too fast");
            }
        }
    }
}

fn packet(to: [u8; 4], length: usize) -> Vec<u8> {
    let mut packet = vec![0; length];
    packet[0] = 0x45;
    packet[16..20].copy_from_slice(&to);
    packet
}

/// Two hosts on either side of one bottleneck each way, and a stage of delay behind it on the way to host 1.
fn network() -> Network {
    let hosts = (1..=4).map(|subnet| Ipv4Addr::new(10, 77, subnet, 2)).collect();
    let stage = Shape { delay: 3 * MILLI, ..Shape::default() };
    Network::new(
        hosts,
        [wan(), wan(), stage],
        |from, to| match (from % 2, to % 2, to) {
            (0, 1, 1) => vec![0, 2],
            (0, 1, _) => vec![0],
            (1, 0, _) => vec![1],
            _ => vec![],
        },
        9,
    )
}

#[test]
fn packets_take_their_route_and_share_its_links() {
    let frame = Duration::from_nanos(242_240);
    let mut network = network();
    network.send(Duration::ZERO, 0, packet([10, 77, 2, 2], 1500), MILLI);
    network.send(Duration::ZERO, 2, packet([10, 77, 4, 2], 1500), Duration::ZERO);
    network.send(Duration::ZERO, 0, packet([10, 77, 3, 2], 100), Duration::ZERO);
    // Neighbours see each other at once; the others share the bottleneck.
    assert_eq!(network.next_due(), Some(Duration::ZERO));
    assert_eq!(network.deliver(Duration::ZERO).unwrap().host, 2);
    assert_eq!(network.deliver(24 * MILLI), None);
    let second = network.deliver(26 * MILLI).unwrap();
    assert_eq!((second.host, second.due), (3, 25 * MILLI + 2 * frame));
    // Fetched late, but the second link had it in time.
    let first = network.deliver(60 * MILLI).unwrap();
    assert_eq!((first.host, first.due, first.unread), (1, 28 * MILLI + frame, MILLI));
    assert_eq!(network.next_due(), None);
}

#[test]
fn packets_for_nobody_are_counted() {
    let mut network = network();
    network.send(Duration::ZERO, 0, packet([10, 77, 9, 2], 100), Duration::ZERO);
    network.send(Duration::ZERO, 0, vec![0x60; 100], Duration::ZERO);
    network.send(Duration::ZERO, 0, vec![], Duration::ZERO);
    assert_eq!((network.stray(), network.next_due()), (3, None));
}
