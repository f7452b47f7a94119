//! Peers that do their worst, and strangers.

use std::{any::Any, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    Connection, MessageWriter, Transport,
    identity::{Host, PeerAddr, TlsOptions, server_name},
};
use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::pki_types::ServerName;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::victim::{Victim, local};

/// What keeps an attack up.
pub type Held = Box<dyn Any>;

/// How far it gets with the victim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    TcpStranger,
    QuicStranger,
    Peer,
}

/// What a peer does.
#[derive(Clone, Copy)]
enum Does {
    /// Connects by TCP.
    Connect,
    /// Sends a TLS record that lacks its end.
    HalfRecord,
    /// Does TLS, and sends what is taken.
    NoHello,
    /// Does a QUIC handshake, and sends what is taken.
    NoQuicHello,
    /// A peer that is quiet.
    Idle(By),
    /// Sends messages of this size, or the largest, in every class.
    Messages(By, Option<usize>),
    /// Sends streamed messages in every class, in pieces of this size.
    Streamed(By, usize),
    /// Is sent what the victim's budgets take, and takes nothing.
    Deaf(By),
    /// All that a peer does.
    All(By),
}

#[derive(Clone, Copy)]
pub enum By {
    Quic,
    Tcp,
}

pub struct Scenario {
    pub name: &'static str,
    pub stage: Stage,
    does: Does,
}

const fn scenario(name: &'static str, stage: Stage, does: Does) -> Scenario {
    Scenario { name, stage, does }
}

/// Nothing moves for so long: it's full.
const STUCK: Duration = Duration::from_millis(300);

impl Scenario {
    pub const ALL: &[Self] = &[
        scenario("tcp-connected", Stage::TcpStranger, Does::Connect),
        scenario("tcp-half-record", Stage::TcpStranger, Does::HalfRecord),
        scenario("tcp-no-hello", Stage::TcpStranger, Does::NoHello),
        scenario("quic-no-hello", Stage::QuicStranger, Does::NoQuicHello),
        scenario("tcp-idle", Stage::Peer, Does::Idle(By::Tcp)),
        scenario("tcp-unread-large", Stage::Peer, Does::Messages(By::Tcp, None)),
        scenario("tcp-unread-small", Stage::Peer, Does::Messages(By::Tcp, Some(1))),
        scenario("tcp-unread-streamed", Stage::Peer, Does::Streamed(By::Tcp, 65_536)),
        scenario("tcp-unread-chunks", Stage::Peer, Does::Streamed(By::Tcp, 1)),
        scenario("tcp-reads-nothing", Stage::Peer, Does::Deaf(By::Tcp)),
        scenario("tcp-all-of-it", Stage::Peer, Does::All(By::Tcp)),
        scenario("quic-idle", Stage::Peer, Does::Idle(By::Quic)),
        scenario("quic-unread-large", Stage::Peer, Does::Messages(By::Quic, None)),
        scenario("quic-unread-small", Stage::Peer, Does::Messages(By::Quic, Some(1))),
        scenario("quic-unread-streamed", Stage::Peer, Does::Streamed(By::Quic, 65_536)),
        scenario("quic-unread-chunks", Stage::Peer, Does::Streamed(By::Quic, 1)),
        scenario("quic-reads-nothing", Stage::Peer, Does::Deaf(By::Quic)),
        scenario("quic-all-of-it", Stage::Peer, Does::All(By::Quic)),
    ];

    /// So many do it at once. What they hold is returned for those that the victim let do it.
    pub async fn attack(&self, victim: &mut Victim, count: usize) -> Vec<Held> {
        victim.sends(matches!(self.does, Does::Deaf(_) | Does::All(_)));
        let joining = (0..count).map(|n| self.join(victim, u8::try_from(n % 251).unwrap()));
        join_all(joining).await.into_iter().flatten().collect()
    }

    async fn join(&self, victim: &Victim, n: u8) -> Option<Held> {
        let mut seed = [n; 32];
        seed[0] = 1;
        match self.does {
            Does::Connect => Some(Box::new(tcp(&victim.tcp).await?)),
            Does::HalfRecord => {
                let mut stream = tcp(&victim.tcp).await?;
                // A ClientHello that declares 16,000 bytes, in a record of the largest size, but for its last byte.
                let mut record = vec![22, 3, 1, 0x40, 0, 1, 0, 0x3e, 0x80, 3, 3];
                record.resize(5 + 16_383, 0);
                stream.write_all(&record).await.ok()?;
                Some(Box::new(stream))
            }
            Does::NoHello => {
                let config = local(&seed).tls.client_config(&TlsOptions::default()).unwrap();
                let connector = TlsConnector::from(Arc::new(config));
                let mut stream = connector.connect(server_name(&victim.tcp.id).unwrap(), tcp(&victim.tcp).await?).await.ok()?;
                // The beginning of a frame that never ends, and then bytes.
                let _ = timeout(STUCK, stream.write_all(&vec![0x41; 1 << 20])).await;
                Some(Box::new(stream))
            }
            Does::NoQuicHello => quic_stranger(&victim.quic, &seed).await,
            Does::Idle(by) | Does::Deaf(by) => Some(Box::new(peer(victim, by, &seed).await)),
            Does::Messages(by, size) => {
                let connection = peer(victim, by, &seed).await;
                messages(&connection, size).await;
                Some(Box::new(connection))
            }
            Does::Streamed(by, piece) => {
                let connection = peer(victim, by, &seed).await;
                Some(streamed(connection, piece).await)
            }
            Does::All(by) => {
                let connection = peer(victim, by, &seed).await;
                messages(&connection, None).await;
                messages(&connection, Some(1)).await;
                Some(streamed(connection, 65_536).await)
            }
        }
    }
}

async fn tcp(addr: &PeerAddr) -> Option<TcpStream> {
    let Host::Address(at) = addr.host else { return None };
    TcpStream::connect(at).await.ok()
}

async fn quic_stranger(addr: &PeerAddr, seed: &[u8; 32]) -> Option<Held> {
    let tls = local(seed).tls.client_config(&TlsOptions::default()).unwrap();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let (ServerName::DnsName(name), Host::Address(at)) = (server_name(&addr.id).unwrap(), &addr.host) else { return None };
    let connection = endpoint.connect_with(config, *at, name.as_ref()).unwrap().await.ok()?;
    let mut streams = Vec::new();
    while let Ok(Ok(mut stream)) = timeout(STUCK, connection.open_uni()).await {
        let _ = timeout(STUCK, stream.write_all(&vec![0x41; 1 << 20])).await;
        streams.push(stream);
    }
    Some(Box::new((endpoint, connection, streams)))
}

/// A peer with our own transports: refused while the rate of its address is used up, it comes again.
async fn peer(victim: &Victim, by: By, seed: &[u8; 32]) -> Connection {
    for _ in 0..1000 {
        let dialed = match by {
            By::Quic => QuicTransport::new(local(seed), QuicConfig::default()).unwrap().dial(&victim.quic).await,
            By::Tcp => TcpTransport::new(local(seed), TcpConfig::default()).unwrap().dial(&victim.tcp).await,
        };
        match dialed {
            Ok(connection) => return connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("refused again and again")
}

async fn messages(connection: &Connection, size: Option<usize>) {
    let one = |(class, row): (_, &peerlane_transport::TrafficClass)| {
        let message = Bytes::from(vec![1; size.unwrap_or(row.max_message)]);
        async move { while let Ok(Ok(())) = timeout(STUCK, connection.send(class, message.clone())).await {} }
    };
    join_all(connection.classes().iter().map(one)).await;
}

async fn streamed(connection: Connection, piece: usize) -> Held {
    let each = connection.classes().iter().map(|(class, _)| {
        let connection = &connection;
        async move {
            let mut open = Vec::new();
            while let Ok(Ok(writer)) = timeout(STUCK, connection.open(class)).await {
                open.push(writer);
            }
            join_all(open.iter_mut().map(|writer| fill(writer, piece))).await;
            open
        }
    });
    let open = join_all(each).await;
    Box::new((connection, open))
}

/// As much as is taken, or many chunks.
async fn fill(writer: &mut MessageWriter, piece: usize) {
    for _ in 0..5000 {
        let mut data = Bytes::from(vec![1; piece]);
        if timeout(STUCK, writer.write(&mut data)).await.is_err() {
            return;
        }
        if piece < 100 {
            // So that it may leave in a frame of its own.
            tokio::task::yield_now().await;
        }
    }
}
