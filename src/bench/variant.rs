//! The transports that are compared, by the names they have on the command line and in records.
//!
//! Each is the best honest version of itself: what it's named after is as it says, all else is as good as it can be.

use std::{fmt, net::SocketAddr, sync::Arc};

use peerlane_quic::{CongestionControl, QuicConfig, QuicTransport};
use peerlane_tcp::{Carriers, CongestionControl as TcpCongestion, TcpConfig, TcpTransport};
use peerlane_transport::{
    AnyTransport, ClassTable, ConnectError, Order, TrafficClass, Urgency,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerAddr},
    limits,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{End, Workload, error::LabError, load::OVERHEAD};

/// The network's name of a benchmark's two ends.
pub(super) const NETWORK: &str = "peerlane-bench";
/// The name of the only class, where there's but one.
const ALL: &str = "all";

/// What carries the connection, and what of its configuration isn't the default.
#[derive(Clone, Copy)]
enum Carrier {
    Tcp(fn(&mut TcpConfig)),
    Quic(fn(&mut QuicConfig)),
}

/// Which classes there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Classes {
    /// [`ClassTable::standard`].
    Standard,
    /// One for everything, whole messages in order.
    One,
}

/// A transport as it's configured for a comparison. Each name's configuration is one row of [`Variant::ALL`].
#[derive(Clone, Copy)]
pub struct Variant {
    name: &'static str,
    about: &'static str,
    carrier: Carrier,
    classes: Classes,
    /// BELIEF has a connection of its own.
    apart: bool,
    /// So have copies of QUERY and RESULT.
    copies: bool,
    /// The congestion control that it must have, by the name that's read back; `None`: whatever it has by default.
    congestion: Option<&'static str>,
}

impl Variant {
    /// Every one there is.
    pub const ALL: &'static [Self] = &[
        Self::tcp("tcp", "as it is by default", |_| {}),
        Self::tcp("tcp-no-copies", "without copies of small messages on a TCP connection of their own", |config| config.copies = None),
        Self { congestion: Some("bbr"), ..Self::tcp("tcp-bbr", "one TCP connection with the scheduler, over the kernel's BBR", one) },
        Self { congestion: Some("cubic"), ..Self::tcp("tcp-cubic", "the same over Cubic", one) },
        Self {
            congestion: Some("bbr"),
            apart: true,
            ..Self::tcp("tcp-per-class-bbr", "QUERY on one connection, BELIEF on another, both over BBR", one)
        },
        // What TCP can have of what QUIC has: BELIEF on a connection of its own, so that neither its queue nor its losses hold
        // up a QUERY; and each QUERY and RESULT once more on a third connection 2 ms later, within the budget of QUIC's copies,
        // the first arrival counting. A lost segment then holds up what's behind it on one of the two connections alone.
        Self {
            congestion: Some("bbr"),
            apart: true,
            copies: true,
            ..Self::tcp(
                "tcp-per-class-bbr-copies",
                "the same, and a copy of each QUERY and RESULT on a third one, within the budget of QUIC's",
                one,
            )
        },
        Self {
            congestion: Some("cubic"),
            classes: Classes::One,
            ..Self::tcp("tcp-fifo", "one TCP connection over Cubic, whole messages in order, as most peers have it", one)
        },
        Self::quic("quic", "as it is by default", |_| {}),
        Self {
            congestion: Some("cubic"),
            ..Self::quic("quic-cubic", "with quinn's Cubic", |config| config.congestion = CongestionControl::Cubic)
        },
        Self { congestion: Some("bbr"), ..Self::quic("quic-bbr", "with quinn's BBR", |config| config.congestion = CongestionControl::Bbr) },
        Self::quic("quic-class-streams", "a stream per class, none per small message", |config| config.message_streams = None),
        Self::quic("quic-no-copies", "without copies of small messages in datagrams", |config| config.copies.clear()),
        Self::quic("quic-no-rescue", "without the probes that find an outage's end", |config| config.rescue = false),
        Self::quic("quic-no-dispersion", "start-up ends by delay, not by how bursts spread", |config| config.delay.dispersion = false),
        Self::quic("quic-no-offset", "all delay above the least is taken for queue", |config| config.delay.offset = false),
        Self::quic("quic-no-both-ways", "the other direction's load isn't looked at", |config| config.delay.both_ways = false),
        Self::quic("quic-no-catch-up", "an empty path is taken as slowly as any", |config| config.delay.catch_up = false),
        Self::quic("quic-no-company", "a rival that fills the queue isn't met", |config| config.delay.company = false),
        Self::quic("quic-no-one-way", "the other side's clock isn't asked", |config| config.delay.one_way = false),
        Self::quic("quic-no-dip", "no look at the empty path every ten seconds", |config| config.delay.dip = false),
        Self { classes: Classes::One, ..Self::quic("quic-one-stream", "one stream, whole messages in order", |_| {}) },
    ];

    const fn tcp(name: &'static str, about: &'static str, change: fn(&mut TcpConfig)) -> Self {
        Self { name, about, carrier: Carrier::Tcp(change), classes: Classes::Standard, apart: false, copies: false, congestion: None }
    }

    const fn quic(name: &'static str, about: &'static str, change: fn(&mut QuicConfig)) -> Self {
        Self { carrier: Carrier::Quic(change), ..Self::tcp(name, about, |_| {}) }
    }

    /// What users get: `tcp` and `quic`.
    pub fn defaults() -> Vec<Self> {
        ["tcp", "quic"].into_iter().filter_map(Self::by_name).collect()
    }

    /// The one of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|variant| variant.name == name).copied()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// What it is, in a few words.
    pub fn about(self) -> &'static str {
        self.about
    }

    /// Connections that the asking end dials: the first one carries QUERY, the second one its copies if there are any, the last
    /// one BELIEF.
    pub(super) fn connections(self) -> usize {
        1 + usize::from(self.copies) + usize::from(self.apart)
    }

    /// QUERY and RESULT have copies on a connection of their own.
    pub(super) fn copies(self) -> bool {
        self.copies
    }

    /// The name of the class that carries what a standard class of this name does.
    pub(super) fn class(self, standard: &'static str) -> &'static str {
        match self.classes {
            Classes::Standard => standard,
            Classes::One => ALL,
        }
    }

    /// Whether a node can have it: one connection, with the standard classes.
    pub(super) fn carries_nodes(self) -> bool {
        self.classes == Classes::Standard && self.connections() == 1
    }

    /// One end's transport.
    pub(super) fn make(self, identity: &Identity, work: &Workload) -> Result<AnyTransport<PeerAddr, SocketAddr>, LabError> {
        self.transport(self.local(identity, work)?)
    }

    /// Who one end is, and what it wants.
    pub(super) fn local(self, identity: &Identity, work: &Workload) -> Result<LocalPeer, LabError> {
        let mut terms = Terms::new(NETWORK)?;
        if self.classes == Classes::One {
            terms.classes = one_class(work)?;
        }
        Ok(LocalPeer::new(identity, Arc::new(Lists::everybody()), terms)?)
    }

    /// The transport of such an end.
    pub(super) fn transport(self, peer: LocalPeer) -> Result<AnyTransport<PeerAddr, SocketAddr>, LabError> {
        match self.carrier {
            Carrier::Tcp(change) => {
                let mut config = TcpConfig::default();
                change(&mut config);
                if let Some(name) = self.congestion {
                    config.congestion_control = TcpCongestion::Named(name.to_owned());
                }
                match (TcpTransport::new(peer, config), self.congestion) {
                    (Err(ConnectError::Config(reason)), Some(name)) => Err(LabError::Kernel { name, reason }),
                    (made, _) => Ok(AnyTransport::new(made?)),
                }
            }
            Carrier::Quic(change) => {
                let mut config = QuicConfig::default();
                change(&mut config);
                Ok(AnyTransport::new(QuicTransport::new(peer, config)?))
            }
        }
    }

    /// Whether a connection's end really has the congestion control that it's named after.
    pub(super) fn verify(self, end: &End) -> Result<(), LabError> {
        match self.congestion {
            Some(name) if end.congestion_control.as_deref() != Some(name) => {
                Err(LabError::Congestion { name, found: end.congestion_control.clone().unwrap_or_else(|| "none that can be read".into()) })
            }
            _ => Ok(()),
        }
    }
}

/// All classes on one TCP connection.
fn one(config: &mut TcpConfig) {
    config.carriers = Carriers::One;
}

/// The table of one class: two messages may wait, so that one leaves while the next is made, because all that waits
/// delays what comes after; in transit is permitted what all standard classes have together.
fn one_class(work: &Workload) -> Result<ClassTable, LabError> {
    let largest = work.belief_bytes.max(work.query_bytes + OVERHEAD).max(work.result_bytes);
    let two = 2 * (largest + limits::ENTRY_OVERHEAD);
    let standard = ClassTable::standard();
    let class = TrafficClass {
        max_message: largest,
        send_budget: two,
        receive_budget: two.max(standard.iter().map(|(_, class)| class.receive_budget).max().unwrap_or(0)),
        window: standard.window_total() + limits::Limits::default().window_growth,
        ..TrafficClass::new(ALL, 1, Urgency::Bulk, Order::Fifo)
    };
    ClassTable::new(vec![class]).map_err(|error| ConnectError::Config(error.to_string()).into())
}

impl fmt::Debug for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variant({})", self.name)
    }
}

impl PartialEq for Variant {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Variant {}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Its name: the configuration is that of whoever reads it.
impl Serialize for Variant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl<'de> Deserialize<'de> for Variant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::by_name(&name).ok_or_else(|| D::Error::custom(format!("no transport is called {name}")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_unique_and_the_defaults_are_what_users_get() {
        for (i, variant) in Variant::ALL.iter().enumerate() {
            assert_eq!(Variant::ALL.iter().position(|other| other == variant), Some(i), "{variant}");
        }
        assert_eq!(Variant::defaults().iter().map(|variant| variant.name()).collect::<Vec<_>>(), ["tcp", "quic"]);
    }

    #[test]
    fn one_class_takes_the_largest_message_of_any_workload() {
        for belief_bytes in [1, 65_536, 1 << 20] {
            let table = one_class(&Workload { belief_bytes, ..Workload::default() }).unwrap();
            let class = table.get(table.by_name(ALL).unwrap()).unwrap();
            assert!(class.order == Order::Fifo && class.max_message >= belief_bytes.max(300));
        }
    }

    #[test]
    fn a_congestion_control_that_isnt_there_is_refused_and_never_replaced() {
        let bbr = Variant::by_name("tcp-bbr").unwrap();
        let cubic = End { congestion_control: Some("cubic".into()), ..End::default() };
        assert!(bbr.verify(&cubic).unwrap_err().to_string().contains("bbr"));
        assert!(bbr.verify(&End::default()).is_err());
        assert!(Variant::by_name("tcp").unwrap().verify(&cubic).is_ok());

        let missing = Variant { congestion: Some("no-such"), ..bbr };
        let error = missing.make(&Identity::generate().unwrap(), &Workload::default()).unwrap_err().to_string();
        assert!(error.contains("no-such") && error.contains("modprobe"), "{error}");
    }
}
