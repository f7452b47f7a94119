//! Attacks by those who haven't proved anything yet.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_transport::{
    Control, Transport,
    admission::{LocalPeer, Terms},
    hello,
    identity::{PeerAddr, TlsOptions, server_name},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Bound, Tally};
use crate::target::{By, NETWORK, Target, stranger};

/// At once, of what takes a while.
const AT_ONCE: usize = 64;
/// Strangers that take turns: making a key costs the attacker, and that isn't what is measured.
const KEYS: usize = 16;

/// One of 2^16 addresses of this machine.
fn address(n: u64) -> SocketAddr {
    let [.., a, b] = n.to_be_bytes();
    (Ipv4Addr::new(127, 77, a, b.max(1)), 0).into()
}

async fn connect(target: &Target, n: u64) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(address(n))?;
    socket.connect(target.socket()).await
}

pub async fn silent(target: Target, mut bound: Bound) -> Tally {
    let mut held = Vec::new();
    let mut tally = Tally::default();
    while bound.more() {
        match timeout(Duration::from_millis(200), connect(&target, tally.done)).await {
            Ok(Ok(stream)) => held.push(stream),
            _ => tally.refused += 1,
        }
        tally.done += 1;
    }
    bound.over().await;
    tally
}

async fn handshakes(target: Target, mut bound: Bound, by: By) -> Tally {
    let strangers: Vec<LocalPeer> = (0..KEYS).map(|_| stranger()).collect();
    let (mut tally, mut running) = (Tally::default(), JoinSet::<bool>::new());
    while bound.more() {
        if running.len() >= AT_ONCE
            && let Some(ended) = running.join_next().await
        {
            tally.refused += u64::from(!ended.unwrap());
        }
        let (target, local) = (target.clone(), strangers[tally.done as usize % KEYS].clone());
        running.spawn(async move { target.dial(&local, by).await.is_ok() });
        tally.done += 1;
    }
    tally
}

pub async fn tcp_handshakes(target: Target, bound: Bound) -> Tally {
    handshakes(target, bound, By::Tcp).await
}

pub async fn quic_handshakes(target: Target, bound: Bound) -> Tally {
    handshakes(target, bound, By::Quic).await
}

/// TLS with a key that nobody knows, and nothing more.
pub async fn secured(target: &Target, n: u64) -> Option<TlsStream<TcpStream>> {
    let local = stranger();
    let config = local.tls.client_config(&TlsOptions::default()).unwrap();
    let stream = connect(target, n).await.ok()?;
    let connector = TlsConnector::from(Arc::new(config));
    timeout(Duration::from_secs(1), connector.connect(server_name(&target.addr.id).unwrap(), stream)).await.ok()?.ok()
}

pub async fn slow_hello(target: Target, mut bound: Bound) -> Tally {
    let (mut tally, mut running) = (Tally::default(), JoinSet::new());
    while bound.more() && running.len() < AT_ONCE {
        if let Some(mut stream) = secured(&target, tally.done).await {
            tally.done += 1;
            running.spawn(async move {
                let mut frame = bytes::BytesMut::new();
                Control::Hello(hello::encode(&Terms::new(NETWORK).unwrap())).encode(&mut frame);
                for byte in frame {
                    if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        } else {
            tally.refused += 1;
        }
    }
    bound.over().await;
    tally
}

/// First packets as a dialer sends them, each of another connection: taken from dials to a socket that never answers.
async fn first_packets(target: &Target, count: usize) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let nowhere = PeerAddr::new(target.addr.id, sink.local_addr().unwrap());
    let mut packets = Vec::new();
    let mut packet = [0; 2048];
    for _ in 0..count {
        let transport = QuicTransport::new(stranger(), QuicConfig::default()).unwrap();
        let dialing = transport.dial(&nowhere);
        let received = async { sink.recv(&mut packet).await.unwrap() };
        tokio::select! {
            _ = dialing => {}
            len = received => packets.push(packet[..len].to_vec()),
        }
    }
    packets
}

/// Sends packets in turn, from many addresses.
async fn spray(target: &Target, bound: &mut Bound, mut packet: impl FnMut(u64) -> Vec<u8>) -> Tally {
    const SOCKETS: u64 = 256;
    let sockets: Vec<_> = (0..SOCKETS).map(|n| std::net::UdpSocket::bind(address(n * 251)).unwrap()).collect();
    sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
    let to = target.socket();
    let mut tally = Tally::default();
    while bound.more() {
        match sockets[(tally.done % SOCKETS) as usize].send_to(&packet(tally.done), to) {
            Ok(_) => {}
            Err(_) => tally.refused += 1,
        }
        tally.done += 1;
    }
    tally
}

pub async fn initials(target: Target, mut bound: Bound) -> Tally {
    let packets = first_packets(&target, 8).await;
    spray(&target, &mut bound, |n| packets[n as usize % packets.len()].clone()).await
}

pub async fn garbage(target: Target, mut bound: Bound) -> Tally {
    spray(&target, &mut bound, |n| {
        let mut bytes = vec![0; 1200];
        rand::fill(&mut bytes[..64]);
        // Long headers of QUIC version 1, short headers, and whatever else.
        match n % 3 {
            0 => bytes[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]),
            1 => bytes[0] = 0x40 | bytes[0] & 0x3f,
            _ => {}
        }
        bytes
    })
    .await
}
