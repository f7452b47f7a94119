//! Races, what is remembered, reconnects, and what is reported.

use std::time::Duration;

use peerlane::node::{Event, Silent};
use peerlane_transport::{CloseCode, ConnectError, identity::IdentityError};

use crate::kit::*;

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn the_first_choice_wins_when_it_works() {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, Silent).await);
    a.connect(&addr(&b)).await.unwrap();
    assert_eq!(world.dials(), [("quic", Duration::ZERO)]);
    assert_eq!(a.peer(b.peer_id()).unwrap().transport, "quic");
    until("b knows a", || b.peer(a.peer_id()).is_some()).await;
    assert!(!b.peer(a.peer_id()).unwrap().dialed);
    // A second connect finds the first one's connection.
    a.connect(&addr(&b)).await.unwrap();
    assert_eq!(world.dials().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_first_choice_costs_a_quarter_of_a_second_and_what_worked_goes_first_next_time() {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, Silent).await);
    world.rule("quic", &b, Dialing::Hangs);
    a.connect(&addr(&b)).await.unwrap();
    assert_eq!(world.dials(), [("quic", Duration::ZERO), ("tcp", 250 * MS)]);
    assert_eq!(a.peer(b.peer_id()).unwrap().transport, "tcp");

    a.disconnect(b.peer_id()).await;
    assert!(a.peers().is_empty());
    world.forget_dials();
    let start = world.start.elapsed();
    a.connect(&addr(&b)).await.unwrap();
    assert_eq!(world.dials(), [("tcp", start)]);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_nobody_answers_says_where_over_what_how_long_and_what_may_help() {
    let world = World::new();
    let b = node(&world, 2, Silent).await;
    let a = builder(&world, &local(1), &["quic", "tcp"]).config(config(|c| c.dial_timeout = 3000 * MS)).start().await.unwrap();
    let mut events = a.events();
    let mut elsewhere = addr(&b);
    elsewhere.host = peerlane_transport::identity::Host::Address("127.0.0.1:77".parse().unwrap());
    for at in [addr(&b), elsewhere.clone()] {
        let peerlane_transport::identity::Host::Address(socket) = at.host else { panic!() };
        world.rule_at("quic", socket, Dialing::Hangs);
        world.rule_at("tcp", socket, Dialing::Hangs);
    }
    let error = a.connect(&addr(&b)).await.unwrap_err();
    assert!(error.may_retry());
    let text = error.to_string();
    for part in [addr(&b).to_string().as_str(), "quic: connecting took longer than 3s", "tcp: connecting took longer than 2.7s", "firewall"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    event(&mut events, |e| matches!(e, Event::DialFailed { transport: "tcp", may_retry: true, .. }).then_some(())).await;
    // An address learned before is tried too, and named.
    let text = a.connect(&elsewhere).await.unwrap_err().to_string();
    assert!(text.contains(&format!("to {elsewhere}: connecting took longer")), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_first_choice_costs_nothing() {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, Silent).await);
    world.rule("quic", &b, Dialing::Refused);
    let mut events = a.events();
    a.connect(&addr(&b)).await.unwrap();
    assert_eq!(world.dials(), [("quic", Duration::ZERO), ("tcp", Duration::ZERO)]);
    event(&mut events, |e| matches!(e, Event::DialFailed { transport: "quic", may_retry: true, .. }).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_reported_with_both_keys_and_not_tried_again_soon() {
    let world = World::new();
    let b = node(&world, 2, Silent).await;
    let mut wrong = addr(&b);
    wrong.id = identity(3).peer_id();
    let a = builder(&world, &local(1), &["quic"]).peer(wrong.clone()).start().await.unwrap();
    let mut events = a.events();
    let (expected, found) = event(&mut events, |e| match e {
        Event::DialFailed { error, may_retry: false, .. } => match &**error {
            ConnectError::Identity(IdentityError::WrongKey { expected, found }) => Some((*expected, *found)),
            other => panic!("{other}"),
        },
        _ => None,
    })
    .await;
    assert_eq!((expected, found), (wrong.id, b.peer_id()));
    let delay = event(&mut events, |e| match e {
        Event::RetryIn { delay, .. } => Some(*delay),
        _ => None,
    })
    .await;
    assert!(delay >= Duration::from_secs(150), "{delay:?}");
    let error = a.connect(&wrong).await.unwrap_err();
    assert!(!error.may_retry());
    let text = error.to_string();
    assert!(text.contains(&wrong.id.to_string()) && text.contains(&b.peer_id().to_string()), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_kept_peer_is_dialed_again_with_growing_delays() {
    let world = World::new();
    let b = node(&world, 2, Silent).await;
    let a = builder(&world, &local(1), &["quic"]).peer(addr(&b)).start().await.unwrap();
    let mut events = a.events();
    event(&mut events, |e| matches!(e, Event::PeerConnected { dialed: true, .. }).then_some(())).await;
    world.rule("quic", &b, Dialing::Refused);
    world.wire(None, Wire::Cut);
    let why = event(&mut events, |e| match e {
        Event::PeerDisconnected { why, .. } => Some(why.code),
        _ => None,
    })
    .await;
    assert_eq!(why, CloseCode::Lost);
    let mut delays = Vec::new();
    while delays.len() < 12 {
        delays.push(
            event(&mut events, |e| match e {
                Event::RetryIn { delay, .. } => Some(*delay),
                _ => None,
            })
            .await,
        );
    }
    assert!(delays[0] < 500 * MS, "{delays:?}");
    assert!(delays[11] >= Duration::from_secs(30) && delays[11] < Duration::from_secs(90), "{delays:?}");
    world.rule("quic", &b, Dialing::Works);
    event(&mut events, |e| matches!(e, Event::PeerConnected { .. }).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_disconnected_on_purpose_is_not_dialed_again() {
    let world = World::new();
    let b = node(&world, 2, Silent).await;
    let a = builder(&world, &local(1), &["quic"]).peer(addr(&b)).start().await.unwrap();
    until("connected", || !a.peers().is_empty()).await;
    a.disconnect(b.peer_id()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(a.peers().is_empty() && b.peers().is_empty());
    assert_eq!(world.dials().len(), 1);
    assert!(a.keep(&addr(&b)));
    until("connected again", || !a.peers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_blocked_is_closed_at_once_and_refused_later() {
    let world = World::new();
    let here = local(2);
    let b = builder(&world, &here, &["quic"]).start().await.unwrap();
    let a = builder(&world, &local(1), &["quic"]).peer(addr(&b)).start().await.unwrap();
    let mut events = a.events();
    let mut theirs = b.events();
    event(&mut events, |e| matches!(e, Event::PeerConnected { .. }).then_some(())).await;
    until("both know", || !b.peers().is_empty()).await;
    block(&here, a.peer_id());
    for events in [&mut events, &mut theirs] {
        let code = event(events, |e| match e {
            Event::PeerDisconnected { why, .. } => Some(why.code),
            _ => None,
        })
        .await;
        assert_eq!(code, CloseCode::NotAdmitted);
    }
    let delay = event(&mut events, |e| match e {
        Event::RetryIn { delay, .. } => Some(*delay),
        _ => None,
    })
    .await;
    assert!(delay >= Duration::from_secs(150), "a refusal is no reason to hurry: {delay:?}");
    let error = a.connect(&addr(&b)).await.unwrap_err();
    assert!(error.to_string().contains("block list"), "{error}");
    event(&mut theirs, |e| matches!(e, Event::AcceptFailed { .. }).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_peers_than_may_be() {
    let world = World::new();
    let b = builder(&world, &local(9), &["quic"]).config(config(|c| c.peers = 2)).start().await.unwrap();
    let mut nodes = Vec::new();
    for seed in 1..=3 {
        let a = builder(&world, &local(seed), &["quic"]).start().await.unwrap();
        let mut events = a.events();
        a.connect(&addr(&b)).await.unwrap();
        if seed == 3 {
            let code = event(&mut events, |e| match e {
                Event::PeerDisconnected { why, .. } => Some(why.code),
                _ => None,
            })
            .await;
            assert_eq!(code, CloseCode::Overloaded);
        }
        until("settled", || b.peers().len() == usize::from(seed).min(2)).await;
        nodes.push(a);
    }
}

#[tokio::test(start_paused = true)]
async fn all_transports_get_the_same_free_port_and_a_taken_one_is_an_error() {
    let world = World::new();
    let a = node(&world, 1, Silent).await;
    let listening = a.listening();
    assert_eq!(listening.len(), 2);
    assert_eq!((listening[0].transport, listening[1].transport), ("quic", "tcp"));
    assert_eq!(listening[0].addr, listening[1].addr);
    let error = builder(&world, &local(2), &["tcp"]).listen(listening[0].addr).start().await.unwrap_err();
    assert!(error.to_string().contains(&listening[0].addr.to_string()), "{error}");
}

/// The same seed, the same events at the same times.
#[test]
fn a_run_repeats() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let (b, c) = (node(&world, 2, Echo::default()).await, node(&world, 3, Echo::default()).await);
            let builder = builder(&world, &local(1), &["quic", "tcp"]).peer(addr(&b)).peer(addr(&c));
            let a = builder.start().await.unwrap();
            let mut events = a.events();
            let mut trace = Vec::new();
            for round in 0..6 {
                world.rule("quic", &b, if round % 2 == 0 { Dialing::Hangs } else { Dialing::Works });
                world.rule("tcp", &c, if round % 2 == 1 { Dialing::Slow(Duration::from_secs(2)) } else { Dialing::Works });
                let end = tokio::time::sleep(Duration::from_secs(7));
                tokio::pin!(end);
                loop {
                    tokio::select! {
                        biased;
                        event = events.recv() => trace.push(format!("{:?} {:?}", world.start.elapsed(), event.unwrap())),
                        () = &mut end => break,
                    }
                }
                world.wire(None, Wire::Cut);
            }
            trace
        })
    };
    let first = run();
    assert!(first.len() > 20, "{first:#?}");
    assert_eq!(first, run());
}
