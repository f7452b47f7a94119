//! Who is connected with whom.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

/// The largest star: its hosts are called a to p.
pub const LARGEST_STAR: u8 = 16;

/// Who is connected with whom. Every impairment is on a router, never on a host: a host's own queue would count a
/// delayed packet as unsent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topology {
    /// a - router - b.
    #[default]
    Pair,
    /// So many hosts, each behind its own link from one router. The impairment is on the way to each host.
    Star(u8),
    /// a and c through one bottleneck to b and d.
    Shared,
}

/// No such topology.
#[derive(Debug, Error)]
#[error("`{0}` is no topology; there are pair, star:N (2 to {LARGEST_STAR}) and shared")]
pub struct UnknownTopology(String);

impl FromStr for Topology {
    type Err = UnknownTopology;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pair" => return Ok(Self::Pair),
            "shared" => return Ok(Self::Shared),
            _ => {}
        }
        let hosts = text.strip_prefix("star:").and_then(|hosts| hosts.parse().ok()).filter(|hosts| (2..=LARGEST_STAR).contains(hosts));
        hosts.map(Self::Star).ok_or_else(|| UnknownTopology(text.to_owned()))
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair => f.write_str("pair"),
            Self::Star(hosts) => write!(f, "star:{hosts}"),
            Self::Shared => f.write_str("shared"),
        }
    }
}

impl Topology {
    /// The hosts' names, in order.
    pub(super) fn hosts(self) -> Vec<String> {
        let count = match self {
            Self::Pair => 2,
            Self::Star(hosts) => hosts,
            Self::Shared => 4,
        };
        (b'a'..).take(usize::from(count)).map(|letter| char::from(letter).to_string()).collect()
    }
}

/// The namespace of a host or router: `peerlane-a`.
pub fn namespace(node: &str) -> String {
    format!("peerlane-{node}")
}

/// A host: where programs run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `a`.
    pub name: String,
    /// Its network namespace, `peerlane-a`: `ip netns exec peerlane-a PROGRAM`.
    pub namespace: String,
    /// Its only address.
    pub address: Ipv4Addr,
}
