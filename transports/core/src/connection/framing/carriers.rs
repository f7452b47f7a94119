//! Further byte streams of one connection.
//!
//! Every connection begins on one byte stream, carrier 0, with all its classes and its control frames. Others join when
//! they're ready, or never do: nothing waits for them. When one is there, a side says MOVED on carrier 0, behind all
//! that its classes have sent there, and they go on on the new one, with what is said of the other side's lanes of these
//! classes. Whoever hears MOVED reads the new one from then on, and not before: so each lane's bytes stay in their order,
//! and no message needs to be held back or sent again.
//!
//! The dialer moves first. Until it has, it may give the new byte stream up, and the connection knows nothing of it;
//! afterwards the end of any carrier is the connection's.
//!
//! One that's for copies alone ([`COPIES`]) has no part in that: see `copies`.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU16, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, mpsc},
};

use super::{Control, Lanes, Session, copies, read, write};
use crate::{
    CloseCode, Closed,
    class::{ClassId, Lane},
    limits,
    sync::Mutex,
};

/// How long the first carrier is waited for when another one ends: it may say why.
const SAYS_WHY: Duration = Duration::from_secs(1);

/// The number of the carrier for copies of small urgent messages. No class goes on it, whatever the number of carriers, and
/// its end is nobody's but its own.
pub const COPIES: u8 = 255;

/// Further byte streams for a connection whose local classes go on these carriers, by the class's index: 0, where all of
/// them begin, to [`limits::MAX_CARRIERS`] - 1. Both ends may see it differently.
pub fn carriers<IO>(of: Vec<u8>) -> (Joining<IO>, Carriers<IO>) {
    let (give, arriving) = mpsc::channel(limits::MAX_CARRIERS);
    let counts = Arc::<Counts>::default();
    (Joining { give, counts: counts.clone() }, Carriers { of, arriving, counts, copies: None })
}

/// Where further byte streams are handed in. Cheap to clone.
#[derive(Debug)]
pub struct Joining<IO> {
    give: mpsc::Sender<Carrier<IO>>,
    counts: Arc<Counts>,
}

/// The further byte streams of a connection, for its driver: [`drive_all`](super::drive_all).
#[derive(Debug)]
pub struct Carriers<IO> {
    pub(super) of: Vec<u8>,
    arriving: mpsc::Receiver<Carrier<IO>>,
    counts: Arc<Counts>,
    copies: Option<Duration>,
}

impl<IO> Carriers<IO> {
    /// With copies, so long after their messages, if both sides' hellos offer them: a byte stream may join as [`COPIES`].
    pub fn with_copies(self, after: Option<Duration>) -> Self {
        Self { copies: after, ..self }
    }
}

/// A carrier's number, taken; free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    number: u8,
    bit: u16,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Carrier<IO> {
    place: Place,
    io: IO,
    /// Bytes that came behind the JOIN or its ACCEPT.
    early: BytesMut,
}

#[derive(Debug, Default)]
struct Counts {
    /// One bit for each number that is taken.
    taken: AtomicU16,
    /// Carriers in use beside the first.
    used: AtomicU8,
}

impl<IO> Joining<IO> {
    /// Takes a carrier's number. `None`: there's no such one, or it's taken.
    pub fn take(&self, number: u8) -> Option<Place> {
        let bit = match number {
            // The first one's bit: nobody else has it.
            COPIES => 1,
            0 => return None,
            _ if usize::from(number) < limits::MAX_CARRIERS => 1 << number,
            _ => return None,
        };
        let free = self.counts.taken.fetch_or(bit, Relaxed) & bit == 0;
        free.then(|| Place { number, bit, counts: self.counts.clone() })
    }

    /// Hands a byte stream in. On the dialer's side its JOIN is accepted, and it's in use from now on; on the other side
    /// ACCEPT will be said. `early`: bytes that came behind. `false`: the connection is over.
    pub fn attach(&self, place: Place, io: IO, early: BytesMut) -> bool {
        // There's room: each number is taken once.
        self.give.try_send(Carrier { place, io, early }).is_ok()
    }

    /// Byte streams that carry the connection now.
    pub fn count(&self) -> u8 {
        1 + self.counts.used.load(Relaxed)
    }
}

impl<IO> Clone for Joining<IO> {
    fn clone(&self) -> Self {
        Self { give: self.give.clone(), counts: self.counts.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.taken.fetch_and(!self.bit, Relaxed);
    }
}

/// What a carrier waits for: that the other side has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// There's no such carrier.
    None,
    Awaited,
    Heard,
    /// The carrier has ended before that.
    Gone,
}

/// Whether the other side has moved, by carrier.
#[derive(Debug)]
pub(super) struct Moves {
    states: Mutex<[Move; limits::MAX_CARRIERS]>,
    news: Notify,
}

impl Moves {
    pub(super) fn new() -> Self {
        Self { states: Mutex::new([Move::None; limits::MAX_CARRIERS]), news: Notify::new() }
    }

    fn set(&self, number: u8, state: Move) {
        if let Some(place) = self.states.lock().get_mut(usize::from(number)) {
            *place = state;
        }
    }

    /// MOVED came.
    pub(super) fn hear(&self, session: &Session, number: u8) -> Result<(), Closed> {
        let mut states = self.states.lock();
        match states.get_mut(usize::from(number)) {
            Some(state @ Move::Awaited) => {
                *state = Move::Heard;
                self.news.notify_waiters();
                Ok(())
            }
            Some(Move::Gone) => Err(lost(number, "it had ended before the other side moved to it")),
            _ => Err(session.violation(CloseCode::Protocol, "a move to a carrier that hasn't joined")),
        }
    }

    async fn heard(&self, number: u8) {
        loop {
            // Before looking: news in between aren't missed.
            let news = self.news.notified();
            if self.states.lock().get(usize::from(number)) == Some(&Move::Heard) {
                return;
            }
            news.await;
        }
    }
}

/// What the carriers of a connection have in common.
pub(super) struct Shared<'a> {
    pub(super) session: &'a Arc<Session>,
    pub(super) lanes: Lanes,
    pub(super) moves: Moves,
    /// By local class.
    pub(super) of: Vec<u8>,
}

fn lost(number: u8, why: &str) -> Closed {
    Closed::transport(CloseCode::Lost, format!("carrier {number}: {why}"))
}

/// Drives what joins, beside the first carrier and in its task. Never completes.
pub(super) async fn carry_all<IO: AsyncRead + AsyncWrite + Send>(further: Carriers<IO>, shared: &Shared<'_>) {
    let Carriers { mut arriving, counts, copies, .. } = further;
    // At most one for each number.
    let mut running: Vec<BoxFuture<'_, ()>> = Vec::new();
    poll_fn(|cx| {
        while let Poll::Ready(Some(carrier)) = arriving.poll_recv(cx) {
            match (carrier.place.number, copies) {
                (COPIES, Some(after)) => running.push(Box::pin(carry_copies(carrier, counts.clone(), shared, after))),
                // The other side knows that there are none.
                (COPIES, None) => drop(carrier),
                _ => running.push(Box::pin(carry(carrier, counts.clone(), shared))),
            }
        }
        running.retain_mut(|carrier| carrier.as_mut().poll(cx).is_pending());
        Poll::Pending
    })
    .await
}

async fn carry_copies<IO: AsyncRead + AsyncWrite + Send>(carrier: Carrier<IO>, counts: Arc<Counts>, shared: &Shared<'_>, after: Duration) {
    // The place is free again when all is done.
    let Carrier { place: _place, io, early } = carrier;
    copies::carry(io, early, &counts.used, shared.session, after).await;
}

async fn carry<IO: AsyncRead + AsyncWrite + Send>(carrier: Carrier<IO>, counts: Arc<Counts>, shared: &Shared<'_>) {
    let Carrier { place, io, mut early } = carrier;
    let (number, session) = (place.number, shared.session);
    let (mut input, mut output) = tokio::io::split(io);
    shared.moves.set(number, Move::Awaited);
    if !session.info().dialed && !accepted(&mut input, &mut output, &mut early, number, shared).await {
        // It's as if it had never joined, and its dialer may try again.
        shared.moves.set(number, Move::Gone);
        return;
    }
    counts.used.fetch_add(1, Relaxed);
    let mine = |class: ClassId| shared.of.get(class.index()) == Some(&number);
    session.outbox().carry(number, mine, |remote| session.local_class(Lane { class: remote, slot: 0 }).is_some_and(mine));
    let over = |closed: Closed| async move {
        let _ = tokio::time::timeout(SAYS_WHY, session.over().cancelled()).await;
        // Only the first end counts: what the first carrier said, or a rule that was broken, stays.
        session.end(lost(number, &closed.reason));
    };
    let reading = async {
        shared.moves.heard(number).await;
        over(read(&mut input, shared, early, number).await).await;
    };
    let writing = async {
        if let Err(error) = write(&mut output, session, number).await {
            over(Closed::transport(CloseCode::Lost, error.to_string())).await;
        }
    };
    tokio::join!(writing, reading);
}

/// Says ACCEPT, and waits until the dialer has moved. `false`: it has given this byte stream up.
async fn accepted<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    input: &mut R,
    output: &mut W,
    early: &mut BytesMut,
    number: u8,
    shared: &Shared<'_>,
) -> bool {
    let mut accept = BytesMut::new();
    Control::Accept.encode(&mut accept);
    if output.write_all(&accept).await.is_err() || output.flush().await.is_err() {
        return false;
    }
    loop {
        tokio::select! {
            biased;
            () = shared.moves.heard(number) => return true,
            // What has been sent ahead of its MOVED is kept, and nothing more is read.
            read = input.read_buf(early), if early.is_empty() => if !read.is_ok_and(|more| more > 0) { return false },
        }
    }
}
