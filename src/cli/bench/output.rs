//! What `peerlane bench` writes while it measures, and how it's ended.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::bench::{BenchError, Outcome};

/// Where records go, line by line.
pub(super) struct Records {
    path: PathBuf,
    pub(super) to_stdout: bool,
    out: Box<dyn Write>,
}

impl Records {
    pub(super) fn create(path: &Path) -> Result<Self, BenchError> {
        let to_stdout = path.as_os_str() == "-";
        let out: Box<dyn Write> = if to_stdout {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).map_err(|source| BenchError::File { path: path.to_owned(), source })?)
        };
        Ok(Self { path: path.to_owned(), to_stdout, out })
    }

    pub(super) fn write(&mut self, outcome: &Outcome) -> Result<(), BenchError> {
        self.line(&outcome.record.to_json().map_err(BenchError::Output)?)
    }

    pub(super) fn line(&mut self, line: &str) -> Result<(), BenchError> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(|source| match self.to_stdout {
            true => BenchError::Output(source),
            false => BenchError::File { path: self.path.clone(), source },
        })
    }
}

/// What is being measured, on a terminal's standard error.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(cases: usize) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(Some(cases as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} [{bar:30}] {elapsed} {msg}") {
            bar.set_style(style);
        }
        // A redraw a second: it's the measured machine that draws.
        bar.enable_steady_tick(Duration::from_secs(1));
        Self(bar)
    }

    #[expect(clippy::unnecessary_wraps, reason = "an arm among others that may fail")]
    pub(super) fn say(&self, what: String) -> Result<(), BenchError> {
        self.0.set_message(what);
        Ok(())
    }

    pub(super) fn over(&self) {
        self.0.inc(1);
    }

    /// Does something with the terminal to itself.
    pub(super) fn suspended(&self, work: impl FnOnce() -> io::Result<()>) -> Result<(), BenchError> {
        self.0.suspend(work).map_err(BenchError::Output)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Ctrl-C ends the case at hand; a second one ends the process.
pub(super) struct Interrupts(CancellationToken);

impl Interrupts {
    pub(super) fn watch(stop: &CancellationToken) -> Self {
        let over = CancellationToken::new();
        let (stop, until) = (stop.clone(), over.clone());
        // Without the thread Ctrl-C ends the process, as it does by default.
        let _ = thread::Builder::new().name("bench-ctrl-c".into()).spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                tokio::select! {
                    () = until.cancelled() => return,
                    pressed = tokio::signal::ctrl_c() => if pressed.is_err() { return },
                }
                stop.cancel();
                tokio::select! {
                    () = until.cancelled() => {}
                    _ = tokio::signal::ctrl_c() => std::process::exit(130),
                }
            });
        });
        Self(over)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
