//! What is to be measured: the matrix, and one cell of it.

use std::{fmt, time::Duration};

use peerlane_transport::{ClassTable, limits};
use serde::{Deserialize, Serialize};

use super::{BenchError, Flood, Variant, propagate::LEAST_BELIEF};

/// Queries of one run whose schedule is held in memory. Count; 24 bytes each.
const MAX_QUERIES: f64 = 10_000_000.0;
/// Messages per second of a flood in an open loop. Count: its generator shares a thread with the queries'.
const MAX_FLOOD: f64 = 100_000.0;

/// Who else uses the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rival {
    /// Nobody.
    None,
    /// A plain TCP connection over the kernel's Cubic, from another host to another one, as fast as it can.
    Cubic,
    /// The same over the kernel's BBR.
    Bbr,
}

impl Rival {
    /// Every one there is.
    pub const ALL: [Self; 3] = [Self::None, Self::Cubic, Self::Bbr];

    /// The name in records and on the command line; the kernel's for a congestion control.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }

    /// The rival of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rival| rival.name() == name)
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is asked, and when it's done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// A QUERY, until its RESULT.
    Query,
    /// A TRANSACT with the next signed operation of an account, until the RESULT of a reference peer's service, which checks
    /// signature and sequence.
    Transact,
    /// An operation of one of eight reference peers in a star, until the last of them has merged it by gossip.
    Propagate,
}

impl Kind {
    /// The name in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Transact => "transact",
            Self::Propagate => "propagate",
        }
    }

    /// The standard class that it's about.
    pub fn class(self) -> &'static str {
        match self {
            Self::Query => ClassTable::QUERY,
            Self::Transact => ClassTable::TRANSACT,
            Self::Propagate => ClassTable::BELIEF,
        }
    }
}

/// What is asked: kind, sizes, rate and times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// What is asked.
    pub kind: Kind,
    /// Questions per second on average; 0: none, to see the flood alone.
    pub rate: f64,
    /// Bytes of a QUERY, encoded, 9 at least: tag and ID. For other kinds bytes of an operation's value.
    pub query_bytes: usize,
    /// Bytes of a QUERY's RESULT, encoded. 9 at least.
    pub result_bytes: usize,
    /// Bytes of a flood's BELIEF, encoded.
    pub belief_bytes: usize,
    /// Load is applied for so long before anything counts.
    pub warm_up: Duration,
    /// What counts.
    pub duration: Duration,
    /// How long the last queries are waited for, under the same flood.
    pub grace: Duration,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            kind: Kind::Query,
            rate: 100.0,
            query_bytes: 100,
            result_bytes: 300,
            belief_bytes: 65_536,
            warm_up: Duration::from_secs(1),
            duration: Duration::from_secs(10),
            grace: Duration::from_secs(5),
        }
    }
}

/// A matrix of cases.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The transports, in the table's order.
    pub variants: Vec<Variant>,
    /// The floods, in the table's order.
    pub floods: Vec<Flood>,
    /// Who else uses the bottleneck, in the table's order.
    pub rivals: Vec<Rival>,
    /// How often each case is measured.
    pub runs: u32,
    /// What each case does.
    pub workload: Workload,
    /// Run `r` draws its schedule from `seed + r`.
    pub seed: u64,
}

/// One cell of the matrix, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The transport.
    pub variant: Variant,
    /// What else fills the connection.
    pub flood: Flood,
    /// What a flood in an open loop offers, in bits per second; `None`: whatever `send` permits, or nothing.
    pub offered_bps: Option<f64>,
    /// Who else uses the bottleneck.
    pub rival: Rival,
    /// 1 for the first.
    pub run: u32,
    /// Of the schedule.
    pub seed: u64,
    /// What it does.
    pub workload: Workload,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, flood {}", self.variant, self.flood)?;
        if self.rival != Rival::None {
            write!(f, ", beside {}", self.rival)?;
        }
        write!(f, ", run {}", self.run)
    }
}

impl Plan {
    /// Tells what can't be run, before anything is started.
    ///
    /// # Errors
    /// [`BenchError::Plan`], naming the value and what is permitted.
    pub fn check(&self) -> Result<(), BenchError> {
        let work = &self.workload;
        let fail = |what: String| Err(BenchError::Plan { what });
        let table = ClassTable::standard();
        let largest = |name: &str| table.by_name(name).map_or(0, |class| table[class].max_message);
        if self.is_empty() {
            return fail("nothing to measure: at least one transport, one flood, one rival (or none) and one run".into());
        }
        if work.duration.is_zero() {
            return fail("a duration of 0 measures nothing".into());
        }
        if !work.rate.is_finite() || work.rate < 0.0 {
            return fail(format!("a rate of {} per second: it's 0 or more", work.rate));
        }
        let queries = work.rate * (work.warm_up.as_secs_f64() + work.duration.as_secs_f64());
        if queries > MAX_QUERIES {
            return fail(format!("{queries:.0} queries in a run: at most {MAX_QUERIES:.0}; lower the rate or the duration"));
        }
        for (what, bytes) in [("QUERY", work.query_bytes), ("RESULT", work.result_bytes)] {
            let limit = largest(ClassTable::QUERY);
            if bytes < super::load::HEAD || bytes > limit {
                return fail(format!("a {what} of {bytes} bytes: it has {} to {limit}", super::load::HEAD));
            }
        }
        let limit = largest(ClassTable::BELIEF);
        if work.belief_bytes == 0 || work.belief_bytes > limit {
            return fail(format!(
                "a BELIEF of {} bytes: it has 1 to {limit}, {} on its class's stream",
                work.belief_bytes,
                limits::SMALL_MESSAGE
            ));
        }
        if work.kind == Kind::Propagate { self.check_propagate() } else { Ok(()) }
    }

    fn check_propagate(&self) -> Result<(), BenchError> {
        let fail = |what: String| Err(BenchError::Plan { what });
        if let Some(variant) = self.variants.iter().find(|variant| !variant.carries_nodes()) {
            return fail(format!("propagate is carried by nodes, and {variant} has other classes or connections than a node's"));
        }
        if self.workload.rate == 0.0 {
            return fail("propagate without operations (--rate 0) measures nothing".into());
        }
        if self.rivals.iter().any(|rival| *rival != Rival::None) {
            return fail("a star has no place for a rival: leave --rival out".into());
        }
        if self.workload.belief_bytes < LEAST_BELIEF && self.floods.iter().any(|flood| *flood != Flood::None) {
            return fail(format!(
                "a flood of beliefs of {} bytes: in propagate they're real, {LEAST_BELIEF} at least",
                self.workload.belief_bytes
            ));
        }
        Ok(())
    }

    /// Tells what can't be run on a path with these rates, as a lab gives them.
    ///
    /// # Errors
    /// [`BenchError::Plan`].
    pub(super) fn check_on(&self, rates_mbps: Option<[f64; 2]>) -> Result<(), BenchError> {
        for flood in &self.floods {
            let Flood::Rate(rate) = flood else { continue };
            let Some(bits) = rate.bits(rates_mbps.map(|[there, _]| there)) else {
                return Err(BenchError::Plan {
                    what: format!("--flood {flood}: this path has no rate to be a share of; name one, as 10Mbit/s"),
                });
            };
            let messages = bits / 8.0 / self.workload.belief_bytes as f64;
            if messages > MAX_FLOOD {
                let what =
                    format!("--flood {flood}: {messages:.0} BELIEFs per second; at most {MAX_FLOOD:.0}, or larger ones (--belief-bytes)");
                return Err(BenchError::Plan { what });
            }
        }
        Ok(())
    }

    /// All cases on a path with these rates, run by run: what disturbs the machine for a while falls on all of a run.
    pub(super) fn cases(&self, rates_mbps: Option<[f64; 2]>) -> impl Iterator<Item = Case> + '_ {
        let offered = move |flood| match flood {
            Flood::Rate(rate) => rate.bits(rates_mbps.map(|[there, _]| there)),
            _ => None,
        };
        (1..=self.runs).flat_map(move |run| {
            self.rows().map(move |(variant, flood, rival)| Case {
                variant,
                flood,
                offered_bps: offered(flood),
                rival,
                run,
                seed: self.seed.wrapping_add(u64::from(run)),
                workload: self.workload.clone(),
            })
        })
    }

    /// What is measured in each run, in the table's order.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Variant, Flood, Rival)> + '_ {
        self.variants.iter().flat_map(move |variant| {
            self.floods.iter().flat_map(move |flood| self.rivals.iter().map(move |rival| (*variant, *flood, *rival)))
        })
    }

    /// How many cases there are.
    pub fn len(&self) -> usize {
        self.rows().count() * self.runs as usize
    }

    /// Whether there's none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan() -> Plan {
        Plan {
            variants: Variant::ALL.to_vec(),
            floods: vec![Flood::None, Flood::Full],
            rivals: vec![Rival::None, Rival::Bbr],
            runs: 2,
            workload: Workload::default(),
            seed: 7,
        }
    }

    #[test]
    fn runs_interleave_and_cases_of_a_run_share_their_seed() {
        let cases: Vec<_> = plan().cases(None).collect();
        assert_eq!(cases.len(), plan().len());
        assert!(cases[..cases.len() / 2].iter().all(|case| case.run == 1 && case.seed == 8));
        assert!(cases[cases.len() / 2..].iter().all(|case| case.run == 2 && case.seed == 9));
    }

    #[test]
    fn what_cant_be_run_is_named_before_anything_is_started() {
        plan().check().unwrap();
        let refused = |change: fn(&mut Plan)| {
            let mut plan = plan();
            change(&mut plan);
            plan.check().unwrap_err().to_string()
        };
        assert!(refused(|p| p.runs = 0).contains("nothing to measure"));
        assert!(refused(|p| p.rivals.clear()).contains("nothing to measure"));
        assert!(refused(|p| p.workload.duration = Duration::ZERO).contains("duration"));
        assert!(refused(|p| p.workload.rate = f64::NAN).contains("rate"));
        assert!(refused(|p| p.workload.rate = -1.0).contains("rate"));
        assert!(refused(|p| p.workload.rate = 1e9).contains("queries in a run"));
        assert!(refused(|p| p.workload.query_bytes = 8).contains("QUERY of 8 bytes"));
        assert!(refused(|p| p.workload.belief_bytes = 64 << 20).contains("BELIEF"));
    }

    #[test]
    fn a_share_needs_a_rate_and_no_flood_is_of_more_messages_than_can_be_made() {
        let with = |flood: &str, belief_bytes| {
            let workload = Workload { belief_bytes, ..Workload::default() };
            Plan { floods: vec![flood.parse().unwrap()], workload, ..plan() }
        };
        let half = with("50%", 65_536);
        assert!(half.check_on(None).unwrap_err().to_string().contains("10Mbit/s"));
        half.check_on(Some([50.0, 5.0])).unwrap();
        assert!(half.cases(Some([50.0, 5.0])).all(|case| case.offered_bps == Some(25e6)));
        with("10Gbit/s", 65_536).check_on(None).unwrap();
        assert!(with("10Gbit/s", 100).check_on(None).unwrap_err().to_string().contains("--belief-bytes"));
        assert!(plan().cases(Some([50.0, 5.0])).all(|case| case.offered_bps.is_none()));
    }
}
