//! One-way throughput over loopback, beside plain TLS with the same configuration and socket options, in interleaved
//! pairs: `cargo run --release -p peerlane-tcp --example throughput [PAIRS]`. What our layer costs is the ratio.
//!
//! The plain side is as lean as can be: it writes and reads bytes, and knows no messages. In `256 B one by one` it writes
//! each message by itself, as a naive program does; in `256 B batched` it has 64 of them in each write.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    ClassId, Connection, Inbound, Listener, Transport, Upgrade,
    admission::LocalPeer,
    identity::{Identity, PeerAddr, TlsOptions, server_name},
    limits,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const DATA: ClassId = ClassId(3);

fn peer(seed: u8) -> Result<LocalPeer> {
    Ok(LocalPeer::open(&Identity::from_seed(&[seed; 32])?, "throughput")?)
}

/// Like the transport's own: no delay, as little as may be in the kernel, one record in TLS.
fn tune(stream: &TcpStream) -> Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(TcpConfig::default().notsent_lowat)?;
    Ok(())
}

async fn plain_pair() -> Result<(TlsStream<TcpStream>, TlsStream<TcpStream>)> {
    let (a, b) = (peer(1)?, peer(2)?);
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let stream = TcpStream::connect(listener.local_addr()?).await?;
    let (other, _) = listener.accept().await?;
    tune(&stream)?;
    tune(&other)?;
    let connector = TlsConnector::from(Arc::new(a.tls.client_config(&TlsOptions::default())?));
    let acceptor = TlsAcceptor::from(Arc::new(b.tls.server_config(&TlsOptions::default())?));
    let (dialed, accepted) = tokio::join!(connector.connect(server_name(&b.peer_id())?, stream), acceptor.accept(other));
    let (mut dialed, mut accepted) = (dialed?, accepted?);
    dialed.get_mut().1.set_buffer_limit(Some(limits::QUANTUM));
    accepted.get_mut().1.set_buffer_limit(Some(limits::QUANTUM));
    Ok((dialed.into(), accepted.into()))
}

async fn our_pair() -> Result<(Connection, Connection)> {
    let (a, b) = (peer(1)?, peer(2)?);
    let (dialer, other) = (TcpTransport::new(a, TcpConfig::default())?, TcpTransport::new(b.clone(), TcpConfig::default())?);
    let mut listener = other.listen(&SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let addr = PeerAddr::new(b.peer_id(), listener.local());
    let accepting = async { Ok::<_, Box<dyn Error + Send + Sync>>(listener.accept().await?.upgrade().await?) };
    let (dialed, accepted) = tokio::join!(dialer.dial(&addr), accepting);
    Ok((dialed?, accepted?))
}

/// MB/s of plain TLS, `write` bytes at a time.
async fn plain(write: usize, total: usize) -> Result<f64> {
    let (mut from, mut to) = plain_pair().await?;
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        let message = vec![7; write];
        for _ in 0..total / write {
            from.write_all(&message).await?;
        }
        from.flush().await?;
        Ok::<_, std::io::Error>(from)
    });
    let receiving = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        let mut left = total / write * write;
        while left > 0 {
            let len = to.read(&mut buffer).await?;
            left = left.checked_sub(len).filter(|_| len > 0).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        }
        Ok::<_, std::io::Error>(())
    });
    receiving.await??;
    let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
    sending.await??;
    Ok(rate)
}

/// MB/s of whole messages of `size` bytes.
async fn ours(size: usize, total: usize) -> Result<f64> {
    let (from, to) = our_pair().await?;
    let count = total / size;
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        let message = Bytes::from(vec![7; size]);
        for _ in 0..count {
            from.send(DATA, message.clone()).await?;
        }
        Ok::<_, peerlane_transport::SendError>(from)
    });
    let receiving = tokio::spawn(async move {
        for _ in 0..count {
            let Inbound::Whole(message) = to.recv(DATA).await? else { continue };
            debug_assert_eq!(message.len(), size);
        }
        Ok::<_, peerlane_transport::RecvError>(to)
    });
    let _to = receiving.await??;
    let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
    let _from = sending.await??;
    Ok(rate)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let pairs: usize = std::env::args().nth(1).map_or(Ok(7), |text| text.parse())?;
    // To profile one of them alone: `0 65536 1000000000` is plain, `1 ...` ours.
    if let (Some(size), Some(total)) = (std::env::args().nth(2), std::env::args().nth(3)) {
        let (size, total) = (size.parse()?, total.parse()?);
        let rate = if pairs == 0 { plain(size, total).await? } else { ours(size, total).await? };
        println!("{rate:.0} MB/s");
        return Ok(());
    }
    const MIB: usize = 1 << 20;
    println!("{:<18} {:>12} {:>12} {:>8}", "one way", "plain MB/s", "ours MB/s", "ratio");
    for (name, size, write, total) in
        [("64 KiB", 64 * 1024, 64 * 1024, 256 * MIB), ("256 B one by one", 256, 256, 16 * MIB), ("256 B batched", 256, 16 * 1024, 64 * MIB)]
    {
        let (mut theirs, mut own, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..pairs {
            let (x, y) = (plain(write, total).await?, ours(size, total).await?);
            theirs.push(x);
            own.push(y);
            ratios.push(y / x);
        }
        println!("{name:<18} {:>12.0} {:>12.0} {:>8.2}", median(theirs), median(own), median(ratios));
    }
    Ok(())
}
