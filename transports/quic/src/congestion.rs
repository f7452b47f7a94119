//! A congestion controller that tells its window to the driver.
//!
//! quinn shows a controller's state only as a cloned box; the driver needs the window at every write. So quinn's
//! controller is wrapped, and the wrapper publishes.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

/// What the driver reads of the congestion controller of its connection.
#[derive(Debug)]
pub(crate) struct Published {
    window: AtomicU64,
    /// Smoothed round-trip time in microseconds; 0: not known yet.
    rtt: AtomicU64,
    /// When packets were last declared lost, in microseconds since `start`, plus one; 0: never.
    lost_at: AtomicU64,
    start: Instant,
}

impl Published {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { window: AtomicU64::new(INITIAL), rtt: AtomicU64::new(0), lost_at: AtomicU64::new(0), start: Instant::now() })
    }

    /// The congestion window in bytes.
    pub(crate) fn window(&self) -> u64 {
        self.window.load(Ordering::Relaxed)
    }

    /// The smoothed round-trip time, once there's a sample.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        Some(self.rtt.load(Ordering::Relaxed)).filter(|us| *us > 0).map(Duration::from_micros)
    }

    /// Bytes per second that the window lets through, once the round-trip time is known.
    pub(crate) fn rate(&self) -> Option<u64> {
        let rtt = self.rtt()?;
        Some(self.window().saturating_mul(1_000_000) / u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1))
    }

    /// Time since packets were last declared lost.
    pub(crate) fn since_loss(&self) -> Option<Duration> {
        let at = self.lost_at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.start.elapsed().saturating_sub(Duration::from_micros(at)))
    }
}

/// Initial window of RFC 9002, section 7.2, for packets of 1,200 bytes.
const INITIAL: u64 = 12_000;

/// Makes wrapped controllers for one connection: all that quinn makes for it (a path may change) publish to the same place.
pub(crate) struct Factory {
    pub(crate) inner: Arc<dyn ControllerFactory + Send + Sync>,
    pub(crate) published: Arc<Published>,
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = self.inner.clone().build(now, current_mtu);
        let wrapped = Publishing { inner, published: self.published.clone(), in_flight: 0 };
        wrapped.publish();
        Box::new(wrapped)
    }
}

struct Publishing {
    inner: Box<dyn Controller>,
    published: Arc<Published>,
    in_flight: u64,
}

impl Publishing {
    /// Whether the window isn't what limits the flow (RFC 9002, section 7.8): quinn's own flag only says whether the last
    /// transmit had more to send, and by that a flow limited by its receiver would grow its window without bound.
    fn limited(&self, app_limited: bool) -> bool {
        app_limited || self.in_flight.saturating_mul(2) < self.inner.window()
    }

    fn publish(&self) {
        self.published.window.store(self.inner.window(), Ordering::Relaxed);
    }
}

impl Controller for Publishing {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.in_flight = self.in_flight.saturating_add(bytes);
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        let limited = self.limited(app_limited);
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.published.rtt.store(u64::try_from(rtt.get().as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        self.inner.on_ack(now, sent, bytes, limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, self.limited(app_limited), largest_packet_num_acked);
        self.in_flight = in_flight;
        self.publish();
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        let at = now.saturating_duration_since(self.published.start).as_micros();
        self.published.lost_at.store(u64::try_from(at).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
        self.publish();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
        self.publish();
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), published: self.published.clone(), in_flight: self.in_flight })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}
