//! A belief of ours, as a peer with half of the stake: the reference peer takes it in, and its consensus moves by it.

use peerlane_convex::{Build, Status};

use super::*;

/// Low halves of the dense records' tags (facts/convex.md 2.1).
const BELIEF: u8 = 4;
const BLOCK: u8 = 6;
const ORDER: u8 = 7;
/// Somebody that the transfer goes to.
const FIRST_USER: u64 = 13;

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

fn sign(build: &mut Build, key: &SigningKey, cell: Cell) -> Ref {
    let value = build.link(cell).unwrap();
    build.link(Cell::Signed(Box::new(Signed::sign(&CONVEX, key, value)))).unwrap()
}

/// An order of these blocks, which stands at these points: blocks, proposal, consensus, finality.
fn order(build: &mut Build, key: &SigningKey, timestamp: i64, points: [i64; 4], blocks: Cell) -> Ref {
    let points = points.map(|point| build.integer(point));
    let points = build.vector(&points).unwrap();
    let fields = [build.integer(timestamp), build.link(points).unwrap(), build.link(blocks).unwrap()];
    let record = build.record(ORDER, fields);
    sign(build, key, record)
}

/// What the peer believes: the signed order of a key, and its blocks.
async fn believed(client: &Client, key: &[u8; 32]) -> Option<(Ref, Value)> {
    let belief = loop {
        // It moves on; an old one may be gone by the time that we ask for it.
        let root = client.status().await.unwrap().belief;
        if let Ok(belief) = client.fetch(root, FetchLimits::default()).await {
            break belief;
        }
    };
    let child = |value: &Value, child: &Ref| value.child(child).unwrap();
    let Cell::Record(BELIEF, fields) = &belief.cell else { panic!() };
    let Cell::Index(orders) = child(&belief, &fields.tail()[0]).cell else { panic!() };
    let signed = belief.reader().index_get(&orders, key).unwrap()?;
    let Cell::Signed(order) = child(&belief, &signed).cell else { panic!() };
    order.verify(&CONVEX).unwrap();
    let Cell::Record(ORDER, fields) = child(&belief, order.value()).cell else { panic!() };
    Some((signed, child(&belief, &fields.tail()[2])))
}

fn blocks(value: &Value) -> Vec<Ref> {
    let Cell::Vector(blocks) = &value.cell else { panic!() };
    value.reader().vector_iter(blocks, 0..blocks.len()).map(Result::unwrap).collect()
}

/// Sends a belief until the peer holds it. Newer peers ask first who we are, and take nothing from a connection until they know.
async fn accepted(client: &Client, belief: &Message, key: &[u8; 32], order: &Ref) {
    let held = async {
        while believed(client, key).await.is_none_or(|(held, _)| held != *order) {
            client.send(belief).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(START, held).await.expect("the peer takes our order in");
}

async fn status(client: &Client) -> Status {
    client.status().await.unwrap()
}

#[tokio::test]
async fn a_belief_of_ours_is_merged_and_moves_the_peers_consensus() {
    // Two peers have the stake: the one in Java, and we.
    let Some(java) = start(&["0", "-"]).await else { return };
    let (ours, id) = (peer_key(2), peer_key(2).verifying_key().to_bytes());
    let client = java.client(ClientConfig { key: Some(ours.clone()), network: Some(java.network), ..config() }).await;
    let (sequence, began) = (client.sequence(USER).await.unwrap(), status(&client).await);
    assert!(believed(&client, &id).await.is_none(), "it knows nothing of ours");
    let balance = async || client.query(form::read("*balance*").unwrap(), Some(FIRST_USER)).await.unwrap().ok().unwrap().cell;
    let Cell::Integer(before) = balance().await else { panic!() };

    // A Belief record whose one order has one block of ours, with one transaction.
    let mut build = Build::default();
    let transfer = Transaction::Transfer { origin: USER, sequence: sequence + 1, target: FIRST_USER, amount: 1234 };
    let transfer = build.value(transfer.sign(&key()).unwrap()).unwrap();
    let transactions = build.vector(&[transfer]).unwrap();
    let fields = [build.integer(now()), build.link(transactions).unwrap()];
    let block = build.record(BLOCK, fields);
    let block = sign(&mut build, &ours, block);
    let list = build.vector(std::slice::from_ref(&block)).unwrap();
    let proposed = order(&mut build, &ours, now(), [1, 0, 0, 0], list);
    let orders = build.writer().index([(id.to_vec(), proposed.clone())]).unwrap();
    let orders = build.link(Cell::Index(orders)).unwrap();
    let record = build.record(BELIEF, [orders]);
    let belief = Message::new(Body::of(build.finish(record)));
    assert_eq!(belief.kind(), Kind::Belief);
    accepted(&client, &belief, &id, &proposed).await;
    // Merged: its own order has our block too.
    let merged = async {
        loop {
            let (_, theirs) = believed(&client, &java.key).await.unwrap();
            if blocks(&theirs).contains(&block) {
                return theirs;
            }
        }
    };
    let theirs = timeout(START, merged).await.expect("its own order comes to have our block");
    assert_eq!(status(&client).await.consensus, began.consensus, "half of the stake is no consensus");

    // We agree: a signed Order alone, as a delta without the blocks, which the peer has. Before it one that isn't ours though it says so:
    // had it been taken, the right one would be too old.
    let n = blocks(&theirs).len() as i64;
    let at = now();
    let mut build = Build::default();
    let forged = order(&mut build, &other_key(), at + 1, [n, n, n, n], theirs.cell.clone());
    let mut bytes = encode(&build.writer().reader().resolve(&forged).unwrap()).to_vec();
    bytes[1..33].copy_from_slice(&id);
    let forged = peerlane_convex::cell::decode(&Bytes::from(bytes), &CONVEX).unwrap();
    client.send(&Message::belief(forged, Vec::new())).await.unwrap();
    let agreed = order(&mut build, &ours, at, [n, n, n, n], theirs.cell);
    let top = (*build.writer().reader().resolve(&agreed).unwrap()).clone();
    let delta = Message::belief(top, Vec::new());
    assert_eq!((delta.kind(), delta.encode()[0]), (Kind::Belief, 0x90));
    accepted(&client, &delta, &id, &agreed).await;
    let moved = async {
        while client.sequence(USER).await.unwrap() == sequence {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(START, moved).await.expect("the transaction in our block is executed");
    let ended = status(&client).await;
    assert_eq!((client.sequence(USER).await.unwrap(), balance().await), (sequence + 1, Cell::Integer(before + 1234)));
    assert!(ended.state != began.state && ended.consensus >= Some(n) && ended.consensus > began.consensus);
    println!("our belief is merged: consensus {:?} -> {:?}, our transaction executed", began.consensus, ended.consensus);
}
