//! The traits that a transport implements: dial, listen, accept, upgrade.
//!
//! They're small because a [`Connection`] is not a trait: queues, scheduler, credit, liveness and graceful close
//! are one piece of code ([`crate::connection::Session`]) that every transport drives. A transport brings a
//! handshake and moves lanes' bytes. Over a byte stream even that is done:
//! [`framing::drive`](crate::framing::drive).

use std::{fmt, future::Future, sync::Arc};

use futures_util::future::BoxFuture;

use super::Connection;
use crate::{ConnectError, ListenError};

/// A way to reach peers. Cheap to clone or shared by [`Arc`]; dropping it ends no connection.
pub trait Transport: Send + Sync + 'static {
    /// Whom to dial: for peerlane's own transports a [`PeerAddr`](crate::identity::PeerAddr), which names the key expected.
    type Addr: Clone + fmt::Debug + fmt::Display + Send + Sync + 'static;
    /// Where to listen.
    type Local: Clone + fmt::Debug + fmt::Display + Send + Sync + 'static;
    /// What [`listen`](Self::listen) gives.
    type Listener: Listener<Local = Self::Local>;

    /// The name in logs, metrics and `--transport`.
    fn name(&self) -> &'static str;

    /// Dials, proves both identities, exchanges hellos. Complete only when the other side has accepted.
    ///
    /// # Errors
    /// A [`ConnectError`] that says which side refused and why; [`ConnectError::may_retry`] tells whether to try again.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt and frees everything; the other side sees a handshake that ends.
    fn dial(&self, addr: &Self::Addr) -> impl Future<Output = Result<Connection, ConnectError>> + Send;

    /// Starts to listen.
    ///
    /// # Errors
    /// [`ListenError::Bind`] naming the address.
    ///
    /// # Cancel safety
    /// Dropping the future frees the address.
    fn listen(&self, local: &Self::Local) -> impl Future<Output = Result<Self::Listener, ListenError>> + Send;

    /// Waits until dialed connections that were closed have said their last words: call it before a process ends.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    fn idle(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Where connections arrive. Dropping it stops listening; accepted connections live on.
pub trait Listener: Send + 'static {
    /// Where it listens.
    type Local: fmt::Display;
    /// A connection that has arrived and isn't a peer yet.
    type Upgrade: Upgrade;

    /// Where it really listens (a port 0 is resolved).
    fn local(&self) -> Self::Local;

    /// The next arrival. Returns at once with the handshake still to be done, so that a slow one never holds the next.
    ///
    /// # Errors
    /// [`ListenError::Closed`] when the listener is over. A failure that concerns one arrival is logged and skipped.
    ///
    /// # Cancel safety
    /// Cancel-safe: no arrival is lost.
    fn accept(&mut self) -> impl Future<Output = Result<Self::Upgrade, ListenError>> + Send;
}

/// A handshake to be done. Dropping it refuses the arrival.
pub trait Upgrade: Send + 'static {
    /// Where it comes from, for logs.
    fn remote_addr(&self) -> String;

    /// Does the handshake and the hello, within the handshake timeout.
    ///
    /// # Errors
    /// A [`ConnectError`] that says which side refused and why.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the handshake and frees everything.
    fn upgrade(self) -> impl Future<Output = Result<Connection, ConnectError>> + Send;
}

/// An [`Upgrade`] of a transport chosen at run time.
pub struct AnyUpgrade {
    remote_addr: String,
    upgrade: BoxFuture<'static, Result<Connection, ConnectError>>,
}

impl AnyUpgrade {
    /// Where it comes from, for logs.
    pub fn remote_addr(&self) -> &str {
        &self.remote_addr
    }

    /// See [`Upgrade::upgrade`].
    ///
    /// # Errors
    /// As [`Upgrade::upgrade`].
    ///
    /// # Cancel safety
    /// As [`Upgrade::upgrade`].
    pub async fn upgrade(self) -> Result<Connection, ConnectError> {
        self.upgrade.await
    }
}

trait DynListener<L>: Send {
    fn local(&self) -> L;
    fn accept(&mut self) -> BoxFuture<'_, Result<AnyUpgrade, ListenError>>;
}

impl<T: Listener> DynListener<T::Local> for T {
    fn local(&self) -> T::Local {
        Listener::local(self)
    }

    fn accept(&mut self) -> BoxFuture<'_, Result<AnyUpgrade, ListenError>> {
        Box::pin(async {
            let upgrade = Listener::accept(self).await?;
            Ok(AnyUpgrade { remote_addr: upgrade.remote_addr(), upgrade: Box::pin(upgrade.upgrade()) })
        })
    }
}

/// A [`Listener`] of a transport chosen at run time.
pub struct AnyListener<L>(Box<dyn DynListener<L>>);

impl<L> AnyListener<L> {
    /// See [`Listener::local`].
    pub fn local(&self) -> L {
        self.0.local()
    }

    /// See [`Listener::accept`].
    ///
    /// # Errors
    /// As [`Listener::accept`].
    ///
    /// # Cancel safety
    /// As [`Listener::accept`].
    pub async fn accept(&mut self) -> Result<AnyUpgrade, ListenError> {
        self.0.accept().await
    }
}

trait DynTransport<A, L>: Send + Sync {
    fn name(&self) -> &'static str;
    fn dial<'a>(&'a self, addr: &'a A) -> BoxFuture<'a, Result<Connection, ConnectError>>;
    fn listen<'a>(&'a self, local: &'a L) -> BoxFuture<'a, Result<AnyListener<L>, ListenError>>;
    fn idle(&self) -> BoxFuture<'_, ()>;
}

impl<T: Transport> DynTransport<T::Addr, T::Local> for T {
    fn name(&self) -> &'static str {
        Transport::name(self)
    }

    fn dial<'a>(&'a self, addr: &'a T::Addr) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(Transport::dial(self, addr))
    }

    fn listen<'a>(&'a self, local: &'a T::Local) -> BoxFuture<'a, Result<AnyListener<T::Local>, ListenError>> {
        Box::pin(async move { Ok(AnyListener(Box::new(Transport::listen(self, local).await?))) })
    }

    fn idle(&self) -> BoxFuture<'_, ()> {
        Box::pin(Transport::idle(self))
    }
}

/// A transport chosen at run time: all that share their kinds of address fit in one list.
pub struct AnyTransport<A, L>(Arc<dyn DynTransport<A, L>>);

impl<A, L> Clone for AnyTransport<A, L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A, L> fmt::Debug for AnyTransport<A, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyTransport({})", self.0.name())
    }
}

impl<A, L> AnyTransport<A, L> {
    /// Erases a transport's type.
    pub fn new<T: Transport<Addr = A, Local = L>>(transport: T) -> Self {
        Self(Arc::new(transport))
    }

    /// See [`Transport::name`].
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// See [`Transport::dial`].
    ///
    /// # Errors
    /// As [`Transport::dial`].
    ///
    /// # Cancel safety
    /// As [`Transport::dial`].
    pub async fn dial(&self, addr: &A) -> Result<Connection, ConnectError> {
        self.0.dial(addr).await
    }

    /// See [`Transport::listen`].
    ///
    /// # Errors
    /// As [`Transport::listen`].
    ///
    /// # Cancel safety
    /// As [`Transport::listen`].
    pub async fn listen(&self, local: &L) -> Result<AnyListener<L>, ListenError> {
        self.0.listen(local).await
    }

    /// See [`Transport::idle`].
    ///
    /// # Cancel safety
    /// As [`Transport::idle`].
    pub async fn idle(&self) {
        self.0.idle().await;
    }
}
