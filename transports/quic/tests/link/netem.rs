//! One direction of a path, with the arithmetic of Linux's netem.
//!
//! A packet's fate is known when it's handed over: lost by chance, dropped because the queue is full, or delivered at
//! a time. Loss is drawn before the rate limiter (a lost packet uses no link time), the limiter follows the delay and
//! so keeps the order, and the queue's bound counts the packets that are only delayed too (`sch_netem.c`,
//! `netem_enqueue`). A second delay behind the limiter, `spread`, reorders.

use std::{collections::VecDeque, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// Ethernet, IPv4 and UDP headers of a datagram: bytes that the limiter counts beside the payload.
pub const UDP_OVERHEAD: u32 = 14 + 20 + 8;

/// Nanoseconds since the start of a run.
pub type Nanos = u64;

/// Chance that loses packets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    None,
    /// Each packet on its own.
    Independent(f64),
    /// Gilbert and Elliott's chain, in netem's terms: good to bad, bad to good, loss in bad, loss in good.
    Bursts {
        p: f64,
        r: f64,
        bad: f64,
        good: f64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct LinkConfig {
    pub delay: Duration,
    /// Uniform, each way of `delay`, before the limiter: delays but never reorders.
    pub jitter: Duration,
    /// netem's correlation of one packet's jitter with the last one's.
    pub correlation: f64,
    /// Uniform, each way of `delay`, behind the limiter: reorders. Must not exceed `delay`.
    pub spread: Duration,
    pub loss: Loss,
    /// Bits per second.
    pub rate: u64,
    /// Packets that may wait, beside those that are only delayed.
    pub queue: usize,
    /// From and to: nothing passes.
    pub outages: Vec<(Duration, Duration)>,
    /// From when on: another rate.
    pub rates: Vec<(Duration, u64)>,
    /// From when on: another delay.
    pub delays: Vec<(Duration, Duration)>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub sent: u64,
    pub lost: u64,
    pub dropped: u64,
    pub bytes: u64,
}

pub struct Link {
    config: LinkConfig,
    rng: SmallRng,
    /// When each packet that is still inside leaves the limiter.
    inside: VecDeque<Nanos>,
    limit: usize,
    bad: bool,
    last_jitter: f64,
    /// By flow.
    pub counts: Vec<Counts>,
    /// Time that the limiter was busy.
    pub busy: Nanos,
}

fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos() as Nanos
}

impl Link {
    pub fn new(config: LinkConfig, flows: usize, seed: u64) -> Self {
        // netem's limit holds what is delayed too.
        let delayed = config.rate as f64 * (config.delay + config.jitter).as_secs_f64() / 8.0 / 1514.0;
        let limit = config.queue + delayed.ceil() as usize;
        Self {
            config,
            rng: SmallRng::seed_from_u64(seed),
            inside: VecDeque::new(),
            limit,
            bad: false,
            last_jitter: 0.5,
            counts: vec![Counts::default(); flows],
            busy: 0,
        }
    }

    /// When a packet of `size` bytes on the wire arrives at the other end, or `None`: never.
    pub fn send(&mut self, now: Nanos, flow: usize, size: u32) -> Option<Nanos> {
        self.counts[flow].sent += 1;
        self.counts[flow].bytes += u64::from(size);
        let out = self.config.outages.iter().any(|(from, to)| nanos(*from) <= now && now < nanos(*to));
        if self.lose() || out {
            self.counts[flow].lost += 1;
            return None;
        }
        while self.inside.front().is_some_and(|left| *left <= now) {
            self.inside.pop_front();
        }
        if self.inside.len() >= self.limit {
            self.counts[flow].dropped += 1;
            return None;
        }
        let rate = self.config.rates.iter().rev().find(|(from, _)| nanos(*from) <= now).map_or(self.config.rate, |(_, rate)| *rate);
        let serial = (u128::from(size) * 8 * 1_000_000_000 / u128::from(rate)) as Nanos;
        let spread = nanos(self.config.spread);
        let delay = self.config.delays.iter().rev().find(|(from, _)| nanos(*from) <= now).map_or(self.config.delay, |(_, delay)| *delay);
        let delay = nanos(delay) - spread;
        let delay = (delay as i64 + self.jitter()).max(0) as Nanos;
        let reached = (now + delay).max(self.inside.back().copied().unwrap_or(0));
        let left = reached + serial;
        self.busy += serial;
        self.inside.push_back(left);
        let behind = if spread == 0 { 0 } else { self.rng.random_range(0..=2 * spread) };
        Some(left + behind)
    }

    /// Packets that wait for the limiter at `now`.
    pub fn backlog(&self, now: Nanos) -> usize {
        self.inside.iter().filter(|left| **left > now + nanos(self.config.delay)).count()
    }

    fn lose(&mut self) -> bool {
        match self.config.loss {
            Loss::None => false,
            Loss::Independent(p) => self.rng.random::<f64>() < p,
            Loss::Bursts { p, r, bad, good } => {
                let was_bad = self.bad;
                let chance = self.rng.random::<f64>();
                self.bad = if was_bad { chance >= r } else { chance < p };
                self.rng.random::<f64>() < if was_bad { bad } else { good }
            }
        }
    }

    fn jitter(&mut self) -> i64 {
        if self.config.jitter.is_zero() {
            return 0;
        }
        let rho = self.config.correlation;
        self.last_jitter = self.rng.random::<f64>() * (1.0 - rho) + self.last_jitter * rho;
        ((self.last_jitter * 2.0 - 1.0) * self.config.jitter.as_nanos() as f64) as i64
    }
}
