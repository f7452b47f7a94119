//! quinn without our layer, and with all that this crate sets on it: what benchmarks compare with.
//!
//! Not part of the API: no hello, no check of the other side's key after the handshake, no limits but quinn's.

use std::net::SocketAddr;

use peerlane_transport::{
    ConnectError, ListenError,
    identity::{PeerId, server_name},
};
use quinn::{Connection, Endpoint};

use crate::{QuicTransport, config, congestion::Published, error, socket};

impl QuicTransport {
    /// A quinn endpoint that listens as [`listen`](peerlane_transport::Transport::listen) does.
    ///
    /// # Errors
    /// [`ListenError`], as `listen`.
    #[doc(hidden)]
    pub fn raw_listen(&self, local: SocketAddr) -> Result<Endpoint, ListenError> {
        let bind = |source| ListenError::Bind { addr: local.to_string(), source };
        let (socket, _) = socket::bind(local, self.config().socket_buffer).map_err(bind)?;
        let mut server = config::server(self.peer(), self.config(), self.keys())?;
        server.transport_config(config::transport(self.config(), self.peer(), &Published::new(), None));
        Endpoint::new(self.keys().endpoint(), Some(server), socket, std::sync::Arc::new(quinn::TokioRuntime)).map_err(bind)
    }

    /// Accepts one connection of an endpoint of [`raw_listen`](Self::raw_listen).
    ///
    /// # Errors
    /// [`ConnectError`] if the handshake fails.
    ///
    /// # Cancel safety
    /// An arrival may be lost.
    #[doc(hidden)]
    pub async fn raw_accept(&self, endpoint: &Endpoint) -> Result<Connection, ConnectError> {
        let incoming = endpoint.accept().await.ok_or_else(|| ConnectError::Config("the endpoint is closed".into()))?;
        self.raw_open(incoming.await.map_err(error::connect)?)
    }

    /// Dials an endpoint of [`raw_listen`](Self::raw_listen).
    ///
    /// # Errors
    /// [`ConnectError`] if the handshake fails.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    #[doc(hidden)]
    pub async fn raw_dial(&self, addr: SocketAddr, expected: &PeerId) -> Result<Connection, ConnectError> {
        let mut client = quinn::ClientConfig::new(self.crypto().clone());
        client.transport_config(config::transport(self.config(), self.peer(), &Published::new(), None));
        let (endpoint, _) = self.dialing(addr.is_ipv6())?;
        let name = server_name(expected)?;
        let connecting = endpoint.connect_with(client, addr, &name.to_str()).map_err(|error| ConnectError::Config(error.to_string()))?;
        self.raw_open(connecting.await.map_err(error::connect)?)
    }

    /// Nobody moves the send window here as the driver does: it's as large as the driver would ever make it.
    fn raw_open(&self, connection: Connection) -> Result<Connection, ConnectError> {
        connection.set_send_window(self.config().max_in_flight);
        Ok(connection)
    }
}
