//! One end of a connection: the control stream that carries the hello, and the driver of the session after it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use peerlane_transport::{
    Closed, ClosedBy, ConnectError, Connection, Control, Session, SessionInfo,
    admission::Terms,
    class::{DatagramState, Outgoing},
    hello,
    identity::{PeerId, Remote},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    network::Network,
    receiver::Receiver,
    wire::{Channel, EndId},
};

/// Largest message that goes as a datagram, in bytes: what QUIC can count on (RFC 9000, section 14), less its head.
const DATAGRAM: usize = 1150;

/// The control channel as a stream of bytes, for the hello. Dropping it hangs up.
pub(crate) struct SimStream {
    network: Arc<Network>,
    end: EndId,
    receiver: Arc<Receiver>,
    /// The end has been said, or the stream belongs to a session.
    done: bool,
}

/// What is known of a connection before its hello.
pub(crate) struct Meeting {
    pub(crate) dialed: bool,
    /// Who is at the other end.
    pub(crate) peer: PeerId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl SimStream {
    pub(crate) fn new(network: Arc<Network>, end: EndId, receiver: Arc<Receiver>) -> Self {
        Self { network, end, receiver, done: false }
    }

    /// Exchanges hellos, and starts the session.
    pub(crate) async fn meet(
        mut self,
        terms: &Terms,
        admit: Result<(), Closed>,
        meeting: Meeting,
    ) -> Result<(Arc<Session>, Connection), ConnectError> {
        let (agreed, early) = hello::exchange(&mut self, terms, admit).await?;
        let info = SessionInfo {
            transport: "sim",
            dialed: meeting.dialed,
            remote: Remote::authenticated(meeting.peer),
            local_addr: meeting.local.to_string(),
            remote_addr: meeting.remote.to_string(),
            exporter: self.exporter(),
            path: self.network.path_stats(self.end),
        };
        let (session, connection) = Session::start(info, agreed, terms.classes.clone(), terms.limits.clone());
        self.receiver.start(session.clone(), early);
        tokio::spawn(drive(self.network.clone(), self.end, session.clone()));
        self.done = true;
        Ok((session, connection))
    }

    /// What both ends of this connection know and no other does.
    fn exporter(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("peerlane-sim exporter");
        hasher.update(&self.network.seed.to_be_bytes()).update(&self.end.wire.to_be_bytes());
        *hasher.finalize().as_bytes()
    }

    fn hang_up(&mut self) {
        if !std::mem::replace(&mut self.done, true) {
            self.network.transmit(self.end, Channel::Control, Vec::new(), true);
            self.network.close(self.end);
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.receiver.poll_control(cx, into)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.done {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.network.transmit(self.end, Channel::Control, vec![Bytes::copy_from_slice(bytes)], false);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hang_up();
        Poll::Ready(Ok(()))
    }
}

/// Sends what the session's outbox gives, one segment at a time and none before it may leave, so that the session's
/// scheduler decides what goes next. Ends with the connection.
async fn drive(network: Arc<Network>, end: EndId, session: Arc<Session>) {
    let (outbox, over) = (session.outbox(), session.over());
    loop {
        let segment = tokio::select! {
            biased;
            segment = network.permit(end) => segment,
            () = over.cancelled() => break,
        };
        let next = tokio::select! {
            biased;
            next = outbox.ready(segment, DatagramState::Ready(DATAGRAM.min(segment))) => next,
            () = over.cancelled() => break,
        };
        match next {
            Outgoing::Control(frames) => network.transmit(end, Channel::Control, vec![frames], false),
            Outgoing::Segment(segment) => network.transmit(end, Channel::Lane(segment.lane), segment.chunks, segment.fin),
            Outgoing::Datagram { class, message } => network.transmit(end, Channel::Datagram(class.0), vec![message], false),
            other => tracing::error!(?other, "the outbox gave what this transport doesn't know"),
        }
    }
    if let Some(Closed { by: ClosedBy::Local, code, reason }) = session.closed() {
        // What was promised before the end, DRAINED above all, goes before it; the queues are empty by now.
        while let Some(Outgoing::Control(frames)) = outbox.next(0, DatagramState::None) {
            network.transmit(end, Channel::Control, vec![frames], false);
        }
        let mut close = BytesMut::new();
        Control::Close { code: code.number(), reason: Bytes::copy_from_slice(reason.as_bytes()) }.encode(&mut close);
        network.transmit(end, Channel::Control, vec![close.freeze()], true);
    }
    network.close(end);
}
