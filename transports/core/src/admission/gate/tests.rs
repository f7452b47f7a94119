//! The gate, on a clock of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A gate that's small enough to be filled by hand.
fn small() -> (Arc<Gate>, Instant) {
    let second = Duration::from_secs(1);
    let gate = Gate::new(GateConfig {
        strangers: 8,
        known: 2,
        per_address: Rate { burst: 3, interval: second },
        per_network: Rate { burst: 5, interval: second },
        per_known: Rate { burst: 4, interval: second },
        unvalidated: Rate { burst: 2, interval: second },
        remembered: 64,
        ..GateConfig::default()
    });
    (gate, Instant::now())
}

/// Handshakes that fail, one after the other, until the gate is closed.
fn fail_until_denied(gate: &Arc<Gate>, address: &str, now: Instant) -> (usize, Denied) {
    for count in 0..1000 {
        match gate.admit(ip(address), now) {
            Ok(handshake) => drop(handshake),
            Err(why) => return (count, why),
        }
    }
    panic!("never denied");
}

#[test]
fn permits_are_bounded_and_always_come_back() {
    let (gate, now) = small();
    let mut held: Vec<_> = (1..=8).map(|n| gate.admit(ip(&format!("10.0.{n}.1")), now).unwrap()).collect();
    assert_eq!(gate.stats().strangers, 8);
    assert_eq!(gate.admit(ip("10.1.0.1"), now).unwrap_err(), Denied::Busy);
    drop(held.pop());
    held.pop().unwrap().succeeded(now);
    assert_eq!(gate.stats().strangers, 6);
    // A task that panics with its handshake gives the permit back as well.
    let handshake = held.pop().unwrap();
    let panicked = std::thread::spawn(move || {
        let _held = handshake;
        panic!("within a handshake");
    });
    assert!(panicked.join().is_err());
    assert_eq!(gate.stats().strangers, 5);
    drop(held);
    assert_eq!(gate.stats().strangers, 0);
}

#[test]
fn failures_run_an_address_dry_and_time_refills_it() {
    let (gate, now) = small();
    assert_eq!(fail_until_denied(&gate, "10.0.0.1", now), (3, Denied::Address));
    // Its neighbour has tokens of its own, until the network has none.
    assert_eq!(fail_until_denied(&gate, "10.0.0.2", now), (2, Denied::Network));
    assert!(gate.admit(ip("10.0.1.1"), now).is_ok(), "another network");
    let later = now + Duration::from_secs(1);
    assert_eq!(fail_until_denied(&gate, "10.0.0.1", later), (1, Denied::Address));
}

#[test]
fn a_refusal_spends_nothing() {
    let (gate, now) = small();
    assert_eq!(fail_until_denied(&gate, "10.0.0.1", now).0, 3);
    for _ in 0..100 {
        assert!(gate.admit(ip("10.0.0.1"), now).is_err());
    }
    // The network lost three tokens to the address, and none to the refusals.
    assert_eq!(fail_until_denied(&gate, "10.0.0.2", now), (2, Denied::Network));
    // The network's refusals cost the address nothing: with the network's next token it goes on.
    let later = now + Duration::from_secs(1);
    assert_eq!(fail_until_denied(&gate, "10.0.0.2", later), (1, Denied::Network));
}

#[test]
fn success_gives_the_tokens_back() {
    let (gate, now) = small();
    for n in 0..1000 {
        let handshake = gate.admit(ip("10.0.0.1"), now).unwrap();
        handshake.succeeded(now);
        assert_eq!(gate.stats().succeeded, n + 1);
    }
    // The stranger's first token too: after the known budget, the whole burst of a stranger is left.
    assert_eq!(fail_until_denied(&gate, "10.0.0.1", now), (4 + 3, Denied::Address));
}

#[test]
fn success_gives_the_networks_token_back_too() {
    let (gate, now) = small();
    // Each for the first time, so all as strangers.
    for n in 1..=200 {
        let handshake = gate.admit(ip(&format!("10.0.0.{n}")), now).unwrap();
        handshake.succeeded(now);
    }
    assert_eq!(gate.stats().succeeded, 200);
}

#[test]
fn ipv6_counts_by_64_and_48() {
    let (gate, now) = small();
    assert_eq!(fail_until_denied(&gate, "2001:db8::1", now), (3, Denied::Address));
    // Another address of the same /64 is the same place.
    assert_eq!(fail_until_denied(&gate, "2001:db8::ffff:1", now), (0, Denied::Address));
    // Another /64 of the same /48.
    assert_eq!(fail_until_denied(&gate, "2001:db8:0:1::1", now), (2, Denied::Network));
    assert!(gate.admit(ip("2001:db8:1::1"), now).is_ok());
}

#[test]
fn an_ipv4_address_is_the_same_on_a_dual_stack_socket() {
    let (gate, now) = small();
    assert_eq!(fail_until_denied(&gate, "::ffff:10.0.0.1", now).0, 3);
    assert_eq!(fail_until_denied(&gate, "10.0.0.1", now), (0, Denied::Address));
    assert!(gate.admit(ip("::ffff:10.0.1.1"), now).is_ok());
}

#[test]
fn known_addresses_get_in_while_strangers_fill_the_gate() {
    let (gate, now) = small();
    gate.admit(ip("10.9.9.9"), now).unwrap().succeeded(now);
    gate.configure([ip("10.8.8.8")]);
    let _flood: Vec<_> = (1..=8).map(|n| gate.admit(ip(&format!("10.0.{n}.1")), now).unwrap()).collect();
    assert_eq!(gate.admit(ip("10.7.7.7"), now).unwrap_err(), Denied::Busy);
    let seen = gate.admit(ip("10.9.9.9"), now).unwrap();
    let configured = gate.admit(ip("10.8.8.8"), now).unwrap();
    assert_eq!(gate.stats().known, 2);
    // The known have a bound as well, behind which they're strangers.
    assert_eq!(gate.admit(ip("10.8.8.8"), now).unwrap_err(), Denied::Busy);
    drop((seen, configured));
    assert_eq!(gate.stats().known, 0);
}

#[test]
fn a_known_address_is_apart_from_the_failures_of_its_network() {
    let (gate, now) = small();
    gate.admit(ip("10.0.0.9"), now).unwrap().succeeded(now);
    fail_until_denied(&gate, "10.0.0.1", now);
    fail_until_denied(&gate, "10.0.0.2", now);
    assert!(gate.admit(ip("10.0.0.9"), now).is_ok());
}

#[test]
fn known_ends_after_a_day_and_configured_with_the_configuration() {
    let (gate, now) = small();
    let (seen, configured) = (ip("10.0.0.1"), ip("10.0.0.2"));
    gate.admit(seen, now).unwrap().succeeded(now);
    gate.configure([configured]);
    let day = Duration::from_secs(24 * 60 * 60);
    assert!(gate.is_known(seen, now + day - Duration::from_secs(1)));
    assert!(!gate.is_known(seen, now + day));
    assert!(gate.is_known(configured, now + day * 100));
    gate.configure([]);
    assert!(!gate.is_known(configured, now));
    // A failure makes nobody known.
    drop(gate.admit(ip("10.0.0.3"), now).unwrap());
    assert!(!gate.is_known(ip("10.0.0.3"), now));
}

#[test]
fn unvalidated_datagrams_share_one_budget() {
    let (gate, now) = small();
    assert_eq!(gate.unvalidated(now), Ok(()));
    assert_eq!(gate.unvalidated(now), Ok(()));
    assert_eq!(gate.unvalidated(now), Err(Denied::Unvalidated));
    // It's no handshake's: those with validated addresses go on.
    assert!(gate.admit(ip("10.0.0.1"), now).is_ok());
    assert_eq!(gate.unvalidated(now + Duration::from_secs(1)), Ok(()));
    assert_eq!(gate.stats().denied_unvalidated, 1);
}

#[test]
fn the_tables_stay_bounded_whatever_comes() {
    let (gate, now) = small();
    for n in 0..20_000u32 {
        let address = IpAddr::V4(Ipv4Addr::from_bits(n.wrapping_mul(2_654_435_761)));
        if let Ok(handshake) = gate.admit(address, now) {
            handshake.succeeded(now);
        }
    }
    let state = gate.lock();
    for length in [state.addresses.len(), state.networks.len(), state.known.len(), state.seen.len()] {
        assert!(length <= 64, "{length}");
    }
    assert_eq!(state.stats.strangers + state.stats.known, 0);
}

#[test]
fn many_threads_leave_nothing_behind() {
    let (gate, now) = small();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let gate = &gate;
            scope.spawn(move || {
                for n in 0..1000u32 {
                    let address = IpAddr::V4(Ipv4Addr::from([10, thread, n.to_be_bytes()[3], 1]));
                    match gate.admit(address, now) {
                        Ok(handshake) if n % 2 == 0 => handshake.succeeded(now),
                        other => drop(other),
                    }
                }
            });
        }
    });
    assert_eq!((gate.stats().strangers, gate.stats().known), (0, 0));
}
