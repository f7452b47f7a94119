//! A model of a kernel's TCP bulk flow, to share a bottleneck with: packets of 1,514 bytes, SACK that tells all,
//! loss by RACK, a retransmission timeout, and one of two congestion controllers.

mod bbr;
mod cubic;

use std::collections::{BTreeMap, VecDeque};

use super::netem::Nanos;

/// Whom our flow shares the bottleneck with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    Cubic,
    Bbr,
}

/// Wire sizes in bytes: a full segment with timestamps on Ethernet, an ACK with SACK blocks.
pub const SEGMENT: u32 = 1514;
pub const ACK: u32 = 78;
/// Payload of a full segment with timestamps.
pub const PAYLOAD: u64 = 1448;

/// What a controller learns of one ACK.
pub struct Acked {
    pub now: Nanos,
    pub packets: u64,
    pub rtt: Nanos,
    pub in_flight: u64,
    /// Packets per second, as the draft of delivery-rate estimation has it.
    pub rate: f64,
    /// `delivered` when the newest acknowledged packet was sent.
    pub prior_delivered: u64,
    pub delivered: u64,
}

pub trait TcpControl {
    fn on_ack(&mut self, acked: &Acked);
    /// Once per recovery episode.
    fn on_loss(&mut self, now: Nanos, in_flight: u64);
    fn on_timeout(&mut self, now: Nanos);
    fn window(&self) -> u64;
    /// Packets per second.
    fn pacing(&self) -> Option<f64>;
}

struct Sent {
    at: Nanos,
    delivered: u64,
    delivered_at: Nanos,
    first_sent: Nanos,
}

/// Sender and receiver of one flow.
pub struct TcpFlow {
    control: Box<dyn TcpControl>,
    start: Nanos,
    next: u64,
    flying: BTreeMap<u64, Sent>,
    /// What the receiver has seen, in its order; an ACK says how much of it.
    log: VecDeque<u64>,
    log_base: u64,
    seen: u64,
    acked_log: u64,
    expected: u64,
    unacked: u32,
    highest: Option<(u64, Nanos)>,
    reordered: bool,
    recovery_until: Option<u64>,
    srtt: f64,
    rttvar: f64,
    min_rtt: Nanos,
    delivered: u64,
    delivered_at: Nanos,
    first_sent: Nanos,
    pace_next: Nanos,
    last_progress: Nanos,
    backoff: u32,
    /// Packets at the receiver, with the time.
    pub received: u64,
    /// The same since the measurement began.
    pub measured: u64,
}

const MS: u64 = 1_000_000;

impl TcpFlow {
    pub fn new(rival: Rival, start: Nanos) -> Self {
        let control: Box<dyn TcpControl> = match rival {
            Rival::Cubic => Box::new(cubic::Cubic::default()),
            Rival::Bbr => Box::new(bbr::Bbr::default()),
        };
        Self {
            control,
            start,
            next: 0,
            flying: BTreeMap::new(),
            log: VecDeque::new(),
            log_base: 0,
            seen: 0,
            acked_log: 0,
            expected: 0,
            unacked: 0,
            highest: None,
            reordered: false,
            recovery_until: None,
            srtt: 0.0,
            rttvar: 0.0,
            min_rtt: Nanos::MAX,
            delivered: 0,
            delivered_at: start,
            first_sent: start,
            pace_next: start,
            last_progress: start,
            backoff: 0,
            received: 0,
            measured: 0,
        }
    }

    /// Packet numbers to send now.
    pub fn sendable(&mut self, now: Nanos) -> Vec<u64> {
        let mut out = Vec::new();
        if now < self.start {
            return out;
        }
        while (self.flying.len() as u64) < self.control.window() {
            if let Some(rate) = self.control.pacing() {
                if self.pace_next > now {
                    break;
                }
                self.pace_next = self.pace_next.max(now.saturating_sub(MS)) + (1e9 / rate) as Nanos;
            }
            if self.flying.is_empty() {
                (self.delivered_at, self.first_sent, self.last_progress) = (now, now, now);
            }
            let sent = Sent { at: now, delivered: self.delivered, delivered_at: self.delivered_at, first_sent: self.first_sent };
            self.flying.insert(self.next, sent);
            out.push(self.next);
            self.next += 1;
        }
        out
    }

    /// When something is to be done without a packet's arrival.
    pub fn timeout(&self, now: Nanos) -> Option<Nanos> {
        if now < self.start {
            return Some(self.start);
        }
        let paced = (self.control.pacing().is_some() && (self.flying.len() as u64) < self.control.window()).then_some(self.pace_next);
        let rto = (!self.flying.is_empty()).then(|| self.last_progress + self.rto());
        [paced, rto].into_iter().flatten().min()
    }

    fn rto(&self) -> Nanos {
        let base = if self.srtt == 0.0 { 1000 * MS } else { ((self.srtt + 4.0 * self.rttvar) as Nanos).max(200 * MS) };
        base << self.backoff.min(6)
    }

    pub fn on_timeout(&mut self, now: Nanos) {
        if !self.flying.is_empty() && now >= self.last_progress + self.rto() {
            self.flying.clear();
            self.recovery_until = None;
            self.backoff += 1;
            self.last_progress = now;
            self.control.on_timeout(now);
        }
    }

    /// A packet is at the receiver; `Some`: an ACK leaves.
    pub fn receive(&mut self, number: u64, measuring: bool) -> Option<u64> {
        self.received += 1;
        self.measured += u64::from(measuring);
        self.log.push_back(number);
        self.seen += 1;
        self.unacked += 1;
        let gap = number != self.expected;
        self.expected = number + 1;
        (gap || self.unacked >= 2).then(|| {
            self.unacked = 0;
            self.seen
        })
    }

    /// An ACK is at the sender.
    pub fn acked(&mut self, now: Nanos, upto: u64) {
        let (mut packets, mut newest): (u64, Option<(u64, Sent)>) = (0, None);
        while self.acked_log < upto {
            self.acked_log += 1;
            let Some(number) = self.log.pop_front() else { break };
            self.log_base += 1;
            let Some(sent) = self.flying.remove(&number) else { continue };
            packets += 1;
            self.delivered += 1;
            self.delivered_at = now;
            if self.highest.is_some_and(|(highest, _)| number < highest) {
                self.reordered = true;
            }
            if newest.as_ref().is_none_or(|(newest, _)| number > *newest) {
                newest = Some((number, sent));
            }
        }
        let Some((number, sent)) = newest else { return };
        (self.last_progress, self.backoff) = (now, 0);
        if self.highest.is_none_or(|(highest, _)| number > highest) {
            self.highest = Some((number, sent.at));
            self.first_sent = sent.at;
        }
        let rtt = now - sent.at;
        self.min_rtt = self.min_rtt.min(rtt);
        if self.srtt == 0.0 {
            (self.srtt, self.rttvar) = (rtt as f64, rtt as f64 / 2.0);
        } else {
            self.rttvar = 0.75 * self.rttvar + 0.25 * (self.srtt - rtt as f64).abs();
            self.srtt = 0.875 * self.srtt + 0.125 * rtt as f64;
        }
        self.detect(now);
        if self.recovery_until.is_some_and(|until| number >= until) {
            self.recovery_until = None;
        }
        let interval = (now - sent.delivered_at).max(sent.at.saturating_sub(sent.first_sent)).max(1);
        let rate = (self.delivered - sent.delivered) as f64 * 1e9 / interval as f64;
        let in_flight = self.flying.len() as u64;
        let acked = Acked { now, packets, rtt, in_flight, rate, prior_delivered: sent.delivered, delivered: self.delivered };
        self.control.on_ack(&acked);
    }

    /// RACK: what was sent well before something acknowledged is lost.
    fn detect(&mut self, now: Nanos) {
        let Some((highest, highest_sent)) = self.highest else { return };
        let window = if self.reordered { self.min_rtt / 4 } else { 0 };
        let lost: Vec<u64> = self
            .flying
            .range(..highest.saturating_sub(2))
            .take_while(|(_, sent)| sent.at + window <= highest_sent)
            .map(|(n, _)| *n)
            .collect();
        if lost.is_empty() {
            return;
        }
        for number in &lost {
            self.flying.remove(number);
        }
        if self.recovery_until.is_none() {
            self.recovery_until = Some(self.next);
            self.control.on_loss(now, self.flying.len() as u64);
        }
    }
}
