//! The jobs, written once for all links.

use std::time::{Duration, Instant};

use bytes::Bytes;
use peerlane_transport::{ClassId, PathStats};
use tokio::runtime::Handle;

use crate::{Failed, Messages, runtimes::Ends};

/// What sends at one end.
pub(crate) trait SendHalf: Send + 'static {
    /// Sends a message, or puts it to others that [`flush`](Self::flush) sends.
    fn send(&mut self, message: &Bytes) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Sends what hasn't left yet.
    fn flush(&mut self) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// What receives at one end.
pub(crate) trait ReceiveHalf: Send + 'static {
    /// The next message, in a buffer of its own.
    fn receive(&mut self) -> impl Future<Output = Result<Bytes, Failed>> + Send;
}

/// One end of a link.
pub(crate) trait End {
    type Send: SendHalf;
    type Receive: ReceiveHalf;

    /// Both halves for one job; nobody else has them until it's done. Only our layer has classes.
    fn halves(&self, class: ClassId) -> impl Future<Output = (Self::Send, Self::Receive)>;

    /// What is known of the path from this end.
    fn path(&self) -> PathStats;
}

/// The two ends of a link, and where each is driven.
pub(crate) struct Pair<E> {
    dialed: E,
    accepted: E,
    runtimes: Ends,
}

impl<E: End + Send + 'static> Pair<E> {
    /// Opens both ends, each on its runtime: `listen` gives an address and what accepts there, `dial` connects.
    pub(crate) async fn meet<A, Accept, Dial>(
        runtimes: Ends,
        listen: impl Future<Output = Result<(A, Accept), Failed>> + Send + 'static,
        dial: impl FnOnce(A) -> Dial,
    ) -> Result<Self, Failed>
    where
        A: Send + 'static,
        Accept: Future<Output = Result<E, Failed>> + Send + 'static,
        Dial: Future<Output = Result<E, Failed>> + Send + 'static,
    {
        let (addr, accept) = runtimes.listener.spawn(listen).await??;
        let accepted = runtimes.listener.spawn(accept);
        let dialed = runtimes.dialer.spawn(dial(addr)).await??;
        Ok(Self { dialed, accepted: accepted.await??, runtimes })
    }

    /// See [`Link::one_way`](crate::Link::one_way).
    pub(crate) async fn one_way(&self, class: ClassId, messages: &Messages, count: usize) -> Result<Duration, Failed> {
        let ((mut send, _), (_, mut receive)) = (self.dialed.halves(class).await, self.accepted.halves(class).await);
        let (sending, receiving) = (messages.clone(), messages.clone());
        let sender = async move {
            for i in 0..count {
                send.send(sending.get(i)).await?;
            }
            send.flush().await
        };
        let receiver = async move {
            for i in 0..count {
                receiving.check(i, &receive.receive().await?)?;
            }
            Ok(())
        };
        timed((&self.runtimes.dialer, sender), (&self.runtimes.listener, receiver)).await
    }

    /// See [`Link::round_trips`](crate::Link::round_trips).
    pub(crate) async fn round_trips(
        &self,
        class: ClassId,
        requests: &Messages,
        answers: &Messages,
        count: usize,
    ) -> Result<Duration, Failed> {
        let (mut send, mut receive) = self.accepted.halves(class).await;
        let (expected, giving) = (requests.clone(), answers.clone());
        let server = async move {
            for i in 0..count {
                expected.check(i, &receive.receive().await?)?;
                send.send(giving.get(i)).await?;
                send.flush().await?;
            }
            Ok::<_, Failed>(())
        };
        let (mut send, mut receive) = self.dialed.halves(class).await;
        let (asking, expected) = (requests.clone(), answers.clone());
        let client = async move {
            for i in 0..count {
                send.send(asking.get(i)).await?;
                send.flush().await?;
                expected.check(i, &receive.receive().await?)?;
            }
            Ok(())
        };
        timed((&self.runtimes.listener, server), (&self.runtimes.dialer, client)).await
    }

    /// The dialer's and the listener's.
    pub(crate) fn paths(&self) -> [PathStats; 2] {
        [self.dialed.path(), self.accepted.path()]
    }
}

/// Runs each on its runtime: the time until `last` is done.
async fn timed(
    first: (&Handle, impl Future<Output = Result<(), Failed>> + Send + 'static),
    last: (&Handle, impl Future<Output = Result<(), Failed>> + Send + 'static),
) -> Result<Duration, Failed> {
    let start = Instant::now();
    let first = first.0.spawn(first.1);
    // Read by the task itself: how soon the waiting thread wakes is no part of the job.
    let last = last.0.spawn(async move { last.1.await.map(|()| Instant::now()) });
    // What ends the one ends the job: the other may wait for ever.
    let ((), end) = tokio::try_join!(async { first.await? }, async { last.await? })?;
    Ok(end - start)
}
