//! Catching up: an empty path that is wider than what we send is taken faster than the delay law would.
//!
//! It's so after an outage, where the application was slow when start-up ended, and when a rival has yielded. Half of the
//! path is taken by doubling: it's ours beside any one flow. Up to [`MOST`] it's a tenth a round, so that a rival which has
//! just lost packets isn't driven out before it grows again; the law does the rest. Without it, beside CUBIC on a shallow
//! queue, all that we give way for while CUBIC grows is lost for ever.

use super::{Model, round::Round};

/// What is taken by doubling, and at most, as shares of the path's content.
const HALF: f64 = 0.5;
const MOST: f64 = 0.7;
/// Growth per round beyond half.
const STEP: f64 = 1.1;

impl Model {
    /// Whether it decides about this round.
    pub(super) fn catches_up(&mut self, round: &Round) -> bool {
        let path = &self.path;
        let Some(capacity) = path.dispersion().filter(|_| self.config.catch_up) else { return false };
        let full = capacity * path.base;
        if round.queue > path.target() || self.window >= MOST * full {
            return false;
        }
        self.window = if self.window < HALF * full { (2.0 * self.window).min(HALF * full) } else { (STEP * self.window).min(MOST * full) };
        true
    }
}
