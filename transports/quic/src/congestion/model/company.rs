//! Company: a rival that fills the queue, which a flow that avoids delay would leave the path to.
//!
//! It's recognised by what flows of this kind don't do to each other: a queue well above what our own number would
//! explain, for several rounds, while our rate is well below the path's. From then on packets are conserved (Jacobson,
//! Karels 1988): what is acknowledged may be replaced, what is lost isn't, and the window grows by a small part of what is
//! acknowledged until it holds half of the path's content: a policy for one rival. Growing with each ACK rather than
//! once per round keeps bursts out of a queue that is full; what we lose to it is about what we grow by.
//!
//! CUBIC yields to that, since it loses too. BBR's first version doesn't: it takes no loss for a sign, and replaces each packet the moment
//! a place in the queue is free; what comes in addition finds a place one time in seven.
//!
//! In a shallow queue a rival shows as loss, not as delay. So much loss may be the path's own too; then half the window has half the rate,
//! and the whole is taken again.

use std::time::{Duration, Instant};

use super::{Model, Phase, after, round::Round};

/// A rate below this share of the capacity, with the queue, for so many rounds.
const SHORT: f64 = 0.75;
const ROUNDS: u32 = 8;
/// The queue that tells: this share of the round trip, at least so many targets, or as many times what flows of our kind make.
const QUEUE: f64 = 0.2;
const TARGETS: f64 = 4.0;
const OURS: f64 = 3.0;
/// The same by loss, of each of so many rounds.
const OVERRUN: f64 = 0.1;
/// Half the window has at most this many times half the rate: the loss is the path's, and counts as nothing for so long.
const HALF: f64 = 0.5;
const PROPORTIONAL: f64 = 1.3;
const LOSSY: Duration = Duration::from_secs(30);
/// Our part of the path's content.
const SHARE: f64 = 0.5;
/// Growth per byte acknowledged: after a loss, what it's multiplied by in each round without one, and at most, as at first.
const PATIENT: f64 = 0.06;
const SURER: f64 = 1.1;
const EAGER: f64 = 0.25;
/// What is shrunk by per byte acknowledged above our part.
const GIVE_BACK: f64 = 0.1;
/// Packets that the window may be ahead of the most that was in flight within two rounds, lest it opens for a burst. Not of what is in
/// flight now: quinn's pacer holds packets back while ACKs come in clumps, and the window would follow it down, beside CUBIC on a
/// deep queue from a fifth of the path to a tenth of that.
const AHEAD: f64 = 4.0;
/// We stay so long at least; each return within [`SOON`] doubles it.
const STAY: Duration = Duration::from_secs(2);
const STAY_MOST: Duration = Duration::from_secs(16);
const SOON: Duration = Duration::from_secs(5);
/// No loss for so long: it's no rival but a longer path.
const QUIET: Duration = Duration::from_secs(10);
/// A rate above this share of the capacity, or a queue below half of what tells, for so long: the rival is gone. BBR drains
/// the queue for 200 ms and a round trip to see the path's delay.
const ALONE: f64 = 0.9;
const GONE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub(super) struct Company {
    crowded: u32,
    stay: Duration,
    until: Instant,
    left: Instant,
    growth: f64,
    /// Our part. Bytes.
    part: f64,
    acked: u64,
    /// The most that was in flight in this round and the last. Bytes.
    flown: [f64; 2],
    /// The last loss.
    lost: Instant,
    /// The last round that showed a rival.
    seen: Instant,
    /// Loss alone shows it.
    overrun: Option<Overrun>,
    /// The path loses as much whatever we send.
    lossy_until: Instant,
}

/// How it was before we gave way.
#[derive(Debug, Clone, Copy)]
struct Overrun {
    window: f64,
    rate: f64,
    halved: bool,
    /// Less in flight had less loss.
    ours: bool,
}

impl Company {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            crowded: 0,
            stay: STAY,
            until: now,
            left: now,
            growth: EAGER,
            part: f64::INFINITY,
            acked: 0,
            flown: [f64::INFINITY, 0.0],
            lost: now,
            seen: now,
            overrun: None,
            lossy_until: now,
        }
    }
}

impl Model {
    fn crowd_queue(&self) -> f64 {
        (QUEUE * self.path.base).max(TARGETS * self.path.target()) + 4.0 * self.path.roughness.get()
    }

    /// Whether there's a rival.
    pub(super) fn meets_company(&mut self, round: &Round) -> bool {
        let path = &self.path;
        let capacity = path.width();
        let ours = OURS * path.target() * (capacity / path.rate).sqrt() + 4.0 * path.roughness.get();
        let queued = round.queue > self.crowd_queue().min(ours);
        let overrun = round.loss() > OVERRUN && round.end >= self.company.lossy_until;
        let crowded = (queued || overrun) && path.rate < SHORT * capacity;
        self.company.crowded = if crowded { self.company.crowded + 1 } else { 0 };
        if !self.config.company || self.company.crowded < ROUNDS {
            return false;
        }
        self.phase = Phase::Company;
        self.offset.clear();
        self.path.next_base = round.rtt;
        let soon = !after(round.end, self.company.left, SOON);
        let stay = if soon { (self.company.stay * 2).min(STAY_MOST) } else { STAY };
        let before = Overrun { window: self.window, rate: self.path.rate, halved: false, ours: false };
        self.company = Company {
            stay,
            until: round.end + stay,
            left: self.company.left,
            lossy_until: self.company.lossy_until,
            overrun: (!queued).then_some(before),
            ..Company::new(round.end)
        };
        self.company.part = SHARE * capacity * round.rtt;
        true
    }

    pub(super) fn company(&mut self, round: &Round) {
        let capacity = self.path.width();
        self.company.part = SHARE * capacity * round.rtt;
        self.company.flown = [self.company.flown[1], 0.0];
        if round.lost == 0 {
            self.company.growth = (SURER * self.company.growth).min(EAGER);
        }
        let crowded = round.queue > self.crowd_queue() / 2.0 || self.company.overrun.is_some() && round.lost > 0;
        if self.path.rate < ALONE * capacity && crowded {
            self.company.seen = round.end;
        }
        if self.path_loses() {
            self.company.lossy_until = round.end + LOSSY;
            self.leave_company(round);
            return;
        }
        let gone = after(round.end, self.company.seen, GONE);
        let quiet = after(round.end, self.company.lost, QUIET);
        if round.end > self.company.until && (gone || quiet) {
            if quiet {
                self.path.renew_base(round);
            }
            self.leave_company(round);
        }
    }

    fn leave_company(&mut self, round: &Round) {
        self.phase = Phase::Steady;
        self.company.left = round.end;
        self.dip.postpone();
    }

    /// Whether loss that looked like a rival's has shown to be the path's: the window from before is taken again.
    fn path_loses(&mut self) -> bool {
        let Some(before) = self.company.overrun.as_mut().filter(|before| !before.ours) else { return false };
        if !before.halved {
            before.halved = self.window < HALF * before.window;
            self.path.forget_rounds();
            return false;
        }
        if !self.path.averaged() {
            return false;
        }
        let lossy = self.path.rate / before.rate < PROPORTIONAL * self.window / before.window;
        if lossy {
            self.window = before.window;
        }
        before.ours = !lossy;
        lossy
    }

    /// Half the window is tried: it stays as it is.
    fn tries_half(&self) -> bool {
        self.company.overrun.is_some_and(|before| before.halved && !before.ours)
    }

    pub(super) fn company_on_ack(&mut self, bytes: u64) {
        if self.tries_half() {
            return;
        }
        let change = if self.window < self.company.part { self.company.growth } else { -GIVE_BACK };
        self.window += change * bytes as f64;
        self.company.acked += bytes;
    }

    pub(super) fn company_on_acks_end(&mut self) {
        let flown = self.in_flight + std::mem::take(&mut self.company.acked) as f64;
        let [last, most] = &mut self.company.flown;
        *most = most.max(flown);
        let flown = last.max(*most);
        self.window = self.window.min(flown + AHEAD * self.mtu as f64).max(self.least() as f64);
    }

    pub(super) fn company_on_lost(&mut self, now: Instant, bytes: u64) {
        if self.tries_half() {
            return;
        }
        self.window = (self.window - bytes as f64).max(self.least() as f64);
        (self.company.growth, self.company.lost) = (PATIENT, now);
    }
}
