//! The suite's tools: peers, pairs of connections, and what to wait for.

use std::{
    any::Any,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Capabilities, Factory,
    report::{Stop, Verdict, ensure},
    streams::{message, whole},
};
use crate::{
    ClassId, ClassTable, ConnectError, Connection, Listener, Transport, Upgrade,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerId},
    limits::Limits,
    sync::Mutex,
};

/// Without progress for so long, something is stuck. Longer than a busy machine's hiccups; where it errs, a check is
/// weaker, never wrong.
const STUCK: Duration = Duration::from_millis(400);

/// What a factory dials, and what it accepts on.
pub(super) type AddrOf<F> = <<F as Factory>::Transport as Transport>::Addr;
pub(super) type ListenerOf<F> = <<F as Factory>::Transport as Transport>::Listener;

/// What every check is given.
pub(super) struct Kit<F> {
    pub(super) factory: F,
    pub(super) claims: Capabilities,
    step: Mutex<String>,
}

/// A peer and its transport.
pub(super) struct Peer<F: Factory> {
    pub(super) local: LocalPeer,
    pub(super) transport: F::Transport,
}

/// Two ends of a connection; `a` dialed.
pub(super) struct Pair {
    pub(super) a: Connection,
    pub(super) b: Connection,
    /// Transports and listener, so that no check depends on whether connections outlive them.
    _keep: Mutex<Box<dyn Any + Send>>,
}

/// The standard classes and limits.
pub(super) fn terms() -> Terms {
    Terms { network: "conformance".into(), classes: ClassTable::standard(), limits: Limits::default() }
}

/// Other classes.
pub(super) fn terms_of(classes: ClassTable) -> Terms {
    Terms { classes, ..terms() }
}

/// A class of the standard table.
pub(super) fn standard(name: &str) -> Result<ClassId, Stop> {
    ClassTable::standard().by_name(name).ok_or_else(|| Stop::Failed(format!("no class {name:?}")))
}

/// What became of a meeting: the dialer's result, and the listener's if anybody arrived there.
pub(super) struct Meeting {
    pub(super) dialer: Result<Connection, ConnectError>,
    pub(super) listener: Option<Result<Connection, ConnectError>>,
}

impl<F: Factory> Kit<F> {
    pub(super) fn new(factory: F, claims: Capabilities) -> Self {
        Self { factory, claims, step: Mutex::default() }
    }

    /// Says what is being done: the report names it if it fails or hangs.
    pub(super) fn step(&self, what: impl Into<String>) {
        *self.step.lock() = what.into();
    }

    pub(super) fn current_step(&self) -> String {
        self.step.lock().clone()
    }

    /// Ends the check as not claimed unless it is.
    pub(super) fn needs(&self, claimed: bool, what: &'static str) -> Verdict {
        if claimed { Ok(()) } else { Err(Stop::NotClaimed(what)) }
    }

    /// A peer with a new key that admits everybody.
    pub(super) fn peer(&self, terms: &Terms) -> Result<Peer<F>, Stop> {
        self.peer_of(&Identity::generate()?, Lists::everybody(), terms)
    }

    /// A peer of this key and these lists.
    pub(super) fn peer_of(&self, identity: &Identity, lists: Lists, terms: &Terms) -> Result<Peer<F>, Stop> {
        self.peer_with(LocalPeer::new(identity, Arc::new(lists), terms.clone())?)
    }

    pub(super) fn peer_with(&self, local: LocalPeer) -> Result<Peer<F>, Stop> {
        Ok(Peer { transport: self.factory.transport(&local)?, local })
    }

    /// Starts to listen, and says how that is dialed.
    pub(super) async fn listen(&self, peer: &Peer<F>) -> Result<(ListenerOf<F>, AddrOf<F>), Stop> {
        let listener = peer.transport.listen(&self.factory.local()).await?;
        let addr = self.factory.addr(&listener.local(), peer.id());
        Ok((listener, addr))
    }

    /// A connection between two new peers, which both have these terms.
    pub(super) async fn pair(&self, terms: &Terms) -> Result<Pair, Stop> {
        let (dialer, listener) = (self.peer(terms)?, self.peer(terms)?);
        let (mut port, addr) = self.listen(&listener).await?;
        let (a, b) = meet(&dialer, &addr, &mut port).await.both()?;
        Ok(Pair { a, b, _keep: Mutex::new(Box::new((dialer, listener, port))) })
    }

    /// A connection between two new peers of the standard classes.
    pub(super) async fn standard_pair(&self) -> Result<Pair, Stop> {
        self.pair(&terms()).await
    }
}

impl<F: Factory> Peer<F> {
    pub(super) fn id(&self) -> PeerId {
        self.local.peer_id()
    }
}

/// Dials and accepts at once.
pub(super) async fn meet<F: Factory>(dialer: &Peer<F>, addr: &AddrOf<F>, listener: &mut ListenerOf<F>) -> Meeting {
    // Told when the dialer has failed: perhaps before anybody could arrive.
    let failed = tokio::sync::Notify::new();
    let dial = async {
        let dialed = dialer.transport.dial(addr).await;
        if dialed.is_err() {
            failed.notify_one();
        }
        dialed
    };
    let accept = async {
        let gone = async {
            failed.notified().await;
            sleep(Duration::from_millis(500)).await;
        };
        let arrival = tokio::select! {
            biased;
            arrival = listener.accept() => arrival.map_err(|error| ConnectError::Config(error.to_string())),
            () = gone => return None,
        };
        Some(match arrival {
            Ok(arrival) => arrival.upgrade().await,
            Err(error) => Err(error),
        })
    };
    let (dialer, listener) = tokio::join!(dial, accept);
    Meeting { dialer, listener }
}

impl Meeting {
    /// Both sides have a connection.
    pub(super) fn both(self) -> Result<(Connection, Connection), Stop> {
        match (self.dialer, self.listener) {
            (Ok(a), Some(Ok(b))) => Ok((a, b)),
            (a, b) => Err(Stop::Failed(format!("no connection: the dialer {}, the listener {}", told(&Some(a)), told(&b)))),
        }
    }

    /// Neither side has one: both errors. The listener's is `None` if nobody arrived.
    pub(super) fn neither(self) -> Result<(ConnectError, Option<ConnectError>), Stop> {
        match (self.dialer, self.listener) {
            (Err(a), None) => Ok((a, None)),
            (Err(a), Some(Err(b))) => Ok((a, Some(b))),
            (a, b) => Err(Stop::Failed(format!("should be refused: the dialer {}, the listener {}", told(&Some(a)), told(&b)))),
        }
    }
}

fn told(result: &Option<Result<Connection, ConnectError>>) -> String {
    match result {
        None => "saw nobody".into(),
        Some(Ok(_)) => "is connected".into(),
        Some(Err(error)) => format!("says {error:?}"),
    }
}

/// So many messages of a class from `a` to `b` and back, one after the other.
pub(super) async fn round_trips(a: &Connection, b: &Connection, class: ClassId, count: u64, len: usize) -> Verdict {
    let ask = async {
        for n in 0..count {
            a.send(class, message(n, len)).await?;
            ensure!(whole(a, class).await? == message(n, len), "the answer {n} isn't what was asked");
        }
        Ok(())
    };
    let answer = async {
        for _ in 0..count {
            b.send(class, whole(b, class).await?).await?;
        }
        Ok(())
    };
    both(ask, answer).await
}

/// Runs two halves of a check; the first that fails ends it.
pub(super) async fn both(one: impl Future<Output = Verdict>, other: impl Future<Output = Verdict>) -> Verdict {
    tokio::try_join!(one, other).map(|_| ())
}

/// Waits until nothing moves on a connection any more: nothing more is sent, nothing arrives.
pub(super) async fn stuck(a: &Connection, b: &Connection) {
    let counts = |connection: &Connection| {
        connection.stats().classes.iter().map(|c| (c.sent_bytes, c.received_bytes, c.received_messages, c.queued_bytes)).collect::<Vec<_>>()
    };
    let mut last = (counts(a), counts(b));
    let mut since = Instant::now();
    while since.elapsed() < STUCK {
        sleep(STUCK / 16).await;
        let now = (counts(a), counts(b));
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// Asks a condition until it holds, at tokio's pace. The check's deadline bounds it.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Polls a future so many times at most, then drops it: `None`.
pub(super) fn give_up_after<T: Future>(polls: u32, future: T) -> impl Future<Output = Option<T::Output>> {
    Limited { left: polls, future: Box::pin(future) }
}

struct Limited<T> {
    left: u32,
    future: Pin<Box<T>>,
}

impl<T: Future> Future for Limited<T> {
    type Output = Option<T::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        match self.future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            // Dropped at once, not at the next wake, which may never come.
            Poll::Pending if self.left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Numbers for the choice of moments: the same in every run.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed << 1 | 1)
    }

    /// 0 to `sides` - 1.
    pub(super) fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as u32) % sides.max(1)
    }
}
