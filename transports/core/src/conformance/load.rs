//! Floods, classes held fast, and counting readers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{sync::Notify, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{
    report::{Stop, Verdict, ensure},
    streams::{Digest, Numbers, message, noise, pour, taste},
};
use crate::{ClassId, Connection, Inbound, SendError, limits};

/// Writers that send numbered messages of a class for as long as they may.
pub(super) struct Flood {
    class: ClassId,
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<(), SendError>>,
}

impl Flood {
    /// Starts the writers: `limit` messages in all at most, `len` bytes each.
    pub(super) fn start(a: &Connection, class: ClassId, writers: usize, limit: u64, len: usize) -> Self {
        let (next, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..writers {
            let (a, next, stop) = (a.clone(), next.clone(), stop.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= limit {
                        next.fetch_sub(1, Ordering::Relaxed);
                        break;
                    }
                    a.send(class, message(number, len)).await?;
                }
                Ok(())
            });
        }
        Self { class, next, stop, tasks }
    }

    /// Messages that writers have begun to send.
    pub(super) fn begun(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Takes what arrives until the writers have stopped and everything is there: once, and as it was sent.
    pub(super) async fn finish(mut self, b: &Connection) -> Verdict {
        self.stop.store(true, Ordering::Relaxed);
        let mut numbers = Numbers::default();
        loop {
            tokio::select! {
                biased;
                ended = self.tasks.join_next() => match ended {
                    Some(ended) => ended??,
                    None => break,
                },
                message = b.recv(self.class) => add(&mut numbers, message?)?,
            }
        }
        while numbers.len() < self.begun() {
            add(&mut numbers, b.recv(self.class).await?)?;
        }
        numbers.exactly(self.begun())
    }
}

fn add(numbers: &mut Numbers, message: Inbound) -> Verdict {
    match message {
        Inbound::Whole(bytes) => numbers.add(&bytes).map(|_| ()),
        Inbound::Streamed(_) => Err(Stop::Failed("a streamed message that nobody sent".into())),
    }
}

/// A class that is held fast: all its streamed messages open and being written, whole ones of every kind waiting
/// behind, and nobody reads.
pub(super) struct Held {
    class: ClassId,
    stop: Arc<AtomicBool>,
    streams: JoinSet<Result<Digest, Stop>>,
    large: Flood,
}

impl Held {
    /// Begins to fill a class.
    pub(super) async fn new(a: &Connection, class: ClassId) -> Result<Self, Stop> {
        let stop = Arc::<AtomicBool>::default();
        let mut streams = JoinSet::new();
        for number in 0..limits::MAX_OPEN_STREAMED as u64 {
            let (writer, stop) = (a.open(class).await?, stop.clone());
            streams.spawn(pour(writer, number, move |_| stop.load(Ordering::Relaxed)));
        }
        let large = Flood::start(a, class, 16, 200, a.classes()[class].max_message);
        Ok(Self { class, stop, streams, large })
    }

    /// Reads everything: it's as it was written, and nothing is missing.
    pub(super) async fn release(mut self, b: &Connection) -> Verdict {
        self.stop.store(true, Ordering::Relaxed);
        self.large.stop.store(true, Ordering::Relaxed);
        let (mut numbers, mut wrote, mut read) = (Numbers::default(), Vec::new(), Vec::new());
        let mut readers = JoinSet::new();
        loop {
            let writing = !self.streams.is_empty() || !self.large.tasks.is_empty();
            let missing = numbers.len() < self.large.begun() || read.len() < limits::MAX_OPEN_STREAMED;
            if !writing && !missing {
                break;
            }
            tokio::select! {
                biased;
                Some(digest) = self.streams.join_next() => wrote.push(digest??),
                Some(sent) = self.large.tasks.join_next() => sent??,
                Some(digest) = readers.join_next() => read.push(digest??),
                message = b.recv(self.class) => match message? {
                    Inbound::Streamed(reader) => { readers.spawn(taste(reader)); }
                    whole => add(&mut numbers, whole)?,
                },
            }
        }
        wrote.sort();
        read.sort();
        ensure!(wrote == read, "the streamed messages that were held aren't as they were written");
        numbers.exactly(self.large.begun())
    }
}

/// Takes a class's messages as they come, and counts their bytes.
pub(super) struct Sink {
    pub(super) bytes: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl Sink {
    /// `moved` is told of each message.
    pub(super) fn start(b: &Connection, class: ClassId, moved: &Arc<Notify>) -> Self {
        let bytes = Arc::<AtomicU64>::default();
        let (b, counter, moved) = (b.clone(), bytes.clone(), moved.clone());
        let task = tokio::spawn(async move {
            while let Ok(message) = b.recv(class).await {
                if let Inbound::Whole(message) = message {
                    counter.fetch_add(message.len() as u64, Ordering::Relaxed);
                    moved.notify_one();
                }
            }
        });
        Self { bytes, _task: AbortOnDropHandle::new(task) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A sender that always has something waiting in its class: it makes nothing, so that it's faster than any transport.
pub(super) fn press(a: &Connection, class: ClassId, len: usize) -> AbortOnDropHandle<()> {
    let (a, message) = (a.clone(), noise(u64::from(class.0), len));
    AbortOnDropHandle::new(tokio::spawn(async move { while a.send(class, message.clone()).await.is_ok() {} }))
}
