//! Drives a session over a QUIC connection, in the connection's one task: a writer writes what the scheduler lets go, and
//! control frames, datagrams and each of the other side's streams have a reader.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream::FuturesUnordered};
use peerlane_transport::{
    CloseCode, ClosedBy, Control, Delivery, Session,
    class::{DatagramState, Offer, Outgoing},
    limits,
};
use quinn::{Connection, RecvStream, SendDatagramError, SendStream};

use crate::{
    budget::{Budget, Claim},
    clocks::{Asked, Clocks},
    congestion::Published,
    copies::Copies,
    error::{close_number, closed},
    lanes::{self, CONTROL_PRIORITY, SendLanes, Wrote, priority},
    messages::{Left, MessageStreams, Receiving},
    rescue::Rescue,
};

/// A connection after handshake and hello.
pub(crate) struct Established {
    pub(crate) connection: Connection,
    pub(crate) control: (SendStream, RecvStream),
    /// Control bytes that came with the hello.
    pub(crate) early: BytesMut,
    pub(crate) budget: Budget,
    pub(crate) messages: MessagePolicy,
}

/// When a small message has a stream of its own, and copies.
pub(crate) struct MessagePolicy {
    pub(crate) above: Option<Duration>,
    pub(crate) copies: Vec<Duration>,
    pub(crate) rescue: bool,
    pub(crate) path: Arc<Published>,
}

/// How long the last control frame may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Drives the session until the connection is over.
pub(crate) async fn drive(established: Established, session: Arc<Session>) {
    let Established { connection, control: (send, receive), early, budget, messages } = established;
    let _ = send.set_priority(CONTROL_PRIORITY);
    let datagrams = session.table().iter().any(|(_, class)| class.delivery == Delivery::Datagram);
    let clocks = Clocks::new(connection.clone(), messages.path.clone());
    let mut writer = Writer {
        lanes: SendLanes::new(connection.clone(), session.table().clone()),
        connection: connection.clone(),
        control: send,
        waiting: Bytes::new(),
        budget,
        datagrams,
        datagram: None,
        streams: MessageStreams::new(connection.clone()),
        copies: Copies::new(messages.copies),
        rescue: messages.rescue.then(|| Rescue::new(messages.path.clone())),
        above: messages.above,
        path: messages.path,
        clocks: &clocks,
        asked: Asked::new(),
    };
    let arrived = Receiving::default();
    let mut readers = FuturesUnordered::<Reading<'_>>::new();
    readers.push(Box::pin(read_datagrams(&connection, &session, &arrived, &clocks)));
    readers.push(Box::pin(accept_lanes(&connection, &session, &arrived)));
    let mut control = pin!(read_control(receive, early, &session));
    let mut said_all = false;

    loop {
        tokio::select! {
            biased;
            () = session.over().cancelled() => break,
            () = &mut control, if !said_all => said_all = true,
            Some(()) = readers.next() => {}
            () = std::future::poll_fn(|cx| writer.poll(cx, &session)) => {
                session.end(closed(&connection.closed().await));
                break;
            }
            error = connection.closed() => {
                // What came before the end counts, DRAINED above all. With the connection gone, nothing is waited for.
                if !said_all {
                    control.as_mut().await;
                }
                session.end(closed(&error));
                break;
            }
        }
    }
    if let Some(why) = session.closed() {
        if why.by == ClosedBy::Local && why.code == CloseCode::Done {
            // A drained connection's last control frame must arrive: CONNECTION_CLOSE would take its place.
            let _ = tokio::time::timeout(LAST_WORDS, async {
                tokio::select! {
                    biased;
                    () = writer.finish(&session) => {}
                    () = async { while readers.next().await.is_some() {} std::future::pending().await } => {}
                }
            })
            .await;
        }
        if why.by != ClosedBy::Remote {
            connection.close(close_number(why.code), &why.reason.as_bytes()[..why.reason.len().min(limits::MAX_REASON)]);
        }
    }
    // Only now may the streams go: dropping one tells the other side that it ends here.
    drop(writer);
}

type Reading<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

async fn accept_lanes(connection: &Connection, session: &Arc<Session>, arrived: &Receiving) {
    let mut readers = FuturesUnordered::new();
    loop {
        // Bounded: a stream counts in quinn's limit until it's read to its end, and what is read and waits for room holds
        // its class's credit.
        tokio::select! {
            biased;
            () = session.over().cancelled() => break,
            Some(_) = readers.next() => {}
            stream = connection.accept_uni() => match stream {
                Ok(stream) => readers.push(lanes::receive(session.clone(), arrived.clone(), stream)),
                // Who drives the connection says how it ended.
                Err(_) => break,
            },
        }
    }
}

async fn read_control(mut stream: RecvStream, mut input: BytesMut, session: &Session) {
    loop {
        loop {
            match Control::decode(&mut input) {
                Ok(Some(frame)) => {
                    if session.on_control(frame).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(bad) => {
                    session.violation(CloseCode::Protocol, bad.to_string());
                    return;
                }
            }
        }
        // Bounded: what is left is less than one frame, whose length is bounded, and a chunk is at most a packet's.
        match stream.read_chunk(limits::MAX_CONTROL_FRAME, true).await {
            Ok(Some(chunk)) => input.extend_from_slice(&chunk.bytes),
            // The other side has said its last; what closes the connection follows, or liveness sees that it doesn't.
            Ok(None) => return,
            Err(quinn::ReadError::ConnectionLost(_)) => return,
            Err(error) => {
                session.violation(CloseCode::Protocol, format!("the control stream was cut off: {error}"));
                return;
            }
        }
    }
}

async fn read_datagrams(connection: &Connection, session: &Session, arrived: &Receiving, clocks: &Clocks) {
    while let Ok(datagram) = connection.read_datagram().await {
        if !clocks.take(&datagram) && arrived.datagram(session, &datagram).is_err() {
            return;
        }
    }
}

type SendingDatagram = Pin<Box<dyn Future<Output = Result<(), SendDatagramError>> + Send>>;

/// What is handed to quinn at once, in bytes. More than a quantum, so that a message of 64 KiB is one call. An urgent message
/// doesn't wait behind it: quinn sends that one's stream first.
const SEGMENT: usize = 4 * limits::QUANTUM;

/// The one task that hands bytes to quinn. Because there's one, quinn's order of waking blocked writers doesn't matter:
/// whatever woke it, it asks the scheduler.
struct Writer<'a> {
    connection: Connection,
    control: SendStream,
    /// Control frames, encoded and not yet taken by quinn.
    waiting: Bytes,
    lanes: SendLanes,
    budget: Budget,
    /// Some class has datagrams.
    datagrams: bool,
    /// A datagram that waits for room in quinn.
    datagram: Option<SendingDatagram>,
    streams: MessageStreams,
    copies: Copies,
    rescue: Option<Rescue>,
    /// The round-trip time from which on small messages have streams of their own.
    above: Option<Duration>,
    path: Arc<Published>,
    clocks: &'a Clocks,
    asked: Asked,
}

impl Writer<'_> {
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>, session: &Session) -> Poll<()> {
        self.clocks.poll(&mut self.asked);
        let wrote = self.poll_write(cx, session);
        // Last: the messages that have just left are among those whose copies the timers wait for.
        self.copies.poll(cx, &self.connection, self.path.rate_of_copies());
        if self.rescue.as_mut().is_some_and(|rescue| rescue.poll(cx)) {
            self.copies.probe(&self.connection);
        }
        wrote
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, session: &Session) -> Poll<()> {
        let outbox = session.outbox();
        outbox.unblock();
        loop {
            while !self.waiting.is_empty() {
                self.claim(Claim::Urgent);
                let written = pin!(self.control.write_chunks(std::slice::from_mut(&mut self.waiting))).poll(cx);
                match written {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending if self.refill(cx, Claim::Urgent) => {}
                    Poll::Pending => break,
                }
            }
            let offer = Offer { datagrams: self.datagram_state(cx), message_stream: self.message_stream(cx) };
            if !self.waiting.is_empty() {
                // Control goes first. It has room of its own, so only a peer that doesn't read it gets here.
                outbox.register(cx.waker());
                return Poll::Pending;
            }
            match self.streams.poll_leave(cx) {
                Poll::Ready(Some(Left { stream, class, message })) => {
                    self.copies.sent(message.len());
                    self.copies.add(stream, class, message, self.connection.max_datagram_size());
                }
                Poll::Ready(None) => {}
                Poll::Pending if self.refill(cx, Claim::Urgent) => continue,
                Poll::Pending => {
                    outbox.register(cx.waker());
                    return Poll::Pending;
                }
            }
            outbox.register(cx.waker());
            match outbox.next(SEGMENT, offer) {
                Some(Outgoing::Control(frames)) => self.waiting = frames,
                Some(Outgoing::Segment(segment)) => {
                    let claim = if self.lanes.urgent(segment.lane) { Claim::Urgent } else { Claim::Bulk };
                    self.claim(claim);
                    let bytes = segment.bytes;
                    match self.lanes.poll_write(cx, segment) {
                        Wrote::All => self.copies.sent(bytes),
                        // Nobody else gets what this one couldn't have: when there's room, the scheduler is asked again.
                        Wrote::Full(rest) => {
                            self.copies.sent(bytes.saturating_sub(rest.bytes));
                            outbox.give_back(rest, false);
                            if !self.refill(cx, claim) {
                                return Poll::Pending;
                            }
                        }
                        Wrote::Unopened(rest) => outbox.give_back(rest, true),
                        Wrote::Over => return Poll::Ready(()),
                    }
                }
                Some(Outgoing::Datagram { class, message }) => {
                    let mut datagram = BytesMut::with_capacity(1 + message.len());
                    datagram.put_u8(class.0);
                    datagram.put_slice(&message);
                    let (connection, datagram) = (self.connection.clone(), datagram.freeze());
                    self.datagram = Some(Box::pin(async move { connection.send_datagram_wait(datagram).await }));
                }
                Some(Outgoing::Message { class, message }) => {
                    self.claim(Claim::Urgent);
                    self.streams.begin(class, priority(session.table(), class.0), message);
                }
                Some(_) => {}
                None => return Poll::Pending,
            }
        }
    }

    /// Writes the control frames that are left, and waits until the other side has them.
    async fn finish(&mut self, session: &Session) {
        loop {
            self.claim(Claim::Urgent);
            if self.control.write_chunk(std::mem::take(&mut self.waiting)).await.is_err() {
                return;
            }
            match session.outbox().next(0, DatagramState::None) {
                Some(Outgoing::Control(frames)) => self.waiting = frames,
                _ => break,
            }
        }
        if self.control.finish().is_ok() {
            let _ = self.control.stopped().await;
        }
    }

    /// quinn takes no more: whether it does now. Else the task is woken when it's to be asked again.
    fn refill(&mut self, cx: &Context<'_>, claim: Claim) -> bool {
        let more = self.budget.refill(claim);
        match more {
            Some(window) => self.connection.set_send_window(window),
            None => self.path.wake_at_ack(cx.waker()),
        }
        more.is_some()
    }

    fn claim(&mut self, claim: Claim) {
        if let Some(window) = self.budget.change(claim) {
            self.connection.set_send_window(window);
        }
    }

    /// The largest message that may have a stream of its own now.
    fn message_stream(&mut self, cx: &mut Context<'_>) -> usize {
        let far = self.above.is_some_and(|above| above.is_zero() || self.path.rtt().is_some_and(|rtt| rtt >= above));
        if far && self.streams.poll_spare(cx) { limits::MESSAGE_STREAM } else { 0 }
    }

    fn datagram_state(&mut self, cx: &mut Context<'_>) -> DatagramState {
        if !self.datagrams {
            return DatagramState::None;
        }
        // A datagram that has become too large for a changed path, or a connection that's over: it's lost, as datagrams may be.
        if self.datagram.as_mut().is_some_and(|sending| sending.as_mut().poll(cx).is_ready()) {
            self.datagram = None;
        }
        // One byte names the class.
        match (self.connection.max_datagram_size(), &self.datagram) {
            (Some(limit), None) => DatagramState::Ready(limit.saturating_sub(1)),
            (Some(limit), Some(_)) => DatagramState::Busy(limit.saturating_sub(1)),
            (None, _) => DatagramState::None,
        }
    }
}
