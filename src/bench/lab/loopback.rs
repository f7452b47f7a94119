//! Both ends over the kernel's loopback, in real time.

use std::net::Ipv4Addr;

use tokio_util::sync::CancellationToken;

use super::{
    Lab,
    ends::{Ends, Place},
    star::Star,
};
use crate::bench::{
    BenchError, Case, Kind, Measurement,
    connect::{ConnectCase, Connected},
    propagate::MEMBERS,
};

/// Tasks that a runtime polls between two looks at its sockets and timers (tokio's `event_interval`, 61 by default).
/// Under a flood a poll here encrypts tens of kilobytes, and an arrived RESULT lies in its socket until the next look: on two
/// cores QUERY's median over TCP fell from 0.84 to 0.46 ms with 1 instead of 4, and BELIEF's rate didn't fall; over QUIC
/// from 0.96 to 0.78 ms.
pub(super) const EVENT_INTERVAL: u32 = 1;

/// The loopback lab. Its ends share the processors, as two processes would; a machine with one of them shows it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Loopback {
    /// Tasks that each end's runtime polls between two looks at its sockets and timers, 1 at least and by default; tokio's
    /// own default is 61.
    pub event_interval: u32,
}

impl Default for Loopback {
    fn default() -> Self {
        Self { event_interval: EVENT_INTERVAL }
    }
}

impl Loopback {
    /// The lab as it's by default.
    pub fn new() -> Self {
        Self::default()
    }

    fn here() -> Place {
        Place { namespace: None, address: Ipv4Addr::LOCALHOST.into() }
    }

    fn star(self) -> Star {
        Star { places: vec![Self::here(); MEMBERS], event_interval: self.event_interval }
    }

    fn ends(self) -> Ends {
        let here = Self::here();
        Ends { asking: here.clone(), answering: here, rival: None, events: Vec::new(), event_interval: self.event_interval }
    }
}

impl Lab for Loopback {
    fn name(&self) -> &'static str {
        "loopback"
    }

    fn profile(&self) -> &str {
        "none"
    }

    fn rates_mbps(&self) -> Option<[f64; 2]> {
        None
    }

    fn threads(&self, kind: Kind) -> String {
        if kind == Kind::Propagate { self.star().threads() } else { self.ends().threads() }
    }

    fn measure(&self, case: &Case, stop: &CancellationToken) -> Result<Measurement, BenchError> {
        match case.workload.kind {
            Kind::Propagate => self.star().measure(case, stop),
            _ => self.ends().measure(case, stop),
        }
    }

    fn connect(&self, case: &ConnectCase, stop: &CancellationToken) -> Result<Connected, BenchError> {
        self.ends().connect(case, stop)
    }
}
