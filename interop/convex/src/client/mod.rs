//! A client of a Convex peer: one TCP connection, requests by ID, answers as they come.
//!
//! The reference peer answers out of order, closes the connection for a QUERY that isn't well-formed, and says nothing to what it doesn't
//! know: so each request here has a deadline. Nobody is proven by the transport: [`Client::challenge`] proves the peer's key, and the
//! peer's own challenge is answered if the client has a key.

mod error;
mod fetch;
mod wire;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use peerlane_cell::{Cell, ValueId};
use tokio::{
    net::{TcpStream, ToSocketAddrs},
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Challenge, Message, Payload, Status, Transaction, Value,
    limits::{MAX_FRAME, MAX_HASHES},
    outcome::ErrorCode,
};

pub use error::{ClientError, CloseReason};
pub use fetch::FetchLimits;
pub(crate) use wire::challenged;

/// Requests that may be unanswered at once. Each costs some hundred bytes, and what its answer has.
const MAX_PENDING: usize = 16_384;

/// Frames that wait to be written; senders wait when there are as many.
const SEND_QUEUE: usize = 64;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a request may take. The reference peer itself gives up on a full queue after 8 seconds.
    pub deadline: Duration,
    /// The largest frame body that is taken, in bytes: see [`MAX_FRAME`] for what it costs.
    pub max_frame: usize,
    /// The peer key that challenges are answered with; `None`: they're refused.
    pub key: Option<SigningKey>,
    /// The network (genesis hash) that challenges must be for; `None`: any.
    pub network: Option<ValueId>,
    /// Where messages go that are neither answers nor challenges, beliefs for instance. They're dropped when it's full, or `None`.
    pub inbox: Option<mpsc::Sender<Message>>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(8),
            deadline: Duration::from_secs(10),
            max_frame: MAX_FRAME,
            key: None,
            network: None,
            inbox: None,
        }
    }
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The value, or what is said about the error.
    pub value: Value,
    /// The error's code; `None`: success.
    pub error: Option<ErrorCode>,
    /// What was logged: a vector, or nil.
    pub log: Value,
    /// More about it: a map, or nil. `:source` says who failed, `:trace` where.
    pub info: Value,
}

impl Answer {
    /// The value of a success.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the peer's code and words.
    pub fn ok(self) -> Result<Value, ClientError> {
        let Some(code) = self.error else { return Ok(self.value) };
        let text = match &self.value.cell {
            Cell::String(text) => text.bytes().map(|text| String::from_utf8_lossy(text).into_owned()),
            _ => None,
        };
        let text = text.unwrap_or_else(|| crate::form::print(&self.value, 1000));
        let origin = self.info.get("source").map(|origin| crate::form::print(&origin, 100));
        Err(ClientError::Refused { code, text, origin })
    }
}

type Pending = HashMap<i64, oneshot::Sender<Result<Message, ClientError>>>;

/// What the connection's tasks share with its users.
#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    /// Bounded by [`MAX_PENDING`].
    pending: Mutex<Pending>,
    /// The frames to be written.
    frames: mpsc::Sender<Bytes>,
    closed: watch::Sender<Option<CloseReason>>,
    /// The peer's key, once a challenge has proven it.
    proven: Mutex<Option<[u8; 32]>>,
    stop: CancellationToken,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end: whoever waits is told. The first reason counts.
    fn close(&self, reason: CloseReason) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(reason);
            first
        });
        self.stop.cancel();
        let waiting = std::mem::take(&mut *self.pending());
        for (_, waiter) in waiting {
            let _ = waiter.send(Err(self.closed_error()));
        }
    }

    fn closed_error(&self) -> ClientError {
        ClientError::Closed(self.closed.borrow().clone().unwrap_or(CloseReason::Local))
    }
}

/// A connection to a Convex peer. Cheap to clone; it closes when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    next_id: Arc<AtomicI64>,
    _guard: Arc<DropGuard>,
}

/// Forgets a request whose future is dropped.
struct Ticket<'a>(&'a Shared, i64);

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.0.pending().remove(&self.1);
    }
}

impl Client {
    /// Connects over TCP. The peer is unproven: nothing has been asked of it yet.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::ConnectTimeout`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt.
    pub async fn connect(to: impl ToSocketAddrs, config: ClientConfig) -> Result<Self, ClientError> {
        let limit = config.connect_timeout;
        let connected = timeout(limit, TcpStream::connect(to)).await.map_err(|_| ClientError::ConnectTimeout(limit))?;
        let stream = connected.map_err(|error| ClientError::Connect(Arc::new(error)))?;
        Ok(Self::over(stream, config))
    }

    /// The same over a connection that is there already.
    #[must_use]
    pub fn over(stream: TcpStream, config: ClientConfig) -> Self {
        // Two small writes in a row would otherwise wait for a delayed acknowledgement, about 40 ms.
        let _ = stream.set_nodelay(true);
        let (frames, queue) = mpsc::channel(SEND_QUEUE);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            config,
            pending: Mutex::default(),
            frames,
            closed: watch::Sender::new(None),
            proven: Mutex::default(),
            stop: stop.clone(),
        });
        wire::start(stream, shared.clone(), queue);
        Self { shared, next_id: Arc::new(AtomicI64::new(1)), _guard: Arc::new(stop.drop_guard()) }
    }

    /// The key of the peer, if a challenge has proven it.
    #[must_use]
    pub fn proven(&self) -> Option<[u8; 32]> {
        *self.shared.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connection is over, and says why.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn closed(&self) -> CloseReason {
        let mut closed = self.shared.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or(CloseReason::Local)
    }

    /// Says goodbye; the peer closes. Requests that wait are told once it has.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if it's over already.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn goodbye(&self) -> Result<(), ClientError> {
        self.send(&Message::goodbye()).await
    }

    /// Sends a message that has no answer: a belief, say.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] above the frame limit, [`ClientError::Closed`].
    ///
    /// # Cancel safety
    /// Cancel-safe: queued whole or not at all.
    pub async fn send(&self, message: &Message) -> Result<(), ClientError> {
        let (len, max) = (message.encoded_len(), self.shared.config.max_frame);
        if len > max {
            return Err(ClientError::TooLarge { len, max });
        }
        let place = self.shared.frames.reserve().await.map_err(|_| self.shared.closed_error())?;
        place.send(message.frame());
        Ok(())
    }

    /// Sends a request under an ID of its own and waits for its RESULT, until the deadline.
    ///
    /// # Errors
    /// [`ClientError`]: who ended it and why. A RESULT that says an error is `Ok` here.
    ///
    /// # Cancel safety
    /// If the future is dropped, the request is forgotten; the peer may still carry it out.
    pub async fn request(&self, message: Message) -> Result<Message, ClientError> {
        let limit = self.shared.config.deadline;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let message = message.with_id(id);
        if message.id() != Some(id) {
            return Err(ClientError::NotARequest);
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut pending = self.shared.pending();
            // Asked under the lock: who closes empties the map afterwards.
            if self.shared.stop.is_cancelled() {
                return Err(self.shared.closed_error());
            }
            if pending.len() >= MAX_PENDING {
                return Err(ClientError::TooManyPending(MAX_PENDING));
            }
            pending.insert(id, sender);
        }
        let _ticket = Ticket(&self.shared, id);
        let answered = async {
            self.send(&message).await?;
            receiver.await.unwrap_or_else(|_| Err(self.shared.closed_error()))
        };
        timeout(limit, answered).await.map_err(|_| ClientError::Deadline(limit))?
    }

    async fn answer(&self, message: Message) -> Result<Answer, ClientError> {
        let result = self.request(message).await?;
        let Payload::Result(outcome) = result.parse()? else { return Err(ClientError::Malformed("an answer that is no Result")) };
        let value = |child| result.value(child).ok_or(ClientError::Malformed("an answer without a branch of its own"));
        Ok(Answer { value: value(&outcome.value)?, error: outcome.error, log: value(&outcome.log)?, info: value(&outcome.info)? })
    }

    /// What the peer says of itself. Its key is only claimed: see [`challenge`](Self::challenge).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn status(&self) -> Result<Status, ClientError> {
        let value = self.answer(Message::status(0)).await?.ok()?;
        Status::read(&value).ok_or(ClientError::Malformed("a status vector with other fields"))
    }

    /// The peer's clock, milliseconds since 1970. Peers before 0.8.3 say nothing: that's a [`ClientError::Deadline`].
    ///
    /// # Errors
    /// As [`request`](Self::request).
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn ping(&self) -> Result<i64, ClientError> {
        let value = self.answer(Message::ping(0)).await?.ok()?;
        value.cell.as_integer().ok_or(ClientError::Malformed("an answer to PING that is no integer"))
    }

    /// Evaluates a form as an account (`None`: the peer chooses one). Nothing it changes is kept.
    ///
    /// # Errors
    /// As [`request`](Self::request); what the evaluation raised is in the [`Answer`].
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn query(&self, form: Value, account: Option<u64>) -> Result<Answer, ClientError> {
        self.answer(Message::query(0, form, account)?).await
    }

    /// The sequence of an account: its next transaction has this plus 1.
    ///
    /// # Errors
    /// As [`request`](Self::request), and [`ClientError::Refused`] (`:NOBODY`) if there's no such account.
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn sequence(&self, account: u64) -> Result<i64, ClientError> {
        let form = Value::leaf(peerlane_cell::Name::new("*sequence*").map_or(Cell::Nil, Cell::Symbol));
        let value = self.query(form, Some(account)).await?.ok()?;
        value.cell.as_integer().ok_or(ClientError::Malformed("a sequence that is no integer"))
    }

    /// Sends a transaction, signed by the account's key, and waits until it's final or refused.
    ///
    /// # Errors
    /// As [`request`](Self::request); a refusal or failure is in the [`Answer`]. After [`ClientError::Deadline`] and
    /// [`ClientError::Closed`] it may still become final: [`sequence`](Self::sequence) tells.
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn transact(&self, transaction: &Transaction, key: &SigningKey) -> Result<Answer, ClientError> {
        self.answer(Message::transact(0, transaction.sign(key)?)?).await
    }

    /// The cells with these value IDs, at most 254: each one verified by its hash, `None` where the peer has none.
    ///
    /// # Errors
    /// As [`request`](Self::request); [`ClientError::WrongCell`] for a cell that wasn't asked for.
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn data(&self, hashes: &[ValueId]) -> Result<Vec<Option<Bytes>>, ClientError> {
        debug_assert!(hashes.len() <= MAX_HASHES);
        fetch::data(self, hashes).await
    }

    /// A whole tree of cells: everything below `root`, down to its last cell, each verified by its hash.
    ///
    /// # Errors
    /// [`ClientError::Missing`] when the peer lacks one, [`ClientError::FetchLimit`] beyond the limits, else as [`data`](Self::data).
    ///
    /// # Cancel safety
    /// As [`request`](Self::request): what has come is lost.
    pub async fn fetch(&self, root: ValueId, limits: FetchLimits) -> Result<Value, ClientError> {
        fetch::fetch(self, root, limits).await
    }

    /// Has the peer prove its key: sends a challenge signed by `key`, and judges the answer. The key is proven from then on
    /// ([`proven`](Self::proven)). Peers before 0.8.3 say nothing.
    ///
    /// # Errors
    /// [`ClientError::Challenge`] for an answer that proves nothing, [`ClientError::Refused`] for a refusal; else as
    /// [`request`](Self::request).
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn challenge(&self, key: &SigningKey, target: Option<[u8; 32]>, network: Option<ValueId>) -> Result<[u8; 32], ClientError> {
        let challenge = Challenge { token: rand::random(), target, context: network };
        let answer = self.answer(Message::challenge(0, challenge.sign(key)?)?).await?.ok()?;
        let proven = challenge.verify_answer(&answer, &key.verifying_key().to_bytes())?;
        *self.shared.proven.lock().unwrap_or_else(PoisonError::into_inner) = Some(proven);
        Ok(proven)
    }
}

#[cfg(test)]
mod tests;
