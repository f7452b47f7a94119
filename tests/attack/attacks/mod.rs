//! The attackers: one function each, on a thread and a runtime of its own.

mod before;
mod lanes;
mod messages;
mod raw;

use std::{ops::AddAssign, pin::Pin, thread::JoinHandle, time::Duration};

use tokio::time::Instant;

use crate::target::{By, Target};

/// What an attacker has done.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections, handshakes, packets, messages: what the attack is made of.
    pub done: u64,
    /// Those that the victim refused.
    pub refused: u64,
    /// Why nothing was done, if nothing was.
    pub trouble: Option<String>,
}

impl Tally {
    pub fn of(done: u64) -> Self {
        Self { done, ..Self::default() }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.refused += other.refused;
        self.trouble = self.trouble.take().or(other.trouble);
    }
}

/// Until when, and at most how much: each attack is bounded in both.
#[derive(Clone, Copy)]
pub struct Bound {
    until: Instant,
    left: u64,
    begun: bool,
}

impl Bound {
    fn new(span: Duration, most: u64) -> Self {
        Self { until: Instant::now() + span, left: most, begun: false }
    }

    /// Counts one more, if there may be one: the first always, however long it took to prepare.
    pub fn more(&mut self) -> bool {
        let more = self.left > 0 && (!self.begun || Instant::now() < self.until);
        self.begun = true;
        self.left -= u64::from(more);
        more
    }

    /// When it's over.
    pub async fn over(self) {
        tokio::time::sleep_until(self.until).await;
    }
}

type Running = Pin<Box<dyn Future<Output = Tally> + Send>>;

pub struct Attack {
    pub name: &'static str,
    pub what: &'static str,
    /// How the honest peer is connected: as the attacker is, so that it's hit too.
    pub honest: By,
    /// At most so many of what the attack is made of, in each phase.
    most: u64,
    run: fn(Target, Bound) -> Running,
}

macro_rules! attack {
    ($name:literal, $by:ident, $most:literal, $run:expr, $what:literal) => {
        Attack { name: $name, what: $what, honest: By::$by, most: $most, run: |target, bound| Box::pin($run(target, bound)) }
    };
}

pub const ALL: &[Attack] = &[
    attack!("tcp-silent", Tcp, 4000, before::silent, "TCP connections from many addresses that say nothing"),
    attack!("tcp-handshakes", Tcp, 20_000, before::tcp_handshakes, "full TLS handshakes with valid keys that nobody knows"),
    attack!("tcp-slow-hello", Tcp, 512, before::slow_hello, "TLS, then a hello of one byte every 50 ms"),
    attack!("tcp-slow-frame", Tcp, 64, lanes::slow_frame, "frames of 16 KiB, a byte every 10 ms, on every lane"),
    attack!("tcp-huge-lengths", Tcp, 2000, lanes::huge_lengths, "frames and messages that declare more than is permitted"),
    attack!("quic-initials", Quic, 500_000, before::initials, "genuine first packets, replayed from many addresses in 127/8"),
    attack!("quic-garbage", Quic, 500_000, before::garbage, "datagrams of random bytes from many addresses"),
    attack!("quic-handshakes", Quic, 20_000, before::quic_handshakes, "full handshakes with valid keys that nobody knows"),
    attack!("quic-streams", Quic, 200_000, raw::streams, "streams opened and reset at once, without a hello"),
    attack!("quic-key-updates", Quic, 20_000, raw::key_updates, "a key update with each small write"),
    attack!("pings", Quic, 1_000_000, lanes::pings, "life signs asked for as fast as they're answered, by 64 at once"),
    attack!("reader-stops-quic", Quic, 100_000, messages::reader_stops_quic, "asks for answers of every class and takes none"),
    attack!("reader-stops-tcp", Tcp, 100_000, messages::reader_stops_tcp, "the same over TCP"),
    attack!("query-flood", Quic, 1_000_000, messages::query_flood, "QUERYs as fast as the class takes them, answers read"),
    attack!("missing-data", Quic, 200_000, messages::missing_data, "MISSING_DATA of hashes that nobody has"),
    attack!("unsolicited", Quic, 200_000, messages::unsolicited, "DATA and RESULTs that nobody asked for"),
    attack!("invalid-beliefs", Quic, 200_000, messages::invalid_beliefs, "one signed belief of what is no lattice, again and again"),
    attack!("stale-beliefs", Quic, 200_000, messages::stale_beliefs, "one valid belief again and again"),
    attack!("equivocating-beliefs", Quic, 200_000, messages::equivocating_beliefs, "8 valid beliefs that contradict each other, in turn"),
    attack!("partial-beliefs", Quic, 50_000, messages::partial_beliefs, "beliefs whose cells never come, each of another root"),
    attack!("half-beliefs", Quic, 50_000, messages::half_beliefs, "the first of many parts of a belief, each of another root"),
    attack!("malformed", Quic, 2000, messages::malformed, "random bytes as messages, on a new connection each time"),
    attack!("streamed-never-ends", Quic, 64, lanes::streamed_never_ends, "streamed messages in every class that never end"),
];

/// Starts an attacker on a thread of its own; `pin`: on the second core alone.
pub fn start(attack: &'static Attack, target: Target, span: Duration, pin: bool) -> JoinHandle<Tally> {
    std::thread::spawn(move || {
        if pin {
            let mut core = rustix::thread::CpuSet::new();
            core.set(1);
            rustix::thread::sched_setaffinity(None, &core).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tally = runtime.block_on(async {
            let bound = Bound::new(span, attack.most);
            // What hangs is given up: nobody attacks for longer than it was told to.
            let attacking = (attack.run)(target, bound);
            let limit = tokio::time::timeout(span + Duration::from_secs(2), attacking).await;
            limit.unwrap_or_else(|_| Tally { trouble: Some("it hung".into()), ..Tally::of(1) })
        });
        runtime.shutdown_timeout(Duration::from_millis(100));
        tally
    })
}
