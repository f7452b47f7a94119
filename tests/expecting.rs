//! While an answer is expected, a silent path is asked for a life sign soon; else only now and then. On virtual time.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use peerlane_sim::World;
use peerlane_transport::{
    Connection, Listener as _, Transport as _, Upgrade as _,
    admission::Terms,
    identity::{Identity, PeerAddr, PeerId},
    limits::Limits,
};
use tokio::time::{Instant, sleep};

fn peer(n: u8) -> PeerId {
    Identity::from_seed(&[n; 32]).unwrap().peer_id()
}

/// Peers 1 and 2, connected, and quiet by now; both ends are kept. Peer 2 asks for nothing before peer 1 does.
async fn quiet_pair() -> (World, Connection, Connection) {
    let world = World::new(1);
    let terms = Terms::new("test").unwrap();
    let (from, to) = (world.transport(peer(1), terms.clone()), world.transport(peer(2), terms));
    let mut listener = to.listen(&"0.0.0.0:0".parse().unwrap()).await.unwrap();
    let addr = PeerAddr::new(peer(2), listener.local());
    let (a, b) = tokio::join!(from.dial(&addr), async { listener.accept().await.unwrap().upgrade().await });
    let pair = (world, a.unwrap(), b.unwrap());
    sleep(Duration::from_secs(1)).await;
    pair
}

/// How long it is until bytes leave from peer 1 to peer 2: nobody sends messages, so it's a PING. The other side is
/// silent.
async fn until_asked(world: &World) -> Duration {
    world.partition(&peer(1), &peer(2));
    let began = Instant::now();
    while world.in_flight(&peer(1), &peer(2)) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "it never asks");
        sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn who_expects_an_answer_asks_for_a_life_sign_soon_and_who_does_not_asks_seldom() {
    let limits = Limits::default();
    let tick = limits.ping_interval;

    let (world, a, b) = quiet_pair().await;
    let expecting = a.expecting();
    let asked = until_asked(&world).await;
    assert!(asked <= limits.ping_interval + tick, "with an expectation open: {asked:?}");
    drop((expecting, b));

    let (world, a, b) = quiet_pair().await;
    // An expectation that's over has no effect.
    drop(a.expecting());
    let asked = until_asked(&world).await;
    let quiet = limits.quiet_ping_interval.min(limits.idle_timeout / 3);
    assert!(asked > 2 * limits.ping_interval + tick, "without one: {asked:?}");
    assert!(asked <= quiet + tick, "without one: {asked:?}");
    drop((a, b));
}
