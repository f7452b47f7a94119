//! The rescue: after an outage, the first packet that gets through finds it over.
//!
//! While a path is dead quinn sends a probe after ever longer times (RFC 9002, section 6.2): after two seconds of silence the
//! next one is more than a second away. So while something is in flight and nothing is heard for three round trips, a
//! packet beyond the window is sent every few round trips, with the oldest urgent message in it that isn't
//! acknowledged. It isn't more than a quiet flow sends, and the intervals grow with the silence.

use std::{future::Future, pin::Pin, sync::Arc, task::Context, time::Duration};

use tokio::time::{Instant, Sleep};

use crate::congestion::Published;

/// Silence begins after so many round trips and the longest delay of an acknowledgement (RFC 9000, section 18.2).
const ROUND_TRIPS: u32 = 3;
const ACK_DELAY: Duration = Duration::from_millis(25);
/// Between probes, at least; and this part of the silence, so that a peer that is gone costs little.
const INTERVAL: Duration = Duration::from_millis(25);
const OF_SILENCE: u32 = 32;
/// Packets that each may send beyond the window.
const PACKETS: u64 = 2;

/// Watches one connection for silence.
pub(crate) struct Rescue {
    path: Arc<Published>,
    timer: Pin<Box<Sleep>>,
    /// The timer runs.
    armed: bool,
}

impl Rescue {
    pub(crate) fn new(path: Arc<Published>) -> Self {
        Self { path, timer: Box::pin(tokio::time::sleep(Duration::ZERO)), armed: false }
    }

    /// Whether a probe is due. The task is woken when the next may be.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let (Some(rtt), Some(silent)) = (self.path.rtt(), self.path.since_ack()) else { return false };
        if self.path.in_flight() == 0 {
            self.armed = false;
            return false;
        }
        let patience = rtt * ROUND_TRIPS + ACK_DELAY;
        if !self.armed {
            self.armed = true;
            // What has just left may be the first for a long time.
            self.timer.as_mut().reset(Instant::now() + patience);
        }
        let mut due = false;
        while self.timer.as_mut().poll(cx).is_ready() {
            due |= silent >= patience;
            let next = if silent >= patience { INTERVAL.max(silent / OF_SILENCE) } else { patience - silent };
            self.timer.as_mut().reset(Instant::now() + next);
        }
        if due {
            self.path.rescue(PACKETS);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::task::noop_waker_ref;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_with_something_in_flight_calls_for_probes_and_nothing_else_does() {
        let path = Published::of(Duration::from_millis(50), 1000);
        let mut rescue = Rescue::new(path.clone());
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut probes = async |rescue: &mut Rescue, path: &Published, heard: bool, in_flight: u64| {
            let mut probes = 0;
            for _ in 0..200 {
                path.set(in_flight, heard);
                probes += u32::from(rescue.poll(&mut cx));
                tokio::time::advance(Duration::from_millis(5)).await;
            }
            probes
        };
        assert_eq!(probes(&mut rescue, &path, true, 1000).await, 0, "acknowledgements come");
        let window = path.window();
        assert!(probes(&mut rescue, &path, false, 1000).await > 10, "silence");
        assert_eq!(path.window(), window, "the driver's window isn't the rescue's");
        assert_eq!(probes(&mut rescue, &path, false, 0).await, 0, "nothing is expected");
    }
}
