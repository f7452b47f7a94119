//! What came of the checks: `ok`, `FAILED` and why, or `not claimed`.

use std::{fmt, process::ExitCode, time::Duration};

/// Why a check ended before its end.
#[derive(Debug)]
pub(super) enum Stop {
    Failed(String),
    NotClaimed(&'static str),
}

/// What each check returns.
pub(super) type Verdict = Result<(), Stop>;

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Ends a check as failed.
macro_rules! fail {
    ($($why:tt)*) => { return Err($crate::conformance::report::Stop::Failed(format!($($why)*))) };
}

/// Ends a check as failed unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)*) => { if !$condition { $crate::conformance::report::fail!($($why)*) } };
}

pub(super) use {ensure, fail};

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It doesn't: at which step, and why.
    Failed(String),
    /// The transport doesn't promise it, or its factory can't show it: what is missing.
    NotClaimed(&'static str),
}

/// One check and what came of it.
#[derive(Debug, Clone)]
pub struct Row {
    /// `group::check`.
    pub name: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took on tokio's clock. For reading: nothing depends on it.
    pub took: Duration,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Passed => write!(f, "{:<64} ok ({:.1} s)", self.name, self.took.as_secs_f64()),
            Outcome::Failed(why) => write!(f, "{:<64} FAILED {why}", self.name),
            Outcome::NotClaimed(what) => write!(f, "{:<64} not claimed ({what})", self.name),
        }
    }
}

/// What came of all checks.
///
/// Returned from a test, it's the test's verdict:
///
/// ```ignore
/// #[tokio::test]
/// async fn conforms() -> conformance::Report {
///     conformance::run(MyFactory, Capabilities { identity: true, ..Capabilities::default() }).await
/// }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a failed check is only seen in the report"]
pub struct Report {
    /// The checks, in the order in which they ran.
    pub rows: Vec<Row>,
}

impl Report {
    /// Those that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_)))
    }

    /// No check failed, and at least one passed.
    pub fn passed(&self) -> bool {
        self.failed().next().is_none() && self.rows.iter().any(|row| row.outcome == Outcome::Passed)
    }

    /// Makes a test of it.
    ///
    /// # Panics
    /// With the whole report, unless [`passed`](Self::passed).
    pub fn assert_passed(&self) {
        assert!(self.passed(), "the transport doesn't conform:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        let count = |is: fn(&Outcome) -> bool| self.rows.iter().filter(|row| is(&row.outcome)).count();
        write!(
            f,
            "{} ok, {} failed, {} not claimed",
            count(|o| *o == Outcome::Passed),
            count(|o| matches!(o, Outcome::Failed(_))),
            count(|o| matches!(o, Outcome::NotClaimed(_)))
        )
    }
}

impl std::process::Termination for Report {
    fn report(self) -> ExitCode {
        println!("{self}");
        if self.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
