//! Takes a plan's cases to a lab, one after the other.

use tokio_util::sync::CancellationToken;

use super::{BenchError, Case, Environment, Lab, Measurement, Plan, Record};

/// What happens while a plan is run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A case begins.
    Begins(&'a Case),
    /// A case is over: keep it now, so that nothing is lost if the next one isn't.
    Measured(&'a Outcome),
}

/// A case and what it gave.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// The case.
    pub case: Case,
    /// In full, for pooling.
    pub measurement: Measurement,
    /// For a machine to read.
    pub record: Record,
}

/// Runs a plan, and tells `each` what happens. After `stop` the case at hand ends early and is marked incomplete; no
/// other begins. Blocks; don't call it on a runtime's thread.
///
/// # Errors
/// [`BenchError::Plan`] before anything is started; [`BenchError::Lab`] for an end that can't be built; what `each` gives.
pub fn run(
    plan: &Plan,
    lab: &dyn Lab,
    stop: &CancellationToken,
    mut each: impl FnMut(Event<'_>) -> Result<(), BenchError>,
) -> Result<Vec<Outcome>, BenchError> {
    plan.check()?;
    let environment = Environment::here();
    let mut outcomes = Vec::with_capacity(plan.len());
    for case in plan.cases() {
        if stop.is_cancelled() {
            break;
        }
        each(Event::Begins(&case))?;
        let measurement = match lab.measure(&case, stop) {
            Err(BenchError::Interrupted) => break,
            measured => measured?,
        };
        let record = Record::new(&case, lab, &environment, &measurement);
        let outcome = Outcome { case, measurement, record };
        each(Event::Measured(&outcome))?;
        outcomes.push(outcome);
    }
    Ok(outcomes)
}
