//! One job over any of the links.

use std::time::Duration;

use peerlane_transport::{ClassId, ConnectError, ListenError, PathStats, RecvError, SendError};

use crate::{
    Messages,
    job::Pair,
    ours::{self, OurEnd},
    peers,
    quic::{self, QuinnEnd},
    runtimes::Runtimes,
    tls::{self, TlsEnd},
};

/// What can go wrong in a benchmark.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Our layer refused to send.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Our layer ended.
    #[error(transparent)]
    Receive(#[from] RecvError),
    /// The raw link ended, or the system refused something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A message isn't the one that was sent.
    #[error("message {number} came with {len} bytes, or another's content")]
    Mixed {
        /// Its place.
        number: usize,
        /// Its length as received.
        len: usize,
    },
    /// Something that should have been there.
    #[error("{0}")]
    Setup(String),
    /// A task of the benchmark panicked.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// Which transport lies below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// QUIC.
    Quic,
    /// TLS over TCP.
    Tcp,
}

impl Kind {
    /// In records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// How raw is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As it comes: a write per message, a read per length and per body, and the body's buffer filled with zeros first.
    Plain,
    /// With care: small messages gathered to 16 KiB before a write (which delays the first of them, so a program with
    /// a latency to keep can't), chunks taken in bulk, no buffer filled with zeros first.
    Tuned,
}

/// A connected pair of peers in this process, over loopback, each driven on the runtime of its end. To be dropped before
/// the runtimes.
pub struct Link(Below);

enum Below {
    Ours(Pair<OurEnd>),
    Quinn(Pair<QuinnEnd>),
    Tls(Pair<TlsEnd>),
}

impl Link {
    /// Our layer.
    ///
    /// # Errors
    /// [`Failed`], if there's no connection.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn peerlane(kind: Kind, runtimes: &Runtimes) -> Result<Self, Failed> {
        let runtimes = runtimes.ends();
        Ok(Self(Below::Ours(match kind {
            Kind::Quic => ours::open(runtimes, peers::quic).await?,
            Kind::Tcp => ours::open(runtimes, peers::tcp).await?,
        })))
    }

    /// Raw, below the same transport.
    ///
    /// # Errors
    /// [`Failed`], if there's no connection.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn raw(kind: Kind, style: Style, runtimes: &Runtimes) -> Result<Self, Failed> {
        let runtimes = runtimes.ends();
        Ok(Self(match kind {
            Kind::Quic => Below::Quinn(quic::open(runtimes, style).await?),
            Kind::Tcp => Below::Tls(tls::open(runtimes, style).await?),
        }))
    }

    /// What is known of the path, the dialer's side and the listener's: to see that ours and raw have the same.
    pub fn paths(&self) -> [PathStats; 2] {
        match &self.0 {
            Below::Ours(pair) => pair.paths(),
            Below::Quinn(pair) => pair.paths(),
            Below::Tls(pair) => pair.paths(),
        }
    }

    /// The dialer sends `count` messages, in our layer in `class`: the time from before the first is sent until the last
    /// is received.
    ///
    /// # Errors
    /// [`Failed`], also for a message that came wrong.
    ///
    /// # Cancel safety
    /// Not cancel-safe: the link is of no use after it.
    pub async fn one_way(&self, class: ClassId, messages: &Messages, count: usize) -> Result<Duration, Failed> {
        match &self.0 {
            Below::Ours(pair) => pair.one_way(class, messages, count).await,
            Below::Quinn(pair) => pair.one_way(class, messages, count).await,
            Below::Tls(pair) => pair.one_way(class, messages, count).await,
        }
    }

    /// `count` requests of the dialer, one after the other, each answered: the time for all.
    ///
    /// # Errors
    /// [`Failed`], also for a message that came wrong.
    ///
    /// # Cancel safety
    /// Not cancel-safe: the link is of no use after it.
    pub async fn round_trips(&self, class: ClassId, requests: &Messages, answers: &Messages, count: usize) -> Result<Duration, Failed> {
        match &self.0 {
            Below::Ours(pair) => pair.round_trips(class, requests, answers, count).await,
            Below::Quinn(pair) => pair.round_trips(class, requests, answers, count).await,
            Below::Tls(pair) => pair.round_trips(class, requests, answers, count).await,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use peerlane_transport::ClassTable;

    use super::*;
    use crate::Mode;

    /// Every link, on runtimes of either mode, carries every kind of message: below and above what's copied, gathered in
    /// one write and over several.
    #[test]
    fn all_links_do_the_jobs() {
        let table = ClassTable::standard();
        let (query, belief) = (table.by_name(ClassTable::QUERY).unwrap(), table.by_name(ClassTable::BELIEF).unwrap());
        for mode in [Mode::Own, Mode::Shared] {
            let runtimes = Runtimes::new(mode, 1).unwrap();
            for kind in [Kind::Quic, Kind::Tcp] {
                let jobs = async {
                    let open = [
                        Link::peerlane(kind, &runtimes).await?,
                        Link::raw(kind, Style::Plain, &runtimes).await?,
                        Link::raw(kind, Style::Tuned, &runtimes).await?,
                    ];
                    for link in &open {
                        for size in [8, 256, 5000, 65_536] {
                            link.one_way(belief, &Messages::new(size), 200).await?;
                        }
                        link.round_trips(query, &Messages::new(100), &Messages::new(300), 20).await?;
                        let [dialer, listener] = link.paths();
                        assert!(dialer.congestion_control.is_some() && dialer.congestion_control == listener.congestion_control);
                    }
                    Ok::<_, Failed>(())
                };
                runtimes.wait(async { tokio::time::timeout(Duration::from_secs(60), jobs).await }).unwrap().unwrap();
            }
        }
    }
}
