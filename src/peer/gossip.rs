//! How lattices spread: beliefs out, newest wins; beliefs in, merged, with what they lack acquired through the pen.
//!
//! A belief is a delta. To each peer goes what's new since the last belief that has *left*: one still queued is
//! replaced, and its cells are in the next one, so a slow peer misses nothing and costs one queued message. A belief
//! whose root is the peer's own last one, or ours, is not news and costs a lookup.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use peerlane_transport::{
    TrySend,
    identity::{Identity, RemoteId},
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Belief, BeliefError, Include, MAX_BELIEF, Merged, Store, StoreError, StoreMergeError};
use crate::{
    cad015::{Cad015, Fetch, Message, Pen, PenLimits, Penned, acquire},
    cell::ValueId,
    node::{NodeHandle, Outcome, SeenSet},
};

/// After a change, others that follow at once go into the same belief.
pub const GATHER: Duration = Duration::from_millis(10);
/// A peer that isn't known to have our root is told of it again after this: what was dropped under load comes round.
pub const REPEAT: Duration = Duration::from_secs(2);
/// Cells named by one step of a merge: so many are asked for in one round.
const ROUND: usize = 1016;
/// A MISSING_DATA that isn't answered within this counts as answered with nothing.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Beliefs remembered as merged or proven invalid, and for how long.
pub(super) const SEEN: (usize, Duration) = (4096, Duration::from_secs(600));

/// All single-message beliefs replace each other while they wait.
const BELIEF_KEY: u64 = 0;

/// Counts of what came and what became of it.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct GossipCounters {
    /// Beliefs received.
    pub received: AtomicU64,
    /// Of those, such as said nothing new.
    pub known: AtomicU64,
    /// Merges completed.
    pub merged: AtomicU64,
    /// Operations that came by merges.
    pub operations: AtomicU64,
    /// Cells acquired by MISSING_DATA.
    pub acquired: AtomicU64,
    /// Requests of MISSING_DATA sent.
    pub requests: AtomicU64,
    /// Beliefs that were malformed, badly signed or had an invalid lattice.
    pub invalid: AtomicU64,
    /// Beliefs that found no room in the pen or that nobody completed.
    pub discarded: AtomicU64,
    /// Beliefs sent.
    pub sent: AtomicU64,
}

/// What we know of a peer.
#[derive(Debug, Default, Clone)]
struct Told {
    /// Our store's version that the last belief which has left was about.
    base: u64,
    /// The version of the one that may still be queued.
    queued: Option<u64>,
    /// The root that it last told us.
    root: Option<ValueId>,
    /// When it was last told something.
    at: Option<Instant>,
}

/// The gossip of one peer. Shared by its handler and its sending task.
#[derive(Debug)]
pub struct Gossip {
    store: Arc<Store>,
    identity: Arc<Identity>,
    changed: Arc<Notify>,
    pen: Mutex<Pen<RemoteId>>,
    seen: Mutex<SeenSet<ValueId>>,
    told: Mutex<BTreeMap<RemoteId, Told>>,
    counters: GossipCounters,
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is done under these locks that can leave them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks peers through the node.
struct Asking<'a> {
    node: &'a NodeHandle<Cad015>,
    counters: &'a GossipCounters,
}

impl Fetch for Asking<'_> {
    type Source = RemoteId;

    async fn fetch(&self, source: &RemoteId, request: Message) -> Option<Message> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.node.request(source.clone(), request, FETCH_TIMEOUT).await.ok()
    }
}

impl Gossip {
    /// Gossip about this store, signed by this identity. `changed` is notified when the store has changed otherwise.
    #[must_use]
    pub fn new(store: Arc<Store>, identity: Arc<Identity>, changed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            store,
            identity,
            changed,
            pen: Mutex::new(Pen::new(PenLimits::default())),
            seen: Mutex::new(SeenSet::new(SEEN.0, SEEN.1)),
            told: Mutex::default(),
            counters: GossipCounters::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// What it has counted.
    #[must_use]
    pub fn counters(&self) -> &GossipCounters {
        &self.counters
    }

    /// Adds its counters to a node's metrics text.
    #[must_use]
    pub fn add_metrics(&self, mut text: String) -> String {
        use std::fmt::Write as _;
        let end = text.trim_end().strip_suffix("# EOF").map(str::len);
        if let Some(end) = end {
            text.truncate(end);
        }
        let counters = &self.counters;
        for (name, help, counter) in [
            ("received", "Beliefs received", &counters.received),
            ("known", "Beliefs received that said nothing new", &counters.known),
            ("merged", "Beliefs merged", &counters.merged),
            ("invalid", "Beliefs that were malformed, badly signed or invalid", &counters.invalid),
            ("discarded", "Partial beliefs that nobody completed or that found no room", &counters.discarded),
            ("sent", "Beliefs sent", &counters.sent),
            ("operations", "Operations that came by merges", &counters.operations),
            ("acquired_cells", "Cells acquired by MISSING_DATA", &counters.acquired),
            ("missing_data_requests", "Requests of MISSING_DATA sent", &counters.requests),
        ] {
            let value = counter.load(Ordering::Relaxed);
            // Writing to a string doesn't fail.
            let _ = write!(
                text,
                "# HELP peerlane_gossip_{name} {help}.\n# TYPE peerlane_gossip_{name} counter\npeerlane_gossip_{name}_total {value}\n"
            );
        }
        text.push_str("# EOF\n");
        text
    }

    /// Ends the sending task, all acquisitions and the store's collections, and waits for the former two.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.store.end_collections();
        self.tasks.close();
        self.tasks.wait().await;
    }

    // ----- out

    /// Tells peers of changes until [`stop`](Self::stop).
    pub fn start(self: &Arc<Self>, node: NodeHandle<Cad015>) {
        let gossip = self.clone();
        let mut events = node.events();
        self.tasks.spawn(async move {
            let mut collecting: Option<JoinHandle<()>> = None;
            loop {
                if collecting.as_ref().is_none_or(JoinHandle::is_finished) && gossip.store.wants_collection() {
                    let store = gossip.store.clone();
                    let surroundings = store.surroundings.clone();
                    collecting = Some(tokio::spawn(async move {
                        match surroundings.work(move || store.collect()).await {
                            Some(Ok(collected)) => tracing::debug!(?collected, "cells of older roots were let go"),
                            Some(Err(error)) => tracing::error!(%error, "a collection failed"),
                            None => tracing::error!("a collection didn't come to its end"),
                        }
                    }));
                }
                tokio::select! {
                    biased;
                    () = gossip.stop.cancelled() => return,
                    () = gossip.changed.notified() => {}
                    // Whatever happened to a connection: peers() has the truth.
                    _ = events.recv() => {}
                    () = tokio::time::sleep(REPEAT) => {}
                }
                tokio::select! {
                    biased;
                    () = gossip.stop.cancelled() => return,
                    () = tokio::time::sleep(GATHER) => {}
                }
                gossip.tell_all(&node);
            }
        });
    }

    fn tell_all(&self, node: &NodeHandle<Cad015>) {
        let peers: Vec<RemoteId> = node.peers().into_iter().map(|peer| peer.id).collect();
        lock(&self.told).retain(|id, _| peers.contains(id));
        for peer in &peers {
            self.tell(node, peer);
        }
    }

    /// Queues a belief for one peer, unless it has our root.
    fn tell(&self, node: &NodeHandle<Cad015>, peer: &RemoteId) {
        let told = lock(&self.told).get(peer).cloned().unwrap_or_default();
        let (root, now) = (self.store.root(), Instant::now());
        if told.root == Some(root) {
            return;
        }
        let news = told.queued.unwrap_or(told.base) < self.store.version();
        if !news && told.at.is_some_and(|at| now.saturating_duration_since(at) < REPEAT) {
            return;
        }
        let delta = self.store.belief(told.base, Include::Own);
        let version = delta.version;
        let time = self.store.surroundings.wall_ms();
        let messages = match delta.messages(self.identity.signing_key(), time, MAX_BELIEF, self.store.profile()) {
            Ok(messages) => messages,
            Err(error) => return tracing::error!(%error, "a belief can't be made"),
        };
        let mut told = Told { at: Some(now), ..told };
        if let [message] = &messages[..] {
            match node.send_latest(peer.clone(), BELIEF_KEY, message) {
                // The one before hasn't left; all that it said is in this one, which is since the same version.
                Ok(Outcome::Superseded(_)) => told.queued = Some(version),
                // The one before has left.
                Ok(Outcome::Queued) => {
                    told.base = told.queued.unwrap_or(told.base);
                    told.queued = Some(version);
                }
                // No room, or no connection: the next round tries again.
                _ => return,
            }
            self.counters.sent.fetch_add(1, Ordering::Relaxed);
        } else {
            // Too much for one: parts, in order. What finds no room, the peer asks for by hash, once the next belief names
            // the root: beginning again with the first part would fill the queue with the same parts for ever.
            let send = |message| matches!(node.try_send(peer.clone(), message), Ok(TrySend::Queued));
            let sent = messages.iter().take_while(|message| send(message)).count();
            self.counters.sent.fetch_add(sent as u64, Ordering::Relaxed);
            if sent == 0 {
                return;
            }
            told.base = version;
            told.queued = None;
        }
        // What the peer told us meanwhile stays.
        let mut all = lock(&self.told);
        let root = all.get(peer).and_then(|told| told.root);
        all.insert(peer.clone(), Told { root, ..told });
    }

    // ----- in

    /// Takes a belief in. What it lacks is acquired by a task of its own, so that the caller isn't held up.
    ///
    /// # Errors
    /// [`BeliefError`] if the message is no belief: its sender breaks the rules.
    ///
    /// # Cancel safety
    /// If the future is dropped, the belief may be forgotten; its sender repeats it.
    pub async fn receive(self: &Arc<Self>, node: &NodeHandle<Cad015>, from: &RemoteId, message: &Message) -> Result<(), BeliefError> {
        self.counters.received.fetch_add(1, Ordering::Relaxed);
        let profile = *self.store.profile();
        let known = |gossip: &Self| gossip.counters.known.fetch_add(1, Ordering::Relaxed);
        // By its bytes first: a copy costs no signature.
        let copy = crate::cell::encode(&message.payload);
        let copy = profile.id(&copy);
        if lock(&self.seen).contains(&copy, Instant::now()) {
            known(self);
            return Ok(());
        }
        let belief = match Belief::open(message, &profile) {
            Ok(belief) => belief,
            Err(error) => {
                self.counters.invalid.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        };
        let root = belief.root.id(&profile);
        if from.as_peer_id().is_some_and(|id| *id.as_bytes() == belief.peer) {
            lock(&self.told).entry(from.clone()).or_default().root = Some(root);
        }
        if root == self.store.root() || lock(&self.seen).contains(&root, Instant::now()) {
            lock(&self.seen).insert(copy, Instant::now());
            known(self);
            return Ok(());
        }
        let trusted = node.peer(from.clone()).is_some_and(|peer| peer.trusted);
        let penned = lock(&self.pen).put(root, from, trusted, message.branches.iter().cloned(), Instant::now());
        match penned {
            // It waits for its last part if there are several; nothing is asked for before.
            Penned::First | Penned::Joined if belief.is_last() => {
                let (gossip, node) = (self.clone(), node.clone());
                self.tasks.spawn(async move {
                    tokio::select! {
                        biased;
                        () = gossip.stop.cancelled() => {}
                        () = gossip.complete(&node, belief, root, copy) => {}
                    }
                });
            }
            Penned::First => self.expire_later(root),
            Penned::Joined => {}
            Penned::Full => drop(self.counters.discarded.fetch_add(1, Ordering::Relaxed)),
        }
        Ok(())
    }

    /// A belief whose last part never comes doesn't stay.
    fn expire_later(self: &Arc<Self>, root: ValueId) {
        let gossip = self.clone();
        self.tasks.spawn(async move {
            let patience = PenLimits::default().patience;
            while lock(&gossip.pen).contains(&root) {
                tokio::select! {
                    biased;
                    () = gossip.stop.cancelled() => return,
                    () = tokio::time::sleep(patience) => {}
                }
                if lock(&gossip.pen).expire(&root, Instant::now()) {
                    gossip.counters.discarded.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }

    /// Merges, and acquires what's missing, until the root is merged, proven invalid, or given up.
    async fn complete(self: &Arc<Self>, node: &NodeHandle<Cad015>, belief: Belief, root: ValueId, copy: ValueId) {
        let profile = *self.store.profile();
        loop {
            // Somebody else works on it already; the cells that came with this copy are theirs now.
            let Some(staging) = lock(&self.pen).take(&root) else { return };
            let (store, theirs) = (self.store.clone(), belief.root.clone());
            let merging = self.store.surroundings.work(move || {
                let mut staging = staging;
                let merged = store.merge(&theirs, &staging, ROUND);
                if let Ok(snapshot) = store.snapshot() {
                    staging.prune(&snapshot);
                }
                (merged, staging)
            });
            // A merge that panicked, or never ran: its place isn't kept.
            let Some((merged, mut staging)) = merging.await else { return lock(&self.pen).done(&root) };
            let (missing, adopted) = match merged {
                Ok(merged) => {
                    self.note(&merged);
                    (merged.missing, merged.accounts > 0)
                }
                Err(StoreMergeError::Invalid(error)) => {
                    tracing::warn!(signer = %data_encoding::HEXLOWER.encode(&belief.peer), %error, "an invalid lattice was vouched for");
                    self.counters.invalid.fetch_add(1, Ordering::Relaxed);
                    return self.settled(root, copy);
                }
                Err(StoreMergeError::Store(error)) => {
                    // The store says itself when it tries to open again, not for every belief that comes meanwhile.
                    if !matches!(error, StoreError::Failed) {
                        tracing::error!(%error, "a merge failed");
                    }
                    return lock(&self.pen).done(&root);
                }
            };
            if missing.is_empty() {
                self.counters.merged.fetch_add(1, Ordering::Relaxed);
                return self.settled(root, copy);
            }
            let sources = lock(&self.pen).sources(&root);
            let asking = Asking { node, counters: &self.counters };
            let deadline = lock(&self.pen).deadline(&root).unwrap_or_else(Instant::now);
            let Ok(fetched) = timeout_at(deadline, acquire(&asking, &sources, &missing, &profile)).await else {
                self.counters.discarded.fetch_add(1, Ordering::Relaxed);
                return lock(&self.pen).done(&root);
            };
            let acquired = fetched.cells.len();
            self.counters.acquired.fetch_add(acquired as u64, Ordering::Relaxed);
            let before = staging.bytes();
            let refused = staging.add(fetched.cells);
            // Cells that find no room are no progress: what can't be completed within the bound must end.
            let progress = adopted || staging.bytes() > before;
            if refused > 0 {
                tracing::debug!(refused, "cells beyond the pen's bound are asked for again");
            }
            let mut pen = lock(&self.pen);
            pen.give_back(&root, staging, progress, Instant::now());
            fetched.useless.iter().for_each(|source| pen.no_source(&root, source));
            if pen.expire(&root, Instant::now()) {
                self.counters.discarded.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    fn note(&self, merged: &Merged) {
        for equivocation in &merged.equivocations {
            tracing::warn!(
                account = %data_encoding::HEXLOWER.encode(&equivocation.account),
                sequence = equivocation.sequence,
                kept = %equivocation.kept,
                dropped = %equivocation.dropped,
                "an account has signed two operations with one sequence"
            );
        }
        self.counters.operations.fetch_add(merged.operations, Ordering::Relaxed);
        if merged.accounts > 0 {
            self.changed.notify_one();
        }
    }

    /// Merged, or proven invalid: copies of it are no news.
    fn settled(&self, root: ValueId, copy: ValueId) {
        let now = Instant::now();
        let mut seen = lock(&self.seen);
        seen.insert(root, now);
        seen.insert(copy, now);
        drop(seen);
        lock(&self.pen).done(&root);
    }
}
