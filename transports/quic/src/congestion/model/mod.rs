//! How large the window is: a state machine without clock and without I/O.
//!
//! Each file has one idea. [`round`] sums up a round trip, on which all else decides; [`path`] keeps what is known of the
//! path, with the help of [`dispersion`] (the bottleneck's rate) and [`roughness`] (jitter, or a queue?) and [`one_way`] (whose queue?). Then there are
//! three phases: [`startup`]; steady, by the law of [`delay`], with its [`dip`], its [`offset`] and [`catch_up`]; and
//! [`company`].
//!
//! # Provided
//! A standing queue of a fortieth of the round trip; independence of random loss; the same share among flows of this kind.
//!
//! # Not provided
//! A fair share beside *several* loss-driven rivals (half of the path is taken), and beside one that ignores loss while
//! the queue is deep. ECN marks count as nothing.

mod catch_up;
mod company;
mod config;
mod delay;
mod dip;
mod dispersion;
mod offset;
mod one_way;
mod path;
mod roughness;
mod round;
mod startup;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    time::{Duration, Instant},
};

use company::Company;
pub use config::DelayConfig;
use dip::Dip;
use offset::Offset;
use one_way::OneWay;
use path::Path;
use round::{Collector, Round};
use startup::StartUp;

/// RFC 9002, section 7.2, and the least window too: quinn's pacer sends bursts of ten.
const INITIAL_PACKETS: u64 = 10;
/// Bytes per second that the least window allows: a quiet direction's answers mustn't wait for what floods the other.
const LEAST_RATE: f64 = 128_000.0;
/// Share of the window in flight on average below which the application limits: such a round says nothing. Start-up's window is
/// always ahead of what is in flight.
const USED: f64 = 0.8;
const USED_IN_START_UP: f64 = 0.4;
/// Bytes received per byte acknowledged from which on the other direction is loaded: a flood's ACKs are a fortieth.
const BOTH_WAYS: f64 = 0.2;
/// What the other side's clock may declare to be another's delay, in base round trips: its queue when that was just found full.
const MOST_FOREIGN: f64 = 2.0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    StartUp(StartUp),
    Steady,
    Company,
}

/// The state of one path.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    config: DelayConfig,
    /// Bytes.
    mtu: u64,
    /// Bytes.
    window: f64,
    /// What was in flight after the last ACK. Bytes.
    in_flight: f64,
    /// Bytes received, and what they were when the round began.
    received: u64,
    received_before: u64,
    phase: Phase,
    round: Collector,
    path: Path,
    dip: Dip,
    offset: Offset,
    company: Company,
    one_way: OneWay,
}

impl Model {
    pub(crate) fn new(config: DelayConfig, now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            config,
            mtu,
            window: (INITIAL_PACKETS * mtu) as f64,
            in_flight: f64::INFINITY,
            received: 0,
            received_before: 0,
            phase: Phase::StartUp(StartUp::new()),
            round: Collector::new(now),
            path: Path::new(config, now),
            dip: Dip::new(),
            offset: Offset::new(now),
            company: Company::new(now),
            one_way: OneWay::new(now),
        }
    }

    pub(crate) fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    /// Bytes that may be in flight.
    pub(crate) fn window(&self) -> u64 {
        (self.window as u64).max(self.least())
    }

    fn least(&self) -> u64 {
        let rtt = if self.path.base.is_finite() { self.path.base } else { 0.0 };
        (INITIAL_PACKETS * self.mtu).max((LEAST_RATE * rtt) as u64)
    }

    /// The bottleneck's rate, whoever uses it, in bytes per second, as the bursts show it: what was reached is the
    /// application's rate as often as the path's.
    pub(crate) fn bottleneck(&self) -> Option<u64> {
        self.path.dispersion().map(|rate| rate as u64)
    }

    pub(crate) fn on_mtu(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
    }

    /// One packet of those that an ACK acknowledges. `sent` is the same for all packets of one burst.
    pub(crate) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.path.on_ack(now, sent, bytes);
        self.round.on_ack(now.saturating_duration_since(sent).as_secs_f64(), sent, bytes);
        match self.phase {
            Phase::StartUp(state) => self.start_up_on_ack(state, bytes),
            Phase::Steady => {}
            Phase::Company => self.company_on_ack(bytes),
        }
    }

    /// So many bytes were received so far, if that's known.
    pub(crate) fn on_received(&mut self, bytes: u64) {
        self.received = bytes;
    }

    /// What the other side's clock says of our packets' way.
    pub(crate) fn on_clocks(&mut self, difference: u32) {
        if self.config.one_way {
            self.one_way.on_difference(difference);
        }
    }

    /// All packets of one ACK are told. Whether a round is over.
    pub(crate) fn on_acks_end(&mut self, now: Instant, in_flight: u64) -> bool {
        self.in_flight = in_flight as f64;
        if self.phase == Phase::Company {
            self.company_on_acks_end();
        }
        let round = self.round.end(now, in_flight);
        let Some(mut round) = round else { return false };
        let clock = self.one_way.end_round(now, self.phase != Phase::Company);
        let delay = (round.rtt - self.path.base).max(0.0);
        // Whatever a peer says: no more delay than this is another's.
        let queue = clock.map_or(delay, |(least, _)| least.max(delay - MOST_FOREIGN * self.path.base));
        round.queue = queue.clamp(0.0, delay);
        (round.by_clock, round.empty) = (clock.is_some(), clock.is_some_and(|(_, most)| most < self.path.target()));
        self.on_round(&round);
        true
    }

    fn on_round(&mut self, round: &Round) {
        let received = self.received.saturating_sub(std::mem::replace(&mut self.received_before, self.received));
        let both_ways = self.config.both_ways && received as f64 > BOTH_WAYS * round.acked as f64;
        self.offset.both_ways = both_ways && !round.by_clock;
        // A rival's queue would soon be the base.
        if self.phase != Phase::Company {
            self.path.age_base(round);
        }
        let used = if matches!(self.phase, Phase::StartUp(_)) { USED_IN_START_UP } else { USED };
        if round.in_flight < self.window * used {
            return;
        }
        self.path.on_round(round, both_ways);
        if self.path.believes_rate(both_ways) {
            self.offset.on_rate(round.end, self.path.rate);
        }
        match self.phase {
            Phase::StartUp(state) => self.start_up_on_round(state, round),
            Phase::Steady => self.steady(round),
            Phase::Company => self.company(round),
        }
        self.window = self.window.max(self.least() as f64);
    }

    /// `bytes` were lost. `persistent`: everything was, for several round trips.
    pub(crate) fn on_lost(&mut self, now: Instant, bytes: u64, persistent: bool) {
        self.round.on_lost(bytes);
        if persistent {
            // Whatever was learnt may be of another path. The least round trip is tested by the first ACK, and ages.
            let base = self.path.base;
            *self = Self::new(self.config, now, u16::try_from(self.mtu).unwrap_or(u16::MAX));
            (self.path.base, self.path.next_base) = (base, base);
        } else if self.phase == Phase::Company {
            self.company_on_lost(now, bytes);
        }
    }
}

fn after(now: Instant, since: Instant, span: Duration) -> bool {
    now.saturating_duration_since(since) >= span
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::StartUp(_) => "start-up",
            Phase::Steady => "steady",
            Phase::Company => "company",
        };
        write!(
            f,
            "{phase:8} base {:.2} ms, offset {:.2} ms, roughness {:.3} ms, rate {:.1} of {:.1}, bursts {:.1} Mbit/s",
            self.path.base * 1e3,
            self.offset.get() * 1e3,
            self.path.roughness.get() * 1e3,
            self.path.rate * 8e-6,
            self.path.capacity() * 8e-6,
            self.path.dispersion().unwrap_or(0.0) * 8e-6,
        )
    }
}
