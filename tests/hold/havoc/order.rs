//! UDP goes dark and comes back again and again between nodes that may choose: what is sent in a Fifo class is handled in order and
//! once, or not at all; a request is handled once at most, and answered once or failed once, within its deadline.
//!
//! Dark is: both ways, one way only (what is sent arrives and its sender never learns), or held up (it arrives when nobody waits for
//! it). Both nodes send and ask. The clock is tokio's, as in `dark`.
//!
//! `PEERLANE_DARKNESSES=100 cargo test --test hold havoc::order -- --nocapture` for more of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ed25519_dalek::SigningKey;
use peerlane::{
    cad015::{Cad015, Message, Payload},
    cell::{Profile, Signed},
    node::{Context, Event, Handler, Node, NodeHandle},
};
use peerlane_transport::identity::{PeerAddr, PeerId};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};

use super::{
    Blocked, Proxy, Rules, count_panics,
    dark::pace,
    seed,
    switch::{integer, middle, node, number_in},
};
use crate::{config, number};

/// One way.
const DELAY: Duration = Duration::from_millis(2);
/// A request's.
const DEADLINE: Duration = Duration::from_secs(10);
/// Nothing takes longer, in virtual time.
const LONG: Duration = Duration::from_secs(300);
/// A connection that's the only one for so long is what both have settled for.
const STAYS: Duration = Duration::from_millis(500);
/// Who asks in a class at once, each one thing after the other.
const ASKING: i64 = 3;
/// The numbers of one who asks, apart from the others'.
const OWN: i64 = 1_000_000;

fn profile() -> Profile {
    Profile::NATIVE.in_network("havoc")
}

/// Of the Fifo class.
fn transact(n: i64) -> Message {
    let key = SigningKey::from_bytes(&[1; 32]);
    Message::transact(0, [Signed::sign(&profile(), &key, integer(n))], &profile()).unwrap()
}

/// What a node has handled.
#[derive(Clone, Default)]
struct Seen {
    /// Fifo messages, in their order.
    told: Arc<Mutex<Vec<i64>>>,
    /// Requests, and how often.
    asked: Arc<Mutex<BTreeMap<i64, u32>>>,
}

impl Handler<Cad015> for Seen {
    async fn handle(&self, context: Context<Cad015>, message: Message) {
        let (id, n) = match message.parse(&profile()) {
            Ok(Payload::Query { id, form }) => (id, number_in(&form)),
            Ok(Payload::Transact { id, operations }) => (id, number_in(&[operations[0].value().clone()])),
            _ => return,
        };
        if id == 0 {
            self.told.lock().unwrap().push(n);
            // Some wait here when the next connection comes.
            return sleep(Duration::from_millis(3)).await;
        }
        *self.asked.lock().unwrap().entry(n).or_default() += 1;
        let _ = context.reply(&Message::result(id, integer(n))).await;
    }
}

/// Sends one Fifo message after the other: when each was queued, or that it wasn't.
async fn tell(node: NodeHandle<Cad015>, to: PeerId, stop: Arc<AtomicBool>, mut rng: StdRng) -> Vec<Option<Instant>> {
    let mut queued = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let sent = node.send(to, &transact(queued.len() as i64)).await;
        queued.push(sent.is_ok().then(Instant::now));
        // Slow enough for what waits in the dark to find room in the class's queue: beyond it's dropped, in any light.
        let pause = if sent.is_ok() { rng.random_range(4..16) } else { 50 };
        sleep(Duration::from_millis(pause)).await;
    }
    queued
}

/// Asks one thing after the other: which were answered, with what they asked for, and which failed.
async fn ask(node: NodeHandle<Cad015>, to: PeerId, stop: Arc<AtomicBool>, who: i64) -> (Vec<i64>, Vec<i64>) {
    let (mut answered, mut failed) = (Vec::new(), Vec::new());
    for n in who * OWN.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let message = if who % 2 == 0 { Message::query(0, [integer(n)]) } else { transact(n) };
        let start = Instant::now();
        match node.request(to, message, DEADLINE).await {
            Ok(answer) => {
                let Ok(Payload::Result(outcome)) = answer.parse(&Profile::NATIVE) else { panic!("no RESULT") };
                assert!(outcome.error.is_none(), "there's room for as many as come at once after darkness");
                assert_eq!(number_in(&[outcome.value]), n, "the answer to another request");
                answered.push(n);
            }
            Err(_) => {
                failed.push(n);
                sleep(Duration::from_millis(50)).await;
            }
        }
        assert!(start.elapsed() <= DEADLINE + Duration::from_millis(100), "{n} ended after {:?}", start.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    (answered, failed)
}

/// What one node has sent to the other, and what the other makes of it.
struct Load {
    telling: tokio::task::JoinHandle<Vec<Option<Instant>>>,
    asking: Vec<tokio::task::JoinHandle<(Vec<i64>, Vec<i64>)>>,
    seen: Seen,
}

impl Load {
    fn start(from: &Node<Cad015>, to: PeerId, seen: &Seen, stop: &Arc<AtomicBool>, n: u64) -> Self {
        Self {
            telling: tokio::spawn(tell(from.handle(), to, stop.clone(), StdRng::seed_from_u64(seed() ^ n))),
            asking: (0..2 * ASKING).map(|who| tokio::spawn(ask(from.handle(), to, stop.clone(), who))).collect(),
            seen: seen.clone(),
        }
    }

    /// `dark`: from when to when something may be lost. What was lost.
    async fn judge(self, dark: &[(Instant, Instant)]) -> String {
        let queued = self.telling.await.unwrap();
        let last = queued.iter().rposition(Option::is_some).unwrap() as i64;
        let start = Instant::now();
        while self.seen.told.lock().unwrap().last() != Some(&last) {
            assert!(start.elapsed() < LONG, "the last one never comes: {last}, {:?}", self.seen.told.lock().unwrap().last());
            sleep(Duration::from_millis(10)).await;
        }
        let told = self.seen.told.lock().unwrap().clone();
        let wrong = told.windows(2).find(|pair| pair[0] >= pair[1]);
        assert!(wrong.is_none(), "out of order or twice: {wrong:?}");
        assert!(told.iter().all(|n| queued[*n as usize].is_some()), "handled, although its sender was told that it wasn't queued");
        let lost: Vec<_> = (0..).zip(&queued).filter(|(n, queued)| queued.is_some() && told.binary_search(n).is_err()).collect();
        for (n, queued) in &lost {
            let at = queued.unwrap();
            assert!(dark.iter().any(|(from, to)| (*from..=*to).contains(&at)), "{n} is lost, and it was light");
        }
        let handled = self.seen.asked.lock().unwrap().clone();
        assert!(handled.values().all(|count| *count == 1), "handled twice: {:?}", handled.iter().find(|(_, count)| **count != 1));
        let (mut answered, mut failed) = (0, 0);
        for asking in self.asking {
            let (its, lost) = asking.await.unwrap();
            assert!(its.iter().all(|n| handled.contains_key(n)));
            (answered, failed) = (answered + its.len(), failed + lost.len());
        }
        format!("{} of {} Fifo messages lost, {failed} of {} requests failed", lost.len(), queued.len(), answered + failed)
    }
}

/// Waits until both have one connection left, over QUIC, and it stays: for a moment each may have another one.
async fn settled(nodes: [&Node<Cad015>; 2]) {
    let (start, mut since) = (Instant::now(), Instant::now());
    let is = |node: &Node<Cad015>| matches!(&node.peers()[..], [peer] if peer.transport == "quic" && peer.connections == 1);
    while since.elapsed() < STAYS {
        assert!(start.elapsed() < LONG, "never over QUIC: {:?}", nodes.map(|node| node.peers()));
        sleep(Duration::from_millis(10)).await;
        if !nodes.iter().all(|node| is(node)) {
            since = Instant::now();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn order_and_at_most_once_survive_darkness() {
    let before = count_panics();
    tokio::spawn(pace());
    let (idle, mut rng) = (Duration::from_secs(30), StdRng::seed_from_u64(seed()));
    let (here, there) = (Seen::default(), Seen::default());
    let server = node(2, idle).listen("127.0.0.3:0".parse().unwrap()).handler(there.clone()).start().await.unwrap();
    let proxy: Proxy = middle(server.listening()[0].addr).await;
    let light = Rules { delay: DELAY, ..Rules::default() };
    proxy.set(light);
    let soon = config(|config| (config.upgrade_after, config.upgrade_max) = (Duration::from_secs(1), Duration::from_secs(2)));
    let client = node(1, idle).config(soon).handler(here.clone()).start().await.unwrap();
    let to = PeerAddr::new(server.peer_id(), proxy.addr);
    client.connect(&to).await.unwrap();
    assert!(client.keep(&to));
    settled([&client, &server]).await;
    let mut events = client.events();

    let stop = Arc::new(AtomicBool::new(false));
    let loads = [Load::start(&client, server.peer_id(), &there, &stop, 1), Load::start(&server, client.peer_id(), &here, &stop, 2)];
    let (mut dark, mut over_tcp) = (Vec::new(), 0);
    for round in 0..number("PEERLANE_DARKNESSES", 15) {
        sleep(Duration::from_millis(rng.random_range(100..1000))).await;
        let long = Duration::from_millis(rng.random_range(200..6000));
        // What was on its way is lost too.
        let from = Instant::now() - Duration::from_millis(100);
        let (what, rules) = match round % 5 {
            0 => ("both ways", Rules { blocked: Blocked::Both, ..light }),
            1 => ("there", Rules { blocked: Blocked::There, ..light }),
            2 => ("back", Rules { blocked: Blocked::Back, ..light }),
            3 => ("held up", Rules { delay: long, ..light }),
            _ => {
                // The dialer leaves a connection by which the other has just heard of it, and what was sent there last comes after
                // what was sent by the next.
                proxy.set(Rules { blocked: Blocked::Back, ..light });
                sleep(Duration::from_millis(rng.random_range(1000..2000))).await;
                ("back, and held up there", Rules { blocked: Blocked::Back, delay: Duration::from_millis(1500), ..light })
            }
        };
        proxy.set(rules);
        sleep(long).await;
        proxy.set(light);
        let returned = Instant::now();
        settled([&client, &server]).await;
        dark.push((from, Instant::now()));
        let mut moves = Vec::new();
        while let Ok(event) = events.try_recv() {
            match event {
                Event::PeerMoved { transport, .. } | Event::PeerConnected { transport, .. } => moves.push(transport),
                _ => {}
            }
        }
        over_tcp += u32::from(moves.contains(&"tcp"));
        println!("dark {what} for {long:?}: over {moves:?}, settled {:?} after", returned.elapsed());
    }
    sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        println!("{}", load.judge(&dark).await);
    }
    assert!(over_tcp > 0, "it never went on over TCP");
    assert_eq!(count_panics(), before);
    tokio::join!(client.shutdown(), server.shutdown());
}
