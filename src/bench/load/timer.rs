//! Waits to the microsecond.
//!
//! tokio's timers round up to a millisecond, twenty times a round trip here. A spin would take a processor away from
//! what is measured, and never ends where time stands still while somebody computes (a virtual-time lab). So on Linux
//! the kernel's timer wakes the runtime like a socket does; elsewhere tokio's has to do, and the records' lateness
//! says so.

use std::{io, time::Instant};

#[cfg(target_os = "linux")]
pub(crate) struct Timer(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Timer {
    /// Must be called in a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // Deprecated for types that may close or swap their descriptor while it's registered; an `OwnedFd` does neither.
        // Its successor is `unsafe`, which this workspace forbids.
        #[expect(deprecated, reason = "sound for an OwnedFd")]
        let timer = tokio::io::unix::AsyncFd::with_interest(timer, tokio::io::Interest::READABLE)?;
        Ok(Self(timer))
    }

    /// Waits until `due`; at once if that's over. Cancel-safe.
    pub(crate) async fn until(&self, due: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let it_value = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
            // Setting it clears an expiry that nobody read.
            timerfd_settime(
                &self.0,
                TimerfdTimerFlags::empty(),
                &Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value },
            )?;
            self.0.readable().await?.clear_ready();
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    /// Must be called in a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits until `due`; at once if that's over. Cancel-safe.
    pub(crate) async fn until(&self, due: Instant) -> io::Result<()> {
        tokio::time::sleep_until(due.into()).await;
        Ok(())
    }
}
