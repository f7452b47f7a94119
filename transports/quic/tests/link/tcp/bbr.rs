//! BBR, first version: draft-cardwell-iccrg-bbr-congestion-control-00 and what Linux does in recovery.

use std::collections::VecDeque;

use super::{Acked, Nanos, TcpControl};

const HIGH_GAIN: f64 = 2.885;
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const MS: u64 = 1_000_000;

#[derive(PartialEq, Eq, Clone, Copy)]
enum Mode {
    Startup,
    Drain,
    ProbeBw,
    ProbeRtt,
}

pub struct Bbr {
    mode: Mode,
    /// Largest rate per round, of the last ten rounds.
    rates: VecDeque<(u64, f64)>,
    round: u64,
    round_end: u64,
    full_rate: f64,
    full_count: u32,
    full: bool,
    min_rtt: Nanos,
    min_rtt_at: Nanos,
    probe_done: Option<Nanos>,
    cycle: usize,
    cycle_at: Nanos,
    window: f64,
    prior_window: f64,
    pacing_gain: f64,
    /// In recovery's first round the window follows what is delivered.
    conserve_until: Option<u64>,
    lost_in_cycle: bool,
}

impl Default for Bbr {
    fn default() -> Self {
        Self {
            mode: Mode::Startup,
            rates: VecDeque::new(),
            round: 0,
            round_end: 0,
            full_rate: 0.0,
            full_count: 0,
            full: false,
            min_rtt: Nanos::MAX,
            min_rtt_at: 0,
            probe_done: None,
            cycle: 0,
            cycle_at: 0,
            window: 10.0,
            prior_window: 0.0,
            pacing_gain: HIGH_GAIN,
            conserve_until: None,
            lost_in_cycle: false,
        }
    }
}

impl Bbr {
    fn rate(&self) -> f64 {
        self.rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
    }

    fn bdp(&self, gain: f64) -> f64 {
        if self.min_rtt == Nanos::MAX { 10.0 } else { gain * self.rate() * self.min_rtt as f64 / 1e9 }
    }
}

impl TcpControl for Bbr {
    fn on_ack(&mut self, acked: &Acked) {
        let round_start = acked.prior_delivered >= self.round_end;
        if round_start {
            self.round_end = acked.delivered;
            self.round += 1;
            if self.conserve_until.is_some_and(|until| self.round > until) {
                self.conserve_until = None;
                self.window = self.window.max(self.prior_window);
            }
        }
        while self.rates.front().is_some_and(|(round, _)| round + 10 <= self.round) {
            self.rates.pop_front();
        }
        match self.rates.back_mut() {
            Some((round, rate)) if *round == self.round => *rate = rate.max(acked.rate),
            _ => self.rates.push_back((self.round, acked.rate)),
        }
        let expired = acked.now > self.min_rtt_at + 10_000 * MS;
        if acked.rtt <= self.min_rtt || expired {
            (self.min_rtt, self.min_rtt_at) = (acked.rtt, acked.now);
        }
        if round_start && !self.full {
            if self.rate() >= self.full_rate * 1.25 {
                (self.full_rate, self.full_count) = (self.rate(), 0);
            } else {
                self.full_count += 1;
                self.full = self.full_count >= 3;
            }
        }
        if self.mode == Mode::Startup && self.full {
            (self.mode, self.pacing_gain) = (Mode::Drain, 1.0 / HIGH_GAIN);
        }
        if self.mode == Mode::Drain && acked.in_flight as f64 <= self.bdp(1.0) {
            self.mode = Mode::ProbeBw;
            // The draft draws the phase, never the draining one; a run's phase may as well follow from its past.
            self.cycle = 2 + (acked.delivered % 6) as usize;
            (self.cycle_at, self.pacing_gain) = (acked.now, CYCLE[self.cycle]);
        }
        if self.mode == Mode::ProbeBw {
            let elapsed = acked.now - self.cycle_at > self.min_rtt;
            let advance = match CYCLE[self.cycle] {
                gain if gain > 1.0 => elapsed && (self.lost_in_cycle || acked.in_flight as f64 >= self.bdp(gain)),
                gain if gain < 1.0 => elapsed || acked.in_flight as f64 <= self.bdp(1.0),
                _ => elapsed,
            };
            if advance {
                self.cycle = (self.cycle + 1) % 8;
                (self.cycle_at, self.pacing_gain, self.lost_in_cycle) = (acked.now, CYCLE[self.cycle], false);
            }
        }
        if expired && self.mode != Mode::ProbeRtt {
            (self.mode, self.pacing_gain, self.prior_window, self.probe_done) = (Mode::ProbeRtt, 1.0, self.window, None);
        }
        if self.mode == Mode::ProbeRtt {
            if self.probe_done.is_none() && acked.in_flight <= 4 {
                self.probe_done = Some(acked.now + 200 * MS);
            }
            if self.probe_done.is_some_and(|done| acked.now >= done) {
                self.min_rtt_at = acked.now;
                self.window = self.window.max(self.prior_window);
                (self.mode, self.pacing_gain) = if self.full { (Mode::ProbeBw, 1.0) } else { (Mode::Startup, HIGH_GAIN) };
                (self.cycle, self.cycle_at) = (2, acked.now);
            }
        }
        // Three packets of quantisation, as Linux allows for offloads.
        let gain = if matches!(self.mode, Mode::Startup | Mode::Drain) { HIGH_GAIN } else { 2.0 };
        let target = self.bdp(gain) + 3.0;
        if self.conserve_until.is_some() {
            self.window = self.window.max((acked.in_flight + acked.packets) as f64);
        } else if self.full {
            self.window = (self.window + acked.packets as f64).min(target);
        } else if self.window < target || acked.delivered < 10 {
            self.window += acked.packets as f64;
        }
        self.window = self.window.max(4.0);
        if self.mode == Mode::ProbeRtt {
            self.window = self.window.min(4.0);
        }
    }

    fn on_loss(&mut self, _: Nanos, in_flight: u64) {
        self.lost_in_cycle = true;
        if self.conserve_until.is_none() {
            self.prior_window = if self.mode == Mode::ProbeRtt { self.prior_window.max(self.window) } else { self.window };
            self.conserve_until = Some(self.round + 1);
            self.window = (in_flight as f64 + 1.0).max(4.0);
        }
    }

    fn on_timeout(&mut self, _: Nanos) {
        self.prior_window = self.window;
        self.window = 4.0;
        (self.full_rate, self.full_count) = (0.0, 0);
    }

    fn window(&self) -> u64 {
        self.window as u64
    }

    fn pacing(&self) -> Option<f64> {
        let rate = self.rate();
        (rate > 0.0 && self.min_rtt != Nanos::MAX).then(|| (self.pacing_gain * rate).max(100.0))
    }
}
