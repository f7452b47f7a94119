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
use crate::{ClassId, Connection, Inbound, SendError, TrySend, limits};

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

/// More messages of a class than all its queues and windows take while nobody reads, by far; and not so many that a
/// transport without backpressure fills the machine.
pub(super) fn too_many(a: &Connection, class: ClassId, len: usize) -> u64 {
    let info = &a.classes()[class];
    (4 * (info.send_budget + info.receive_budget + info.window_total()) / len) as u64 + 100
}

/// Bytes of a streamed message that nobody reads that no transport takes: many times its window.
const UNREAD: u64 = 4 * 1024 * 1024;

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
            streams.spawn(pour(writer, number, move |len| stop.load(Ordering::Relaxed) || len > UNREAD));
        }
        let len = a.classes()[class].max_message;
        let large = Flood::start(a, class, 16, too_many(a, class, len), len);
        Ok(Self { class, stop, streams, large })
    }

    /// Reads everything: it's as it was written, and nothing is missing.
    pub(super) async fn release(mut self, b: &Connection) -> Verdict {
        ensure!(self.streams.try_join_next().is_none(), "a streamed message that nobody reads takes {UNREAD} bytes: no backpressure");
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

/// Whose bytes are delivered: between the first `from` and the first `to` of all classes' together.
pub(super) struct Meter {
    from: u64,
    to: u64,
    total: AtomicU64,
    classes: Vec<AtomicU64>,
    done: Notify,
}

impl Meter {
    /// Counts from now on. What is delivered before `from` says nothing: the queues don't stand yet.
    pub(super) fn new(classes: usize, from: u64, to: u64) -> Arc<Self> {
        let classes = (0..classes).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { from, to, total: AtomicU64::new(0), classes, done: Notify::new() })
    }

    /// Takes a class's whole messages as they come, and counts them.
    pub(super) fn read(self: &Arc<Self>, b: &Connection, class: ClassId) -> AbortOnDropHandle<()> {
        let (meter, b) = (self.clone(), b.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok(Inbound::Whole(message)) = b.recv(class).await {
                meter.add(class, message.len() as u64);
            }
        }))
    }

    fn add(&self, class: ClassId, bytes: u64) {
        // One counter for all decides what counts: whoever looks at it later has the same figures.
        let total = self.total.fetch_add(bytes, Ordering::SeqCst);
        if (self.from..self.to).contains(&total) {
            self.classes[class.index()].fetch_add(bytes, Ordering::SeqCst);
        }
        if total + bytes >= self.to {
            self.done.notify_one();
        }
    }

    /// Bytes of all classes so far.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }

    /// Bytes by class, once all are counted.
    pub(super) async fn counted(&self) -> Vec<u64> {
        while self.total() < self.to {
            self.done.notified().await;
        }
        self.classes.iter().map(|bytes| bytes.load(Ordering::SeqCst)).collect()
    }
}

/// Queues so many bytes of each class at once, in turn. The messages of a class share their bytes, so that a deep queue
/// costs little.
pub(super) fn fill(a: &Connection, classes: &[(ClassId, usize)], bytes: usize) -> Verdict {
    let mut left: Vec<_> = classes.iter().map(|(class, len)| (*class, noise(u64::from(class.0), *len), bytes)).collect();
    while !left.is_empty() {
        for (class, message, left) in &mut left {
            // About as many bytes of each in a round.
            for _ in 0..limits::QUANTUM.div_ceil(message.len()) {
                let queued = a.try_send(*class, message.clone());
                ensure!(matches!(queued, TrySend::Queued), "a message isn't queued within its class's budget: {queued:?}");
                *left = left.saturating_sub(message.len());
            }
        }
        left.retain(|(_, _, left)| *left > 0);
    }
    Ok(())
}

/// Tries a check that other work on the machine may disturb, threads of its own included: a missing defence fails it
/// every time.
pub(super) async fn one_of_three<T: Future<Output = Verdict>>(check: impl Fn() -> T) -> Verdict {
    for _ in 0..2 {
        match check().await {
            Err(Stop::Failed(why)) => tracing::debug!("once more, since {why}"),
            done => return done,
        }
    }
    check().await
}
