//! Dialing, listening, accepting: the traits of core over a [`World`](crate::World).

use std::{fmt, io, net::SocketAddr, sync::Arc};

use peerlane_transport::{
    CloseCode, Closed, ConnectError, Connection, ListenError, Listener, Transport, Upgrade,
    admission::{Lists, Terms},
    hello,
    identity::{Admission, Host, IdentityError, PeerAddr, PeerId},
};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    connection::{Meeting, SimStream},
    network::Network,
    raw::RawConnection,
};

/// One peer's way into a [`World`](crate::World). Cheap to clone.
///
/// Provided: the hello, and what it refuses (version, network, classes); the check of the key that is dialed; lists;
/// every class on lanes of its own; datagrams. Not provided: certificates and encryption (a peer is whom the world
/// says), the handshake gate, names in place of addresses.
#[derive(Clone)]
pub struct SimTransport {
    network: Arc<Network>,
    peer: PeerId,
    terms: Terms,
    lists: Arc<Lists>,
}

impl fmt::Debug for SimTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimTransport").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl SimTransport {
    pub(crate) fn new(network: Arc<Network>, peer: PeerId, terms: Terms) -> Self {
        Self { network, peer, terms, lists: Arc::new(Lists::everybody()) }
    }

    /// Admits whom these lists admit, and closes a connection when they don't any more.
    #[must_use]
    pub fn with_lists(self, lists: Arc<Lists>) -> Self {
        Self { lists, ..self }
    }

    /// Whose it is.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// Dials, exchanges hellos, and gives the connection to a caller who keeps to no rule: see [`RawConnection`].
    ///
    /// # Errors
    /// As [`dial`](Transport::dial), but for identities, which aren't looked at.
    ///
    /// # Cancel safety
    /// If the future is dropped, the connection is hung up.
    pub async fn dial_raw(&self, address: SocketAddr) -> Result<RawConnection, ConnectError> {
        let refused = || ConnectError::Unreachable { addr: address.to_string(), source: io::ErrorKind::ConnectionRefused.into() };
        let dialed = self.network.dial(self.peer, &self.terms.classes, address).ok_or_else(refused)?;
        let mut stream = SimStream::new(self.network.clone(), dialed.end, dialed.receiver.clone());
        let limit = self.terms.limits.handshake_timeout;
        let met = timeout(limit, hello::exchange(&mut stream, &self.terms, Ok(()))).await;
        met.map_err(|_| ConnectError::Timeout { what: "the handshake", limit })??;
        Ok(RawConnection::new(stream, self.network.clone(), dialed.end, &dialed.receiver, dialed.peer))
    }

    /// As the real transports judge after their handshake: the key expected, the lists, and not our own.
    fn judge(&self, expected: Option<PeerId>, found: PeerId) -> Result<(), (IdentityError, Closed)> {
        let error = match (expected, self.lists.admits(&found)) {
            (Some(expected), _) if expected != found => IdentityError::WrongKey { expected, found },
            (_, Err(why)) => IdentityError::Refused { peer: found, why },
            _ if found == self.peer => IdentityError::Ourselves,
            _ => return Ok(()),
        };
        let code = if matches!(error, IdentityError::WrongKey { .. }) { CloseCode::WrongKey } else { CloseCode::NotAdmitted };
        let closed = Closed::local(code, error.to_string());
        Err((error, closed))
    }

    async fn meet(&self, stream: SimStream, expected: Option<PeerId>, meeting: Meeting) -> Result<Connection, ConnectError> {
        let (peer, limit) = (meeting.peer, self.terms.limits.handshake_timeout);
        let (admit, error) = match self.judge(expected, peer) {
            Ok(()) => (Ok(()), None),
            Err((error, closed)) => (Err(closed), Some(error)),
        };
        let met = timeout(limit, stream.meet(&self.terms, admit, meeting)).await;
        if let Some(error) = error {
            return Err(error.into());
        }
        let (session, connection) = met.map_err(|_| ConnectError::Timeout { what: "the handshake", limit })??;
        session.guard(self.lists.clone(), peer);
        Ok(connection)
    }
}

impl Transport for SimTransport {
    type Addr = PeerAddr;
    type Local = SocketAddr;
    type Listener = SimListener;

    fn name(&self) -> &'static str {
        "sim"
    }

    async fn dial(&self, addr: &PeerAddr) -> Result<Connection, ConnectError> {
        let unreachable = |source| ConnectError::Unreachable { addr: addr.to_string(), source };
        let address = match &addr.host {
            Host::Address(address) => *address,
            Host::Name(..) => {
                return Err(unreachable(io::Error::new(io::ErrorKind::NotFound, "a simulated world has no names, only addresses")));
            }
        };
        let Some(dialed) = self.network.dial(self.peer, &self.terms.classes, address) else {
            let link = self.network.state().default_link;
            tokio::time::sleep(link.pace(&link).rtt).await;
            return Err(unreachable(io::ErrorKind::ConnectionRefused.into()));
        };
        let stream = SimStream::new(self.network.clone(), dialed.end, dialed.receiver);
        let meeting = Meeting { dialed: true, peer: dialed.peer, local: dialed.local, remote: address };
        match self.meet(stream, Some(addr.id), meeting).await {
            Err(ConnectError::Io(source)) if source.kind() == io::ErrorKind::ConnectionRefused => Err(unreachable(source)),
            result => result,
        }
    }

    async fn listen(&self, local: &SocketAddr) -> Result<SimListener, ListenError> {
        let listened = self.network.listen(self.peer, &self.terms.classes, *local);
        let (local, arrivals) = listened.map_err(|source| ListenError::Bind { addr: local.to_string(), source })?;
        Ok(SimListener { transport: self.clone(), local, arrivals })
    }
}

/// A connection that has arrived at a listener.
pub(crate) struct Arrival {
    pub(crate) stream: SimStream,
    pub(crate) peer: PeerId,
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// Where a peer's connections arrive.
pub struct SimListener {
    transport: SimTransport,
    local: SocketAddr,
    arrivals: mpsc::Receiver<Arrival>,
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimListener").field("peer", &self.transport.peer).field("local", &self.local).finish_non_exhaustive()
    }
}

impl Listener for SimListener {
    type Local = SocketAddr;
    type Upgrade = SimUpgrade;

    fn local(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> Result<SimUpgrade, ListenError> {
        let arrival = self.arrivals.recv().await.ok_or(ListenError::Closed)?;
        Ok(SimUpgrade { transport: self.transport.clone(), arrival })
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.transport.network.unlisten(self.local);
    }
}

/// A connection that isn't one yet.
pub struct SimUpgrade {
    transport: SimTransport,
    arrival: Arrival,
}

impl fmt::Debug for SimUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimUpgrade").field("from", &self.arrival.remote).finish_non_exhaustive()
    }
}

impl Upgrade for SimUpgrade {
    fn remote_addr(&self) -> String {
        self.arrival.remote.to_string()
    }

    async fn upgrade(self) -> Result<Connection, ConnectError> {
        let Arrival { stream, peer, remote, local } = self.arrival;
        self.transport.meet(stream, None, Meeting { dialed: false, peer, local, remote }).await
    }
}
