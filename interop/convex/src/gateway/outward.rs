//! From the remote gateway to the local peer's socket: whole frames, one at a time.
//!
//! Where several classes wait, core's scheduler says which is next: urgent ones first while within their share, so that a
//! flood of queries doesn't stop beliefs. A frame that has begun can't be interrupted; a streamed one takes as long as its bytes take to come.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::future::select_all;
use peerlane_cell::vlq::{self, VlqError};
use peerlane_transport::{ClassId, CloseCode, Closed, Connection, Inbound, MessageReader, RecvError, class::Scheduler};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::{
    link::Ends,
    sort::{HEAD, Head, Pending},
    stats::{Held, PeerCounters, Stats},
};
use crate::Kind;

/// A body up to so many bytes is written together with its length. Bytes.
const TOGETHER: usize = 16 * 1024;

/// Why nothing more is written.
#[derive(Debug)]
pub(super) enum Ended {
    /// The connection is over, and what had come is written.
    Closed(Closed),
    /// The remote gateway sent what it mustn't, or broke off in the middle of a frame.
    Remote(CloseCode, String),
}

/// Why one frame isn't written.
enum Failed {
    /// The local peer takes no more.
    Local,
    Ended(Ended),
}

impl From<io::Error> for Failed {
    fn from(_: io::Error) -> Self {
        Self::Local
    }
}

impl From<Ended> for Failed {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// What is to be known while writing goes on.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The remote peer's last word has come; it's kept until the rest is written.
    pub(super) goodbye: CancellationToken,
    /// The local peer takes no more: what comes is dropped.
    pub(super) gone: CancellationToken,
}

pub(super) struct Outward<'a, W> {
    socket: W,
    connection: &'a Connection,
    pending: &'a Mutex<Pending>,
    counters: &'a PeerCounters,
    moved: &'a (dyn Fn() + Send + Sync),
    signals: &'a Signals,
    scheduler: Scheduler,
    /// The next message of each class, at most one of each: a class's largest at most.
    heads: Vec<Option<Inbound>>,
    held: Held<'a>,
    /// Comes last.
    goodbye: Option<Bytes>,
    /// A streamed frame has begun and isn't complete: nothing else may be written.
    within: bool,
    max_frame: usize,
}

impl<'a, W: AsyncWrite + Unpin> Outward<'a, W> {
    pub(super) fn new(socket: W, ends: Ends<'a>, signals: &'a Signals, stats: &'a Stats, max_frame: usize) -> Self {
        let Ends { connection, pending, counters, moved } = ends;
        let classes = connection.classes();
        Self {
            socket,
            connection,
            pending,
            counters,
            moved,
            signals,
            scheduler: Scheduler::new(classes),
            heads: classes.iter().map(|_| None).collect(),
            held: stats.held(),
            goodbye: None,
            within: false,
            max_frame,
        }
    }

    /// Writes what comes until the connection is over and all of it is written, the remote peer's last word last.
    ///
    /// # Cancel safety
    /// Not cancel-safe: a frame may have been written in part.
    pub(super) async fn run(mut self) -> Ended {
        let ended = self.write_all().await;
        if !self.within && !self.signals.gone.is_cancelled() {
            let last = async {
                if let Some(body) = self.goodbye.take() {
                    self.frame(&body).await?;
                }
                self.socket.shutdown().await
            };
            // If it has gone meanwhile, nobody is left to tell.
            let _ = last.await;
        }
        ended
    }

    async fn write_all(&mut self) -> Ended {
        let mut over = None;
        loop {
            for (class, _) in self.connection.classes().iter() {
                if let Some(head @ None) = self.heads.get_mut(class.index())
                    && let Some(message) = self.connection.try_recv(class)
                {
                    *head = Some(message);
                    self.scheduler.set_waiting(class, true);
                }
            }
            self.count();
            match self.scheduler.pick(|_| true) {
                Some(class) => {
                    let Some(message) = self.heads.get_mut(class.index()).and_then(Option::take) else {
                        self.scheduler.set_waiting(class, false);
                        continue;
                    };
                    // Charged while it still waits: the class's place is kept if more of it is there.
                    match self.write(class, message).await {
                        Ok(len) => self.scheduler.charge(class, len),
                        Err(Failed::Local) => self.signals.gone.cancel(),
                        Err(Failed::Ended(ended)) => return ended,
                    }
                    if let Some(next) = self.connection.try_recv(class) {
                        if let Some(head) = self.heads.get_mut(class.index()) {
                            *head = Some(next);
                        }
                    } else {
                        self.scheduler.set_waiting(class, false);
                    }
                }
                None => match over {
                    Some(closed) => return Ended::Closed(closed),
                    None => match self.wait().await {
                        Ok((class, message)) => {
                            if let Some(head) = self.heads.get_mut(class.index()) {
                                *head = Some(message);
                            }
                            self.scheduler.set_waiting(class, true);
                        }
                        // Other classes may still have some.
                        Err(closed) => over = Some(closed),
                    },
                },
            }
        }
    }

    fn count(&mut self) {
        let bytes = self.heads.iter().flatten().map(|message| if let Inbound::Whole(body) = message { body.len() } else { 0 });
        self.held.set(bytes.sum());
    }

    /// The next message of any class.
    async fn wait(&self) -> Result<(ClassId, Inbound), Closed> {
        let connection = self.connection;
        let known = connection.classes().iter().map(|(class, _)| class).filter(|class| connection.has_class(*class));
        let waiting = known.map(|class| Box::pin(async move { (class, connection.recv(class).await) }));
        // Never empty: gateways have the same classes, and the hello saw to it that one at least is shared.
        let (class, message) = select_all(waiting).await.0;
        match message {
            Ok(message) => Ok((class, message)),
            Err(RecvError::Closed(closed)) => Err(closed),
            Err(error) => Err(Closed::local(CloseCode::Internal, error.to_string())),
        }
    }

    /// A request that the local peer is to answer, or its answer to one of ours.
    fn note(&self, head: Head, class: ClassId, len: u64) {
        (self.moved)();
        if let Some(id) = head.id.filter(|_| head.kind != Kind::Result) {
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).asked(id, class);
        }
        self.counters.passed(head.kind, len, false);
    }

    /// One frame; its body's length in bytes.
    async fn write(&mut self, class: ClassId, message: Inbound) -> Result<usize, Failed> {
        if self.signals.gone.is_cancelled() {
            return Ok(0);
        }
        let body = match message {
            Inbound::Whole(body) => body,
            Inbound::Streamed(reader) => return self.stream(class, reader).await,
        };
        let len = body.len();
        if len > self.max_frame {
            return Err(too_large(len as u64, self.max_frame).into());
        }
        let head = Head::of(&body);
        self.note(head, class, len as u64);
        if head.kind == Kind::Goodbye {
            self.goodbye = Some(body);
            self.signals.goodbye.cancel();
            return Ok(len);
        }
        self.frame(&body).await?;
        Ok(len)
    }

    async fn frame(&mut self, body: &Bytes) -> io::Result<()> {
        let mut prefix = BytesMut::with_capacity(vlq::MAX_LEN + if body.len() <= TOGETHER { body.len() } else { 0 });
        vlq::write(body.len() as u64, &mut prefix);
        if body.len() <= TOGETHER {
            prefix.put_slice(body);
            return self.socket.write_all(&prefix).await;
        }
        self.socket.write_all(&prefix).await?;
        self.socket.write_all(body).await
    }

    /// A frame whose body comes in pieces, its length before it.
    async fn stream(&mut self, class: ClassId, mut reader: MessageReader) -> Result<usize, Failed> {
        let mut begin = BytesMut::new();
        let mut held = self.held.another();
        let (len, used) = loop {
            match vlq::read(&begin) {
                Ok((len, used)) if (begin.len() - used) as u64 >= len.min(HEAD as u64) => break (len, used),
                Ok(_) | Err(VlqError::Truncated) => {}
                Err(error) => return Err(broken(format!("a frame's length is malformed: {error}")).into()),
            }
            match reader.read().await.map_err(aborted)? {
                Some(piece) => begin.extend_from_slice(&piece),
                None => return Err(broken("a streamed message shorter than its frame").into()),
            }
            held.set(begin.len());
        };
        let size = usize::try_from(len).ok().filter(|len| *len <= self.max_frame).ok_or_else(|| too_large(len, self.max_frame))?;
        let head = Head::look(begin.get(used..).map_or(&[], |rest| &rest[..rest.len().min(HEAD)]), len);
        self.note(head.unwrap_or(Head { kind: Kind::Unknown, id: None }), class, len);
        self.within = true;
        self.socket.write_all(&begin[..used]).await?;
        begin.advance(used);
        let mut piece = begin.freeze();
        let mut left = size;
        loop {
            held.set(piece.len());
            left = left.checked_sub(piece.len()).ok_or_else(|| broken("a streamed message longer than its frame"))?;
            self.socket.write_all(&piece).await?;
            match reader.read().await.map_err(aborted)? {
                Some(next) => piece = next,
                None if left == 0 => {
                    self.within = false;
                    return Ok(size);
                }
                None => return Err(broken("a streamed message shorter than its frame").into()),
            }
        }
    }
}

fn broken(what: impl Into<String>) -> Ended {
    Ended::Remote(CloseCode::Application, what.into())
}

fn aborted(error: RecvError) -> Ended {
    match error {
        RecvError::Closed(closed) => Ended::Closed(closed),
        error => broken(format!("the remote peer broke off in the middle of a frame: {error}")),
    }
}

fn too_large(len: u64, max: usize) -> Ended {
    Ended::Remote(CloseCode::TooLarge, format!("a frame of {len} bytes: at most {max} are taken here (--max-frame)"))
}
