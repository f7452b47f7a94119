//! A delay that wanders: jitter whose neighbours resemble each other.

use std::time::Duration;

use super::Egress;
use crate::profile::Profile;

/// How often it moves.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Where the delay is, from -1 to 1 times the spread: an autoregressive walk, the same in every run of a profile.
#[derive(Debug)]
pub(crate) struct Wander {
    delay: Duration,
    spread: Duration,
    /// What's kept of the place from tick to tick.
    memory: f64,
    place: f64,
    random: u64,
}

impl Wander {
    pub(super) fn new(profile: &Profile, egress: &Egress) -> Option<Self> {
        let said = profile.direction(egress.direction);
        let (spread, time) = said.wander()?;
        // FNV-1a, so that each way out wanders by itself and every run alike.
        let name = profile.name().bytes().chain(egress.namespace.bytes()).chain(egress.device.bytes());
        let seed = name.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let memory = (-TICK.as_secs_f64() / time.as_secs_f64()).exp();
        Some(Self { delay: said.delay, spread, memory, place: 0.0, random: seed })
    }

    /// The delay from the next tick on.
    pub(crate) fn step(&mut self) -> Duration {
        // Pushes as wide as keep the variance that of a uniform scatter.
        let push = (1.0 - self.memory * self.memory).sqrt() * self.draw();
        self.place = (self.place * self.memory + push).clamp(-1.0, 1.0);
        let off = self.spread.mul_f64(self.place.abs());
        if self.place < 0.0 { self.delay.saturating_sub(off) } else { self.delay + off }
    }

    /// Uniform from -1 to 1: SplitMix64.
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::{Plan, Topology};
    use super::*;

    fn walk(egress: usize) -> Vec<f64> {
        let plan = Plan::new(&Profile::load("wan-jitter-correlated").unwrap(), Topology::Pair).unwrap();
        let (_, mut wander) = plan.wanders().remove(egress);
        (0..20_000).map(|_| wander.step().as_secs_f64() * 1e3).collect()
    }

    #[test]
    fn it_stays_within_the_spread_and_resembles_itself() {
        let walk = walk(0);
        assert!(walk.iter().all(|delay| (20.0..=30.0).contains(delay)));
        let mean = walk.iter().sum::<f64>() / walk.len() as f64;
        let variance = walk.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / walk.len() as f64;
        let covariance = walk.windows(11).map(|pair| (pair[0] - mean) * (pair[10] - mean)).sum::<f64>() / walk.len() as f64;
        assert!((mean - 25.0).abs() < 0.3, "{mean}");
        assert!((2.3..3.0).contains(&variance.sqrt()), "{}", variance.sqrt());
        // Ten ticks are the correlation time: 1/e.
        assert!((0.25..0.45).contains(&(covariance / variance)), "{}", covariance / variance);
    }

    #[test]
    fn every_run_is_alike_and_every_way_out_its_own() {
        assert_eq!(walk(0), walk(0));
        assert_ne!(walk(0), walk(1));
    }

    #[test]
    fn a_move_keeps_everything_else() {
        let plan = Plan::new(&Profile::load("wan-jitter-correlated").unwrap(), Topology::Pair).unwrap();
        let step = plan.moved(&plan.egresses()[1], Duration::ZERO, Duration::from_micros(26_500));
        assert_eq!(step.to_string(), "tc -n peerlane-r qdisc change dev to-b root netem limit 314 delay 26500us rate 50mbit");
    }
}
