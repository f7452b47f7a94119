//! How large the window is.

mod config;
mod dispersion;
mod round;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub use config::DelayConfig;
use dispersion::Dispersion;
use round::{Collector, Round};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    StartUp { best: f64, flat: u32, growth: f64 },
    Steady,
    Company,
}

/// A step of the window, to see whether delay or rate answers.
#[derive(Debug, Clone, Copy)]
struct Test {
    window: f64,
    rtt: f64,
    rounds: u32,
    rtt_sum: f64,
    acked: f64,
    elapsed: f64,
    lost: f64,
}

#[derive(Debug, Clone, Copy)]
struct Cubic {
    w_max: f64,
    epoch: Instant,
    k: f64,
    reduced: Instant,
}

/// The state of one path.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    config: DelayConfig,
    mtu: u64,
    window: f64,
    phase: Phase,
    round: Collector,
    dispersion: Dispersion,
    base: f64,
    base_at: Instant,
    next_base: f64,
    recent: VecDeque<f64>,
    rates: VecDeque<f64>,
    smooth: f64,
    capacity: f64,
    next_capacity: f64,
    peak: f64,
    next_peak: f64,
    failed_at: Option<Instant>,
    test_at: Instant,
    capacity_at: Instant,
    offset: f64,
    rounds: VecDeque<Round>,
    test: Option<Test>,
    tests: (u32, u32),
    reference: f64,
    no_raise_until: Instant,
    distrust: Instant,
    dip_until: Option<Instant>,
    dip_at: Instant,
    before_dip: f64,
    dip_queue: f64,
    crowded: u32,
    deaf: f64,
    flooded: u32,
    jitter: f64,
    block: (u32, f64),
    blocks: u32,
    minima: [f64; 2],
    company_until: Instant,
    company_wait: f64,
    company_left: Instant,
    free_since: Option<Instant>,
    high_queue: f64,
    cubic: Cubic,
    latest: Option<Round>,
}

/// RFC 9002, section 7.2.
const INITIAL_PACKETS: u64 = 10;
const BASE_WINDOW: Duration = Duration::from_secs(10);

impl Model {
    pub(crate) fn new(config: DelayConfig, now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            config,
            mtu,
            window: (INITIAL_PACKETS * mtu) as f64,
            phase: Phase::StartUp { best: 0.0, flat: 0, growth: 2.0 },
            round: Collector::new(now),
            dispersion: Dispersion::default(),
            base: f64::INFINITY,
            base_at: now,
            next_base: f64::INFINITY,
            recent: VecDeque::new(),
            rates: VecDeque::new(),
            smooth: 0.0,
            capacity: 0.0,
            next_capacity: 0.0,
            peak: 0.0,
            next_peak: 0.0,
            failed_at: None,
            test_at: now,
            capacity_at: now,
            offset: 0.0,
            rounds: VecDeque::new(),
            test: None,
            tests: (0, 0),
            reference: 0.0,
            no_raise_until: now,
            distrust: now,
            dip_until: None,
            dip_at: now + BASE_WINDOW,
            before_dip: 0.0,
            dip_queue: 0.0,
            crowded: 0,
            deaf: 0.0,
            flooded: 0,
            jitter: 0.0,
            block: (0, f64::INFINITY),
            blocks: 0,
            minima: [0.0; 2],
            company_until: now,
            company_wait: 2.0,
            company_left: now,
            free_since: None,
            high_queue: 0.0,
            cubic: Cubic { w_max: 0.0, epoch: now, k: 0.0, reduced: now },
            latest: None,
        }
    }

    pub(crate) fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    pub(crate) fn window(&self) -> u64 {
        (self.window as u64).max(self.least())
    }

    fn least(&self) -> u64 {
        let rtt = if self.base.is_finite() { self.base } else { 0.0 };
        (INITIAL_PACKETS * self.mtu).max((128_000.0 * rtt) as u64)
    }

    pub(crate) fn on_mtu(&mut self, mtu: u16) {
        self.mtu = u64::from(mtu);
    }

    fn target(&self) -> f64 {
        (self.base / self.config.target).clamp(0.0005, 0.02)
    }

    fn best_capacity(&self) -> f64 {
        match self.dispersion.capacity() {
            Some(capacity) if self.config.dispersion => capacity.max(self.peak),
            _ => self.peak,
        }
    }

    pub(crate) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let rtt = now.saturating_duration_since(sent).as_secs_f64();
        self.base = self.base.min(rtt);
        self.next_base = self.next_base.min(rtt);
        self.dispersion.on_ack(now, sent, bytes);
        self.round.on_ack(rtt, sent, bytes);
        self.block.0 += 1;
        self.block.1 = self.block.1.min(rtt);
        if self.block.0 == 8 {
            let latest = self.block.1;
            self.block = (0, f64::INFINITY);
            let [older, old] = self.minima;
            self.minima = [old, latest];
            if older > 0.0 {
                let rough = (latest - 2.0 * old + older).abs() / 2.0;
                self.blocks = (self.blocks + 1).min(256);
                self.jitter += (rough - self.jitter) / f64::from(self.blocks);
            }
        }
        if self.recent.len() == 8 {
            self.recent.pop_front();
        }
        self.recent.push_back(rtt);
        let least = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
        if let Phase::StartUp { growth, .. } = &mut self.phase {
            self.window += (*growth - 1.0) * bytes as f64;
            if self.recent.len() == 8 && least > self.base + (self.base / 8.0).clamp(0.001, 0.016) {
                *growth = growth.min(1.25);
            }
            let cap = self.dispersion.capacity().filter(|_| self.config.dispersion);
            if let Some(capacity) = cap {
                let cap = capacity * (self.base + self.target() / 2.0);
                if self.window >= cap {
                    self.window = cap;
                    self.peak = capacity;
                    self.next_peak = capacity;
                    self.leave_start_up(now);
                }
            }
        }
    }

    fn leave_start_up(&mut self, now: Instant) {
        self.phase = Phase::Steady;
        self.dip_at = now + BASE_WINDOW;
        self.rates.clear();
        self.rounds.clear();
    }

    pub(crate) fn on_acks_end(&mut self, now: Instant, in_flight: u64) {
        if let Some(round) = self.round.end(now, in_flight) {
            self.on_round(&round);
            self.latest = Some(round);
        }
    }

    fn on_round(&mut self, round: &Round) {
        if self.phase != Phase::Company && now_after(round.end, self.base_at, BASE_WINDOW) {
            (self.base, self.next_base, self.base_at) = (self.next_base, round.rtt, round.end);
        }
        let limited = round.in_flight < self.window * if matches!(self.phase, Phase::StartUp { .. }) { 0.4 } else { 0.8 };
        if limited {
            return;
        }
        let rate = round.rate();
        if self.rates.len() == 10 {
            self.rates.pop_front();
        }
        self.rates.push_back(rate);
        if self.rounds.len() == 4 {
            self.rounds.pop_front();
        }
        self.rounds.push_back(*round);
        let (acked, elapsed) = self.rounds.iter().fold((0.0, 0.0), |sum, r| (sum.0 + r.acked as f64, sum.1 + r.elapsed));
        self.smooth = acked / elapsed;
        if now_after(round.end, self.capacity_at, Duration::from_secs(15)) {
            (self.capacity, self.next_capacity, self.capacity_at) = (self.next_capacity, self.smooth, round.end);
            (self.peak, self.next_peak) = (self.next_peak, self.smooth);
        }
        self.capacity = self.capacity.max(self.smooth);
        self.next_capacity = self.next_capacity.max(self.smooth);
        self.peak = self.peak.max(self.smooth);
        self.next_peak = self.next_peak.max(self.smooth);
        match self.phase {
            Phase::StartUp { best, flat, growth } => {
                let (best, flat) = if rate > best * if growth > 1.5 { 1.25 } else { 1.1 } { (rate, 0) } else { (best, flat + 1) };
                let lossy = round.lost > 8 * self.mtu && round.lost as f64 > 0.05 * (round.lost + round.acked) as f64;
                let full = round.rtt > self.base + 2.0 * (self.base / 8.0).clamp(0.001, 0.016) && self.jitter < self.target();
                if full || flat >= (if growth > 1.5 { 3 } else { 2 }) || lossy {
                    self.leave_start_up(round.end);
                    self.window = self.window.min(1.1 * rate * round.rtt);
                } else {
                    self.phase = Phase::StartUp { best, flat, growth };
                }
            }
            Phase::Steady => self.steady(round),
            Phase::Company => self.company(round),
        }
        self.window = self.window.max(self.least() as f64);
    }

    fn crowd_threshold(&self) -> f64 {
        (self.base / 5.0).max(4.0 * self.target()) + 4.0 * self.jitter
    }

    fn steady(&mut self, round: &Round) {
        let rate = self.rates.iter().copied().fold(0.0, f64::max);
        let queue = round.rtt - self.base;
        if let Some(until) = self.dip_until {
            self.dip_queue = self.dip_queue.min(round.rtt - self.base);
            if round.end < until {
                return;
            }
            self.offset = self.offset.min(self.dip_queue);
            self.rounds.clear();
            self.dip_until = None;
            self.window = self.before_dip;
            return;
        } else if self.config.dip && round.end >= self.dip_at {
            self.dip_at = round.end + BASE_WINDOW;
            self.dip_until = Some(round.end + Duration::from_secs_f64(round.rtt * 1.5));
            self.before_dip = self.window;
            self.dip_queue = f64::INFINITY;
            self.test = None;
            self.window = self.window.min(0.85 * rate * (self.base + self.offset));
            return;
        }
        let capacity = self.best_capacity();
        if self.config.company && queue > self.crowd_threshold().min(3.0 * self.target() * (capacity / self.smooth).sqrt() + 4.0 * self.jitter) && self.smooth < 0.75 * capacity {
            self.crowded += 1;
            self.flooded = if queue > self.offset_cap() { self.flooded + 1 } else { 0 };
            if self.crowded >= 8 {
                self.enter_company(round);
                return;
            }
        } else {
            (self.crowded, self.flooded) = (0, 0);
        }
        let tq = self.target();
        if self.config.offset && (self.blocks == 256 && self.jitter > 0.36 * tq || self.test.is_some()) && self.learn(round) {
            return;
        }
        let goal = self.window * (self.base + self.offset) / round.rtt + ((rate * capacity).sqrt() * tq).max(3.0 * self.mtu as f64);
        let window = self.window + (goal - self.window) / 2.0;
        self.window = window.min(self.window * 1.5).min(1.3 * capacity * (self.base + self.offset + 1.5 * tq));
    }

    fn offset_cap(&self) -> f64 {
        (0.4 * self.base).max(0.001) + 4.0 * self.jitter
    }

    /// Whether the window is under test.
    fn learn(&mut self, round: &Round) -> bool {
        let mtu = self.mtu as f64;
        let tq = self.target();
        if let Some(test) = &mut self.test {
            test.rounds += 1;
            // The step's own effect comes a round trip later.
            if test.rounds >= 2 {
                test.rtt_sum += round.rtt;
                test.acked += round.acked as f64;
                test.elapsed += round.elapsed;
                test.lost += round.lost as f64;
            }
            if test.rounds < 4 {
                return true;
            }
            let test = *test;
            self.test = None;
            self.test_at = round.end + Duration::from_secs_f64(4.0 * round.rtt);
            let rtt = test.rtt_sum / 3.0;
            let rate = test.acked / test.elapsed;
            let packets = (test.acked + test.lost) / mtu;
            let expected = self.reference * packets;
            let lossy = test.lost / mtu > 1.5 * expected + 0.003 * packets + 3.0 * expected.sqrt() + 4.0;
            let reach = self.reach();
            let answer = (self.window - test.window) / reach;
            let queued = rtt - test.rtt > 0.5 * answer;
            if lossy || queued {
                self.tests.1 += 1;
                let reach = (reach + rate) / 2.0;
                (self.capacity, self.next_capacity) = (reach, reach.min(self.next_capacity));
                self.failed_at = Some(round.end);
                self.distrust = round.end + Duration::from_secs(15);
                self.window = test.window;
                self.rounds.clear();
                if lossy {
                    self.offset = 0.0;
                    self.no_raise_until = round.end + Duration::from_secs(6);
                }
            } else {
                self.tests.0 += 1;
                self.offset = self.offset.max(test.rtt - self.base - tq).min(self.offset_cap());
            }
            return false;
        }
        self.reference += (round.lost as f64 / (round.lost + round.acked).max(1) as f64 - self.reference) / 32.0;
        let reach = self.reach();
        if self.smooth > 0.97 * reach {
            self.offset *= 0.97;
        }
        if self.rounds.len() == 4 && self.smooth < 0.95 * reach && round.end >= self.no_raise_until && round.end >= self.test_at && (tq..self.offset_cap() + tq).contains(&(round.rtt - self.base)) {
            let rtt = self.rounds.iter().skip(1).map(|r| r.rtt).sum::<f64>() / 3.0;
            self.test = Some(Test { window: self.window, rtt, rounds: 0, rtt_sum: 0.0, acked: 0.0, elapsed: 0.0, lost: 0.0 });
            self.window *= (1.02 * reach / self.smooth).min(1.25);
            return true;
        }
        false
    }

    /// The rate that ought to be reached.
    fn reach(&self) -> f64 {
        match self.dispersion.capacity() {
            Some(capacity) if self.config.dispersion && self.latest.is_some_and(|r| r.end >= self.distrust) => capacity.max(self.capacity),
            _ => self.capacity,
        }
    }

    fn enter_company(&mut self, round: &Round) {
        self.phase = Phase::Company;
        self.test = None;
        (self.crowded, self.flooded) = (0, 0);
        self.offset = 0.0;
        self.high_queue = round.rtt - self.base;
        self.free_since = None;
        if now_after(round.end, self.company_left, Duration::from_secs(5)) {
            self.company_wait = 2.0;
        } else {
            self.company_wait = (self.company_wait * 2.0).min(16.0);
        }
        self.company_until = round.end + Duration::from_secs_f64(self.company_wait);
        self.window = self.window.max(0.5 * self.best_capacity() * round.rtt);
        self.cubic = Cubic { w_max: self.window, epoch: round.end, k: 0.0, reduced: round.end };
        self.deaf = 0.0;
        self.next_base = round.rtt;
    }

    fn company(&mut self, round: &Round) {
        let queue = round.rtt - self.base;
        self.high_queue = (self.high_queue * 0.98).max(queue);
        let capacity = self.best_capacity();
        let t = round.end.saturating_duration_since(self.cubic.epoch).as_secs_f64();
        let mtu = self.mtu as f64;
        let cubic = (0.4 * (t - self.cubic.k).powi(3)) * mtu + self.cubic.w_max;
        self.window = cubic.clamp(self.window * 0.5, self.window * 1.5);
        let whole = capacity * round.rtt;
        let loss = round.lost as f64 / (round.lost + round.acked).max(1) as f64;
        self.deaf += (loss - self.deaf) / 16.0;
        let floor = if self.deaf > self.reference + 0.02 { 0.42 } else { self.config.floor };
        self.window = self.window.clamp(floor * whole, 0.58 * whole);
        let free = self.smooth > 0.9 * capacity || queue < self.crowd_threshold() / 2.0;
        let quiet = now_after(round.end, self.cubic.reduced, Duration::from_secs(10));
        if (free || quiet) && round.end > self.company_until {
            if quiet {
                (self.base, self.next_base, self.base_at) = (self.next_base, round.rtt, round.end);
            }
            self.phase = Phase::Steady;
            self.company_left = round.end;
            self.dip_at = round.end + BASE_WINDOW;
        }
    }

    pub(crate) fn on_lost(&mut self, now: Instant, sent: Instant, bytes: u64, persistent: bool) {
        self.round.on_lost(bytes);
        if self.phase == Phase::Company && sent > self.cubic.reduced {
            let rtt = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
            if rtt - self.base > 0.7 * self.high_queue {
                let w_max = if self.window < self.cubic.w_max { self.window * 0.85 } else { self.window };
                self.window *= 0.7;
                let k = ((w_max - self.window).max(0.0) / self.mtu as f64 / 0.4).cbrt();
                self.cubic = Cubic { w_max, epoch: now, k, reduced: now };
            }
        }
        if persistent {
            let fresh = Self::new(self.config.clone(), now, u16::try_from(self.mtu).unwrap_or(u16::MAX));
            let base = self.base;
            *self = fresh;
            (self.base, self.next_base) = (base, base);
        }
    }
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mbit = |rate: f64| rate * 8e-6;
        let phase = match self.phase {
            Phase::StartUp { growth, .. } => format!("start {growth:.2}"),
            Phase::Steady => "steady".into(),
            Phase::Company => "company".into(),
        };
        write!(
            f,
            "{phase:10} {:?} {} base {:.2} off {:.2} rtt {:.2} R {:.1} smooth {:.1} C {:.1} disp {:.1} ref {:.4} jit {:.3}",
            self.tests,
            self.test.is_some(),
            self.base * 1e3,
            self.offset * 1e3,
            self.latest.map_or(0.0, |round| round.rtt) * 1e3,
            mbit(self.latest.map_or(0.0, |round| round.rate())),
            mbit(self.smooth),
            mbit(self.capacity),
            mbit(self.dispersion.capacity().unwrap_or(0.0)),
            self.reference,
            self.jitter * 1e3,
        )
    }
}

fn now_after(now: Instant, since: Instant, span: Duration) -> bool {
    now.saturating_duration_since(since) >= span
}
