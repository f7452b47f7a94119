//! One job over any of the links.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    ClassId, ConnectError, Connection, Inbound, ListenError, Listener, RecvError, SendError, Transport, Upgrade,
    admission::LocalPeer,
    identity::{Identity, PeerAddr},
};

use crate::{Messages, quic::Quinn, tls::Tls};

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
    /// As it comes: a write per message, a read per length and per body.
    Plain,
    /// With care: small messages gathered to 16 KiB before a write (which delays the first of them, so a program with
    /// a latency to keep can't), chunks taken in bulk, no buffer filled with zeros first.
    Tuned,
}

/// A connected pair of peers in this process, over loopback.
pub struct Link(Ends);

enum Ends {
    Peerlane { from: Connection, to: Connection, _transports: Box<dyn Send + Sync> },
    Quinn(Quinn),
    Tls(Tls),
}

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn identity(seed: u8) -> Result<Identity, Failed> {
    Identity::from_seed(&[seed; 32]).map_err(|error| Failed::Setup(error.to_string()))
}

fn peer(seed: u8) -> Result<LocalPeer, Failed> {
    Ok(LocalPeer::open(&identity(seed)?, "bench")?)
}

fn quic(seed: u8) -> Result<QuicTransport, Failed> {
    Ok(QuicTransport::new(peer(seed)?, QuicConfig::default())?)
}

fn tcp(seed: u8) -> Result<TcpTransport, Failed> {
    Ok(TcpTransport::new(peer(seed)?, TcpConfig::default())?)
}

async fn meet<T>(dialer: T, listener: T) -> Result<Ends, Failed>
where
    T: Transport<Addr = PeerAddr, Local = SocketAddr>,
{
    let mut listening = listener.listen(&local()).await?;
    let addr = PeerAddr::new(identity(2)?.peer_id(), listening.local());
    let accept = async { Ok::<_, Failed>(listening.accept().await?.upgrade().await?) };
    let (from, to) = tokio::try_join!(async { Ok(dialer.dial(&addr).await?) }, accept)?;
    Ok(Ends::Peerlane { from, to, _transports: Box::new((dialer, listener)) })
}

impl Link {
    /// Our layer.
    ///
    /// # Errors
    /// [`Failed`], if there's no connection.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn peerlane(kind: Kind) -> Result<Self, Failed> {
        match kind {
            Kind::Quic => Ok(Self(meet(quic(1)?, quic(2)?).await?)),
            Kind::Tcp => Ok(Self(meet(tcp(1)?, tcp(2)?).await?)),
        }
    }

    /// Raw, below the same transport.
    ///
    /// # Errors
    /// [`Failed`], if there's no connection.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn raw(kind: Kind, style: Style) -> Result<Self, Failed> {
        match kind {
            Kind::Quic => Self::quinn(style).await,
            Kind::Tcp => Self::tls(style).await,
        }
    }

    /// Raw quinn.
    ///
    /// # Errors
    /// [`Failed`], if there's no connection.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn quinn(style: Style) -> Result<Self, Failed> {
        Ok(Self(Ends::Quinn(Quinn::open(quic(1)?, quic(2)?, identity(2)?.peer_id(), local(), style).await?)))
    }

    /// Raw tokio-rustls.
    ///
    /// # Errors
    /// [`Failed`], if there's no connection.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn tls(style: Style) -> Result<Self, Failed> {
        Ok(Self(Ends::Tls(Tls::open(&peer(1)?, &peer(2)?, local(), style).await?)))
    }

    /// What our layer knows of its sending side, for a look at what bounds it; nothing for raw.
    pub fn stats(&self) -> Option<peerlane_transport::ConnectionStats> {
        match &self.0 {
            Ends::Peerlane { from, .. } => Some(from.stats()),
            _ => None,
        }
    }

    /// Carries `count` messages one way, in our layer in `class`: the time from before the first is sent until the last is received.
    ///
    /// # Errors
    /// [`Failed`], also for a message that came wrong.
    ///
    /// # Cancel safety
    /// Not cancel-safe: the link is of no use after it.
    pub async fn one_way(&self, class: ClassId, messages: &Messages, count: usize) -> Result<Duration, Failed> {
        match &self.0 {
            Ends::Peerlane { from, to, .. } => {
                let (from, to) = (from.clone(), to.clone());
                let (sending, receiving) = (messages.clone(), messages.clone());
                let sender = async move {
                    for i in 0..count {
                        from.send(class, sending.get(i).clone()).await?;
                    }
                    Ok(())
                };
                let receiver = async move {
                    for i in 0..count {
                        receiving.check(i, &whole(&to, class).await?)?;
                    }
                    Ok(())
                };
                timed(sender, receiver).await
            }
            Ends::Quinn(quinn) => quinn.one_way(messages, count).await,
            Ends::Tls(tls) => tls.one_way(messages, count).await,
        }
    }

    /// `count` requests, one after the other, each answered: the time for all.
    ///
    /// # Errors
    /// [`Failed`], also for a message that came wrong.
    ///
    /// # Cancel safety
    /// Not cancel-safe: the link is of no use after it.
    pub async fn round_trips(&self, class: ClassId, requests: &Messages, answers: &Messages, count: usize) -> Result<Duration, Failed> {
        match &self.0 {
            Ends::Peerlane { from, to, .. } => {
                let (from, to) = (from.clone(), to.clone());
                let (requests_, answers_) = (requests.clone(), answers.clone());
                let server = async move {
                    for i in 0..count {
                        requests_.check(i, &whole(&to, class).await?)?;
                        to.send(class, answers_.get(i).clone()).await?;
                    }
                    Ok(())
                };
                let (requests, answers) = (requests.clone(), answers.clone());
                let client = async move {
                    for i in 0..count {
                        from.send(class, requests.get(i).clone()).await?;
                        answers.check(i, &whole(&from, class).await?)?;
                    }
                    Ok(())
                };
                timed(server, client).await
            }
            Ends::Quinn(quinn) => quinn.round_trips(requests, answers, count).await,
            Ends::Tls(tls) => tls.round_trips(requests, answers, count).await,
        }
    }
}

async fn whole(connection: &Connection, class: ClassId) -> Result<bytes::Bytes, Failed> {
    match connection.recv(class).await? {
        Inbound::Whole(message) => Ok(message),
        Inbound::Streamed(_) => Err(Failed::Setup("a streamed message".into())),
    }
}

/// Runs both on the runtime: the time until `last` is done.
pub(crate) async fn timed(
    first: impl Future<Output = Result<(), Failed>> + Send + 'static,
    last: impl Future<Output = Result<(), Failed>> + Send + 'static,
) -> Result<Duration, Failed> {
    let start = Instant::now();
    let first = tokio::spawn(first);
    let last = tokio::spawn(async move { last.await.map(|()| Instant::now()) });
    let end = last.await??;
    first.await??;
    Ok(end - start)
}
