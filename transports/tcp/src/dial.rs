//! Dialing: several addresses, each given a head start over the next (RFC 8305), until one of them is the peer.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use peerlane_transport::{
    ConnectError, Connection,
    identity::{IdentityError, PeerAddr},
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    handshake::{self, after, within},
    transport::Shared,
};

/// How long an address is tried before the next one is tried beside it (RFC 8305, section 5, recommends 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);

pub(crate) async fn dial(shared: &Arc<Shared>, addr: &PeerAddr) -> Result<Connection, ConnectError> {
    let limit = shared.handshake_timeout();
    let deadline = after(limit);
    let unreachable = |source| ConnectError::Unreachable { addr: addr.to_string(), source };
    let resolved = within(deadline, limit, "resolving the name", async { Ok(addr.resolve().await) }).await?;
    let addresses = resolved.map_err(|error| unreachable(io::Error::other(error)))?;

    let connect = |addr| shared.settings.connect(addr).boxed();
    let mut attempts = Attempts::new(addresses, &connect);
    let mut refusal = None;
    loop {
        let stream = match timeout_at(deadline, attempts.next()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(refusal.unwrap_or_else(|| unreachable(source))),
            Err(_) => return Err(refusal.unwrap_or(ConnectError::Timeout { what: "connecting", limit })),
        };
        match handshake::dialed(shared, stream, &addr.id, deadline).await {
            Err(error) if !settles(&error) => refusal = Some(error),
            result => return result,
        }
    }
}

/// Whether an error is the answer of the peer that was meant, or about it: another address would give the same.
fn settles(error: &ConnectError) -> bool {
    match error {
        ConnectError::Refused(_) | ConnectError::Timeout { .. } => true,
        ConnectError::Identity(error) => matches!(
            error,
            IdentityError::Refused { .. }
                | IdentityError::RefusedInHandshake
                | IdentityError::RefusedByRemote(_)
                | IdentityError::Ourselves
                | IdentityError::Configuration(_)
        ),
        _ => false,
    }
}

/// Connections in the making, to one address after the other. Dropped, it abandons all of them.
struct Attempts<'a, T> {
    connect: &'a (dyn Fn(SocketAddr) -> BoxFuture<'a, io::Result<T>> + Sync),
    waiting: VecDeque<SocketAddr>,
    running: FuturesUnordered<BoxFuture<'a, io::Result<T>>>,
    /// When the next one may begin though the last one hasn't ended.
    next_start: Instant,
}

impl<'a, T> Attempts<'a, T> {
    fn new(addresses: Vec<SocketAddr>, connect: &'a (dyn Fn(SocketAddr) -> BoxFuture<'a, io::Result<T>> + Sync)) -> Self {
        Self { connect, waiting: interleaved(addresses), running: FuturesUnordered::new(), next_start: Instant::now() }
    }

    /// The next that connects; those that are still trying go on. An error when none is left: the last one's.
    async fn next(&mut self) -> io::Result<T> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        // Asked for another one: the one before was no good, so there's nobody to give a head start to.
        let mut start = true;
        loop {
            if (start || self.running.is_empty())
                && let Some(addr) = self.waiting.pop_front()
            {
                self.running.push((self.connect)(addr));
                self.next_start = Instant::now() + HEAD_START;
            }
            start = tokio::select! {
                biased;
                ended = self.running.next() => match ended {
                    Some(Ok(stream)) => return Ok(stream),
                    Some(Err(error)) => {
                        last = error;
                        true
                    }
                    None => return Err(last),
                },
                () = sleep_until(self.next_start), if !self.waiting.is_empty() => true,
            };
        }
    }
}

/// Families in turn, the resolver's first one first: a whole family without a route costs one head start (RFC 8305,
/// section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (VecDeque<_>, VecDeque<_>) = addresses.into_iter().partition(|addr| addr.is_ipv6() == first_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = VecDeque::new();
    loop {
        let before = all.len();
        all.extend(first.next().into_iter().chain(second.next()));
        if all.len() == before {
            return all;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns_in_the_resolvers_order() {
        let [a, b, c, d] = [addr("[::1]:1"), addr("[::2]:1"), addr("[::3]:1"), addr("1.1.1.1:1")];
        assert_eq!(interleaved(vec![a, b, c, d]), [a, d, b, c]);
        assert_eq!(interleaved(vec![d, a]), [d, a]);
        assert_eq!(interleaved(vec![]), []);
    }

    /// Port 1 never answers, port 2 refuses at once, port 3 connects at once, port 4 after a second.
    fn world<'a>(addr: SocketAddr) -> BoxFuture<'a, io::Result<u16>> {
        async move {
            match addr.port() {
                1 => std::future::pending().await,
                2 => Err(io::ErrorKind::ConnectionRefused.into()),
                4 => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok(4)
                }
                port => Ok(port),
            }
        }
        .boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_one_head_start_and_a_refusing_one_nothing() {
        let ports = |ports: &[u16]| ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
        for (tried, expected, waited) in [(&[1, 3][..], 3, HEAD_START), (&[2, 2, 3], 3, Duration::ZERO), (&[4, 3], 3, HEAD_START)] {
            let start = Instant::now();
            assert_eq!(Attempts::new(ports(tried), &world).next().await.unwrap(), expected);
            assert_eq!(start.elapsed(), waited, "{tried:?}");
        }
        // One that was overtaken goes on, and is the next if the first was no good.
        let mut attempts = Attempts::new(ports(&[4, 3, 2]), &world);
        assert_eq!((attempts.next().await.unwrap(), attempts.next().await.unwrap()), (3, 4));
        assert_eq!(attempts.next().await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(Attempts::new(ports(&[2, 2]), &world).next().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
