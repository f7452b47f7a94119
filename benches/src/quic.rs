//! Raw quinn: one bidirectional stream between endpoints configured as peerlane-quic's.

use bytes::{Bytes, BytesMut};
use peerlane_quic::QuicConfig;
use peerlane_transport::{PathStats, limits};
use quinn::{Connection, RecvStream, SendStream};

use crate::{
    Failed, Style,
    framed::{Raw, Sink, Source, ended},
    job::Pair,
    peers::{DIALER, LISTENER, identity, local, quic},
    runtimes::Ends,
};

/// Chunks taken at once.
const CHUNKS: usize = 32;

pub(crate) type QuinnEnd = Raw<SendStream, Chunks>;

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Failed {
    Failed::Io(std::io::Error::other(error))
}

pub(crate) async fn open(runtimes: Ends, style: Style) -> Result<Pair<QuinnEnd>, Failed> {
    let listen = async move {
        let transport = quic(LISTENER)?;
        let endpoint = transport.raw_listen(local())?;
        let addr = endpoint.local_addr()?;
        let accept = async move {
            let connection = transport.raw_accept(&endpoint).await?;
            let (send, mut receive) = connection.accept_bi().await.map_err(other)?;
            receive.read_exact(&mut [0]).await.map_err(other)?;
            Ok(end(send, receive, style, connection, (transport, endpoint)))
        };
        Ok((addr, accept))
    };
    let dial = |addr| async move {
        let transport = quic(DIALER)?;
        let connection = transport.raw_dial(addr, &identity(LISTENER)?.peer_id()).await?;
        let (mut send, receive) = connection.open_bi().await.map_err(other)?;
        // A stream is known to the other side with its first byte.
        send.write_all(&[0]).await.map_err(other)?;
        Ok(end(send, receive, style, connection, transport))
    };
    Pair::meet(runtimes, listen, dial).await
}

/// `open`: what has to stay.
fn end(send: SendStream, receive: RecvStream, style: Style, connection: Connection, open: impl Send + Sync + 'static) -> QuinnEnd {
    let chunks = Chunks { stream: receive, chunks: [const { Bytes::new() }; CHUNKS], next: 0, count: 0 };
    Raw::new(send, chunks, style, move || {
        let _ = &open;
        path_stats(&connection)
    })
}

/// As peerlane-quic tells it of its own, but for the socket's buffers, which quinn hides.
fn path_stats(connection: &Connection) -> PathStats {
    let stats = connection.stats().path;
    let mut path = PathStats::unknown();
    path.rtt = Some(stats.rtt);
    path.cwnd = Some(stats.cwnd);
    path.lost = Some(stats.lost_packets);
    path.sent = Some(stats.sent_packets);
    path.mtu = Some(stats.current_mtu);
    path.congestion_control = Some(QuicConfig::default().congestion.name().into());
    path
}

impl Sink for SendStream {
    const COPY: usize = 1024;

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.write_all(bytes).await.map_err(other)
    }

    /// quinn keeps the buffer until it's acknowledged, and needs no copy.
    async fn write_gathered(&mut self, buffer: &mut BytesMut) -> Result<(), Failed> {
        let gathered = std::mem::replace(buffer, BytesMut::with_capacity(limits::QUANTUM));
        self.write_chunk(gathered.freeze()).await.map_err(other)
    }

    async fn write_beside(&mut self, head: [u8; 4], message: Bytes) -> Result<(), Failed> {
        self.write_all_chunks(&mut [Bytes::copy_from_slice(&head), message]).await.map_err(other)
    }

    /// quinn sends what it has.
    async fn flush(&mut self) -> Result<(), Failed> {
        Ok(())
    }
}

/// A stream read chunk by chunk.
pub(crate) struct Chunks {
    stream: RecvStream,
    chunks: [Bytes; CHUNKS],
    /// Of `chunks`, which is next.
    next: usize,
    /// How many there are.
    count: usize,
}

impl Source for Chunks {
    type Piece = Bytes;

    async fn read_exact(&mut self, into: &mut [u8]) -> Result<(), Failed> {
        self.stream.read_exact(into).await.map_err(other)
    }

    async fn front(&mut self) -> Result<&mut Bytes, Failed> {
        while self.next < self.count && self.chunks[self.next].is_empty() {
            self.next += 1;
        }
        if self.next == self.count {
            self.count = self.stream.read_chunks(&mut self.chunks).await.map_err(other)?.ok_or_else(ended)?;
            self.next = 0;
        }
        Ok(&mut self.chunks[self.next])
    }
}
