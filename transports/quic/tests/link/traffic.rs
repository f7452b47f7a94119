//! What the ends of a connection say: a flood of BELIEFs, and QUERY and RESULT on an open loop.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use peerlane_quic::Heard;
use quinn_proto::{Connection, Dir, Event, StreamEvent, StreamId};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{netem::Nanos, watch::InFlight};

const QUERY: usize = 100;
const RESULT: usize = 300;
const BELIEF: usize = 65_536;
/// What is handed to quinn beyond the congestion window, as the product's driver does. Bytes.
const QUANTUM: u64 = 16 * 1024;
const URGENT: u64 = 4 * QUANTUM;
/// Kinds of datagrams that compare the clocks.
const ASK: u8 = 3 << 4;
const ANSWER: u8 = 4 << 4;
/// Bytes per second that copies may always use, and the share of all bytes sent that they may use beyond it.
const COPY_RATE: f64 = 64_000.0;
const COPY_SHARE: f64 = 0.05;

/// How much is handed to quinn beyond the congestion window and a quantum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So many windows while packets were lost in the last three round trips: the product's driver has one.
    Lost(u64),
    /// What it takes to keep the window full, up to four windows: what came behind a hole is charged though it isn't in
    /// flight, before its loss is known too.
    Filled,
}

#[derive(Debug, Clone)]
pub struct TrafficConfig {
    pub flood: bool,
    /// Asks (the dialing side), or answers.
    pub asks: bool,
    /// QUERYs per second.
    pub rate: f64,
    pub start: Nanos,
    /// No more questions after this.
    pub stop: Nanos,
    pub measure_from: Nanos,
    /// A stream per small message, or one for all.
    pub stream_each: bool,
    /// When a small message is sent again as a datagram.
    pub copies: Vec<Duration>,
    /// How much is handed to quinn.
    pub budget: Budget,
    pub in_flight: InFlight,
    pub heard: Arc<Heard>,
    pub seed: u64,
}

pub struct Traffic {
    config: TrafficConfig,
    rng: SmallRng,
    flood: Option<StreamId>,
    shared: Option<StreamId>,
    next_query: Nanos,
    next_id: u64,
    /// When each unanswered question was scheduled.
    asked: HashMap<u64, Nanos>,
    answered: HashSet<u64>,
    /// Small messages that quinn hasn't taken yet.
    waiting: Vec<(StreamId, Bytes)>,
    copies: BinaryHeap<Reverse<(Nanos, u64)>>,
    copied: HashMap<u64, Bytes>,
    credit: f64,
    credit_at: Nanos,
    credit_sent: u64,
    partial: HashMap<StreamId, Vec<u8>>,
    lost_packets: u64,
    lost_at: Option<Nanos>,
    extra: u64,
    extra_at: Nanos,
    refilled: Option<Nanos>,
    /// When the clocks were last compared, and what had been received and sent.
    compared: (Nanos, u64, u64),
    belief: Bytes,
    /// When each answer came: scheduled, and how much later.
    pub latencies: Vec<(Nanos, Nanos)>,
    /// BELIEF bytes delivered while measuring, and by when.
    pub flooded: u64,
    /// BELIEF bytes delivered in each tenth of a second.
    pub series: Vec<u64>,
    pub copies_sent: u64,
}

impl Traffic {
    pub fn new(config: TrafficConfig) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(config.seed),
            flood: None,
            shared: None,
            next_query: config.start,
            next_id: 0,
            asked: HashMap::new(),
            answered: HashSet::new(),
            waiting: Vec::new(),
            copies: BinaryHeap::new(),
            copied: HashMap::new(),
            credit: COPY_RATE / 10.0,
            credit_at: 0,
            credit_sent: 0,
            partial: HashMap::new(),
            lost_packets: 0,
            lost_at: None,
            extra: 0,
            extra_at: 0,
            refilled: None,
            compared: (0, 0, 0),
            belief: Bytes::from(vec![0x5a; BELIEF]),
            latencies: Vec::new(),
            flooded: 0,
            series: Vec::new(),
            copies_sent: 0,
            config,
        }
    }

    /// Questions without an answer, by when they were scheduled.
    pub fn unanswered(&self) -> impl Iterator<Item = Nanos> + '_ {
        self.asked.values().copied()
    }

    pub fn next_wakeup(&self) -> Option<Nanos> {
        let query = (self.config.asks && self.config.rate > 0.0 && self.next_query < self.config.stop).then_some(self.next_query);
        let copy = self.copies.peek().map(|Reverse((at, _))| *at);
        [query, copy].into_iter().flatten().min()
    }

    pub fn start(&mut self, connection: &mut Connection) {
        // The stream of index 0 is the flood's, whether or not there's a flood.
        self.flood = connection.streams().open(Dir::Uni);
        if !self.config.stream_each {
            self.shared = connection.streams().open(Dir::Uni);
            let _ = connection.send_stream(self.shared.unwrap()).set_priority(1);
        }
    }

    pub fn on_event(&mut self, now: Nanos, connection: &mut Connection, event: Event) {
        match event {
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                while let Some(id) = connection.streams().accept(Dir::Uni) {
                    self.read(now, connection, id);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(now, connection, id),
            Event::DatagramReceived => {
                while let Some(message) = connection.datagrams().recv() {
                    if !self.clocks(now, connection, &message) {
                        self.take(now, connection, &message);
                    }
                }
            }
            _ => {}
        }
    }

    fn read(&mut self, now: Nanos, connection: &mut Connection, id: StreamId) {
        let mut messages = Vec::new();
        let mut stream = connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            if id.index() == 0 {
                let slot = (now / 100_000_000) as usize;
                self.series.resize(self.series.len().max(slot + 1), 0);
                self.series[slot] += chunk.bytes.len() as u64;
                if now >= self.config.measure_from && now < self.config.stop {
                    self.flooded += chunk.bytes.len() as u64;
                }
                continue;
            }
            let partial = self.partial.entry(id).or_default();
            partial.extend_from_slice(&chunk.bytes);
            let size = if self.config.asks { RESULT } else { QUERY };
            while partial.len() >= size {
                messages.push(partial.drain(..size).collect::<Vec<_>>());
            }
            if partial.is_empty() {
                self.partial.remove(&id);
            }
        }
        let _ = chunks.finalize();
        for message in messages {
            self.take(now, connection, &message);
        }
    }

    fn take(&mut self, now: Nanos, connection: &mut Connection, message: &[u8]) {
        let id = u64::from_le_bytes(message[..8].try_into().unwrap());
        if self.config.asks {
            if let Some(scheduled) = self.asked.remove(&id) {
                self.latencies.push((scheduled, now - scheduled));
            }
        } else if self.answered.insert(id) {
            self.say(now, connection, id, RESULT);
        }
    }

    fn say(&mut self, now: Nanos, connection: &mut Connection, id: u64, size: usize) {
        let mut bytes = vec![0; size];
        bytes[..8].copy_from_slice(&id.to_le_bytes());
        let bytes = Bytes::from(bytes);
        for after in &self.config.copies {
            self.copies.push(Reverse((now + after.as_nanos() as Nanos, id)));
        }
        if !self.config.copies.is_empty() {
            self.copied.insert(id, bytes.clone());
        }
        let stream = self.shared.or_else(|| {
            let id = connection.streams().open(Dir::Uni)?;
            let _ = connection.send_stream(id).set_priority(1);
            Some(id)
        });
        if let Some(stream) = stream {
            self.waiting.push((stream, bytes));
        }
    }

    /// Hands quinn what is due and what there's room for.
    pub fn write(&mut self, now: Nanos, connection: &mut Connection) {
        while self.config.asks && self.config.rate > 0.0 && self.next_query <= now && self.next_query < self.config.stop {
            let (id, at) = (self.next_id, self.next_query);
            self.next_id += 1;
            self.next_query += (-(1.0 - self.rng.random::<f64>()).ln() / self.config.rate * 1e9) as Nanos;
            if now < self.config.start {
                continue;
            }
            self.asked.insert(id, at);
            self.say(now, connection, id, QUERY);
        }
        self.ask(now, connection);
        self.write_copies(now, connection);
        let bulk = self.bulk_window(now, connection);
        if !self.waiting.is_empty() {
            connection.set_send_window(bulk + URGENT);
            let each = self.config.stream_each;
            self.waiting.retain_mut(|(id, bytes)| {
                let mut stream = connection.send_stream(*id);
                if let Ok(written) = stream.write(bytes) {
                    let _ = bytes.split_to(written);
                }
                if bytes.is_empty() && each {
                    let _ = stream.finish();
                }
                !bytes.is_empty()
            });
        }
        if let (true, true, Some(flood)) = (self.config.flood, now >= self.config.start, self.flood) {
            connection.set_send_window(bulk);
            // The stream never ends: where one BELIEF ends and the next begins doesn't matter here.
            while connection.send_stream(flood).write_chunks(&mut [self.belief.clone()]).is_ok() {}
            if self.refilled != Some(now) && self.refill(now, connection) {
                self.refilled = Some(now);
                connection.set_send_window(self.bulk_window(now, connection));
                while connection.send_stream(flood).write_chunks(&mut [self.belief.clone()]).is_ok() {}
            }
        }
    }

    /// Asks for the other side's clock where both directions are loaded, as the product's driver does.
    fn ask(&mut self, now: Nanos, connection: &mut Connection) {
        let (at, received_before, sent_before) = self.compared;
        let (received, sent) = (connection.stats().udp_rx.bytes, connection.stats().udp_tx.bytes);
        if now < at + 4_000_000 || received - received_before < 9_600 {
            return;
        }
        let full = self.config.in_flight.load(Ordering::Relaxed) * 2 > connection.congestion_state().window();
        let (came, left) = (received - received_before, sent - sent_before);
        if came > left / 4 && left > came / 4 && full {
            let _ = connection.datagrams().send(clock(ASK, self.clock(now)), false);
        }
        self.compared = (now, received, sent);
    }

    fn clocks(&mut self, now: Nanos, connection: &mut Connection, message: &[u8]) -> bool {
        if message.len() != 5 {
            return false;
        }
        let value = u32::from_be_bytes(message[1..].try_into().unwrap());
        if message[0] == ASK {
            let _ = connection.datagrams().send(clock(ANSWER, self.clock(now).wrapping_sub(value)), false);
        } else {
            self.config.heard.set_one_way(value);
        }
        true
    }

    /// Each end has its own.
    fn clock(&self, now: Nanos) -> u32 {
        ((now / 1000) as u32).wrapping_add(if self.config.asks { 0 } else { 0xffff_0000 })
    }

    fn bulk_window(&mut self, now: Nanos, connection: &Connection) -> u64 {
        let window = connection.congestion_state().window();
        let lately = |at: Nanos| now < at + (3 * connection.rtt()).min(Duration::from_secs(2)).as_nanos() as Nanos;
        let extra = match self.config.budget {
            Budget::Lost(windows) => {
                let lost = connection.stats().path.lost_packets;
                if lost > self.lost_packets {
                    (self.lost_packets, self.lost_at) = (lost, Some(now));
                }
                if self.lost_at.is_some_and(lately) { window * windows } else { 0 }
            }
            Budget::Filled => {
                if !lately(self.extra_at) {
                    self.extra = 0;
                }
                self.extra
            }
        };
        window + extra + QUANTUM
    }

    /// quinn takes no more though the window has room: what it holds isn't what it could send.
    fn refill(&mut self, now: Nanos, connection: &Connection) -> bool {
        let window = connection.congestion_state().window();
        let room = window.saturating_sub(self.config.in_flight.load(Ordering::Relaxed));
        if self.config.budget != Budget::Filled || room < 4 * 1500 || self.extra >= 4 * window {
            return false;
        }
        self.extra = (self.extra + room).min(4 * window);
        self.extra_at = now;
        true
    }

    fn write_copies(&mut self, now: Nanos, connection: &mut Connection) {
        while let Some(Reverse((at, id))) = self.copies.peek().copied() {
            if at > now {
                break;
            }
            self.copies.pop();
            let Some(bytes) = self.copied.get(&id).cloned() else { continue };
            if !self.copies.iter().any(|Reverse((_, other))| *other == id) {
                self.copied.remove(&id);
            }
            // An answer says that the question arrived: nothing is left to repeat.
            if self.config.asks && !self.asked.contains_key(&id) {
                continue;
            }
            let sent = connection.stats().udp_tx.bytes;
            let earned = COPY_RATE * (now - self.credit_at) as f64 / 1e9;
            let share = COPY_SHARE * (sent - self.credit_sent) as f64;
            self.credit = (self.credit + earned.max(share)).min(COPY_RATE);
            (self.credit_at, self.credit_sent) = (now, sent);
            if self.credit < bytes.len() as f64 {
                continue;
            }
            self.credit -= bytes.len() as f64;
            if connection.datagrams().send(bytes, false).is_ok() {
                self.copies_sent += 1;
            }
        }
    }
}

fn clock(kind: u8, value: u32) -> Bytes {
    let mut datagram = vec![kind];
    datagram.extend_from_slice(&value.to_be_bytes());
    datagram.into()
}
