//! Further TCP connections for a connection that stands: dialed, and accepted. See
//! [`peerlane_transport::admission::join`] for what is said, and why nobody else can say it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use peerlane_transport::{
    CloseCode, Closed, ConnectError, Session, Urgency,
    admission::{Agreed, Handshake, JoinToken, join},
    framing::{COPIES, Joining, Place},
    identity::{PeerId, server_name},
};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::{TlsStream, server::StartHandshake};

use crate::{
    handshake::{Ends, TLS_STEP, after, failed, within},
    socket::Socket,
    transport::Shared,
};

/// How long after the connection stands, and after one failure and the next, a further TCP connection is tried. Nothing
/// waits for it: until it's there, its classes go on the first. Where a proxy or a wall lets one through, it's left at that.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(10)];

/// How long a dialer waits before it looks whether copies would be of use: at first, and then twice as long up to the second.
const LOOKS: [Duration; 2] = [Duration::from_millis(125), Duration::from_secs(1)];

/// Fewer messages that may be copied, both ways between two looks, aren't worth a TCP connection. One is for a STATUS or so.
const WORTH_IT: u64 = 4;

/// What a dialer needs to join.
#[derive(Clone)]
pub(crate) struct Join {
    pub(crate) to: SocketAddr,
    pub(crate) peer: PeerId,
    pub(crate) token: JoinToken,
    pub(crate) joining: Joining<TlsStream<Socket>>,
}

/// The carriers beside the first on which classes of ours go that the other side has too. A class whose carrier is beyond
/// what both sides want has none, and stays on the first.
pub(crate) fn needed(carriers: &[u8], agreed: &Agreed, most: u8) -> Vec<u8> {
    let used =
        |number: &u8| (0..).map(peerlane_transport::ClassId).zip(carriers).any(|(class, of)| of == number && agreed.has_class(class));
    (1..most).filter(used).collect()
}

/// Dials what is needed beside the first, in a task of its own, until the connection is over.
pub(crate) fn start(shared: Arc<Shared>, session: Arc<Session>, join: Join, numbers: Vec<u8>) {
    tokio::spawn(async move { dial_all(&shared, &session, join, numbers).await });
}

/// Dials the TCP connection for copies when it's of use, and again when it has ended, in a task of its own, until the
/// connection is over.
pub(crate) fn keep_copies(shared: Arc<Shared>, session: Arc<Session>, join: Join) {
    tokio::spawn(async move { dial_copies(&shared, &session, &join).await });
}

async fn dial_copies(shared: &Arc<Shared>, session: &Session, join: &Join) {
    let above = shared.config.copies_above;
    let mut seen = 0;
    let mut pauses = PAUSES.iter().skip(1);
    let [mut look, longest] = LOOKS;
    let mut pause = if above.is_zero() { Duration::ZERO } else { look };
    while goes_on(session, pause).await {
        look = longest.min(2 * look);
        pause = look;
        let messages = session.copied_classes_messages();
        let few = messages.saturating_sub(std::mem::replace(&mut seen, messages)) < WORTH_IT;
        if !above.is_zero() && (few || session.round_trip().is_none_or(|trip| trip < above)) {
            continue;
        }
        // Taken: it's there.
        let Some(place) = join.joining.take(COPIES) else { continue };
        // Boxed: this task lives as long as the connection, a handshake doesn't.
        if let Err(error) = Box::pin(dial(shared, join, COPIES, place)).await {
            tracing::debug!(remote = %session.info().remote_addr, %error, "the TCP connection for copies hasn't joined");
            let Some(next) = pauses.next() else { return };
            pause = *next;
        }
    }
}

/// Waits. `false`: the connection is over.
async fn goes_on(session: &Session, pause: Duration) -> bool {
    tokio::select! {
        biased;
        () = session.over().cancelled() => false,
        () = sleep(pause) => true,
    }
}

async fn dial_all(shared: &Arc<Shared>, session: &Session, join: Join, numbers: Vec<u8>) {
    let mut missing = numbers;
    for pause in PAUSES {
        if missing.is_empty() {
            return;
        }
        if !goes_on(session, pause).await {
            return;
        }
        for number in std::mem::take(&mut missing) {
            // One that has begun goes on though the connection has ended, within its deadline: a handshake given up in the
            // middle would count against us in the other side's gate.
            if session.over().is_cancelled() {
                return;
            }
            let Some(place) = join.joining.take(number) else { continue };
            if let Err(error) = dial(shared, &join, number, place).await {
                tracing::debug!(remote = %session.info().remote_addr, carrier = number, %error, "a further TCP connection hasn't joined");
                missing.push(number);
            }
        }
    }
    if !missing.is_empty() {
        tracing::info!(remote = %session.info().remote_addr, ?missing, "classes that should have had TCP connections of their own go on the first");
    }
}

async fn dial(shared: &Arc<Shared>, join: &Join, number: u8, place: Place) -> Result<(), ConnectError> {
    let limit = shared.handshake_timeout();
    let deadline = after(limit);
    let stream = within(deadline, limit, "connecting", async { Ok(shared.settings.connect(join.to).await?) }).await?;
    let (socket, _) = Ends::of(stream);
    socket.keep_alive(shared.keep_alive_after())?;
    let tls = shared.join_connector.connect(server_name(&join.peer)?, socket).into_fallible();
    let mut tls: TlsStream<Socket> = match within(deadline, limit, TLS_STEP, async { Ok(tls.await) }).await? {
        Ok(mut tls) => {
            shared.secured(tls.get_mut().1);
            tls.into()
        }
        Err((error, socket)) => return failed(socket, error, deadline).await,
    };
    if let Err((error, closed)) = shared.verdict(tls.get_ref().1, join::ALPN, Some(&join.peer)) {
        let _ = timeout_at(deadline, join::refuse::<_, ()>(&mut tls, closed)).await;
        return Err(error.into());
    }
    let early = within(deadline, limit, "the join", join::ask(&mut tls, number, join.token)).await?;
    attach(shared, &join.joining, number, place, tls, early);
    Ok(())
}

fn attach(shared: &Shared, joining: &Joining<TlsStream<Socket>>, number: u8, place: Place, tls: TlsStream<Socket>, early: BytesMut) {
    let classes = shared.local.terms.classes.iter().zip(&shared.carriers);
    // Where bulk goes, BBR needs what it does.
    if shared.settings.begins_anew() && classes.filter(|(_, of)| **of == number).all(|((_, class), _)| class.urgency == Urgency::Latency) {
        tls.get_ref().0.stay_ready();
    }
    joining.attach(place, tls, early);
}

/// Whether a dialer begins what is to be a join. Whoever wants no further connections doesn't know the word.
pub(crate) fn is_join(shared: &Shared, start: &StartHandshake<Socket>) -> bool {
    shared.most_carriers() > 1 && start.client_hello().alpn().is_some_and(|mut offered| offered.any(|alpn| alpn == join::ALPN))
}

/// The listener's side, of whatever connection it is.
pub(crate) async fn accepted(
    shared: &Arc<Shared>,
    start: StartHandshake<Socket>,
    permit: Handshake,
    deadline: Instant,
) -> Result<(), ConnectError> {
    let limit = shared.handshake_timeout();
    let tls = start.into_stream(shared.join_acceptor.clone()).into_fallible();
    let mut tls: TlsStream<Socket> = match within(deadline, limit, TLS_STEP, async { Ok(tls.await) }).await? {
        Ok(mut tls) => {
            shared.secured(tls.get_mut().1);
            tls.into()
        }
        Err((error, socket)) => return failed(socket, error, deadline).await,
    };
    let peer = match shared.verdict(tls.get_ref().1, join::ALPN, None) {
        Ok((peer, _)) => peer,
        Err((error, closed)) => {
            let _ = timeout_at(deadline, join::refuse::<_, ()>(&mut tls, closed)).await;
            return Err(error.into());
        }
    };
    let (carrier, token, early) = within(deadline, limit, "the join", join::asked(&mut tls)).await?;
    // A peer that we know by now, as after any handshake. That its connection has ended meanwhile is no offence.
    permit.succeeded(Instant::now());
    let Some((joining, place)) = shared.joins.find(&token, &peer, carrier) else {
        let closed = Closed::local(CloseCode::NoSuchJoin, "no connection of ours waits for this");
        return within(deadline, limit, "the join", join::refuse(&mut tls, closed)).await;
    };
    tls.get_ref().0.keep_alive(shared.keep_alive_after())?;
    attach(shared, &joining, carrier, place, tls, early);
    Ok(())
}
