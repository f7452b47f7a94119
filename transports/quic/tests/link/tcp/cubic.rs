//! CUBIC, RFC 9438, with HyStart's delay test as Linux has it.

use super::{Acked, Nanos, TcpControl};

const BETA: f64 = 0.7;
const C: f64 = 0.4;

pub struct Cubic {
    window: f64,
    ssthresh: f64,
    w_max: f64,
    k: f64,
    epoch: Option<Nanos>,
    w_est: f64,
    min_rtt: Nanos,
    round_end: u64,
    round_min: Nanos,
    samples: u32,
}

impl Default for Cubic {
    fn default() -> Self {
        Self {
            window: 10.0,
            ssthresh: f64::MAX,
            w_max: 0.0,
            k: 0.0,
            epoch: None,
            w_est: 0.0,
            min_rtt: Nanos::MAX,
            round_end: 0,
            round_min: Nanos::MAX,
            samples: 0,
        }
    }
}

impl TcpControl for Cubic {
    fn on_ack(&mut self, acked: &Acked) {
        self.min_rtt = self.min_rtt.min(acked.rtt);
        if acked.prior_delivered >= self.round_end {
            (self.round_end, self.round_min, self.samples) = (acked.delivered, Nanos::MAX, 0);
        }
        self.round_min = self.round_min.min(acked.rtt);
        self.samples += 1;
        if self.window < self.ssthresh {
            self.window += acked.packets as f64;
            let threshold = (self.min_rtt / 8).clamp(4_000_000, 16_000_000);
            if self.samples >= 8 && self.window >= 16.0 && self.round_min >= self.min_rtt + threshold {
                self.ssthresh = self.window;
            }
            return;
        }
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.w_est = self.window;
            self.w_max = self.w_max.max(self.window);
            self.k = ((self.w_max - self.window) / C).cbrt();
            acked.now
        });
        let t = (acked.now - epoch + self.min_rtt) as f64 / 1e9;
        let target = (C * (t - self.k).powi(3) + self.w_max).clamp(self.window, 1.5 * self.window);
        let packets = acked.packets as f64;
        self.w_est += 3.0 * (1.0 - BETA) / (1.0 + BETA) * packets / self.window;
        self.window += (target - self.window) / self.window * packets;
        self.window = self.window.max(self.w_est);
    }

    fn on_loss(&mut self, _: Nanos, _: u64) {
        self.w_max = if self.window < self.w_max { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window = (self.window * BETA).max(2.0);
        self.ssthresh = self.window;
        self.epoch = None;
    }

    fn on_timeout(&mut self, _: Nanos) {
        self.w_max = self.window;
        self.ssthresh = (self.window * BETA).max(2.0);
        self.window = 1.0;
        self.epoch = None;
    }

    fn window(&self) -> u64 {
        self.window as u64
    }

    fn pacing(&self) -> Option<f64> {
        None
    }
}
