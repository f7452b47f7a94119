//! One logical connection per peer, whatever the transport: which of its links carries what, and which gives way.
//!
//! Both sides may dial at once, and a better transport may come later, so a peer can have several links for a while.
//! One side decides which stays: the one with the greater public key. It lets the others drain, one at a time and only
//! when the one that stays has answered a life sign; the other side notices and moves its own messages. So the two
//! never close a different one each, even if they prefer different transports.
//!
//! Messages of Fifo classes take one link at a time. When it gives way, the next one carries them only after the old
//! one is drained; and the receiver hands over what came by the old one first. When a link dies, what was on its way may be
//! lost. The sender takes the next link at once, and the receiver may not know yet: then messages come by two links that
//! both seem to live. Those by the second one wait until one of the two has ended: if it's the first, they go on after all
//! that came by it; if it's the second itself, they're too late, and not handed over. So a message comes once or not at
//! all, and never out of order.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use peerlane_transport::{
    ClassId, ClassStats, CloseCode, Closed, Order,
    identity::{PeerId, RemoteId},
};
use tokio::sync::Notify;

use super::{
    config::{ENDED_PER_PEER, LINKS_PER_PEER},
    link::Link,
    metrics::{ClassCounters, add_stats},
    queue::PeerKey,
    request::Requests,
    serving::Serving,
    sync::Mutex,
};

/// A link, and how far it is from its end.
#[derive(Debug)]
struct Seat {
    link: Arc<Link>,
    /// It has answered a life sign, or was the only one when it came.
    proven: bool,
    /// It has answered one since the last link came: only then do others give way to it.
    answered: bool,
    /// It gives way: its turn among those that do. What came by it is handed over before what came by later ones.
    retiring: Option<u64>,
    /// Nothing can be sent on it any more.
    draining: bool,
}

#[derive(Debug, Default)]
struct State {
    /// At most [`LINKS_PER_PEER`].
    seats: Vec<Seat>,
    /// Links that have ended, with their turn, while their last messages are handed over. At most [`ENDED_PER_PEER`].
    ended: Vec<(u64, Arc<Link>)>,
    /// The link that Fifo classes take.
    fifo: Option<u64>,
    /// The link by which the messages of a Fifo class come, by class.
    fifo_in: BTreeMap<ClassId, u64>,
    /// Links that have ended, while their messages are still to be handled. Each holds a place in a queue or a worker.
    unfinished: Vec<Arc<Link>>,
    turns: u64,
    /// The best link when it was last asked for.
    carrying: Option<u64>,
    gone: Option<Closed>,
}

/// A peer with at least one link, or that had one until now.
#[derive(Debug)]
pub(super) struct Peer<M> {
    pub(super) key: PeerKey,
    pub(super) id: RemoteId,
    /// The key, proven by the transport.
    pub(super) peer_id: Option<PeerId>,
    /// This side decides which link stays.
    decides: bool,
    /// Which of two links of one transport stays: the one dialed by this side.
    own_dial_wins: bool,
    state: Mutex<State>,
    /// Something about its links changed.
    pub(super) changed: Notify,
    pub(super) requests: Arc<Requests<M>>,
    /// The peer's requests here.
    pub(super) serving: Arc<Serving>,
    pub(super) counters: Vec<ClassCounters>,
    pub(super) malformed: AtomicU64,
    /// What links that have ended had counted, by class.
    past: Mutex<Vec<ClassStats>>,
}

/// Where a message may go.
#[derive(Debug)]
pub(super) enum Route {
    To(Arc<Link>),
    /// Not now: look again when [`Peer::changed`] is notified.
    Wait,
    Gone(Closed),
}

/// What came of a new connection.
#[derive(Debug)]
pub(super) enum Seated {
    First,
    Another,
    TooMany,
}

impl<M> Peer<M> {
    pub(super) fn new(
        key: PeerKey,
        id: RemoteId,
        peer_id: Option<PeerId>,
        local: &PeerId,
        classes: usize,
        requests: Arc<Requests<M>>,
        earlier: Vec<Arc<Link>>,
    ) -> Self {
        // What came by links of an earlier life is handed over before what comes by those of this one.
        let ended: Vec<_> = (1..).zip(earlier).collect();
        let state = State { turns: ended.len() as u64, ended, ..State::default() };
        let greater = peer_id.is_none_or(|peer| local.as_bytes() > peer.as_bytes());
        Self {
            key,
            id,
            peer_id,
            decides: greater,
            own_dial_wins: !greater,
            state: Mutex::new(state),
            changed: Notify::new(),
            requests,
            serving: Arc::default(),
            counters: (0..classes).map(|_| ClassCounters::default()).collect(),
            malformed: AtomicU64::new(0),
            past: Mutex::new(vec![ClassStats::default(); classes]),
        }
    }

    /// Adds a link. The second one makes all show that they live.
    pub(super) fn seat(&self, link: Arc<Link>) -> Seated {
        let mut state = self.state.lock();
        if state.seats.len() >= LINKS_PER_PEER || state.gone.is_some() {
            return Seated::TooMany;
        }
        let first = state.seats.is_empty();
        state.seats.push(Seat { link, proven: first, answered: false, retiring: None, draining: false });
        if !first {
            state.seats.iter_mut().for_each(|seat| seat.answered = false);
            state.seats.iter().for_each(|seat| seat.link.probe.notify_one());
        }
        drop(state);
        self.changed.notify_waiters();
        if first { Seated::First } else { Seated::Another }
    }

    /// Smaller is better.
    fn rank(&self, seat: &Seat) -> impl Ord + use<M> {
        let own_way = seat.link.connection.dialed() == self.own_dial_wins;
        // Of two that were dialed by the same side, the newer one: whoever dials again has lost the old one.
        (seat.link.rank, !own_way, Reverse(seat.link.number))
    }

    /// The link that new messages take: none that hasn't answered yet, if another one has.
    fn best(&self, state: &State) -> Option<Arc<Link>> {
        let open = state.seats.iter().filter(|seat| seat.retiring.is_none());
        open.min_by_key(|seat| (!seat.proven, self.rank(seat))).map(|seat| seat.link.clone())
    }

    /// The link that most messages take now.
    pub(super) fn current(&self) -> Option<Arc<Link>> {
        self.best(&self.state.lock())
    }

    /// Where a message of a class goes. A reply may also go back over the link by which its request came while that one
    /// is the last, even if the other side is closing it.
    pub(super) fn route(&self, order: Order, origin: Option<u64>) -> Route {
        let mut state = self.state.lock();
        if let Some(closed) = &state.gone {
            return Route::Gone(closed.clone());
        }
        let best = self.best(&state);
        if order == Order::Fifo && best.is_some() {
            let kept = state.fifo.and_then(|n| state.seats.iter().find(|s| s.link.number == n && s.retiring.is_none()));
            if let Some(seat) = kept {
                return Route::To(seat.link.clone());
            }
            if state.seats.iter().any(|seat| seat.retiring.is_some()) {
                return Route::Wait;
            }
            state.fifo = best.as_ref().map(|link| link.number);
        }
        // Who asked by it reads it, whatever has become of the others.
        let asked = state.seats.iter().find(|seat| Some(seat.link.number) == origin && seat.retiring.is_none() && order != Order::Fifo);
        match asked.map(|seat| seat.link.clone()).or(best) {
            Some(link) => Route::To(link),
            None => {
                let origin = state.seats.iter().find(|seat| !seat.draining && Some(seat.link.number) == origin);
                origin.map_or(Route::Wait, |seat| Route::To(seat.link.clone()))
            }
        }
    }

    /// Whether messages may still be routed over the link.
    pub(super) fn offers(&self, link: u64) -> bool {
        self.state.lock().seats.iter().any(|seat| seat.link.number == link && !seat.draining)
    }

    /// Waits for a link for a message of this order.
    pub(super) async fn wait_route(&self, order: Order, origin: Option<u64>) -> Result<Arc<Link>, Closed> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.route(order, origin) {
                Route::To(link) => return Ok(link),
                Route::Gone(closed) => return Err(closed),
                Route::Wait => changed.await,
            }
        }
    }

    /// The link has answered a life sign.
    pub(super) fn proven(&self, link: u64) {
        if let Some(seat) = self.state.lock().seats.iter_mut().find(|seat| seat.link.number == link) {
            (seat.proven, seat.answered) = (true, true);
        }
        self.changed.notify_waiters();
    }

    /// The link that most messages take now, if it's another one than when this was asked before.
    pub(super) fn moved(&self) -> Option<Arc<Link>> {
        let mut state = self.state.lock();
        let best = self.best(&state)?;
        let before = state.carrying.replace(best.number);
        before.is_some_and(|before| before != best.number).then_some(best)
    }

    /// Whether there's more than one link.
    pub(super) fn is_crowded(&self) -> bool {
        self.state.lock().seats.len() > 1
    }

    /// Picks the next link that gives way, if this side decides and none does already. The one that stays must have
    /// answered. `patient`: one with streamed messages is left alone.
    pub(super) fn arbitrate(&self, patient: bool) {
        let state = self.state.lock();
        let leaving = |seat: &Seat| seat.retiring.is_some() || seat.link.retire.is_cancelled();
        if !self.decides || state.seats.iter().any(leaving) {
            return;
        }
        let stays = state.seats.iter().min_by_key(|seat| self.rank(seat));
        let leaves = state.seats.iter().max_by_key(|seat| self.rank(seat));
        if let (Some(stays), Some(leaves)) = (stays, leaves)
            && stays.answered
            && stays.link.number != leaves.link.number
            && !(patient && leaves.link.is_streaming())
        {
            leaves.link.retire.cancel();
        }
    }

    /// Nothing new goes over the link from now on, but replies if it's the last.
    pub(super) fn retire(&self, link: u64) {
        let mut state = self.state.lock();
        state.turns += 1;
        let turn = state.turns;
        if let Some(seat) = state.seats.iter_mut().find(|seat| seat.link.number == link) {
            seat.retiring.get_or_insert(turn);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Nothing at all goes over the link from now on.
    pub(super) fn drain(&self, link: u64) {
        if let Some(seat) = self.state.lock().seats.iter_mut().find(|seat| seat.link.number == link) {
            seat.draining = true;
        }
        self.changed.notify_waiters();
    }

    /// The link has ended, and [`Link::ended`] is set. The one that takes over, if any.
    pub(super) fn unseat(&self, link: &Arc<Link>) -> Option<Arc<Link>> {
        let mut stats = link.connection.stats();
        stats.classes.iter_mut().for_each(|class| class.queued_bytes = 0);
        add_stats(&mut self.past.lock(), &stats);
        let mut state = self.state.lock();
        state.turns += 1;
        let mut turn = state.turns;
        if let Some(at) = state.seats.iter().position(|seat| seat.link.number == link.number) {
            turn = state.seats.remove(at).retiring.unwrap_or(turn);
        }
        state.ended.retain(|(_, ended)| ended.is_reading());
        if link.is_reading() {
            state.ended.push((turn, link.clone()));
        }
        state.unfinished.retain(|link| link.is_unfinished());
        if link.is_unfinished() {
            state.unfinished.push(link.clone());
        }
        if state.ended.len() > ENDED_PER_PEER {
            state.ended.remove(0).1.abandon.cancel();
        }
        if let [last] = &mut state.seats[..] {
            // Nothing else to choose from.
            last.proven = true;
        }
        let heir = self.best(&state);
        drop(state);
        self.changed.notify_waiters();
        heir
    }

    /// Waits until it's the turn of a message of a Fifo class that came by this link: order across a move and a loss.
    /// `false`: it's too late for that, messages that its sender sent later were handed over.
    pub(super) async fn turn(&self, link: &Link, class: ClassId) -> bool {
        let mut probed = false;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(before) = self.before(link, class) {
                tokio::select! {
                    biased;
                    // A link of an earlier life tells nobody but who asks it.
                    () = before.until(|before| !before.reads(class)) => {}
                    () = changed => {}
                }
                continue;
            }
            let Some(current) = self.comes_by(link, class) else { return true };
            // Two links that both seem to live: the sender has left one of them, and its end will show which.
            // A link that was drained was no dead one.
            if link.ended.get().is_some_and(|ended| !ended.drained) {
                return false;
            }
            if !std::mem::replace(&mut probed, true) {
                [link, &current].into_iter().for_each(|link| link.probe.notify_one());
            }
            changed.await;
        }
    }

    /// A link whose messages of the class come before this one's, and are not all handed over.
    fn before(&self, link: &Link, class: ClassId) -> Option<Arc<Link>> {
        let state = self.state.lock();
        let retiring = state.seats.iter().filter_map(|seat| Some((seat.retiring?, &seat.link)));
        let before = || retiring.clone().chain(state.ended.iter().map(|(turn, link)| (*turn, link)));
        let own = before().find(|(_, l)| l.number == link.number).map_or(u64::MAX, |(turn, _)| turn);
        before().find(|(turn, l)| *turn < own && l.reads(class)).map(|(_, l)| l.clone())
    }

    /// The messages of a Fifo class come by this link from now on, unless they come by another one that seems to live: which.
    fn comes_by(&self, link: &Link, class: ClassId) -> Option<Arc<Link>> {
        let mut state = self.state.lock();
        let current = state.fifo_in.get(&class).copied().filter(|current| *current != link.number);
        let living = state.seats.iter().find(|seat| Some(seat.link.number) == current && seat.retiring.is_none());
        let living = living.map(|seat| seat.link.clone());
        if living.is_none() {
            state.fifo_in.insert(class, link.number);
        }
        living
    }

    /// Waits until all messages that came by links which have ended are handled.
    pub(super) async fn finished(&self) {
        let unfinished = self.state.lock().unfinished.clone();
        for link in unfinished {
            link.until(|link| !link.is_unfinished()).await;
        }
    }

    /// The reader of a class has handed over everything.
    pub(super) fn read_out(&self, link: &Link, class: ClassId) {
        if let Some(reading) = link.reading.get(class.index()) {
            reading.store(false, Ordering::Release);
        }
        link.idle.notify_waiters();
        self.changed.notify_waiters();
    }

    /// No link is left. Called under the registry's lock.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().seats.is_empty()
    }

    /// The peer is gone for good: a later connection makes another one. Its ended links that still hand messages over.
    pub(super) fn end(&self, closed: Closed) -> Vec<Arc<Link>> {
        let mut state = self.state.lock();
        state.gone.get_or_insert(closed);
        let ended = state.ended.iter().filter(|(_, link)| link.is_reading()).map(|(_, link)| link.clone()).collect();
        drop(state);
        self.changed.notify_waiters();
        ended
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state.lock().gone.is_some()
    }

    /// Whether it has gone for a reason that dialing again won't change.
    pub(super) fn gone_for_good(&self) -> bool {
        let state = self.state.lock();
        state.gone.as_ref().is_some_and(|closed| !closed.code.may_retry() && closed.code != CloseCode::Duplicate)
    }

    /// All links, the best first.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        let state = self.state.lock();
        let mut seats: Vec<&Seat> = state.seats.iter().collect();
        seats.sort_by_key(|seat| (seat.retiring.is_some(), !seat.proven, self.rank(seat)));
        seats.into_iter().map(|seat| seat.link.clone()).collect()
    }

    /// What links that have ended had counted, by class.
    pub(super) fn past_stats(&self) -> Vec<ClassStats> {
        self.past.lock().clone()
    }

    /// Waits until the peer is gone or `done` holds.
    pub(super) async fn until(&self, done: impl Fn(&Self) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is_gone() || done(self) {
                return;
            }
            changed.await;
        }
    }
}
