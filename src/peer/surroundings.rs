//! What a peer stands on besides its network: threads that may wait for the disk, and the clock on the wall. A simulation
//! has neither: there, work is done where it's asked for, and the wall shows what the simulation says, so that the same
//! seed gives the same run.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A simulation's disk and clock, for [`Store::simulated`](super::Store::simulated).
#[derive(Clone)]
pub struct Simulation {
    delay: Duration,
    wall: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Simulation {
    /// Work on the store takes `delay` by tokio's clock, half of it before anything is done and half of it after: who is killed in
    /// between has done it and told nobody. `wall` is what the clock on the wall shows.
    #[must_use]
    pub fn new(delay: Duration, wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { delay, wall: Arc::new(wall) }
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("delay", &self.delay).finish_non_exhaustive()
    }
}

/// The machine, or a simulation.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings(pub(super) Option<Simulation>);

impl Surroundings {
    /// Milliseconds since 1970 by the clock on the wall.
    pub(super) fn wall_ms(&self) -> u64 {
        let now = self.0.as_ref().map_or_else(SystemTime::now, |simulation| (simulation.wall)());
        now.duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// Does work that may wait for the disk, off the runtime's threads. `None`: it panicked, or the process is to end.
    ///
    /// # Cancel safety
    /// If the future is dropped, work that has begun is done all the same.
    pub(super) async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match &self.0 {
            None => tokio::task::spawn_blocking(work).await.ok(),
            Some(Simulation { delay, .. }) => {
                tokio::time::sleep(*delay / 2).await;
                let done = work();
                tokio::time::sleep(*delay / 2).await;
                Some(done)
            }
        }
    }
}
