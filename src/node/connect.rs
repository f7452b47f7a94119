//! A connection's life in the node: it's added to its peer, each of its classes is read, and its end is told.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::FuturesUnordered};
use peerlane_transport::{
    ClassId, CloseCode, Closed, ClosedBy, Connection, Inbound, MessageReader, Order,
    limits::{ENTRY_OVERHEAD, STREAM_BUFFER},
    varint,
};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::{
    config::{HEADS, STREAM_CANCELLED, STREAM_REFUSED},
    dispatch::{Job, Work},
    events::Event,
    link::{Ended, Link},
    peer::Peer,
    registry::Added,
    request::Answer,
    runtime::Inner,
    stream::StreamReader,
};
use crate::protocol::{MAX_HEAD, Malformed, Protocol};

/// What arrived before the end is handed over within this, then the requests that wait for a reply fail.
const LAST_REPLIES: Duration = Duration::from_secs(1);
/// That a peer is gone is told once its last messages are handled, or after this: handlers may take for ever.
const LAST_MESSAGES: Duration = Duration::from_secs(5);
/// After a silence, what has arrived is read within this.
const HELD_UP: Duration = Duration::from_millis(50);
/// While a peer has two connections, so often it's looked whether one can give way.
const CROWDED_TICK: Duration = Duration::from_secs(1);

/// Adds a connection to its peer and starts its tasks. `wanted`: this side dialed, so the bound on peers doesn't hold;
/// nor does it for trusted peers and those to be kept connected, whose number is the operator's.
/// The peer, or why the connection was closed.
pub(super) fn attach<P: Protocol>(node: &Arc<Inner<P>>, connection: Connection, wanted: bool) -> Result<Arc<Peer<P::Message>>, CloseCode> {
    let refuse = |connection: &Connection, code: CloseCode, why: &str| {
        connection.close(code, why);
        Err(code)
    };
    if node.stopping.is_cancelled() {
        return refuse(&connection, CloseCode::Shutdown, "the node is shutting down");
    }
    let remote = connection.remote();
    let peer_id = remote.peer_id();
    let wanted = wanted || peer_id.is_some_and(|id| node.known.keeps(&id) || node.local.lists.trusted(&id));
    let transport = connection.transport();
    let rank = node.transports.iter().position(|t| t.name() == transport).unwrap_or(node.transports.len());
    let (peer, link, first) = match node.registry.add(connection.clone(), rank, wanted) {
        Added::First(peer, link) => (peer, link, true),
        Added::Another(peer, link) => (peer, link, false),
        Added::TooManyLinks => return refuse(&connection, CloseCode::Duplicate, "too many connections of this peer"),
        Added::TooManyPeers => return refuse(&connection, CloseCode::Overloaded, "too many peers"),
    };
    let dialed = connection.dialed();
    tracing::debug!(peer = %peer.id, transport, dialed, first, "connected");
    if first {
        peer.moved();
    }
    let span = tracing::debug_span!("connection", peer = %peer.id, transport, number = link.number);
    for (class, _) in node.classes.iter() {
        if connection.has_class(class) {
            node.tasks.spawn(read(node.clone(), peer.clone(), link.clone(), class).instrument(span.clone()));
        } else {
            peer.read_out(&link, class);
        }
    }
    node.tasks.spawn(supervise(node.clone(), peer.clone(), link).instrument(span));
    Ok(peer)
}

/// Watches a link until its end, and tells it.
async fn supervise<P: Protocol>(node: Arc<Inner<P>>, peer: Arc<Peer<P::Message>>, link: Arc<Link>) {
    let connection = &link.connection;
    let refused = async {
        match &peer.peer_id {
            Some(id) => node.local.lists.refused(id).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(refused);
    let mut crowded_since = None;
    let (closed, drained) = loop {
        tokio::select! {
            biased;
            closed = connection.closed() => break (closed, false),
            () = node.closed.cancelled() => connection.close(CloseCode::Shutdown, "the node has closed"),
            refusal = &mut refused, if connection.close_reason().is_none() => {
                connection.close(CloseCode::NotAdmitted, &refusal.to_string());
                break (connection.closed().await, false);
            }
            () = link.retire.cancelled() => {
                break give_way(&node, &peer, &link).await;
            }
            () = connection.remote_draining() => break give_way(&node, &peer, &link).await,
            () = link.probe.notified() => {
                node.tasks.spawn(probe(node.clone(), peer.clone(), link.clone()));
            }
            () = sleep(CROWDED_TICK), if peer.is_crowded() => {
                let since = *crowded_since.get_or_insert_with(Instant::now);
                peer.arbitrate(since.elapsed() < node.config.move_timeout);
            }
        }
        if !peer.is_crowded() {
            crowded_since = None;
        }
    };
    // Nothing is routed to it any more; what waits for room in it looks for another.
    peer.retire(link.number);
    peer.drain(link.number);
    let ended = Ended { closed, drained };
    let _ = link.ended.set(ended.clone());
    link.idle.notify_waiters();
    if node.closed.is_cancelled() {
        // There are no workers any more that would make room for what was read.
        link.abandon.cancel();
    }
    // A reply that has arrived is a reply, even if its connection is over.
    let _ = timeout(LAST_REPLIES, link.until(|link| !link.is_reading())).await;
    let heir = peer.unseat(&link);
    peer.requests.link_ended(link.number, &ended, heir.as_deref());
    note_move(&node, &peer);
    if node.registry.remove_if_empty(&peer, &ended.closed) {
        tracing::debug!(peer = %peer.id, closed = %ended.closed, "disconnected");
        peer.requests.fail_all(&ended.closed);
        tokio::select! {
            biased;
            () = node.closed.cancelled() => {}
            _ = timeout(LAST_MESSAGES, peer.finished()) => {}
        }
        node.registry.say_gone(&peer);
    } else {
        peer.arbitrate(true);
    }
}

/// Lets a link drain: because the other side does, because another link carries its messages, or because the node
/// shuts down. How it ended, and whether each side has all that the other had queued.
async fn give_way<P: Protocol>(node: &Arc<Inner<P>>, peer: &Arc<Peer<P::Message>>, link: &Arc<Link>) -> (Closed, bool) {
    let connection = &link.connection;
    peer.retire(link.number);
    link.giving_way.cancel();
    // A dead one isn't worth the drain timeout.
    node.tasks.spawn(probe(node.clone(), peer.clone(), link.clone()));
    note_move(node, peer);
    // Handlers may answer over it while there's no other way.
    tokio::select! {
        biased;
        _ = connection.closed() => {}
        () = node.closed.cancelled() => {}
        () = link.until(|link| !link.is_handling()) => {}
        () = peer.until(|peer| peer.current().is_some()) => {}
        () = sleep(node.local.terms.limits.drain_timeout) => {}
    }
    peer.drain(link.number);
    let delivered = tokio::select! {
        biased;
        delivered = connection.drain() => delivered.is_ok(),
        () = node.closed.cancelled() => {
            connection.close(CloseCode::Shutdown, "the node has closed");
            false
        }
    };
    let closed = connection.closed().await;
    // The other side says Done as the last thing, when it has all and knows that this side has all.
    let done = closed.by == ClosedBy::Remote && closed.code == CloseCode::Done;
    (closed, delivered || done)
}

/// Whether the link lives: a second connection is there, or it's to drain. What it was asked in vain before counts.
async fn probe<P: Protocol>(node: Arc<Inner<P>>, peer: Arc<Peer<P::Message>>, link: Arc<Link>) {
    let lives = tokio::select! {
        biased;
        () = node.closed.cancelled() => return,
        lives = answers(&link.connection, node.config.probe_timeout) => lives,
    };
    match lives {
        Some(true) => {
            peer.proven(link.number);
            note_move(&node, &peer);
            peer.arbitrate(true);
        }
        // In a shutdown the other connection may be gone already.
        Some(false) if peer.is_crowded() || link.giving_way.is_cancelled() => {
            link.connection.close(CloseCode::TimedOut, "no life sign, while it's to give way or there is another connection");
        }
        Some(false) | None => {}
    }
}

/// Whether a life sign comes before there has been nothing at all for so long. `None`: the connection has ended.
async fn answers(connection: &Connection, patience: Duration) -> Option<bool> {
    loop {
        let left = patience.saturating_sub(connection.unanswered().unwrap_or_default()).saturating_sub(HELD_UP);
        if let Ok(answer) = timeout(left, connection.ping()).await {
            return answer.is_ok().then_some(true);
        }
        // Where all of this process was held up, what has come meanwhile is read first: else the timers of two connections
        // would end both.
        sleep(HELD_UP).await;
        if connection.unanswered().is_some_and(|silent| silent >= patience) {
            return Some(false);
        }
    }
}

fn note_move<P: Protocol>(node: &Inner<P>, peer: &Peer<P::Message>) {
    if let Some(link) = peer.moved() {
        node.counters.moves.add(1);
        node.emit(Event::PeerMoved { peer: peer.id.clone(), transport: link.connection.transport() });
    }
}

/// Reads one class of a link to its end.
async fn read<P: Protocol>(node: Arc<Inner<P>>, peer: Arc<Peer<P::Message>>, link: Arc<Link>, class: ClassId) {
    let reader = ClassReader { node: &node, peer: &peer, link: &link, class };
    tokio::select! {
        biased;
        () = reader.run() => {}
        () = link.abandon.cancelled() => {}
    }
    peer.read_out(&link, class);
}

struct ClassReader<'a, P: Protocol> {
    node: &'a Inner<P>,
    peer: &'a Arc<Peer<P::Message>>,
    link: &'a Arc<Link>,
    class: ClassId,
}

/// A streamed message whose head was read, or why it's refused.
type Headed<M> = Result<(Option<M>, StreamReader), Malformed<M>>;

impl<P: Protocol> ClassReader<'_, P> {
    async fn run(&self) {
        let fifo = self.node.order(self.class) == Order::Fifo;
        // Bounded by HEADS: beyond, the class isn't read until one is complete or too late.
        let mut heads = FuturesUnordered::new();
        loop {
            let inbound = tokio::select! {
                biased;
                Some(headed) = heads.next(), if !heads.is_empty() => {
                    self.streamed(headed).await;
                    continue;
                }
                inbound = self.link.connection.recv(self.class), if heads.len() < HEADS => inbound,
            };
            let rest = match inbound {
                Err(_) => break,
                Ok(Inbound::Streamed(reader)) if !fifo => {
                    heads.push(self.head(reader));
                    continue;
                }
                Ok(inbound) => {
                    let mut handing = std::pin::pin!(self.hand_over(inbound, fifo));
                    tokio::select! {
                        biased;
                        () = &mut handing => continue,
                        () = self.link.giving_way.cancelled() => tokio::join!(handing, self.take_in()).1,
                    }
                }
            };
            for inbound in rest {
                match inbound {
                    Inbound::Streamed(reader) if !fifo => heads.push(self.head(reader)),
                    inbound => self.hand_over(inbound, fifo).await,
                }
            }
        }
        while let Some(headed) = heads.next().await {
            self.streamed(headed).await;
        }
    }

    /// Takes in what still comes by a link that gives way, however slow the handlers are: the link couldn't drain in
    /// time otherwise, and messages would be lost.
    async fn take_in(&self) -> VecDeque<Inbound> {
        let Some(class) = self.node.classes.get(self.class) else { return VecDeque::new() };
        // The bound: what may have waited on both sides and been on its way; small messages cost more here than there.
        let bound = class.receive_budget.saturating_add(class.send_budget).saturating_add(class.window_total().saturating_mul(4));
        let (mut taken, mut cost) = (VecDeque::new(), 0usize);
        while cost < bound
            && let Ok(inbound) = self.link.connection.recv(self.class).await
        {
            cost = cost.saturating_add(ENTRY_OVERHEAD).saturating_add(match &inbound {
                Inbound::Whole(bytes) => bytes.len(),
                Inbound::Streamed(_) => STREAM_BUFFER,
            });
            taken.push_back(inbound);
        }
        taken
    }

    /// Gives a message to whoever waits for it, or to the class's queue, once it's its turn.
    async fn hand_over(&self, inbound: Inbound, fifo: bool) {
        if fifo && !self.peer.turn(self.link, self.class).await {
            return self.counters().late.add(1);
        }
        match inbound {
            Inbound::Whole(bytes) => self.whole(bytes).await,
            Inbound::Streamed(reader) => self.streamed(self.head(reader).await).await,
        }
    }

    async fn whole(&self, bytes: Bytes) {
        let len = bytes.len();
        match self.node.protocol.decode(self.class, bytes) {
            Ok(message) => self.message(message, len).await,
            Err(malformed) => self.malformed(malformed),
        }
    }

    async fn message(&self, message: P::Message, len: usize) {
        let protocol = &self.node.protocol;
        let mut message = message;
        if let Some(id) = protocol.reply_to(&message) {
            // Replies wait for no handler.
            message = match self.peer.requests.answer(id, Answer::Whole(message)) {
                Ok(()) => return,
                Err(Answer::Whole(message) | Answer::Streamed(message, _)) => message,
            };
            if !protocol.handles_unmatched(&message) {
                return self.counters().unmatched.add(1);
            }
        }
        if let Some(id) = protocol.cancels(&message) {
            self.counters().cancelled.add(1);
            return self.peer.serving.cancel(id);
        }
        if self.node.stopping.is_cancelled()
            && let Some(answer) = protocol.overloaded(&message)
        {
            self.counters().overloaded.add(1);
            return self.answer(&answer);
        }
        self.dispatch(Work::Message(message), len).await;
    }

    async fn streamed(&self, headed: Headed<P::Message>) {
        let (head, reader) = match headed {
            Ok(headed) => headed,
            Err(malformed) => return self.malformed(malformed),
        };
        let Some(head) = head else { return self.dispatch(Work::Streamed(None, reader), STREAM_BUFFER).await };
        let Some(id) = self.node.protocol.reply_to(&head) else {
            return self.dispatch(Work::Streamed(Some(head), reader), STREAM_BUFFER).await;
        };
        if let Err(Answer::Streamed(_, reader)) = self.peer.requests.answer(id, Answer::Streamed(head, reader)) {
            // Nobody waits any more: the responder is told.
            reader.stop(STREAM_CANCELLED);
            self.counters().unmatched.add(1);
        }
    }

    async fn dispatch(&self, work: Work<P::Message>, len: usize) {
        let request = match &work {
            Work::Message(message) | Work::Streamed(Some(message), _) => self.node.protocol.request_id(message),
            Work::Streamed(None, _) => None,
        };
        let served = request.map(|id| self.peer.serving.begin(id));
        let job = Job { served, peer: self.peer.clone(), busy: self.link.handling(), work, received: Instant::now() };
        self.node.dispatch[self.class.index()].push(self.node, job, len).await;
    }

    fn malformed(&self, malformed: Malformed<P::Message>) {
        if let Some(answer) = &malformed.answer {
            self.answer(answer);
        }
        self.node.malformed(self.peer, self.link, self.class, malformed.why, malformed.close);
    }

    /// An answer that the node makes itself: dropped if there's no room for it, so that answers can't pile up.
    fn answer(&self, answer: &P::Message) {
        let bytes = self.node.protocol.encode(answer);
        let _ = self.node.try_send_on(self.peer, self.class, bytes, Some(self.link.number));
    }

    fn counters(&self) -> &super::metrics::ClassCounters {
        &self.peer.counters[self.class.index()]
    }

    /// Reads the head of a streamed message, within its time.
    async fn head(&self, mut reader: MessageReader) -> Headed<P::Message> {
        let busy = self.link.streaming();
        let reading = async {
            let mut start = Bytes::new();
            loop {
                let chunk = match reader.read().await {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) | Err(_) => return Err(Malformed::ignore("a streamed message ended within its head")),
                };
                start = match start.is_empty() {
                    true => chunk,
                    false => {
                        let mut both = BytesMut::from(&start[..]);
                        both.extend_from_slice(&chunk);
                        both.freeze()
                    }
                };
                match self.node.protocol.decode_head(self.class, &start)? {
                    Some(head) => return Ok((head.message, start.slice(head.length.min(start.len())..))),
                    // The bound: a chunk is at most a quantum.
                    None if start.len() >= MAX_HEAD + varint::MAX_LEN => {
                        return Err(Malformed::ignore("an endless head of a streamed message"));
                    }
                    None => {}
                }
            }
        };
        let late = Err(Malformed::ignore("the head of a streamed message came too late"));
        match timeout(self.node.config.head_timeout, reading).await.unwrap_or(late) {
            Ok((head, rest)) => Ok((head, StreamReader::new(rest, reader, self.node.config.stall_timeout, busy))),
            Err(malformed) => {
                reader.stop(STREAM_REFUSED);
                Err(malformed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use peerlane_transport::{
        PathStats, Session, SessionInfo,
        admission::{Agreed, Terms},
        identity::Remote,
    };
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    /// A connection whose other side is silent, but for what the test makes it hear.
    fn session() -> (Arc<Session>, Connection) {
        let terms = Terms::new("test").unwrap();
        let info = SessionInfo {
            transport: "test",
            dialed: true,
            remote: Remote::anonymous("127.0.0.1:1".parse().unwrap()),
            local_addr: String::new(),
            remote_addr: String::new(),
            exporter: [0; 32],
            path: Box::new(PathStats::unknown),
        };
        Session::start(info, Agreed::same(&terms), terms.classes.clone(), terms.limits.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lives_for_as_long_as_anything_comes_by_it() {
        let (session, connection) = session();
        let start = Instant::now();
        let hearing = async {
            for _ in 0..10 {
                sleep(PATIENCE - Duration::from_millis(1)).await;
                session.heard();
            }
        };
        let judging = async { (answers(&connection, PATIENCE).await, start.elapsed()) };
        let ((lives, after), ()) = tokio::join!(judging, hearing);
        assert_eq!(lives, Some(false), "at last nothing came");
        assert!(after > 10 * PATIENCE && after < 13 * PATIENCE, "{after:?}");
        // It was asked in vain already.
        let start = Instant::now();
        assert_eq!(answers(&connection, PATIENCE).await, Some(false));
        assert!(start.elapsed() <= HELD_UP, "{:?}", start.elapsed());
    }
}
