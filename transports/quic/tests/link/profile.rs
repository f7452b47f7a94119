//! Paths by name: `netem/profiles` as far as this simulator can express them.

use std::time::Duration;

use super::{
    netem::{LinkConfig, Loss},
    tcp::Rival,
};

/// A path and who is on it.
#[derive(Debug, Clone)]
pub struct Profile {
    pub name: &'static str,
    pub forward: LinkConfig,
    pub backward: LinkConfig,
    /// Also the accepting side floods.
    pub both_ways: bool,
    /// Connections of ours that share the path, each with its flood.
    pub flows: usize,
    pub rival: Option<Rival>,
    /// When the rival begins.
    pub rival_at: Duration,
    /// When each further one of our flows begins.
    pub stagger: Duration,
    /// How long a run of it is.
    pub duration: Duration,
    pub warm_up: Duration,
}

/// Largest packet on the wire, Ethernet header included.
const PACKET: f64 = 1514.0;

fn bdp_packets(rate: u64, rtt: Duration) -> f64 {
    rate as f64 * rtt.as_secs_f64() / 8.0 / PACKET
}

impl Profile {
    /// A path with `rate` bits per second, the round trip `rtt`, and a queue of `bdp` bandwidth-delay products each way.
    pub fn path(name: &'static str, rate: u64, rtt: Duration, bdp: f64) -> Self {
        let link = LinkConfig {
            delay: rtt / 2,
            jitter: Duration::ZERO,
            correlation: 0.0,
            spread: Duration::ZERO,
            loss: Loss::None,
            rate,
            queue: (bdp_packets(rate, rtt) * bdp).round().max(4.0) as usize,
            outages: Vec::new(),
            rates: Vec::new(),
            delays: Vec::new(),
        };
        Self {
            name,
            forward: link.clone(),
            backward: link,
            both_ways: false,
            flows: 1,
            rival: None,
            rival_at: Duration::from_secs(1),
            stagger: Duration::ZERO,
            duration: Duration::from_secs(20),
            warm_up: Duration::from_secs(2),
        }
    }

    fn each_way(mut self, change: impl Fn(&mut LinkConfig)) -> Self {
        change(&mut self.forward);
        change(&mut self.backward);
        self
    }

    fn lossy(self, p: f64) -> Self {
        self.each_way(|link| link.loss = Loss::Independent(p))
    }

    fn bursts(self) -> Self {
        self.each_way(|link| link.loss = Loss::Bursts { p: 0.002, r: 0.2, bad: 1.0, good: 0.0 })
    }

    fn jitter(self, jitter: Duration, correlation: f64) -> Self {
        self.each_way(|link| (link.jitter, link.correlation) = (jitter, correlation))
    }

    fn reorder(self, spread: Duration) -> Self {
        self.each_way(|link| link.spread = spread)
    }

    fn both(mut self) -> Self {
        self.both_ways = true;
        self
    }

    fn beside(mut self, rival: Rival) -> Self {
        self.rival = Some(rival);
        self
    }

    fn flows(mut self, flows: usize, stagger: Duration) -> Self {
        (self.flows, self.stagger) = (flows, stagger);
        self
    }

    fn short(mut self, duration: Duration) -> Self {
        (self.duration, self.warm_up) = (duration, duration / 10);
        self
    }

    fn outage(self, from: Duration, to: Duration) -> Self {
        self.each_way(|link| link.outages.push((from, to)))
    }

    fn delay_at(self, at: Duration, delay: Duration) -> Self {
        self.each_way(|link| link.delays.push((at, delay)))
    }

    fn rate_at(self, at: Duration, rate: u64) -> Self {
        self.each_way(|link| link.rates.push((at, rate)))
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|profile| profile.name == name)
    }

    /// All of them.
    pub fn all() -> Vec<Self> {
        let ms = Duration::from_millis;
        let wan = |name| Self::path(name, 50_000_000, ms(50), 1.0);
        let late = |mut profile: Self, at| {
            profile.rival_at = at;
            profile
        };
        vec![
            wan("wan"),
            wan("wan-loss0.1").lossy(0.001),
            wan("wan-loss1").lossy(0.01),
            wan("wan-loss3").lossy(0.03),
            wan("wan-burst").bursts(),
            Self::path("wan-bloat", 50_000_000, ms(50), 10.0),
            Self::path("wan-shallow", 50_000_000, ms(50), 0.1),
            Self::path("wan-shallow-loss1", 50_000_000, ms(50), 0.1).lossy(0.01),
            wan("wan-jitter").jitter(ms(5), 0.0),
            wan("wan-jitter-correlated").jitter(ms(5), 0.9),
            wan("wan-reorder").reorder(ms(5)),
            wan("wan-jitter-loss1").jitter(ms(5), 0.0).lossy(0.01),
            wan("wan-reorder-loss1").reorder(ms(5)).lossy(0.01),
            wan("wan-both").both(),
            wan("wan-both-loss1").both().lossy(0.01),
            wan("wan-both-reorder").both().reorder(ms(5)),
            wan("two").flows(2, ms(0)),
            wan("two-late").flows(2, ms(5000)),
            wan("two-loss1").flows(2, ms(3000)).lossy(0.01),
            wan("four").flows(4, ms(2000)),
            wan("cubic").beside(Rival::Cubic),
            late(wan("cubic-late").beside(Rival::Cubic), ms(5000)),
            wan("cubic-loss1").beside(Rival::Cubic).lossy(0.01),
            wan("bbr").beside(Rival::Bbr),
            late(wan("bbr-late").beside(Rival::Bbr), ms(5000)),
            wan("bbr-loss1").beside(Rival::Bbr).lossy(0.01),
            Self::path("shallow-cubic", 50_000_000, ms(50), 0.1).beside(Rival::Cubic),
            Self::path("shallow-bbr", 50_000_000, ms(50), 0.1).beside(Rival::Bbr),
            Self::path("bloat-cubic", 50_000_000, ms(50), 10.0).beside(Rival::Cubic),
            wan("blackhole").outage(ms(6000), ms(8000)),
            wan("half-rate").rate_at(ms(8000), 25_000_000).rate_at(ms(16000), 50_000_000),
            wan("longer").delay_at(ms(8000), ms(35)),
            Self::path("transcontinental", 100_000_000, ms(180), 1.0),
            Self::path("transcontinental-loss1", 100_000_000, ms(180), 1.0).lossy(0.01),
            Self::path("satellite", 20_000_000, ms(600), 0.5).lossy(0.005),
            Self::path("lte", 20_000_000, ms(60), 4.0).jitter(ms(8), 0.5).lossy(0.001),
            Self::path("wifi-bad", 30_000_000, ms(20), 2.0).jitter(ms(6), 0.3).lossy(0.02),
            Self::path("metro", 200_000_000, ms(10), 1.0).short(ms(11000)),
            Self::path("slow", 2_000_000, ms(40), 2.0),
            Self::path("lan", 1_000_000_000, Duration::from_micros(400), 4.0).short(ms(3000)),
            Self::path("lan10g", 10_000_000_000, Duration::from_micros(100), 8.0).short(ms(600)),
            Self::path("loopback", 10_000_000_000, Duration::from_micros(50), 16.0).short(ms(600)),
        ]
    }
}
