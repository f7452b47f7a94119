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
    task::Waker,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

use super::Heard;

/// What the driver reads of the congestion controller of its connection.
#[derive(Debug)]
pub(crate) struct Published {
    window: AtomicU64,
    /// Smoothed round-trip time in microseconds; 0: not known yet.
    rtt: AtomicU64,
    /// When the last ACK of something came, in microseconds since `start`, plus one; 0: never.
    acked_at: AtomicU64,
    /// Bytes in flight.
    in_flight: AtomicU64,
    /// What the bottleneck carries, bits per second; 0: unknown.
    capacity: AtomicU64,
    start: Instant,
    /// Bytes that may be in flight beyond the window.
    rescue: AtomicU64,
    heard: Arc<Heard>,
    /// Who waits for less in flight.
    waiting: AtomicWaker,
}

impl Published {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            window: AtomicU64::new(INITIAL),
            rtt: AtomicU64::new(0),
            acked_at: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            capacity: AtomicU64::new(0),
            start: now(),
            rescue: AtomicU64::new(0),
            heard: Arc::default(),
            waiting: AtomicWaker::new(),
        })
    }

    /// Wakes the task at the next acknowledgement or loss.
    pub(crate) fn wake_at_ack(&self, waker: &Waker) {
        self.waiting.register(waker);
    }

    /// The congestion window in bytes.
    pub(crate) fn window(&self) -> u64 {
        self.window.load(Ordering::Relaxed)
    }

    /// The smoothed round-trip time, once there's a sample.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        Some(self.rtt.load(Ordering::Relaxed)).filter(|us| *us > 0).map(Duration::from_micros)
    }

    /// Bytes per second that copies may take: a tenth of what the path carries; where the controller doesn't know that, as
    /// on a path that was never filled, a quarter of what the window lets through.
    pub(crate) fn rate_of_copies(&self) -> Option<u64> {
        let rtt = u64::try_from(self.rtt()?.as_micros()).unwrap_or(u64::MAX).max(1);
        Some(self.capacity().map_or_else(|| self.window().saturating_mul(1_000_000) / rtt / 4, |bits| bits / 80))
    }

    /// What the driver tells the controller.
    pub(crate) fn heard(&self) -> &Arc<Heard> {
        &self.heard
    }

    /// Packets may leave beyond the window, until something is acknowledged.
    pub(crate) fn rescue(&self, packets: u64) {
        self.rescue.fetch_add(packets * LARGEST_PACKET, Ordering::Relaxed);
    }

    /// Time since something was acknowledged: with something in flight, silence of several round trips is an outage.
    pub(crate) fn since_ack(&self) -> Option<Duration> {
        self.since(&self.acked_at)
    }

    /// Bytes in flight. Below the window by more than a burst while there's something to send: quinn holds too little.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What the bottleneck carries, in bits per second, where the controller knows: what copies may cost.
    fn capacity(&self) -> Option<u64> {
        Some(self.capacity.load(Ordering::Relaxed)).filter(|capacity| *capacity > 0)
    }

    fn since(&self, at: &AtomicU64) -> Option<Duration> {
        let at = at.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now().saturating_duration_since(self.start).saturating_sub(Duration::from_micros(at)))
    }

    fn stamp(&self, at: &AtomicU64, now: Instant) {
        let micros = now.saturating_duration_since(self.start).as_micros();
        at.store(u64::try_from(micros).unwrap_or(u64::MAX - 1).saturating_add(1), Ordering::Relaxed);
    }
}

/// By tokio's clock, as quinn's is.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Bytes of the largest packet that a rescue sends: Ethernet's.
const LARGEST_PACKET: u64 = 1500;
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
        self.published.in_flight.store(self.in_flight, Ordering::Relaxed);
        self.published.capacity.store(self.inner.metrics().pacing_rate.unwrap_or(0), Ordering::Relaxed);
        self.published.window.store(self.inner.window(), Ordering::Relaxed);
        self.published.waiting.wake();
    }
}

impl Controller for Publishing {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.in_flight = self.in_flight.saturating_add(bytes);
        self.published.in_flight.store(self.in_flight, Ordering::Relaxed);
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
        self.published.stamp(&self.published.acked_at, now);
        self.published.rescue.store(0, Ordering::Relaxed);
        self.publish();
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.publish();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
        self.publish();
    }

    fn window(&self) -> u64 {
        self.inner.window().saturating_add(self.published.rescue.load(Ordering::Relaxed))
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

#[cfg(test)]
impl Published {
    /// Of a path with this round-trip time and so many bytes in flight, heard of now.
    pub(crate) fn of(rtt: Duration, in_flight: u64) -> Arc<Self> {
        let published = Self::new();
        published.rtt.store(rtt.as_micros() as u64, Ordering::Relaxed);
        published.set(in_flight, true);
        published
    }

    /// So many bytes are in flight; something was acknowledged now.
    pub(crate) fn set(&self, in_flight: u64, heard: bool) {
        self.in_flight.store(in_flight, Ordering::Relaxed);
        if heard {
            self.stamp(&self.acked_at, now());
        }
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::congestion::CubicConfig;

    use super::*;

    #[test]
    fn what_the_driver_needs_is_published() {
        let published = Published::new();
        let factory = Arc::new(Factory { inner: Arc::new(CubicConfig::default()), published: published.clone() });
        let now = Instant::now();
        let mut controller = factory.build(now, 1200);
        assert_eq!((published.since_ack(), published.capacity()), (None, None));
        controller.on_sent(now, 5000, 3);
        published.rescue(2);
        assert_eq!(controller.window(), published.window() + 3000, "a rescue is quinn's alone");
        controller.on_end_acks(now, 4000, false, Some(0));
        assert!(published.since_ack().is_some());
        assert_eq!(controller.window(), published.window(), "somebody was heard");
        assert_eq!(published.in_flight(), 4000);
        controller.on_congestion_event(now, now, false, 1000);
        assert_eq!(published.in_flight(), 3000);
    }
}
