//! quinn's `Controller` over the model.
//!
//! What quinn means by its calls, where its documentation doesn't say:
//! * `on_ack` comes once per acknowledged packet, `on_end_acks` once per ACK frame, losses after it.
//! * `sent` is the same for all packets of one burst of the pacer.
//! * `app_limited` is the state of the last transmit, not of the packet: it isn't used; the model compares what was in
//!   flight with the window.
//! * `window` isn't asked while nothing is to be sent, and the pacer sends at 1.25 windows per smoothed round trip.

use std::{any::Any, fmt, sync::Arc, time::Instant};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory, ControllerMetrics},
};

use super::{
    heard::Heard,
    model::{DelayConfig, Model},
};

/// The controller that keeps the bottleneck's queue short, for quinn.
#[derive(Debug, Clone)]
pub struct Delay {
    model: Model,
    heard: Option<Arc<Heard>>,
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)
    }
}

impl ControllerFactory for DelayConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Delay { model: Model::new(*self, now, current_mtu), heard: None })
    }
}

/// [`DelayConfig`] of a connection that tells what it hears: what floods the other direction delays the ACKs of what we send,
/// which a controller can't see.
#[derive(Debug)]
pub struct DelayBothWays {
    /// The mechanisms.
    pub config: DelayConfig,
    /// What is told.
    pub heard: Arc<Heard>,
}

impl ControllerFactory for DelayBothWays {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Delay { model: Model::new(self.config, now, current_mtu), heard: Some(self.heard.clone()) })
    }
}

impl Controller for Delay {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool, _: &RttEstimator) {
        self.model.on_ack(now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        if let Some(heard) = &self.heard {
            self.model.on_received(heard.received());
            if let Some(difference) = heard.take_one_way() {
                self.model.on_clocks(difference);
            }
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
