//! What `peerlane bench` writes while it measures, and how it's ended.

use std::{
    cell::Cell,
    fs::File,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::bench::BenchError;

/// Where records go, line by line, and tables.
pub(super) struct Records {
    /// `None`: nowhere.
    out: Option<Box<dyn Write>>,
    path: PathBuf,
    /// They've standard output for themselves.
    to_stdout: bool,
}

impl Records {
    pub(super) fn create(path: Option<&Path>) -> Result<Self, BenchError> {
        let to_stdout = path.is_some_and(|path| path.as_os_str() == "-");
        let open = |path: &Path| -> Result<Box<dyn Write>, BenchError> {
            let file = || File::create(path).map_err(|source| BenchError::File { path: path.to_owned(), source });
            Ok(if to_stdout { Box::new(io::stdout()) } else { Box::new(file()?) })
        };
        Ok(Self { out: path.map(open).transpose()?, path: path.map(Path::to_owned).unwrap_or_default(), to_stdout })
    }

    /// Writes a record: nothing is lost if the next one never comes.
    pub(super) fn line(&mut self, line: io::Result<String>) -> Result<(), BenchError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        line.and_then(|line| writeln!(out, "{line}")).and_then(|()| out.flush()).map_err(|source| match self.to_stdout {
            true => BenchError::Output(source),
            false => BenchError::File { path: self.path.clone(), source },
        })
    }

    /// Prints a table, where it's in no record's way.
    pub(super) fn table(&self, table: &str) -> io::Result<()> {
        if self.to_stdout { write!(io::stderr(), "{table}") } else { write!(io::stdout(), "{table}") }
    }
}

/// What is being measured: a bar on a terminal's standard error, and wherever that goes a line for each case that's over.
pub(super) struct Progress {
    bar: ProgressBar,
    over: Cell<usize>,
    cases: usize,
}

impl Progress {
    pub(super) fn new(cases: usize) -> Self {
        let bar = match io::stderr().is_terminal() {
            true => ProgressBar::with_draw_target(Some(cases as u64), ProgressDrawTarget::stderr()),
            false => ProgressBar::hidden(),
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} [{bar:30}] {elapsed} {msg}") {
            bar.set_style(style);
        }
        if !bar.is_hidden() {
            // A redraw a second: it's the measured machine that draws.
            bar.enable_steady_tick(Duration::from_secs(1));
        }
        Self { bar, over: Cell::new(0), cases }
    }

    #[expect(clippy::unnecessary_wraps, reason = "an arm among others that may fail")]
    pub(super) fn say(&self, what: String) -> Result<(), BenchError> {
        self.bar.set_message(what);
        Ok(())
    }

    /// One more case is over; what came of it.
    pub(super) fn over(&self, what: &str) {
        self.over.set(self.over.get() + 1);
        self.bar.inc(1);
        // Nobody need read it.
        let _ = self.bar.suspend(|| writeln!(io::stderr(), "{}/{} {what}", self.over.get(), self.cases));
    }

    /// Does something with the terminal to itself.
    pub(super) fn suspended(&self, work: impl FnOnce() -> io::Result<()>) -> Result<(), BenchError> {
        self.bar.suspend(work).map_err(BenchError::Output)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
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
