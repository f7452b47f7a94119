//! What an operator may choose of TCP.

use std::time::Duration;

use peerlane_transport::{ClassTable, ConnectError, Urgency, limits};

/// The congestion control of a transport's connections: which side has it decides for what that side sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CongestionControl {
    /// BBR where the kernel has and permits it, else the system's; the log says which. The default: on a path with loss
    /// or a deep queue BBR keeps both latency and throughput, and Cubic loses one of them (`benches/RESULTS.md`). On a
    /// TCP connection that has latency classes alone, and sends seldom, BBR is begun anew every 8 seconds, so that it
    /// never goes slow to look for the path's round trip.
    #[default]
    Best,
    /// The system's (`net.ipv4.tcp_congestion_control`).
    System,
    /// This one, by its name in the kernel. One that the kernel doesn't have or doesn't permit is refused when the
    /// transport is made.
    Named(String),
}

/// Which TCP connections carry a connection's classes. What goes on another one is delayed by no loss and no queue of the
/// first; the shares between them are the path's decision, and no longer the scheduler's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carriers {
    /// Two if the table has classes of both kinds: the bulk classes on the first, the latency classes on the second, as
    /// soon as it's there. So theirs has never carried anything else, and its congestion control knows no flood: the other
    /// way round, measured, the worst queries in a thousand take an RTT's fifth longer. The default.
    #[default]
    ByUrgency,
    /// One for all.
    One,
    /// The classes of these names on further ones, one for each list; all others on the first. At most
    /// [`limits::MAX_CARRIERS`] - 1 lists.
    Groups(Vec<Vec<String>>),
}

impl Carriers {
    /// On which carrier each class of a table goes.
    ///
    /// # Errors
    /// [`ConnectError::Config`] for too many groups, an empty one, a class that there isn't or that's named twice.
    pub(crate) fn assign(&self, classes: &ClassTable) -> Result<Vec<u8>, ConnectError> {
        let mut of = vec![0; classes.len()];
        match self {
            Self::One => {}
            Self::ByUrgency => {
                let latency: Vec<bool> = classes.iter().map(|(_, class)| class.urgency == Urgency::Latency).collect();
                if latency.contains(&false) {
                    of = latency.into_iter().map(u8::from).collect();
                }
            }
            Self::Groups(groups) => {
                let fail = |what: String| Err(ConnectError::Config(format!("carriers: {what}")));
                if groups.len() >= limits::MAX_CARRIERS {
                    return fail(format!("{} groups; {} are the most beside the first", groups.len(), limits::MAX_CARRIERS - 1));
                }
                for (number, group) in (1..).zip(groups) {
                    if group.is_empty() {
                        return fail("a group without a class".into());
                    }
                    for name in group {
                        let class = classes.by_name(name).and_then(|class| of.get_mut(class.index()));
                        match class {
                            None => return fail(format!("there's no class {name:?}")),
                            Some(0) => {}
                            Some(_) => return fail(format!("class {name:?} is named twice")),
                        }
                        if let Some(of) = class {
                            *of = number;
                        }
                    }
                }
            }
        }
        Ok(of)
    }
}

/// Settings of a [`TcpTransport`](crate::TcpTransport). The default suits any network: take it and change fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpConfig {
    /// Bytes that may wait in the kernel before they're first sent (`TCP_NOTSENT_LOWAT`): they can't be overtaken any
    /// more. 16 KiB, one quantum, by default: less costs throughput by waking the writer more often, more is added to the
    /// latency of every urgent message. Worst-case memory: none of its own, it's part of the send buffer. On Linux alone.
    pub notsent_lowat: u32,
    /// Send buffer in bytes (`SO_SNDBUF`): what is in flight and what waits. `None`, the default: the kernel adjusts it to
    /// the path, up to `net.ipv4.tcp_wmem`. Set, it bounds throughput to itself per round trip. Worst-case memory in the
    /// kernel: twice this per TCP connection.
    pub send_buffer: Option<usize>,
    /// Receive buffer in bytes (`SO_RCVBUF`). `None`, the default: the kernel adjusts it to the path, up to
    /// `net.ipv4.tcp_rmem`. Worst-case memory in the kernel: twice this per TCP connection.
    pub receive_buffer: Option<usize>,
    /// The congestion control (`TCP_CONGESTION`). On Linux alone; elsewhere the system's.
    pub congestion_control: CongestionControl,
    /// How many TCP connections carry one connection, and what goes on which. Both sides must want more than one, and
    /// the smaller number is what is used; what should go on one that isn't there goes on the first. Worst-case memory:
    /// [`limits::CARRIER_BUFFERS`] and the kernel's buffers for each further one.
    pub carriers: Carriers,
    /// Small messages of latency classes that need no order are sent again so long after they left, on a TCP connection of
    /// their own; whichever comes first counts. So one that stands behind a lost segment needn't wait for its repair. At
    /// most 5% of the bytes sent, or 64 kB/s if that's more. 2 ms by default, so that one burst of loss doesn't take both
    /// (`benches/RESULTS.md` has what other times give). `None`: no copies. Both sides must want them, and both
    /// several [carriers](Self::carriers). Worst-case memory: [`limits::COPIES_WAITING`], [`limits::CARRIER_BUFFERS`] and the
    /// kernel's buffers.
    pub copies: Option<Duration>,
    /// Copies are made where a round trip takes so long or longer, and such messages are in use. The side that dialed
    /// decides. 2 ms by default: on a shorter path a repair is quick. Zero: everywhere, and at once. Where the kernel doesn't
    /// tell the round trip (it does on Linux alone), only zero makes any.
    pub copies_above: Duration,
    /// Connections that may wait in the kernel to be accepted. 1024 by default; the kernel cuts it to
    /// `net.core.somaxconn`. Worst-case memory in the kernel: a few KiB each.
    pub backlog: i32,
    /// Write the secrets of every connection to the file named by `SSLKEYLOGFILE`. For debugging alone; false by default.
    pub key_log: bool,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            // Lossless: a quantum is 16 KiB.
            notsent_lowat: limits::QUANTUM as u32,
            send_buffer: None,
            receive_buffer: None,
            congestion_control: CongestionControl::default(),
            carriers: Carriers::default(),
            copies: Some(Duration::from_millis(2)),
            copies_above: Duration::from_millis(2),
            backlog: 1024,
            key_log: false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use peerlane_transport::{Order, TrafficClass};

    use super::*;

    fn groups(groups: &[&[&str]]) -> Carriers {
        Carriers::Groups(groups.iter().map(|group| group.iter().map(|name| (*name).to_owned()).collect()).collect())
    }

    #[test]
    fn classes_go_where_the_configuration_says() {
        let standard = ClassTable::standard();
        assert_eq!(Carriers::default().assign(&standard).unwrap(), [1, 1, 1, 0, 0]);
        assert_eq!(Carriers::One.assign(&standard).unwrap(), [0; 5]);
        assert_eq!(groups(&[&["belief"], &["data", "transact"]]).assign(&standard).unwrap(), [0, 0, 2, 2, 1]);
        for urgency in [Urgency::Latency, Urgency::Bulk] {
            let class = |name| TrafficClass::new(name, 1, urgency, Order::Any);
            let alike = ClassTable::new(vec![class("a"), class("b")]).unwrap();
            assert_eq!(Carriers::default().assign(&alike).unwrap(), [0, 0], "nothing to keep apart");
        }
    }

    #[test]
    fn groups_that_can_not_be_are_refused_by_name() {
        let refused = |carriers: Carriers| carriers.assign(&ClassTable::standard()).unwrap_err().to_string();
        assert!(refused(groups(&[&["nobody"]])).contains("nobody"));
        assert!(refused(groups(&[&["data"], &["belief", "data"]])).contains("data"));
        assert!(refused(groups(&[&[]])).contains("without a class"));
        assert!(refused(groups(&[&["data"], &["belief"], &["query"], &["transact"]])).contains("4 groups"));
    }
}
