//! Attacks with messages, by a peer whose key is as good as anybody's.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use peerlane::{
    cad015::Message,
    cell::{Cell, MemoryCells, Reader, Ref, ValueId, encode},
    peer::{BeliefDelta, Edit, Include, MAX_BELIEF, Operation, Query, Store, Verified},
};
use peerlane_transport::{ClassId, ClassTable, Connection};

use super::{Bound, Tally};
use crate::target::{By, NETWORK, Target, profile};

fn class(name: &str) -> ClassId {
    ClassTable::standard().by_name(name).unwrap()
}

fn random_id() -> ValueId {
    ValueId(rand::random())
}

/// Sends what `make` makes as fast as the class takes it, and takes what comes if `reads`.
async fn flood(target: Target, mut bound: Bound, by: By, reads: bool, mut make: impl FnMut(u64) -> (ClassId, Bytes)) -> Tally {
    let mut tally = Tally::default();
    let mut connection = target.stranger(by).await;
    let mut reader = reads.then(|| Taker::start(&connection));
    while bound.more() {
        let (class, message) = make(tally.done);
        // One that the victim holds up waits for a moment, and then isn't sent.
        match tokio::time::timeout(Duration::from_millis(50), connection.send(class, message)).await {
            Ok(Ok(())) => tally.done += 1,
            Ok(Err(error)) => {
                (tally.refused, tally.trouble) = (tally.refused + 1, Some(error.to_string()));
                connection = target.stranger(by).await;
                reader = reads.then(|| Taker::start(&connection));
            }
            Err(_) => tally.refused += 1,
        }
        // The connection's own task runs on this thread too.
        if tally.done % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(reader);
    tally
}

/// Takes what comes, until it's dropped.
struct Taker(Vec<tokio::task::JoinHandle<()>>);

impl Taker {
    fn start(connection: &Connection) -> Self {
        let read = |class| {
            let connection = connection.clone();
            tokio::spawn(async move { while connection.recv(class).await.is_ok() {} })
        };
        Self(ClassTable::standard().iter().map(|(class, _)| read(class)).collect())
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn query(n: u64) -> Bytes {
    Query::Count.message(&profile()).unwrap().with_id(n).encode()
}

/// What is answered, in each class that answers.
fn request(n: u64) -> (ClassId, Bytes) {
    match n % 3 {
        0 => (class(ClassTable::QUERY), query(n)),
        1 => (class(ClassTable::CONTROL), Message::status(n).encode()),
        _ => (class(ClassTable::DATA), Message::missing_data(n, &[random_id()], &profile()).unwrap().encode()),
    }
}

pub async fn reader_stops_quic(target: Target, bound: Bound) -> Tally {
    flood(target, bound, By::Quic, false, request).await
}

pub async fn reader_stops_tcp(target: Target, bound: Bound) -> Tally {
    flood(target, bound, By::Tcp, false, request).await
}

pub async fn query_flood(target: Target, bound: Bound) -> Tally {
    flood(target, bound, By::Quic, true, |n| (class(ClassTable::QUERY), query(n))).await
}

pub async fn missing_data(target: Target, bound: Bound) -> Tally {
    let make = |n| {
        let hashes: Vec<ValueId> = (0..32).map(|_| random_id()).collect();
        (class(ClassTable::DATA), Message::missing_data(n, &hashes, &profile()).unwrap().encode())
    };
    flood(target, bound, By::Quic, true, make).await
}

pub async fn unsolicited(target: Target, bound: Bound) -> Tally {
    let make = |n: u64| match n % 2 {
        0 => (class(ClassTable::QUERY), Message::result(n, Ref::nil()).encode()),
        _ => {
            let encoding = encode(&Cell::Integer(n as i64));
            let id = profile().id(&encoding);
            (class(ClassTable::DATA), Message::data(n, &[Some((id, encoding))], 60_000, &profile()).unwrap().encode())
        }
    };
    flood(target, bound, By::Quic, true, make).await
}

/// A belief's messages: signed by a key that nobody knows.
fn belief(key: &SigningKey, time: u64, root: Ref, cells: Vec<(ValueId, Bytes)>) -> Vec<Bytes> {
    let delta = BeliefDelta { version: time, root, cells };
    delta.messages(key, time, MAX_BELIEF, &profile()).unwrap().iter().map(Message::encode).collect()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&rand::random())
}

pub async fn invalid_beliefs(target: Target, bound: Bound) -> Tally {
    let message = belief(&key(), 1, Ref::Embedded(Arc::new(Cell::Nil)), vec![])[0].clone();
    flood(target, bound, By::Quic, true, move |_| (class(ClassTable::BELIEF), message.clone())).await
}

/// A valid belief: of a lattice with one operation of an account.
fn valid(account: &SigningKey, says: u64) -> Bytes {
    let store = Store::in_memory(NETWORK, profile()).unwrap();
    let mut cells = MemoryCells::default();
    let edit = Edit::Put { key: "k".into(), value: says.to_string().into() };
    let signed = Operation::sign(&edit, 1, account, &profile(), &mut cells).unwrap();
    let operation = Operation::read(&signed, &Reader::new(&profile(), &cells)).unwrap();
    store.append(vec![Verified::new(operation, &profile()).unwrap()], &cells).unwrap()[0].as_ref().unwrap();
    let BeliefDelta { root, cells, .. } = store.belief(0, Include::All);
    belief(&key(), says, root, cells)[0].clone()
}

pub async fn stale_beliefs(target: Target, bound: Bound) -> Tally {
    let message = valid(&key(), 1);
    flood(target, bound, By::Quic, true, move |_| (class(ClassTable::BELIEF), message.clone())).await
}

pub async fn equivocating_beliefs(target: Target, bound: Bound) -> Tally {
    let account = key();
    let messages: Vec<Bytes> = (0..8).map(|says| valid(&account, says)).collect();
    flood(target, bound, By::Quic, true, move |n| (class(ClassTable::BELIEF), messages[n as usize % messages.len()].clone())).await
}

pub async fn partial_beliefs(target: Target, bound: Bound) -> Tally {
    let key = key();
    // The same time with another root each: it says two things at once, too.
    let make = move |_| (class(ClassTable::BELIEF), belief(&key, 1, Ref::Branch(random_id()), vec![])[0].clone());
    flood(target, bound, By::Quic, true, make).await
}

pub async fn half_beliefs(target: Target, bound: Bound) -> Tally {
    let key = key();
    let make = move |n: u64| {
        let cell = |i: u64| {
            let encoding = encode(&Cell::blob([n.to_be_bytes(), i.to_be_bytes()].concat().repeat(250)).unwrap());
            (profile().id(&encoding), encoding)
        };
        let cells: Vec<_> = (0..12).map(cell).collect();
        (class(ClassTable::BELIEF), belief(&key, n, Ref::Branch(random_id()), cells)[0].clone())
    };
    flood(target, bound, By::Quic, true, make).await
}

pub async fn malformed(target: Target, mut bound: Bound) -> Tally {
    let mut tally = Tally::default();
    while bound.more() {
        let connection = target.stranger(By::Quic).await;
        for class in 0..5 {
            let mut bytes = vec![0; 300];
            rand::fill(&mut bytes[..]);
            let _ = connection.send(ClassId(class), bytes.into()).await;
        }
        tokio::select! {
            _ = connection.closed() => {}
            () = tokio::time::sleep(Duration::from_millis(20)) => tally.refused += 1,
        }
        tally.done += 1;
    }
    tally
}
