//! Our layer: a connection, and in it one class.

use std::net::SocketAddr;

use bytes::Bytes;
use peerlane_transport::{ClassId, Connection, Inbound, Listener, PathStats, Transport, Upgrade, identity::PeerAddr};

use crate::{
    Failed,
    job::{End, Pair, ReceiveHalf, SendHalf},
    peers::{DIALER, LISTENER, identity, local},
    runtimes::Ends,
};

/// One end. Its transport stays as long as it does.
pub(crate) struct OurEnd {
    connection: Connection,
    _transport: Box<dyn Send + Sync>,
}

/// Either half of an end: any number of tasks may send and receive.
pub(crate) struct Lane {
    connection: Connection,
    class: ClassId,
}

pub(crate) async fn open<T>(runtimes: Ends, transport: fn(u8) -> Result<T, Failed>) -> Result<Pair<OurEnd>, Failed>
where
    T: Transport<Addr = PeerAddr, Local = SocketAddr>,
{
    let listen = async move {
        let transport = transport(LISTENER)?;
        let mut listener = transport.listen(&local()).await?;
        let addr = PeerAddr::new(identity(LISTENER)?.peer_id(), listener.local());
        let accept = async move {
            let connection = listener.accept().await?.upgrade().await?;
            Ok(OurEnd { connection, _transport: Box::new(transport) })
        };
        Ok((addr, accept))
    };
    let dial = move |addr| async move {
        let transport = transport(DIALER)?;
        let connection = transport.dial(&addr).await?;
        Ok(OurEnd { connection, _transport: Box::new(transport) })
    };
    Pair::meet(runtimes, listen, dial).await
}

impl End for OurEnd {
    type Send = Lane;
    type Receive = Lane;

    async fn halves(&self, class: ClassId) -> (Lane, Lane) {
        let lane = || Lane { connection: self.connection.clone(), class };
        (lane(), lane())
    }

    fn path(&self) -> PathStats {
        self.connection.stats().path
    }
}

impl SendHalf for Lane {
    async fn send(&mut self, message: &Bytes) -> Result<(), Failed> {
        Ok(self.connection.send(self.class, message.clone()).await?)
    }

    /// What's queued leaves by itself.
    async fn flush(&mut self) -> Result<(), Failed> {
        Ok(())
    }
}

impl ReceiveHalf for Lane {
    async fn receive(&mut self) -> Result<Bytes, Failed> {
        match self.connection.recv(self.class).await? {
            Inbound::Whole(message) => Ok(message),
            Inbound::Streamed(_) => Err(Failed::Setup("a streamed message".into())),
        }
    }
}
