//! One connection of the local peer and one to a remote gateway, tied together for life: when one ends, so does the other.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use peerlane_transport::{CloseCode, Closed, ClosedBy, Connection, SendError};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    inward::{self, Inward},
    outward::{self, Outward, Signals},
    reader::{FrameReader, ReadError},
    sort::Pending,
    stats::{PeerCounters, Stats},
};

/// How long the local peer may take to read what had come before the end.
const LINGER: Duration = Duration::from_secs(2);

/// How long what the local peer said before it went may take to be read.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What both directions share.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) connection: &'a Connection,
    /// Requests to the local peer, for its answers.
    pub(super) pending: &'a Mutex<Pending>,
    pub(super) counters: &'a PeerCounters,
    /// Called at each frame.
    pub(super) moved: &'a (dyn Fn() + Send + Sync),
}

/// What a link needs to know.
pub(super) struct Link<'a> {
    pub(super) stats: &'a Stats,
    pub(super) counters: &'a PeerCounters,
    pub(super) stop: &'a CancellationToken,
    pub(super) max_frame: usize,
    pub(super) first_frame: Duration,
}

/// How a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the local peer closed")]
    Local,
    #[error("the remote peer closed")]
    Remote,
    #[error("the gateway is shutting down")]
    Shutdown,
    #[error("nothing has come for {0:?}, neither way")]
    Idle(Duration),
    #[error("the local peer's connection ends: {0}")]
    Broken(ReadError),
    #[error("the local peer takes no more")]
    Gone,
    #[error("the connection to the remote gateway is {0}")]
    Lost(Closed),
    #[error("the remote gateway breaks the rules: {1}")]
    Violation(CloseCode, String),
}

impl End {
    /// Whether it's as either side wished.
    pub(super) fn is_orderly(&self) -> bool {
        matches!(self, Self::Local | Self::Remote | Self::Shutdown | Self::Gone)
    }

    fn of(closed: Closed) -> Self {
        match closed {
            Closed { by: ClosedBy::Remote, code: CloseCode::Done | CloseCode::Shutdown, .. } => Self::Remote,
            closed => Self::Lost(closed),
        }
    }
}

impl Link<'_> {
    /// Until one of the two ends, and then the other. What was read of either is delivered to the other, unless that has gone.
    ///
    /// # Cancel safety
    /// Not cancel-safe: both connections are cut.
    pub(super) async fn run(&self, mut socket: TcpStream, connection: &Connection) -> End {
        let (pending, moved, signals) = (Mutex::new(Pending::default()), AtomicBool::new(false), Signals::default());
        let note = || moved.store(true, Ordering::Relaxed);
        let ends = Ends { connection, pending: &pending, counters: self.counters, moved: &note };
        let (reader, writer) = socket.split();
        let frames = FrameReader::new(reader, self.max_frame, self.stats);
        let mut reading = Box::pin(Inward { frames, ends }.run());
        let mut writing = std::pin::pin!(Outward::new(writer, ends, &signals, self.stats, self.max_frame).run());
        let idle = async {
            sleep(self.first_frame).await;
            if moved.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        // What the local peer sends comes first: its last word counts, though the rest of it may be gone already.
        let end = tokio::select! {
            biased;
            ended = &mut reading => match ended {
                inward::Ended::Closed => End::Local,
                inward::Ended::Broken(error) => End::Broken(error),
                inward::Ended::Remote(SendError::Closed(closed)) => End::of(closed),
                // It has dropped what it was sent: its peer has gone.
                inward::Ended::Remote(_) => End::Remote,
            },
            ended = &mut writing => {
                return match ended {
                    outward::Ended::Closed(closed) => End::of(closed),
                    outward::Ended::Remote(code, what) => {
                        connection.close(code, &what);
                        End::Violation(code, what)
                    }
                };
            }
            // A local peer that reads nothing holds the writing up, and mustn't hold a lost connection.
            closed = connection.closed() => {
                return match timeout(LINGER, &mut writing).await {
                    Ok(outward::Ended::Remote(code, what)) => End::Violation(code, what),
                    _ => End::of(closed),
                };
            }
            () = connection.remote_draining() => End::Remote,
            () = signals.goodbye.cancelled() => End::Remote,
            () = signals.gone.cancelled() => {
                let _ = timeout(LAST_WORDS, &mut reading).await;
                End::Gone
            }
            () = idle => End::Idle(self.first_frame),
            () = self.stop.cancelled() => End::Shutdown,
        };
        // A message that it's in the middle of is aborted.
        drop(reading);
        let mut draining = std::pin::pin!(connection.drain());
        tokio::select! {
            // Not before all that came is written, or the drain's own deadline.
            _ = &mut draining => drop(timeout(LINGER, &mut writing).await),
            ended = &mut writing => {
                if let outward::Ended::Remote(code, what) = ended {
                    connection.close(code, &what);
                }
                let _ = draining.await;
            }
        }
        end
    }
}
