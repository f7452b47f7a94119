//! Measured against said: pure, so that a test can lie to it.

use std::time::Duration;

use super::Finding;
use super::flow::Pattern;
use super::summary::Summary;
use crate::lab::LabKind;
use crate::profile::{Distribution, FRAME, Impairment, Jitter, JitterOrder, Loss};

/// How far apart measured and said may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    /// Of times, whatever their length: scheduling.
    floor: Duration,
    /// Of times and rates.
    share: f64,
    /// Of the distance of two packets: the first one wakes its receiver, the second finds it awake.
    pair: Duration,
}

impl Tolerance {
    pub(super) fn of(lab: LabKind) -> Self {
        match lab {
            LabKind::Virtual => Self { floor: Duration::from_micros(100), share: 0.01, pair: Duration::ZERO },
            // Real time; a run that was late is rejected, so the rest is the devices' own.
            LabKind::Tun => Self { floor: Duration::from_micros(300), share: 0.01, pair: Duration::from_micros(100) },
            // Real time on a machine that does other things.
            _ => Self { floor: Duration::from_millis(2), share: 0.05, pair: Duration::from_micros(100) },
        }
    }

    fn around(&self, time: Duration) -> Duration {
        self.floor + time.mul_f64(self.share)
    }
}

/// Bytes, and the pieces that they're in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Packets {
    pub(super) bytes: u64,
    pub(super) count: u64,
}

impl Packets {
    fn mean(self) -> f64 {
        self.bytes as f64 / self.count.max(1) as f64
    }
}

/// Standard deviations that chance is granted.
const CHANCE: f64 = 4.0;

/// Judges one path.
pub(super) struct Judge<'a> {
    pub(super) path: &'a str,
    pub(super) said: &'a Impairment,
    pub(super) tolerance: Tolerance,
}

impl Judge<'_> {
    fn finding(&self, what: &str, expected: String, measured: String, ok: bool) -> Finding {
        Finding { path: self.path.to_owned(), what: what.to_owned(), expected, measured, ok }
    }

    /// A count out of many, by chance.
    fn count(&self, what: &str, share: f64, of: u64, found: u64, widening: f64) -> Finding {
        let expected = share * of as f64;
        let width = CHANCE * (expected * (1.0 - share) * widening).sqrt();
        // What happens never must never happen.
        let ok = (found as f64 - expected).abs() <= width;
        let percent = |count: f64| count * 100.0 / of.max(1) as f64;
        let expected = format!("{:.3}% +- {:.3}%", share * 100.0, percent(width));
        self.finding(what, expected, format!("{:.3}% ({found} of {of})", percent(found as f64)), ok)
    }

    fn time(&self, what: &str, expected: Duration, width: Duration, measured: Duration) -> Finding {
        let ok = measured.abs_diff(expected) <= width;
        self.finding(what, format!("{} +- {} ms", ms(expected), ms(width)), format!("{} ms", ms(measured)), ok)
    }

    /// Sparse packets: the delay, and how it scatters.
    pub(super) fn delay(&self, sparse: Pattern, summary: &Summary) -> Vec<Finding> {
        let base = self.said.delay + self.said.transmission(sparse.frame);
        let width = self.tolerance.around(base);
        let (low, middle, high) = (summary.delay(0.05), summary.delay(0.5), summary.delay(0.95));
        let Some(jitter) = self.said.jitter else {
            return vec![
                self.time("delay (median)", base, width, middle),
                self.finding(
                    "jitter (5th to 95th)",
                    format!("0 + {} ms", ms(width)),
                    format!("{} ms", ms(high - low)),
                    high - low <= width,
                ),
            ];
        };
        let (shift, least, most) = scatter(&jitter);
        let spread = high.saturating_sub(low);
        let (least, most) = (jitter.spread.mul_f64(least), jitter.spread.mul_f64(most) + width);
        vec![
            self.time("delay (median)", base, width + jitter.spread.mul_f64(shift), middle),
            self.finding(
                "jitter (5th to 95th)",
                format!("{} to {} ms", ms(least), ms(most)),
                format!("{} ms", ms(spread)),
                (least..=most).contains(&spread),
            ),
            self.resemblance(&jitter, sparse, summary),
        ]
    }

    /// Whether neighbours' delays have to do with each other.
    fn resemblance(&self, jitter: &Jitter, sparse: Pattern, summary: &Summary) -> Finding {
        let expected = jitter.correlation_time.map_or(0.0, |time| (-sparse.interval.as_secs_f64() / time.as_secs_f64()).exp());
        let width = CHANCE / (summary.arrived.max(1) as f64).sqrt() + if expected > 0.0 { 0.05 } else { 0.0 };
        let measured = summary.resemblance();
        let ok = (measured - expected).abs() <= width;
        self.finding("jitter correlation", format!("{expected:.2} +- {width:.2}"), format!("{measured:.2}"), ok)
    }

    /// Dense packets: losses, their runs, copies, order. `drops` is what the qdiscs counted.
    pub(super) fn loss(&self, summary: &Summary, drops: u64) -> Vec<Finding> {
        let said = self.said;
        let lost = 1.0 - (1.0 - said.loss.mean()) * (1.0 - said.corrupt);
        let widening = match said.loss {
            // Neighbours resemble each other: the variance of a two-state chain's mean.
            Loss::Bursts { enter, leave, .. } => ((2.0 - enter - leave) / (enter + leave)).max(1.0),
            _ => 1.0,
        };
        let mut findings = vec![
            self.count("loss", lost, summary.sent, summary.lost(), widening),
            self.count("twice", said.duplicate * (1.0 - lost), summary.sent, summary.twice, 1.0),
        ];
        let run = match said.loss {
            Loss::Bursts { leave, bad, good: 0.0, .. } => Some(1.0 / (1.0 - (1.0 - leave) * bad)),
            Loss::Random(share) => Some(1.0 / (1.0 - share)),
            _ => None,
        };
        if let Some(expected) = run.filter(|_| said.corrupt < 0.1 * lost && summary.runs >= 20) {
            let measured = summary.lost() as f64 / summary.runs as f64;
            // A run's length scatters about as much as it is long.
            let width = CHANCE * ((expected * (expected - 1.0) / summary.runs as f64).sqrt() + 0.02);
            let ok = (measured - expected).abs() <= width;
            findings.push(self.finding("lost in a row", format!("{expected:.2} +- {width:.2}"), format!("{measured:.2}"), ok));
        }
        if said.duplicate == 0.0 && said.corrupt == 0.0 {
            let (expected, measured) = (format!("{drops} by the queue"), format!("{} missing", summary.lost()));
            findings.push(self.finding("drops counted", expected, measured, drops == summary.lost()));
        }
        findings.push(self.order(summary));
        findings
    }

    fn order(&self, summary: &Summary) -> Finding {
        let mixed = self.said.jitter.is_some_and(|jitter| jitter.order == JitterOrder::Mixed);
        if mixed {
            let (measured, ok) = (format!("{} late", summary.late), summary.late * 10 > summary.arrived);
            return self.finding("order", "mixed: a tenth or more late".to_owned(), measured, ok);
        }
        if self.said.reorder > 0.0 {
            // One that skips the queue makes late whoever it passes.
            let ok = summary.late > 0;
            return self.finding("order", format!("{}% skip the queue", self.said.reorder * 100.0), format!("{} late", summary.late), ok);
        }
        self.finding("order", "kept".to_owned(), format!("{} late", summary.late), summary.late == 0)
    }

    /// Twice the rate: what gets through, and how long it waits.
    pub(super) fn flood(&self, summary: &Summary) -> Vec<Finding> {
        let said = self.said;
        let rate = said.rate as f64 * (1.0 - said.corrupt);
        let measured = summary.pace() * FRAME as f64 * 8.0;
        let ok = (measured - rate).abs() <= rate * self.tolerance.share;
        let megabits = |bits: f64| format!("{:.3}", bits / 1e6);
        let mut findings = vec![self.finding(
            "rate",
            format!("{} +- {} Mbit/s", megabits(rate), megabits(rate * self.tolerance.share)),
            format!("{} Mbit/s", megabits(measured)),
            ok,
        )];
        // When it's full, a packet waits for all that are inside; those of a stage of its own come on top.
        let own = if said.has_delay_stage() { said.delay } else { Duration::ZERO };
        let inside = (said.transmission(FRAME) * said.limit()).max(said.delay * u32::from(!said.has_delay_stage()));
        let spread = said.jitter.map_or(Duration::ZERO, |jitter| jitter.spread);
        let width =
            self.tolerance.around(own + inside) + said.transmission(FRAME) + spread.mul_f64(if said.has_delay_stage() { 0.2 } else { 0.0 });
        findings.push(self.time("delay when full", own + inside, width, summary.late_delay()));
        findings
    }

    /// More at once than the queue holds: how many get in. `sending` is how long the burst took, while some left.
    pub(super) fn burst(&self, summary: &Summary, sending: Duration, drops: u64) -> Vec<Finding> {
        let said = self.said;
        let limit = f64::from(said.limit());
        let left = sending.as_secs_f64() / said.transmission(FRAME).as_secs_f64().max(1e-9);
        let expected = limit * (1.0 - said.corrupt) / (1.0 + said.duplicate);
        let width = 1.0 + CHANCE * (limit * (said.corrupt + said.duplicate)).sqrt();
        let measured = summary.arrived as f64;
        let ok = measured >= expected - width && measured <= expected + width + left.max(0.0);
        let mut findings =
            vec![self.finding("queue (packets at once)", format!("{expected:.0} +- {:.0}", width + left), format!("{measured:.0}"), ok)];
        if said.duplicate == 0.0 && said.corrupt == 0.0 {
            let (expected, measured) = (format!("{drops} by the queue"), format!("{} missing", summary.lost()));
            findings.push(self.finding("queue drops counted", expected, measured, drops == summary.lost()));
        }
        findings
    }

    /// A TCP transfer: the mean size of what left the host, and of what was in the bottleneck's queue.
    pub(super) fn segments(&self, left: Packets, queued: Packets) -> Finding {
        // Full segments for the most part: a mean above a frame is a superpacket's doing.
        let ok = left.mean() <= FRAME as f64 && queued.mean() <= FRAME as f64 && left.mean() > FRAME as f64 * 0.6;
        let measured = format!("{:.0} B sent, {:.0} B queued", left.mean(), queued.mean());
        self.finding("mean segment", format!("up to {FRAME} B"), measured, ok)
    }

    /// A stretch of a schedule: all is lost, or only what the profile loses anyway.
    pub(super) fn blackhole(&self, when: &str, said: bool, sent: u64, lost: u64) -> Finding {
        let what = format!("{when}: loss");
        if said {
            return self.finding(&what, "all".to_owned(), format!("{lost} of {sent}"), sent > 0 && lost == sent);
        }
        self.count(&what, self.said.loss.mean(), sent, lost, 1.0)
    }

    /// A stretch of a schedule: two packets sent at once arrive as far apart as the rate says.
    pub(super) fn gap(&self, when: &str, said: Duration, measured: Duration) -> Finding {
        self.time(&format!("{when}: pair's distance"), said, said.mul_f64(self.tolerance.share.max(0.02)) + self.tolerance.pair, measured)
    }

    /// Something that couldn't be measured at all.
    pub(super) fn failure(&self, what: &str, error: impl std::fmt::Display) -> Finding {
        self.finding(what, "a measurement".to_owned(), error.to_string(), false)
    }
}

/// How far the median may be off, and the least and greatest distance from the 5th to the 95th percentile, in units of the
/// jitter.
fn scatter(jitter: &Jitter) -> (f64, f64, f64) {
    match jitter.distribution {
        Distribution::Uniform => (0.25, 1.2, 2.0),
        Distribution::Normal => (0.3, 2.2, 4.4),
        // Long tails, and a median below the mean.
        _ => (1.0, 0.5, 5.0),
    }
}

fn ms(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}
