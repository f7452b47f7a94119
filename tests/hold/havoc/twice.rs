//! A dial begins a second attempt beside one that is slow, and the listener may have accepted both: one connection is left, and what
//! was asked by the one that isn't is answered or fails, long before its deadline.
//!
//! Both sides seem to say in one packet who they are and that they accept: a listener has hardly ever accepted what the dialer drops, not
//! once in 150 dials with a quarter of the packets lost and most of them late. So here both attempts complete, and one is dropped.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use peerlane::{
    cad015::{Cad015, Message, Payload},
    cell::Profile,
    node::{Context, Handler, Node, NodeHandle, RequestError},
};
use peerlane_transport::{
    AnyTransport, Transport,
    identity::{PeerAddr, PeerId},
};
use tokio::time::{Instant, sleep};

use super::{
    Blocked, Proxy, Rules, count_panics, local, quic, seed,
    switch::{integer, number_in},
};

/// Of a request: the end of a connection tells long before it.
const DEADLINE: Duration = Duration::from_secs(100);
/// Nothing takes longer, in virtual time.
const LONG: Duration = Duration::from_secs(60);

/// What was handled, and how often.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<i64, u32>>>);

impl Handler<Cad015> for Seen {
    async fn handle(&self, context: Context<Cad015>, message: Message) {
        let Ok(Payload::Query { id, form }) = message.parse(&Profile::NATIVE.in_network("havoc")) else { return };
        *self.0.lock().unwrap().entry(number_in(&form)).or_default() += 1;
        let _ = context.reply(&Message::result(id, form[0].clone())).await;
    }
}

async fn ask(node: &NodeHandle<Cad015>, to: PeerId, n: i64) -> Result<(), RequestError> {
    let answer = node.request(to, Message::query(0, [integer(n)]), DEADLINE).await?;
    let Ok(Payload::Result(outcome)) = answer.parse(&Profile::NATIVE) else { panic!("no RESULT") };
    assert_eq!(number_in(&[outcome.value]), n, "the answer to another request");
    Ok(())
}

/// The accepting side asks from the moment on at which it knows the other until `more` is over, many things at once: what was answered, what failed, and
/// the longest wait for either.
async fn asking(node: NodeHandle<Cad015>, to: PeerId, more: Duration) -> (Vec<i64>, usize, Duration) {
    let mut asked = tokio::task::JoinSet::new();
    let (mut n, mut known) = (0, None);
    while known.is_none_or(|known: Instant| known.elapsed() < more) {
        if node.peer(to).is_some() {
            known.get_or_insert_with(Instant::now);
            let node = node.clone();
            asked.spawn(async move {
                let start = Instant::now();
                (n, ask(&node, to, n).await, start.elapsed())
            });
            n += 1;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let (mut answered, mut failed, mut longest) = (Vec::new(), 0, Duration::ZERO);
    while let Some(ended) = asked.join_next().await {
        let (n, ended, wait) = ended.unwrap();
        longest = longest.max(wait);
        match ended {
            Ok(()) => answered.push(n),
            Err(_) => failed += 1,
        }
    }
    (answered, failed, longest)
}

async fn settled(node: &Node<Cad015>, peer: PeerId) {
    let start = Instant::now();
    while node.peer(peer).is_none_or(|peer| peer.connections != 1) {
        assert!(start.elapsed() < LONG, "not one connection: {:?}", node.peer(peer));
        sleep(Duration::from_millis(20)).await;
    }
}

fn accepted(node: &Node<Cad015>) -> u64 {
    let text = node.metrics_text();
    let count = text.lines().find_map(|line| line.strip_prefix("peerlane_accepted_total ")).unwrap();
    count.parse().unwrap()
}

fn node(n: u8, seen: &Seen) -> peerlane::node::NodeBuilder<Cad015, Seen> {
    Node::builder(Cad015::new(Profile::NATIVE.in_network("havoc")), local(n))
        .transport(AnyTransport::new(quic(n)))
        .seed(seed())
        .handler(seen.clone())
}

/// The first attempt is dropped when the listener has accepted it, before or after the second one; its path may be dark by then, so
/// that nobody tells the listener.
async fn drop_the_first(who: u8, early: bool, dark: bool) {
    let light = Rules { delay: Duration::from_millis(10), ..Rules::default() };
    let server = node(2, &Seen::default()).listen("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
    let paths = [Proxy::to(server.listening()[0].addr, seed(), light).await, Proxy::to(server.listening()[0].addr, seed(), light).await];
    let seen = Seen::default();
    let client = node(who, &seen).start().await.unwrap();
    // As the node's own transport dials.
    let dialer = quic(who);
    let to = paths.each_ref().map(|path| PeerAddr::new(server.peer_id(), path.addr));
    let asking = tokio::spawn(asking(server.handle(), client.peer_id(), Duration::from_secs(10)));

    let first = dialer.dial(&to[0]).await.unwrap();
    let mut left = Some(first);
    let mut leave = || {
        let blocked = if dark { Blocked::Both } else { Blocked::Neither };
        paths[0].set(Rules { blocked, ..light });
        left = None;
    };
    sleep(Duration::from_millis(50)).await;
    if early {
        leave();
    }
    let second = dialer.dial(&to[1]).await.unwrap();
    client.adopt(second).unwrap();
    leave();
    let (answered, failed, wait) = asking.await.unwrap();
    println!("early {early}, dark {dark}: {} answered, {failed} failed, the longest wait {wait:?}", answered.len());
    let handled = seen.0.lock().unwrap().clone();
    assert!(handled.values().all(|count| *count == 1), "handled twice: {handled:?}");
    assert!(answered.iter().all(|n| handled.contains_key(n)));
    assert!(failed > 0, "nothing was asked by the one that was dropped");
    assert!(wait < DEADLINE / 4, "a request ended {wait:?} after it was sent: nothing told of its connection's end");
    settled(&client, server.peer_id()).await;
    settled(&server, client.peer_id()).await;
    assert_eq!(accepted(&server), 2);
    for (from, to) in [(&client, server.peer_id()), (&server, client.peer_id())] {
        ask(&from.handle(), to, -1).await.unwrap();
    }
    tokio::join!(client.shutdown(), server.shutdown());
}

#[tokio::test(start_paused = true)]
async fn of_two_accepted_attempts_one_is_left_and_what_was_asked_by_the_other_ends() {
    let before = count_panics();
    // Either side decides which stays, by the keys.
    for who in [1, 3, 4] {
        for (early, dark) in [(false, false), (true, false), (false, true), (true, true)] {
            drop_the_first(who, early, dark).await;
        }
    }
    assert_eq!(count_panics(), before);
}
