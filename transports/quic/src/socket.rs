//! UDP sockets with buffers as asked, and what the kernel made of them.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Effective socket buffers in bytes: send, receive. The kernel doubles what is set, for its own bookkeeping
/// (socket(7)); these are as read back, halved.
pub(crate) type Buffers = (usize, usize);

/// Binds, asks for buffers, reads back what there is. A warning is logged once per socket if the kernel cut them.
pub(crate) fn bind(addr: SocketAddr, buffer: usize) -> io::Result<(UdpSocket, Buffers)> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        // Both families on one socket, so that one port number serves whoever dials.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // A refusal isn't an error: what is in force is read back below.
    let _ = socket.set_send_buffer_size(buffer);
    let _ = socket.set_recv_buffer_size(buffer);
    let halved = if cfg!(target_os = "linux") { 2 } else { 1 };
    let buffers = (socket.send_buffer_size()? / halved, socket.recv_buffer_size()? / halved);
    if buffers.0 < buffer || buffers.1 < buffer {
        tracing::warn!(
            asked = buffer,
            send = buffers.0,
            receive = buffers.1,
            "the kernel cut the UDP buffers: bursts may be lost; raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.bind(&addr.into())?;
    Ok((socket.into(), buffers))
}
