//! The workers of a class, and those of them that wait for a peer.
//!
//! A worker is a task, and a handler waits within it. While it waits for a peer (for room for its reply, for the next
//! bytes of a streamed message, for an answer), another task takes its place: peers that stop reading hold up themselves,
//! and not those whose messages come after theirs. What one peer has waiting counts as its running ones do, so a peer's
//! share ([`FairQueue`](super::queue::FairQueue)) bounds both.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
};

use tokio::sync::Notify;

use super::{queue::PeerKey, sync::Mutex};

tokio::task_local! {
    /// The place of the worker whose task this is.
    static PLACE: Arc<Place>;
}

/// Waits for a peer. If that's within a handler and takes its time, another worker takes the handler's place.
///
/// # Cancel safety
/// As that of `waiting`.
pub(super) async fn wait_for_peer<F: Future>(waiting: F) -> F::Output {
    let mut waiting = pin!(waiting);
    if let Poll::Ready(output) = futures_util::poll!(waiting.as_mut()) {
        return output;
    }
    let _away = PLACE.try_with(|place| Away::begin(place.clone())).ok();
    waiting.await
}

/// Has a worker more started for a class.
pub(super) trait Hire: Send + Sync {
    fn hire(self: Arc<Self>);
}

/// One worker's place in its class.
pub(super) struct Place {
    crew: Arc<Crew>,
    hire: Arc<dyn Hire>,
    /// Whose message it handles.
    peer: AtomicU64,
    /// What its handler waits for at once.
    waits: AtomicUsize,
    /// Its handler is to be dropped.
    given_up: AtomicBool,
    told: Notify,
}

impl Place {
    pub(super) fn new(crew: Arc<Crew>, hire: Arc<dyn Hire>) -> Arc<Self> {
        let (peer, waits, given_up) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { crew, hire, peer, waits, given_up, told: Notify::new() })
    }

    /// Does a worker's job from its first message to its last.
    pub(super) async fn hold(self: Arc<Self>, work: impl Future<Output = ()>) {
        PLACE.scope(self, work).await;
    }

    /// A message of this peer is handled now.
    pub(super) fn begin(&self, peer: PeerKey) {
        self.peer.store(peer, Ordering::Relaxed);
        self.given_up.store(false, Ordering::Relaxed);
    }

    /// Waits until the handler is to be dropped: too many wait for peers, and its peer has the most of them.
    pub(super) async fn given_up(&self) {
        // A notice may be left of an earlier message.
        while !self.given_up.load(Ordering::Acquire) {
            self.told.notified().await;
        }
    }

    fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.told.notify_one();
    }
}

/// While it lives, a handler waits for a peer.
struct Away(Arc<Place>);

impl Away {
    fn begin(place: Arc<Place>) -> Self {
        if place.waits.fetch_add(1, Ordering::AcqRel) == 0 && place.crew.leave(&place) {
            place.hire.clone().hire();
        }
        Self(place)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        if self.0.waits.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.crew.come_back(&self.0);
        }
    }
}

#[derive(Default)]
struct State {
    /// Workers there are.
    live: usize,
    /// Those that wait for a peer, the longest first.
    away: Vec<Arc<Place>>,
}

/// See the module's text.
pub(super) struct Crew {
    /// Handlers that run at once.
    workers: usize,
    /// Handlers that wait for a peer at once.
    most_away: usize,
    /// Whether there may be too many workers: mostly there aren't, and then no message takes the lock.
    crowded: AtomicBool,
    state: Mutex<State>,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Crew").field("live", &state.live).field("away", &state.away.len()).finish_non_exhaustive()
    }
}

impl Crew {
    /// `workers` that its owner starts, and their places when they wait for peers, `most_away` at most.
    pub(super) fn new(workers: usize, most_away: usize) -> Arc<Self> {
        let state = Mutex::new(State { live: workers, away: Vec::new() });
        Arc::new(Self { workers, most_away, crowded: AtomicBool::new(false), state })
    }

    /// A handler waits for its peer. `true`: one more worker is to be started.
    fn leave(&self, place: &Arc<Place>) -> bool {
        let mut state = self.state.lock();
        state.away.push(place.clone());
        // The bound. Where no peer has two, the handler keeps its place.
        if state.away.len() > self.most_away {
            let Some(at) = greediest(&state.away) else {
                state.away.pop();
                return false;
            };
            state.away.remove(at).give_up();
        }
        let wanted = state.live - state.away.len() < self.workers;
        state.live += usize::from(wanted);
        wanted
    }

    /// It waits no longer, or was given up.
    fn come_back(&self, place: &Arc<Place>) {
        let mut state = self.state.lock();
        state.away.retain(|away| !Arc::ptr_eq(away, place));
        self.crowded.store(state.live - state.away.len() > self.workers, Ordering::Relaxed);
    }

    /// A worker is done with a message. `false`: there are enough without it, and it's counted out.
    pub(super) fn stays(&self) -> bool {
        if !self.crowded.load(Ordering::Relaxed) {
            return true;
        }
        let mut state = self.state.lock();
        let stays = state.live - state.away.len() <= self.workers;
        state.live -= usize::from(!stays);
        self.crowded.store(state.live - state.away.len() > self.workers, Ordering::Relaxed);
        stays
    }
}

/// The longest wait of the peer that has the most, if it has more than one.
fn greediest(away: &[Arc<Place>]) -> Option<usize> {
    let mut counts: BTreeMap<PeerKey, usize> = BTreeMap::new();
    for place in away {
        *counts.entry(place.peer.load(Ordering::Relaxed)).or_default() += 1;
    }
    let (peer, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    let first = || away.iter().position(|place| place.peer.load(Ordering::Relaxed) == peer);
    (count > 1).then(first).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts who is asked for.
    #[derive(Default)]
    struct Hired(AtomicUsize);

    impl Hire for Hired {
        fn hire(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn place(crew: &Arc<Crew>, hired: &Arc<Hired>, peer: PeerKey) -> Arc<Place> {
        let place = Place::new(crew.clone(), hired.clone());
        place.begin(peer);
        place
    }

    #[test]
    fn whoever_waits_is_replaced_and_one_leaves_when_it_is_back() {
        let (crew, hired) = (Crew::new(2, 8), Arc::new(Hired::default()));
        let (one, two) = (place(&crew, &hired, 1), place(&crew, &hired, 1));
        let (away, more) = (Away::begin(one.clone()), Away::begin(one));
        let other = Away::begin(two);
        assert_eq!(hired.0.load(Ordering::Relaxed), 2, "two wait, one of them for two things");
        assert!(crew.stays(), "two work and two wait");
        drop((away, other));
        assert!(!crew.stays(), "one is back, and three would work");
        assert!(crew.stays(), "the other still waits");
        drop(more);
        assert!(!crew.stays());
        assert!(crew.stays() && crew.state.lock().live == 2);
    }

    #[tokio::test]
    async fn beyond_the_bound_the_greediest_peer_loses_its_longest_wait() {
        let (crew, hired) = (Crew::new(1, 3), Arc::new(Hired::default()));
        let places: Vec<_> = [1, 2, 2, 3].into_iter().map(|peer| place(&crew, &hired, peer)).collect();
        let away: Vec<_> = places.iter().cloned().map(Away::begin).collect();
        places[1].given_up().await;
        assert!([0, 2, 3].iter().all(|at| !places[*at].given_up.load(Ordering::Relaxed)));
        assert_eq!(hired.0.load(Ordering::Relaxed), 3);
        // Each peer has one: whoever comes now keeps its worker.
        let last = Away::begin(place(&crew, &hired, 4));
        assert_eq!(hired.0.load(Ordering::Relaxed), 3);
        drop((away, last));
        assert!(crew.state.lock().away.is_empty());
        while !crew.stays() {}
        assert_eq!(crew.state.lock().live, 1);
        // A notice that came too late isn't the next message's.
        places[1].begin(7);
        assert!(futures_util::poll!(pin!(places[1].given_up())).is_pending());
    }
}
