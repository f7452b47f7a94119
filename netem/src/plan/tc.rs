//! netem's arguments: always all of them, because what isn't said lingers from before.

use std::time::Duration;

use crate::profile::{Distribution, Loss, State};

/// Which part of an impairment a qdisc carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Loss, then the bottleneck: rate and queue; and the delay, unless it has a stage of its own.
    Bottleneck,
    /// The delay alone, whose jitter lets packets overtake each other: netem keeps the order wherever it has a rate.
    Delay,
}

/// The arguments after `netem`.
pub(super) fn arguments(state: &State, stage: Stage) -> Vec<String> {
    let mut words = Words(Vec::new());
    let impairment = &state.impairment;
    let apart = impairment.has_delay_stage();
    match stage {
        Stage::Bottleneck => {
            words.add(["limit", &impairment.limit().to_string()]);
            if !apart {
                words.delay(state);
            }
            words.loss(state);
            if impairment.duplicate > 0.0 {
                words.add(["duplicate", &percent(impairment.duplicate)]);
            }
            if impairment.corrupt > 0.0 {
                words.add(["corrupt", &percent(impairment.corrupt)]);
            }
            words.add(["rate", &rate(impairment.rate)]);
        }
        Stage::Delay => {
            words.add(["limit", &impairment.delay_stage_limit().to_string()]);
            words.delay(state);
        }
    }
    words.0
}

struct Words(Vec<String>);

impl Words {
    fn add<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.0.extend(words.into_iter().map(str::to_owned));
    }

    fn delay(&mut self, state: &State) {
        let impairment = &state.impairment;
        if impairment.delay.is_zero() {
            return;
        }
        self.add(["delay", &time(state.delay.unwrap_or(impairment.delay))]);
        // One that wanders is moved by the lab.
        if let Some(jitter) = impairment.jitter.filter(|jitter| jitter.correlation_time.is_none()) {
            self.add([time(jitter.spread).as_str()]);
            match jitter.distribution {
                Distribution::Uniform => {}
                Distribution::Normal => self.add(["distribution", "normal"]),
                Distribution::Pareto => self.add(["distribution", "pareto"]),
                Distribution::ParetoNormal => self.add(["distribution", "paretonormal"]),
            }
        }
        if impairment.reorder > 0.0 {
            self.add(["reorder", &percent(impairment.reorder)]);
        }
    }

    fn loss(&mut self, state: &State) {
        match state.impairment.loss {
            _ if state.blackhole => self.add(["loss", "100%"]),
            Loss::None => {}
            Loss::Random(share) => self.add(["loss", &percent(share)]),
            Loss::Bursts { enter, leave, bad, good } => {
                self.add(["loss", "gemodel", &percent(enter), &percent(leave), &percent(bad), &percent(good)]);
            }
        }
    }
}

fn time(time: Duration) -> String {
    match time.as_nanos() {
        nanos if nanos.is_multiple_of(1_000_000) => format!("{}ms", nanos / 1_000_000),
        nanos if nanos.is_multiple_of(1_000) => format!("{}us", nanos / 1_000),
        // tc doesn't know nanoseconds here.
        nanos => format!("{}us", nanos as f64 / 1e3),
    }
}

fn rate(bits: u64) -> String {
    match bits {
        bits if bits.is_multiple_of(1_000_000) => format!("{}mbit", bits / 1_000_000),
        bits if bits.is_multiple_of(1_000) => format!("{}kbit", bits / 1_000),
        bits => format!("{bits}bit"),
    }
}

/// Rounded where binary fractions would show; tc itself has 32 bits.
fn percent(share: f64) -> String {
    format!("{}%", (share * 1e11).round() / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_as_tc_reads_them() {
        assert_eq!(time(Duration::from_millis(25)), "25ms");
        assert_eq!(time(Duration::from_micros(100)), "100us");
        assert_eq!(time(Duration::from_nanos(24_518_273)), "24518.273us");
        assert_eq!(rate(50_000_000), "50mbit");
        assert_eq!(rate(1_500), "1500bit");
        assert_eq!(percent(0.002), "0.2%");
        assert_eq!(percent(0.07 * 0.1), "0.7%");
        assert_eq!(percent(1.0), "100%");
    }
}
