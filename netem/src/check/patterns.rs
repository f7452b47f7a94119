//! What to send for each measurement, from the profile's numbers.

use std::time::Duration;

use super::flow::{HEADERS, Pattern};
use crate::profile::{FRAME, Impairment, Loss};

/// A small packet's payload.
const SMALL: u64 = 64 + HEADERS;
/// Sparse packets for the delay.
const SPARSE: u64 = 300;
/// The same for a delay that wanders, five in its correlation time.
const WANDERING: u64 = 2_000;
/// Packets for a loss: enough for a hundred losses, within bounds.
const LOSSES: f64 = 100.0;
const LOSS_PACKETS: (u64, u64) = (2_000, 50_000);
/// Bursts of losses scatter the count more.
const BURST_PACKETS: u64 = 60_000;
/// How long the rate is measured once the queue is full, and the most packets.
const FLOOD: Duration = Duration::from_secs(1);
const FLOOD_PACKETS: u64 = 10_000;
/// Pairs across a schedule are this far apart.
pub(super) const PAIRS: Duration = Duration::from_millis(20);

/// Far enough apart that no packet meets another one, whatever its jitter.
pub(super) fn sparse(impairment: &Impairment) -> Pattern {
    let spread = impairment.jitter.map_or(Duration::ZERO, |jitter| jitter.spread);
    if let Some((_, time)) = impairment.wander() {
        return Pattern { groups: WANDERING, group: 1, frame: SMALL, interval: time / 5 };
    }
    let interval = (spread * 8).max(Duration::from_millis(5)).max(impairment.transmission(SMALL) * 4);
    Pattern { groups: SPARSE, group: 1, frame: SMALL, interval }
}

/// Small packets, one in the time of a full one: closer together, those on the way would reach netem's limit, which
/// counts packets whatever their size.
pub(super) fn dense(impairment: &Impairment) -> Pattern {
    let groups = match impairment.loss {
        Loss::Bursts { .. } => BURST_PACKETS,
        Loss::Random(share) => ((LOSSES / share) as u64).clamp(LOSS_PACKETS.0, LOSS_PACKETS.1),
        Loss::None => LOSS_PACKETS.0,
    };
    let interval = impairment.transmission(FRAME).max(Duration::from_micros(20));
    Pattern { groups, group: 1, frame: SMALL, interval }
}

/// At twice the rate, until the queue is full and for a second more.
pub(super) fn flood(impairment: &Impairment) -> Pattern {
    let frame = impairment.transmission(FRAME);
    // Half of what's sent waits, so the queue fills in the time that it takes to empty; loss thins it out.
    let thin = (1.0 - 2.0 * impairment.loss.mean()).max(0.1);
    let filling = frame * impairment.limit();
    let measuring = FLOOD.min(frame * FLOOD_PACKETS as u32);
    let interval = frame.div_f64(2.0);
    let groups = (filling.div_f64(thin) + measuring).as_nanos() / interval.as_nanos().max(1);
    Pattern { groups: groups as u64 + 1, group: 1, frame: FRAME, interval }
}

/// More than the queue holds, at once.
pub(super) fn burst(impairment: &Impairment) -> Pattern {
    let limit = f64::from(impairment.limit());
    let margin = if matches!(impairment.loss, Loss::Bursts { .. }) { 1.5 } else { 1.2 };
    let group = ((limit * margin + 50.0) / (1.0 - impairment.loss.mean()).max(0.01)) as u64;
    Pattern { groups: 1, group, frame: FRAME, interval: Duration::ZERO }
}

/// Pairs over the whole schedule.
pub(super) fn pairs(length: Duration) -> Pattern {
    let groups = (length.as_nanos() / PAIRS.as_nanos()) as u64;
    Pattern { groups, group: 2, frame: FRAME, interval: PAIRS }
}

/// How long the last packet of anything may take: through a full queue, and then some.
pub(super) fn tail(impairment: &Impairment) -> Duration {
    let spread = impairment.jitter.map_or(Duration::ZERO, |jitter| jitter.spread * 4);
    impairment.delay + spread + impairment.transmission(FRAME) * impairment.limit() + Duration::from_millis(200)
}

/// Bytes of the TCP transfer.
pub(super) const TRANSFER: usize = 500_000;
