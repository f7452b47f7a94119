//! quinn's `Controller` over the model.
//!
//! What quinn means by its calls, where its documentation doesn't say:
//! * `on_ack` comes once per acknowledged packet, `on_end_acks` once per ACK frame, losses after it.
//! * `sent` is the same for all packets of one burst of the pacer.
//! * `app_limited` is the state of the last transmit, not of the packet: it isn't used; the model compares what was in
//!   flight with the window.
//! * `window` isn't asked while nothing is to be sent, and the pacer sends at 1.25 windows per smoothed round trip.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory, ControllerMetrics},
};

use super::model::{DelayConfig, Model};

/// The controller that keeps the bottleneck's queue short, for quinn.
#[derive(Debug, Clone)]
pub struct Delay {
    model: Model,
    received: Option<Arc<AtomicU64>>,
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)
    }
}

impl ControllerFactory for DelayConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Delay { model: Model::new(*self, now, current_mtu), received: None })
    }
}

/// [`DelayConfig`] of a connection that tells how many bytes it has received: what floods the other direction delays the
/// ACKs of what we send, which a controller can't see.
#[derive(Debug)]
pub struct DelayBothWays {
    /// The mechanisms.
    pub config: DelayConfig,
    /// Bytes received so far, more or less.
    pub received: Arc<AtomicU64>,
}

impl ControllerFactory for DelayBothWays {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Delay { model: Model::new(self.config, now, current_mtu), received: Some(self.received.clone()) })
    }
}

impl Controller for Delay {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool, _: &RttEstimator) {
        self.model.on_ack(now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        if let Some(received) = &self.received {
            self.model.on_received(received.load(Ordering::Relaxed));
        }
        if self.model.on_acks_end(now, in_flight) {
            tracing::trace!(model = %self.model, in_flight, window = self.model.window(), "round");
        }
    }

    fn on_congestion_event(&mut self, now: Instant, _: Instant, persistent: bool, lost_bytes: u64) {
        self.model.on_lost(now, lost_bytes, persistent);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.model.on_mtu(new_mtu);
    }

    fn window(&self) -> u64 {
        self.model.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window();
        // quinn ignores it; the log and `publish` read it: what the bottleneck can carry, in bits per second.
        metrics.pacing_rate = self.model.bottleneck().map(|rate| rate.saturating_mul(8));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.model.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
