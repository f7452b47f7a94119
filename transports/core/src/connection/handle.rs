//! What the application holds: send, receive, look, close.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Session, stats::ConnectionStats};
use crate::{
    CloseCode, Closed, RecvError, SendError, TrySend,
    class::{ClassId, ClassTable, End, Inbound, OpenStream},
    identity::Remote,
};

/// A connection to a peer. Cheap to clone; when the last clone is dropped, it's closed at once.
#[derive(Debug, Clone)]
pub struct Connection {
    session: Arc<Session>,
    _last: Arc<CloseOnDrop>,
}

#[derive(Debug)]
struct CloseOnDrop(Arc<Session>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.end(Closed::local(CloseCode::Done, ""));
    }
}

/// While it lives, an answer is expected: the connection watches more closely whether the other side lives.
#[derive(Debug)]
pub struct Expecting(Arc<Session>);

impl Drop for Expecting {
    fn drop(&mut self) {
        self.0.expect(false);
    }
}

impl Connection {
    pub(super) fn new(session: Arc<Session>) -> Self {
        let last = Arc::new(CloseOnDrop(session.clone()));
        Self { session, _last: last }
    }

    /// Whom it leads to, and what proves that.
    pub fn remote(&self) -> Remote {
        self.session.remote()
    }

    /// The layer above has proven the other side's identity (CHALLENGE).
    pub fn set_remote(&self, remote: Remote) {
        self.session.set_remote(remote);
    }

    /// The transport's name.
    pub fn transport(&self) -> &'static str {
        self.session.info().transport
    }

    /// Whether this side dialed.
    pub fn dialed(&self) -> bool {
        self.session.info().dialed
    }

    /// Address of the other side, for logs.
    pub fn remote_addr(&self) -> &str {
        &self.session.info().remote_addr
    }

    /// Address of this side, for logs.
    pub fn local_addr(&self) -> &str {
        &self.session.info().local_addr
    }

    /// Keying material that only the two ends of this connection share (RFC 8446, section 7.5): what a challenge
    /// signs, so that it can't be relayed from another connection.
    pub fn exporter(&self) -> [u8; 32] {
        self.session.info().exporter
    }

    /// The local classes.
    pub fn classes(&self) -> &ClassTable {
        self.session.table()
    }

    /// Whether the other side has this class too.
    pub fn has_class(&self, class: ClassId) -> bool {
        self.session.agreed(class)
    }

    /// A number that is this connection's alone in this process; a later connection's is larger.
    pub fn stable_id(&self) -> usize {
        self.session.number()
    }

    /// Queues a whole message, waiting for room in its class. Queued isn't delivered: only an answer of the
    /// other side, or [`drain`](Self::drain), shows that.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] at once, [`SendError::NoSuchClass`], [`SendError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel-safe: the message is queued whole, or not at all if the future is dropped before it completes.
    /// Waiters of a class are served in order.
    pub async fn send(&self, class: ClassId, message: Bytes) -> Result<(), SendError> {
        self.session.outbox().send(class, message).await
    }

    /// Queues a whole message if there's room for it now.
    pub fn try_send(&self, class: ClassId, message: Bytes) -> TrySend {
        self.session.outbox().try_send(class, message)
    }

    /// Queues a message in place of a queued one of the same class and key, which is handed back if it hasn't
    /// begun to leave. What the old one alone carried is the caller's to fold into the next.
    ///
    /// It doesn't wait in turn with [`send`](Self::send): one such message of the class has room even where the budget is
    /// used up, so that a flood of the class doesn't keep it out.
    ///
    /// # Errors
    /// The outer error is the connection's; the inner one tells that there's no room, with the old message
    /// still queued.
    pub fn send_latest(&self, class: ClassId, key: u64, message: Bytes) -> Result<Result<Option<Bytes>, TrySend>, SendError> {
        self.session.outbox().send_latest(class, key, message)
    }

    /// Begins a streamed message of any length, waiting until one more may be open in the class.
    ///
    /// # Errors
    /// [`SendError::NoSuchClass`], [`SendError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel-safe: nothing is sent if the future is dropped before it completes.
    pub async fn open(&self, class: ClassId) -> Result<MessageWriter, SendError> {
        let stream = self.session.outbox().open(class).await?;
        Ok(MessageWriter { session: self.session.clone(), stream, finished: false })
    }

    /// The next message of a class.
    ///
    /// # Errors
    /// [`RecvError::NoSuchClass`]; [`RecvError::Closed`] when the connection has ended and all that arrived is taken.
    ///
    /// # Cancel safety
    /// Cancel-safe: no message is lost.
    pub async fn recv(&self, class: ClassId) -> Result<Inbound, RecvError> {
        let inbox = self.session.inbox(class).filter(|_| self.session.agreed(class)).ok_or(RecvError::NoSuchClass(class))?;
        match inbox.recv(self.session.over()).await {
            Some(message) => Ok(message),
            None => Err(self.closed_or_done().into()),
        }
    }

    /// The next message of a class if it's there already.
    pub fn try_recv(&self, class: ClassId) -> Option<Inbound> {
        self.session.inbox(class)?.pop()
    }

    /// Asks the other side's connection for a life sign. How long it took.
    ///
    /// # Errors
    /// How the connection ended, if it did meanwhile.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn ping(&self) -> Result<Duration, Closed> {
        self.session.ping().await
    }

    /// How long a life sign has been asked for, and nothing at all has come; `None` if nothing was asked for, or something has come since.
    pub fn unanswered(&self) -> Option<Duration> {
        self.session.unanswered()
    }

    /// Says that an answer is expected until the guard is dropped.
    pub fn expecting(&self) -> Expecting {
        self.session.expect(true);
        Expecting(self.session.clone())
    }

    /// Closes at once: what is queued is lost.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.session.end(Closed::local(code, reason));
    }

    /// Closes gracefully: new sends are refused, what is queued on this side is taken in by the other, the same
    /// the other way round if the other side drains too (see [`remote_draining`](Self::remote_draining)), then
    /// the connection ends. Waits for [`Limits::drain_timeout`](crate::limits::Limits::drain_timeout) at most.
    ///
    /// # Errors
    /// How it ended, if the other side didn't confirm that it has all.
    ///
    /// # Cancel safety
    /// If the future is dropped, sends stay refused and the connection stays open until it's closed or dropped.
    pub async fn drain(&self) -> Result<(), Closed> {
        self.session.drain().await
    }

    /// Waits until the other side has begun to close gracefully. It still receives: answer what is to be
    /// answered, then [`drain`](Self::drain).
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn remote_draining(&self) {
        self.session.remote_finishing().cancelled().await;
    }

    /// Waits for the end and says how it came.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn closed(&self) -> Closed {
        self.session.over().cancelled().await;
        self.closed_or_done()
    }

    /// How it ended, if it has.
    pub fn close_reason(&self) -> Option<Closed> {
        self.session.closed().cloned()
    }

    /// What it has measured so far.
    pub fn stats(&self) -> ConnectionStats {
        self.session.stats()
    }

    fn closed_or_done(&self) -> Closed {
        self.close_reason().unwrap_or_else(|| Closed::local(CloseCode::Done, ""))
    }
}

/// Writes a streamed message. Dropping it before [`finish`](Self::finish) aborts the message.
#[derive(Debug)]
pub struct MessageWriter {
    session: Arc<Session>,
    stream: OpenStream,
    finished: bool,
}

impl MessageWriter {
    /// Writes all of `data`, waiting for room; what is queued is taken off its front.
    ///
    /// # Errors
    /// [`SendError::Stopped`] if the receiver doesn't want the rest, [`SendError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel-safe: `data` holds what wasn't queued.
    pub async fn write(&mut self, data: &mut Bytes) -> Result<(), SendError> {
        while !data.is_empty() {
            self.session.outbox().append(&self.stream, data).await?;
        }
        Ok(())
    }

    /// Completes the message.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn finish(mut self) -> Result<(), SendError> {
        self.finished = true;
        self.session.outbox().end(&self.stream, End::Complete)
    }

    /// Gives the message up: the receiver gets [`RecvError::Aborted`] with this code.
    pub fn abort(mut self, code: u32) {
        self.finished = true;
        let _ = self.session.outbox().end(&self.stream, End::Aborted(code));
    }
}

impl Drop for MessageWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.session.outbox().end(&self.stream, End::Aborted(0));
        }
    }
}
