//! Where the two ends run.
//!
//! Two peers are two processes. In one tokio runtime both ends' tasks share the workers, and which worker steals which
//! task decides how much of the two ends' work is done at the same time: that says something of tokio, and not of a peer. So
//! each end has a runtime of its own, and the thread that waits for both does nothing of their work.
//!
//! All else of the runtimes is tokio's default (`event_interval`, `global_queue_interval`), for raw as for ours.

use std::{io, str::FromStr};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::Failed;

/// How the two ends are put on runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each end has its own: nothing moves from one end's threads to the other's.
    Own,
    /// Both on one: tokio moves tasks between its workers as it likes.
    Shared,
}

impl Mode {
    /// In records, and what [`FromStr`] takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Shared => "shared",
        }
    }

    /// Workers of a runtime, so that both modes have two threads.
    pub const fn default_workers(self) -> usize {
        match self {
            Self::Own => 1,
            Self::Shared => 2,
        }
    }
}

impl FromStr for Mode {
    type Err = Failed;

    fn from_str(name: &str) -> Result<Self, Failed> {
        [Self::Own, Self::Shared]
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| Failed::Setup(format!("{name:?} is neither \"own\" nor \"shared\"")))
    }
}

/// The runtimes of the two ends, and one more that waits. Not to be dropped within a runtime.
#[derive(Debug)]
pub struct Runtimes {
    dialer: Runtime,
    /// With [`Mode::Own`].
    listener: Option<Runtime>,
    waiting: Runtime,
}

impl Runtimes {
    /// Runtimes of `workers` threads each.
    ///
    /// # Errors
    /// What the system says to a new thread.
    pub fn new(mode: Mode, workers: usize) -> io::Result<Self> {
        let runtime = |name| Builder::new_multi_thread().worker_threads(workers.max(1)).thread_name(name).enable_all().build();
        Ok(match mode {
            Mode::Own => Self { dialer: runtime("dialer")?, listener: Some(runtime("listener")?), waiting: waiting()? },
            Mode::Shared => Self { dialer: runtime("both ends")?, listener: None, waiting: waiting()? },
        })
    }

    /// Runs `future` on the calling thread: it's to wait for the ends, and to do nothing itself.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.waiting.block_on(future)
    }

    pub(crate) fn ends(&self) -> Ends {
        let dialer = self.dialer.handle().clone();
        Ends { listener: self.listener.as_ref().map_or_else(|| dialer.clone(), |runtime| runtime.handle().clone()), dialer }
    }
}

/// It has timers, and neither sockets nor other threads.
fn waiting() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_time().build()
}

/// Where a link's ends are driven.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    pub(crate) dialer: Handle,
    pub(crate) listener: Handle,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn own_ends_run_on_threads_of_their_own() {
        for (mode, same) in [(Mode::Own, false), (Mode::Shared, true)] {
            let runtimes = Runtimes::new(mode, 1).unwrap();
            let thread = |handle: &Handle| runtimes.wait(handle.spawn(async { std::thread::current().id() })).unwrap();
            let ends = runtimes.ends();
            let (dialer, listener) = (thread(&ends.dialer), thread(&ends.listener));
            assert_eq!(dialer == listener, same, "{mode:?}");
            assert!(![dialer, listener].contains(&std::thread::current().id()), "{mode:?}");
        }
    }

    #[test]
    fn modes_have_names() {
        for mode in [Mode::Own, Mode::Shared] {
            assert_eq!(mode.name().parse::<Mode>().unwrap(), mode);
        }
        assert!("both".parse::<Mode>().is_err());
    }
}
