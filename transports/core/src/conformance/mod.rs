//! The conformance suite: what every transport promises, as checks that anybody can run on theirs.
//!
//! One line makes a test of it:
//!
//! ```ignore
//! conformance::run(MyFactory, Capabilities { identity: true, ..Capabilities::default() }).await.assert_passed();
//! ```
//!
//! A [`Factory`] tells how a peer's transport is made, where it listens and how it's dialed. The suite then dials
//! and accepts through the public traits, as the message layer does. What a transport doesn't claim in its
//! [`Capabilities`], or what its factory has no means to show, is reported as `not claimed`, never as passed.
//!
//! Provided: integrity (every size, streamed messages of 64 MiB, order), isolation (the seven promises of
//! DESIGN.md, asserted on progress and on bytes delivered, never on speed), backpressure, cancel safety of every
//! async call, identity, lifecycle, leaks. Each check has a deadline, so that a hang is a failure with a name. Only
//! tokio's clock is used: the suite runs on a paused one too.
//!
//! Not provided: wire formats (the transports' own tests), performance (the benchmarks).

mod cancel;
mod elsewhere;
mod identity;
mod integrity;
mod isolation;
mod kit;
mod lifecycle;
mod load;
mod report;
mod streams;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{task::AbortHandle, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use crate::{ConnectError, Transport, admission::LocalPeer, identity::PeerId};
use kit::Kit;
pub use report::{Outcome, Report, Row};
use report::{Stop, Verdict};

/// A check that takes longer than this on tokio's clock has hung. The longest take some seconds; unoptimised code on
/// a busy machine may need ten times that.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What a transport promises beyond what all must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Both sides prove their keys, and the lists are asked.
    pub identity: bool,
    /// A lost packet of one class delays no other. Checked if the factory can [lose packets](Factory::lose_next).
    pub loss_isolated: bool,
    /// Small messages of `Datagram` classes travel unreliably.
    pub datagrams: bool,
    /// Little is given to the kernel (or whatever lies beneath) ahead of time: an urgent message passes a backlog
    /// even when the other side has stopped taking bytes.
    pub kernel_queue: bool,
}

/// Makes the transport under test for the suite's peers. The three methods without a body are all that's needed.
pub trait Factory: Send + Sync + 'static {
    /// The transport under test.
    type Transport: Transport;

    /// The transport of one peer, with the peer's key, lists, network, classes and limits. Called in a tokio runtime.
    ///
    /// # Errors
    /// Whatever is wrong; it fails the check.
    fn transport(&self, peer: &LocalPeer) -> Result<Self::Transport, ConnectError>;

    /// A place to listen that nobody else uses, on this machine: port 0 of the loopback address, a fresh path.
    fn local(&self) -> <Self::Transport as Transport>::Local;

    /// How the peer of this key, which listens at `local` ([`Listener::local`](crate::Listener::local)), is dialed.
    fn addr(&self, local: &<Self::Transport as Transport>::Local, peer: PeerId) -> <Self::Transport as Transport>::Addr;

    /// Whether peers prove themselves by the TLS of [`LocalPeer::tls`]. If not, faulty certificates and foreign
    /// application protocols can't be tried, and are not claimed.
    fn tls(&self) -> bool {
        true
    }

    /// Whether latency classes and bulk classes have ways of their own, so that floods on both get what the path gives them,
    /// and weights hold among the one kind and among the other. No class starves all the same.
    fn apart(&self) -> bool {
        false
    }

    /// Cuts the path between this factory's peers, or mends it: while it's cut nothing passes, and nobody is told.
    /// `false`: it can't; then the suite runs the other peer on a thread and a runtime of its own, which it stops or
    /// ends. A transport that is tested on a paused clock needs this method for some checks, since another runtime's
    /// clock isn't paused.
    fn cut(&self, _cut: bool) -> bool {
        false
    }

    /// From now on, loses the next packet with data that a dialer sends to a listener; the future completes when it's
    /// lost. `None`: the factory can't.
    fn lose_next(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }
}

/// Runs every check on a factory's transport, one after the other, and says what came of them. Must be called in a
/// tokio runtime with I/O and time enabled.
///
/// # Cancel safety
/// Dropping the future ends the suite and the check in progress.
pub async fn run<F: Factory>(factory: F, claims: Capabilities) -> Report {
    run_only(factory, claims, "").await
}

/// Runs the checks whose name (`group::check`) contains `filter`: to look into one that failed.
///
/// # Cancel safety
/// As [`run`].
pub async fn run_only<F: Factory>(factory: F, claims: Capabilities, filter: &str) -> Report {
    let kit = Arc::new(Kit::new(factory, claims));
    let mut report = Report::default();
    for (name, check) in checks::<F>().into_iter().filter(|(name, _)| name.contains(filter)) {
        let began = Instant::now();
        kit.step("at the start");
        // A task of its own: a panic anywhere below is this check's failure, not the suite's end.
        let task = AbortOnDropHandle::new(tokio::spawn(check(kit.clone())));
        let _watchdog = Watchdog::new(task.abort_handle());
        let verdict = match tokio::time::timeout(DEADLINE, task).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) if error.is_cancelled() => Err(Stop::Failed("hung, and let tokio's clock stand still".into())),
            Ok(Err(error)) => Err(Stop::Failed(format!("panicked: {error}"))),
            Err(_) => Err(Stop::Failed(format!("hung: didn't end within {DEADLINE:?}"))),
        };
        kit.factory.cut(false);
        let outcome = match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::NotClaimed(what)) => Outcome::NotClaimed(what),
            Err(Stop::Failed(why)) => Outcome::Failed(format!("{}: {why}", kit.current_step())),
        };
        let row = Row { name, outcome, took: began.elapsed() };
        tracing::info!("{row}");
        report.rows.push(row);
    }
    report
}

/// The deadline of a paused clock that never comes, because something is always busy: by the machine's clock.
struct Watchdog(#[allow(dead_code, reason = "dropping it ends the watch")] mpsc::Sender<()>);

impl Watchdog {
    fn new(check: AbortHandle) -> Self {
        let (ended, wait) = mpsc::channel();
        // Without a thread there's no watch; the checks are the same.
        let _ = thread::Builder::new().name("conformance watchdog".into()).spawn(move || {
            if wait.recv_timeout(2 * DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
                check.abort();
            }
        });
        Self(ended)
    }
}

type Check<F> = fn(Arc<Kit<F>>) -> Pin<Box<dyn Future<Output = Verdict> + Send>>;

macro_rules! checks {
    ($($group:ident { $($check:ident),* $(,)? })*) => {
        /// Every check, by name.
        fn checks<F: Factory>() -> Vec<(&'static str, Check<F>)> {
            vec![$($((
                concat!(stringify!($group), "::", stringify!($check)),
                (|kit| Box::pin($group::$check(kit))) as Check<F>,
            )),*),*]
        }
    };
}

checks! {
    integrity {
        every_size_up_to_the_limit_and_one_over,
        streamed_64_mib_in_an_any_class,
        streamed_64_mib_in_a_fifo_class,
        every_class_at_once_both_ways,
        a_fifo_class_keeps_the_order_of_mixed_sizes,
        the_latest_replaces_and_arrives,
        datagrams_arrive_whole_or_not_at_all,
        a_full_class_waits_and_loses_nothing,
        either_end_may_give_a_streamed_message_up,
    }
    isolation {
        blocked_writers_delay_no_other_class,
        weights_share_the_bytes_delivered,
        floods_of_urgent_classes_starve_no_bulk_class,
        an_urgent_burst_goes_before_a_backlog,
        a_flood_of_datagrams_stops_nobody,
        an_urgent_message_passes_a_backlog_that_nobody_takes,
        a_class_that_holds_its_streams_unread_stops_no_other,
        all_classes_held_but_one,
        a_handler_that_never_reads_pauses_its_class_alone,
        a_large_message_does_not_block_a_small_one_of_its_class,
        a_lost_packet_delays_no_other_class,
    }
    cancel {
        dropped_sends_queue_nothing,
        dropped_receives_lose_nothing,
        dropped_writes_opens_and_reads_keep_the_message,
        dropped_accepts_lose_no_arrival,
        dropped_dials_and_upgrades_leave_nothing,
        a_dropped_drain_can_be_resumed,
    }
    identity {
        both_sides_know_each_other,
        a_wrong_key_is_refused_and_both_keys_are_named,
        a_known_host_with_another_key_is_refused,
        dialing_oneself_is_refused,
        the_lists_are_asked_on_both_sides,
        a_peer_that_is_blocked_later_is_closed,
        another_network_is_refused_on_both_sides,
        classes_and_limits_are_agreed,
        no_certificate_is_refused,
        two_certificates_are_refused,
        a_foreign_application_protocol_is_refused,
    }
    lifecycle {
        a_slow_handshake_holds_up_no_other,
        a_handshake_that_nobody_answers_ends,
        dialing_nobody_is_an_error,
        connections_outlive_their_listener,
        code_and_reason_reach_the_other_side,
        dropping_the_last_handle_closes,
        a_graceful_close_delivers_what_is_queued,
        a_graceful_close_of_an_unread_peer_ends,
        a_close_in_the_middle_of_a_message_is_an_error,
        every_waiting_call_ends_with_the_connection,
        a_quiet_connection_lives_on,
        a_vanished_peer_is_noticed,
        a_thousand_connections_leave_nothing,
    }
}
