//! A client with an account of its own: it signs each operation once, asks until it's acknowledged, and remembers by whom.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::future::join_all;
use peerlane::{
    cad015::{Cad015, ErrorCode, Message, Outcome},
    cell::{Cell, MemoryCells, Profile, Signed, ValueId, encode},
    node::{Node, RequestError},
    peer::{Answer, Edit, Operation, Query, read_outcome},
};
use peerlane_transport::identity::{PeerAddr, PeerId};
use rand::{RngExt, rngs::StdRng};
use tokio::time::{Instant, sleep};

pub const NETWORK: &str = "hold";

/// What all have seen, line by line, each with its time: a trace of its own, which the network knows nothing of.
pub type Log = Arc<Mutex<String>>;

/// What went wrong where a panic would be caught.
pub type Wrong = Arc<Mutex<Vec<String>>>;

pub fn profile() -> Profile {
    Profile::NATIVE.in_network(NETWORK)
}

/// A branch that carries an attempt's number, and that nothing refers to.
fn attempt_branch(attempt: u64) -> (ValueId, Bytes) {
    let text = format!("attempt {attempt:0200}");
    let bytes = encode(&Cell::blob(text.into_bytes()).unwrap());
    (profile().id(&bytes), bytes)
}

/// The number of the attempt that a TRANSACT is.
pub fn attempt_of(message: &Message) -> Option<u64> {
    message.branches.iter().find_map(|(_, bytes)| {
        let at = bytes.windows(8).position(|window| window == b"attempt ")?;
        std::str::from_utf8(&bytes[at + 8..]).ok()?.parse().ok()
    })
}

/// What a client knows.
pub struct Ledger {
    pub account: [u8; 32],
    key: SigningKey,
    /// The highest sequence that some peer has acknowledged.
    pub acknowledged: AtomicU64,
    /// The highest that was ever sent.
    pub sent: AtomicU64,
    /// The highest that each peer has acknowledged itself.
    by_peer: Mutex<BTreeMap<PeerId, u64>>,
    pub asked: AtomicU64,
    pub answered: AtomicU64,
    pub failed: AtomicU64,
    /// Answered with something other than success.
    pub refused: AtomicU64,
}

/// The operation at a sequence: always the same one.
pub fn edit(account: &[u8; 32], sequence: u64) -> Edit {
    if sequence.is_multiple_of(5) {
        return Edit::Put { key: "last".into(), value: sequence.to_string().into() };
    }
    Edit::Put { key: key(sequence), value: value(account, sequence) }
}

pub fn key(sequence: u64) -> Bytes {
    format!("k{sequence:06}").into()
}

pub fn value(account: &[u8; 32], sequence: u64) -> Bytes {
    // Some embed, some are branches.
    vec![account[0] ^ sequence as u8; 20 + (sequence as usize * 37) % 300].into()
}

/// What an account's keys hold after so many operations, each applied once and in order.
pub fn state(account: &[u8; 32], length: u64) -> BTreeMap<Bytes, Bytes> {
    let mut state = BTreeMap::new();
    for sequence in 1..=length {
        if let Edit::Put { key, value } = edit(account, sequence) {
            state.insert(key, value);
        }
    }
    state
}

impl Ledger {
    pub fn new(number: u8) -> Arc<Self> {
        let key = SigningKey::from_bytes(&[100 + number; 32]);
        Arc::new(Self {
            account: key.verifying_key().to_bytes(),
            key,
            acknowledged: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            by_peer: Mutex::default(),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// The operation at a sequence, signed, and the cells that it refers to.
    pub fn operation(&self, sequence: u64) -> (Signed, MemoryCells) {
        let mut cells = MemoryCells::default();
        let signed = Operation::sign(&edit(&self.account, sequence), sequence, &self.key, &profile(), &mut cells).unwrap();
        (signed, cells)
    }

    fn transact(&self, sequence: u64, attempt: u64) -> Message {
        let (signed, cells) = self.operation(sequence);
        Message::transact(0, [signed], &profile()).unwrap().with_branches(cells.0).with_branches([attempt_branch(attempt)])
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A request is given up after this.
    pub request: Duration,
    /// So much later it must have ended.
    pub slack: Duration,
}

pub struct Client {
    pub node: Node<Cad015>,
    pub number: u8,
    pub ledger: Arc<Ledger>,
    pub addrs: Vec<PeerAddr>,
    pub rng: StdRng,
    pub attempts: u64,
    pub patience: Patience,
    pub stop: Arc<AtomicBool>,
    pub log: Log,
    pub wrong: Wrong,
    pub started: Instant,
}

impl Client {
    fn says(&self, what: &str) {
        writeln!(self.log.lock().unwrap(), "{:?} client {}: {what}", self.started.elapsed(), self.number).unwrap();
    }

    fn any(&mut self) -> PeerAddr {
        self.addrs[self.rng.random_range(0..self.addrs.len())].clone()
    }

    /// Asks; each request ends once, in time, with an answer or an error.
    async fn ask(&self, target: PeerId, message: Message, patience: Duration) -> Result<(Message, Outcome), RequestError> {
        self.ledger.asked.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let asked = self.node.request(target, message, patience).await;
        if start.elapsed() > patience + self.patience.slack {
            self.wrong.lock().unwrap().push(format!("a request lasted {:?}, longer than its deadline", start.elapsed()));
        }
        let counter = if asked.is_ok() { &self.ledger.answered } else { &self.ledger.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        asked.map(|answer| {
            let outcome = read_outcome(&answer, &profile()).expect("the answer is a RESULT");
            (answer, outcome)
        })
    }

    /// Operations one behind the other, without waiting; the class keeps their order.
    async fn write(&mut self, target: PeerId) {
        let next = self.ledger.acknowledged.load(Ordering::Relaxed) + 1;
        let count = self.rng.random_range(1..=5u64);
        let patience = if self.rng.random_ratio(1, 8) { Duration::from_millis(30) } else { self.patience.request };
        let mut messages = Vec::new();
        for sequence in next..next + count {
            self.attempts += 1;
            messages.push((sequence, self.ledger.transact(sequence, self.attempts)));
        }
        self.ledger.sent.fetch_max(next + count - 1, Ordering::Relaxed);
        let this = &*self;
        let asking = messages.into_iter().map(|(sequence, message)| async move { (sequence, this.ask(target, message, patience).await) });
        for (sequence, asked) in join_all(asking).await {
            match asked {
                Ok((_, Outcome { error: None, .. })) => {
                    self.ledger.acknowledged.fetch_max(sequence, Ordering::Relaxed);
                    let mut by_peer = self.ledger.by_peer.lock().unwrap();
                    let highest = by_peer.entry(target).or_default();
                    *highest = (*highest).max(sequence);
                    drop(by_peer);
                    self.says(&format!("{sequence} acknowledged"));
                }
                Ok((_, Outcome { error: Some(code), .. })) => {
                    self.ledger.refused.fetch_add(1, Ordering::Relaxed);
                    self.says(&format!("{sequence} refused: {code:?}"));
                    // A peer that hasn't heard of the ones before can't take it; one that knows another of this sequence lies.
                    if !matches!(code, ErrorCode::Sequence | ErrorCode::State | ErrorCode::Load) {
                        self.wrong.lock().unwrap().push(format!("{sequence} was refused: {code:?}"));
                    }
                }
                Err(error) => self.says(&format!("{sequence}: {error}")),
            }
        }
    }

    /// A peer knows what it has acknowledged itself, and no other value of any key.
    async fn read(&mut self, target: PeerId) {
        let highest = self.ledger.by_peer.lock().unwrap().get(&target).copied().unwrap_or(0);
        let sequence = self.rng.random_range(1..=self.ledger.sent.load(Ordering::Relaxed).max(1));
        let query = Query::Get { account: self.ledger.account, key: key(sequence) };
        let Ok((answer, outcome)) = self.ask(target, query.message(&profile()).unwrap(), self.patience.request).await else { return };
        if outcome.error.is_some() {
            return self.says(&format!("read refused: {:?}", outcome.error));
        }
        let Ok(Answer::Value(got)) = query.read_answer(&outcome.value, &answer.cells(), &profile()) else {
            return self.wrong.lock().unwrap().push("the answer to a QUERY of another shape".into());
        };
        self.says(&format!("read {sequence}: {:?}", got.as_ref().map(Bytes::len)));
        let due = sequence <= highest && !sequence.is_multiple_of(5);
        let right = value(&self.ledger.account, sequence);
        if got.as_ref().is_some_and(|got| *got != right) || (got.is_none() && due) {
            let what = format!("{target} acknowledged {highest} of client {} and has {got:?} for {sequence}", self.number);
            self.wrong.lock().unwrap().push(what);
        }
    }

    pub async fn run(mut self) {
        let mut target = self.any();
        while !self.stop.load(Ordering::Relaxed) {
            if self.rng.random_ratio(1, 6) {
                target = self.any();
            }
            if self.node.peer(target.id).is_none()
                && let Err(error) = self.node.connect(&target).await
            {
                self.says(&format!("can't connect: {error}"));
                target = self.any();
                sleep(Duration::from_millis(self.rng.random_range(10..200))).await;
                continue;
            }
            match self.rng.random_range(0..10) {
                0..6 => self.write(target.id).await,
                6..9 => self.read(target.id).await,
                _ => {
                    let asked = self.ask(target.id, Message::ping(0), self.patience.request).await;
                    self.says(&format!("ping {}", asked.is_ok()));
                }
            }
            sleep(Duration::from_millis(self.rng.random_range(1..150))).await;
        }
        self.node.shutdown().await;
    }
}
