//! Raw tokio-rustls, with the sockets' options and the TLS configuration of peerlane-tcp.

use std::{net::SocketAddr, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use peerlane_tcp::TcpConfig;
use peerlane_transport::{
    PathStats,
    identity::{TlsOptions, server_name},
    limits,
};
use socket2::{SockRef, Socket};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{
    Failed, Style,
    framed::{Raw, Sink, Source, ended},
    job::Pair,
    peers::{DIALER, LISTENER, identity, local, peer},
    runtimes::Ends,
};

type Stream = TlsStream<TcpStream>;
pub(crate) type TlsEnd = Raw<WriteHalf<Stream>, Buffered>;

fn setup(error: impl std::fmt::Display) -> Failed {
    Failed::Setup(error.to_string())
}

pub(crate) async fn open(runtimes: Ends, style: Style) -> Result<Pair<TlsEnd>, Failed> {
    let options = TlsOptions::default;
    let listen = async move {
        let acceptor = TlsAcceptor::from(Arc::new(peer(LISTENER)?.tls.server_config(&options()).map_err(setup)?));
        let listener = TcpListener::bind(local()).await?;
        let addr = listener.local_addr()?;
        let accept = async move {
            let (stream, _) = listener.accept().await?;
            let socket = tuned(&stream)?;
            Ok(end(acceptor.accept(stream).await?.into(), socket, style))
        };
        Ok((addr, accept))
    };
    let dial = |addr: SocketAddr| async move {
        let connector = TlsConnector::from(Arc::new(peer(DIALER)?.tls.client_config(&options()).map_err(setup)?));
        let name = server_name(&identity(LISTENER)?.peer_id()).map_err(setup)?;
        let stream = TcpStream::connect(addr).await?;
        let socket = tuned(&stream)?;
        Ok(end(connector.connect(name, stream).await?.into(), socket, style))
    };
    Pair::meet(runtimes, listen, dial).await
}

/// Sets what peerlane-tcp sets by default and a transfer feels; gives the socket to be asked for it.
fn tuned(stream: &TcpStream) -> std::io::Result<Socket> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(TcpConfig::default().notsent_lowat)?;
    socket.try_clone()
}

fn end(mut stream: Stream, socket: Socket, style: Style) -> TlsEnd {
    match &mut stream {
        TlsStream::Client(client) => client.get_mut().1.set_buffer_limit(Some(limits::QUANTUM)),
        TlsStream::Server(server) => server.get_mut().1.set_buffer_limit(Some(limits::QUANTUM)),
    }
    let (reader, writer) = tokio::io::split(stream);
    Raw::new(writer, Buffered { stream: reader, buffer: BytesMut::new() }, style, move || path_stats(&socket))
}

/// As read back from the kernel.
fn path_stats(socket: &Socket) -> PathStats {
    let mut path = PathStats::unknown();
    path.socket_buffers = socket.send_buffer_size().ok().zip(socket.recv_buffer_size().ok());
    #[cfg(target_os = "linux")]
    {
        let name = socket.tcp_congestion().ok();
        path.congestion_control = name.map(|name| String::from_utf8_lossy(&name).trim_end_matches('\0').into());
    }
    path
}

impl Sink for WriteHalf<Stream> {
    /// From a quantum on: two pieces, one record after the other, and no copy but TLS's.
    const COPY: usize = limits::QUANTUM - 1;

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        Ok(self.write_all(bytes).await?)
    }

    async fn write_gathered(&mut self, buffer: &mut BytesMut) -> Result<(), Failed> {
        self.write_all(buffer).await?;
        buffer.clear();
        Ok(())
    }

    async fn write_beside(&mut self, head: [u8; 4], message: Bytes) -> Result<(), Failed> {
        Ok(self.write_all_buf(&mut Buf::chain(&head[..], message)).await?)
    }

    async fn flush(&mut self) -> Result<(), Failed> {
        Ok(AsyncWriteExt::flush(self).await?)
    }
}

/// A stream read into a buffer.
pub(crate) struct Buffered {
    stream: ReadHalf<Stream>,
    buffer: BytesMut,
}

impl Source for Buffered {
    type Piece = BytesMut;

    async fn read_exact(&mut self, into: &mut [u8]) -> Result<(), Failed> {
        self.stream.read_exact(into).await?;
        Ok(())
    }

    async fn front(&mut self) -> Result<&mut BytesMut, Failed> {
        if self.buffer.is_empty() {
            self.buffer.reserve(2 * limits::QUANTUM);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ended());
            }
        }
        Ok(&mut self.buffer)
    }
}
