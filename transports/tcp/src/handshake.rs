//! From a TCP connection to a [`Connection`]: TLS, the check of the other side's key, the hello.
//!
//! The key is compared after every handshake, since a resumed one asks no verifier. A refusal is told to the other
//! side, and then it's listened to a little longer: a socket closed with bytes unread sends a reset, and a reset can
//! overtake what was said.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use peerlane_transport::{
    CloseCode, Closed, ConnectError, Connection, Control, PathStats, Session, SessionInfo,
    admission::JoinToken,
    framing, hello,
    identity::{ALPN, Challenge, IdentityError, PeerId, Remote, check_alpn, server_name},
    limits,
};
use rustls::{AlertDescription, CommonState, ConnectionCommon, Error as TlsError, HandshakeKind};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsStream, server::StartHandshake};

use crate::{joining, socket::Socket, transport::Shared};

/// The transport's name.
pub(crate) const NAME: &str = "tcp";

/// What rustls may hold encrypted and not yet given to the kernel, counted in plaintext: one record.
const TLS_BUFFER: usize = limits::QUANTUM;

/// How long the other side is listened to after a refusal, and for how many bytes.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

pub(crate) const TLS_STEP: &str = "the TLS handshake";

/// `limit` from now; one beyond the clock's range is a day.
pub(crate) fn after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + Duration::from_secs(86_400))
}

/// Does a step of a handshake before the deadline, or says which one took too long.
pub(crate) async fn within<T>(
    deadline: Instant,
    limit: Duration,
    what: &'static str,
    step: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout_at(deadline, step).await.unwrap_or(Err(ConnectError::Timeout { what, limit }))
}

/// The dialer's side.
pub(crate) async fn dialed(
    shared: &Arc<Shared>,
    stream: TcpStream,
    expected: &PeerId,
    deadline: Instant,
) -> Result<Connection, ConnectError> {
    let (socket, ends) = Ends::of(stream);
    let tls = shared.connector.connect(server_name(expected)?, socket).into_fallible();
    match within(deadline, shared.handshake_timeout(), TLS_STEP, async { Ok(tls.await) }).await? {
        Ok(mut tls) => {
            shared.secured(tls.get_mut().1);
            hellos(shared, tls.into(), Some(expected), ends, deadline).await
        }
        Err((error, socket)) => failed(socket, error, deadline).await,
    }
}

/// How a dialer began.
pub(crate) enum Begun {
    /// With what TLS begins with.
    Hello(Box<StartHandshake<Socket>>),
    /// With something else. TLS has told it.
    Failed(io::Error, Option<Socket>),
    /// Not at all.
    Silent,
}

/// The listener's side.
pub(crate) async fn accepted(shared: &Arc<Shared>, begun: Begun, ends: Ends, deadline: Instant) -> Result<Connection, ConnectError> {
    let limit = shared.handshake_timeout();
    let start = match begun {
        Begun::Hello(start) => start,
        Begun::Failed(error, Some(socket)) => return failed(socket, error, deadline).await,
        Begun::Failed(error, None) => return Err(explain(error)),
        Begun::Silent => return Err(ConnectError::Timeout { what: TLS_STEP, limit }),
    };
    let tls = start.into_stream(shared.acceptor.clone()).into_fallible();
    match within(deadline, limit, TLS_STEP, async { Ok(tls.await) }).await? {
        Ok(mut tls) => {
            shared.secured(tls.get_mut().1);
            hellos(shared, tls.into(), None, ends, deadline).await
        }
        Err((error, socket)) => failed(socket, error, deadline).await,
    }
}

impl Shared {
    /// What is to be done as soon as TLS is ready.
    pub(crate) fn secured<D>(&self, tls: &mut ConnectionCommon<D>) {
        tls.set_buffer_limit(Some(TLS_BUFFER));
        let count = if tls.handshake_kind() == Some(HandshakeKind::Resumed) { &self.resumed } else { &self.full };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The other side's key, if it's admitted, and that it speaks this protocol of ours; or the error, and what to tell it.
    pub(crate) fn verdict(
        &self,
        tls: &CommonState,
        alpn: &[u8],
        expected: Option<&PeerId>,
    ) -> Result<(PeerId, Remote), (IdentityError, Closed)> {
        let who = self.local.judge(expected, tls.peer_certificates().unwrap_or_default())?;
        match check_alpn(alpn, tls.alpn_protocol()) {
            Ok(()) => Ok(who),
            Err(error) => {
                let closed = Closed::local(CloseCode::WrongVersion, error.to_string());
                Err((error, closed))
            }
        }
    }
}

/// Keying material that both ends of this TLS connection share (RFC 8446, section 7.5).
fn exported<const N: usize>(tls: &TlsStream<Socket>, label: &[u8]) -> Result<[u8; N], ConnectError> {
    let exported = match tls {
        TlsStream::Client(tls) => tls.get_ref().1.export_keying_material([0; N], label, None),
        TlsStream::Server(tls) => tls.get_ref().1.export_keying_material([0; N], label, None),
    };
    exported.map_err(|error| ConnectError::Handshake(error.to_string()))
}

/// Judges the other side, exchanges hellos, and starts the session.
async fn hellos(
    shared: &Arc<Shared>,
    mut tls: TlsStream<Socket>,
    expected: Option<&PeerId>,
    ends: Ends,
    deadline: Instant,
) -> Result<Connection, ConnectError> {
    let (who, admit) = match shared.verdict(tls.get_ref().1, ALPN, expected) {
        Ok(who) => (Ok(who), Ok(())),
        Err((error, closed)) => (Err(error), Err(closed)),
    };
    let exporter = exported(&tls, Challenge::EXPORTER_LABEL)?;
    let token = JoinToken::from(exported(&tls, JoinToken::EXPORTER_LABEL)?);
    let (joining, carriers) = framing::carriers(shared.carriers.clone());
    let mut extensions = hello::Extensions::default();
    extensions.carriers = shared.most_carriers();
    extensions.copies = shared.copies().is_some();
    // Before the dialer can know that it's accepted: its JOIN may be here before its acceptance is.
    let awaited = match (&who, expected) {
        (Ok((peer, _)), None) if extensions.carriers > 1 => Some(shared.joins.await_from(token, *peer, joining.clone())),
        _ => None,
    };
    let terms = &shared.local.terms;
    let exchanged = timeout_at(deadline, hello::exchange_with(&mut tls, terms, extensions, admit))
        .await
        .unwrap_or(Err(ConnectError::Timeout { what: "the hello", limit: shared.handshake_timeout() }));
    let ((peer, remote), (agreed, early)) = match (who, exchanged) {
        (Ok(who), Ok(exchanged)) => (who, exchanged),
        (Err(error), _) => {
            linger(&mut tls, deadline).await;
            return Err(error.into());
        }
        (Ok(_), Err(ConnectError::Io(error))) => {
            // It may have said why before the connection broke: a refused certificate is an alert at the first read.
            let said = linger(&mut tls, deadline).await;
            return Err(said.unwrap_or_else(|| explain(error)));
        }
        (Ok(_), Err(error)) => {
            linger(&mut tls, deadline).await;
            return Err(error);
        }
    };
    let most = extensions.carriers.min(agreed.extensions().carriers);
    let awaited = awaited.filter(|_| most > 1);
    let copies = shared.copies().filter(|_| most > 1 && agreed.extensions().copies);
    let numbers = joining::needed(&shared.carriers, &agreed, most);
    let (path, counted) = (ends.path, joining.clone());
    let info = SessionInfo {
        transport: NAME,
        dialed: expected.is_some(),
        remote,
        local_addr: ends.local_addr,
        remote_addr: ends.remote_addr,
        exporter,
        path: Box::new(move || {
            let mut path = path();
            path.carriers = Some(counted.count());
            path
        }),
    };
    let (session, connection) = Session::start(info, agreed, terms.classes.clone(), terms.limits.clone());
    session.guard(shared.local.lists.clone(), peer);
    if let (Some(_), Some(to)) = (expected, ends.peer) {
        let join = joining::Join { to, peer, token, joining };
        if copies.is_some() {
            joining::keep_copies(shared.clone(), session.clone(), join.clone());
        }
        if !numbers.is_empty() {
            joining::start(shared.clone(), session.clone(), join, numbers);
        }
    }
    let counted = shared.driven.count(&session);
    tokio::spawn(async move {
        let (_counted, _awaited) = (counted, awaited);
        framing::drive_all(tls, session, early, carriers.with_copies(copies)).await;
    });
    Ok(connection)
}

/// TLS failed: rustls has sent its alert.
pub(crate) async fn failed<T>(mut socket: Socket, error: io::Error, deadline: Instant) -> Result<T, ConnectError> {
    let error = explain(error);
    // Only what *we* refuse is worth a wait: for a peer that should learn why, not for noise on the port.
    if matches!(&error, ConnectError::Identity(why) if !matches!(why, IdentityError::RefusedByRemote(_))) {
        let _ = timeout_at(deadline.min(after(LINGER)), discard(&mut socket)).await;
    }
    Err(error)
}

async fn discard<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO) -> io::Result<()> {
    io.shutdown().await?;
    let mut buffer = vec![0; 4096];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match io.read(&mut buffer).await? {
            0 => return Ok(()),
            len => left = left.saturating_sub(len),
        }
    }
    Ok(())
}

/// Says that nothing more will come, and listens until the other side hangs up. What it gave as its reason, if it did.
async fn linger(tls: &mut TlsStream<Socket>, deadline: Instant) -> Option<ConnectError> {
    let mut said = None;
    let listening = async {
        // Not to be waited for: the other side may have hung up long since, and its reason is still to be read.
        let _ = tls.shutdown().await;
        let mut input = BytesMut::new();
        let mut left = LINGER_BYTES;
        while left > 0 {
            match tls.read_buf(&mut input).await {
                Ok(0) => return,
                Ok(len) => left = left.saturating_sub(len),
                Err(error) => {
                    if said.is_none() && tls_error(&error).is_some() {
                        said = Some(explain(error));
                    }
                    return;
                }
            }
            while let Ok(Some(frame)) = Control::decode(&mut input) {
                if let Control::Close { code, reason } = frame {
                    said.get_or_insert_with(|| Closed::remote(CloseCode::from_number(code), &reason).into());
                }
            }
        }
    };
    let _ = timeout_at(deadline.min(after(LINGER)), listening).await;
    said
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

/// Says what an error of TLS or of the socket means for the peer's identity, if anything.
fn explain(error: io::Error) -> ConnectError {
    match tls_error(&error) {
        Some(TlsError::NoApplicationProtocol | TlsError::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            IdentityError::Protocol { expected: String::from_utf8_lossy(ALPN).into_owned(), found: String::new() }.into()
        }
        Some(TlsError::InvalidMessage(what)) => ConnectError::Handshake(format!("the other side doesn't speak TLS ({what:?})")),
        Some(tls) => IdentityError::from_tls(tls).map_or_else(|| ConnectError::Handshake(tls.to_string()), ConnectError::Identity),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            ConnectError::Handshake("the other side hung up during the handshake".into())
        }
        None => error.into(),
    }
}

/// What is known of the two ends before TLS owns the socket.
pub(crate) struct Ends {
    local_addr: String,
    remote_addr: String,
    peer: Option<SocketAddr>,
    path: Box<dyn Fn() -> PathStats + Send + Sync>,
}

impl Ends {
    pub(crate) fn of(stream: TcpStream) -> (Socket, Self) {
        let text = |addr: io::Result<SocketAddr>| addr.map(canonical).unwrap_or_default();
        let (local_addr, remote_addr) = (text(stream.local_addr()), text(stream.peer_addr()));
        let peer = stream.peer_addr().ok();
        let socket = Socket::new(stream);
        let path = socket.path();
        (socket, Self { local_addr, remote_addr, peer, path })
    }
}

/// An IPv4 address that a dual-stack socket shows as IPv6 is printed as what it is.
pub(crate) fn canonical(addr: SocketAddr) -> String {
    match addr.ip().to_canonical() {
        ip if ip == addr.ip() => addr.to_string(),
        ip => SocketAddr::new(ip, addr.port()).to_string(),
    }
}
