//! Takes a plan's cases to labs: one after the other, or several labs at once where that disturbs nothing.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use tokio_util::sync::CancellationToken;

use super::{BenchError, Case, Environment, Lab, Measurement, Plan, Record, Status, Unmeasured};

/// How a plan is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct How {
    /// Cases at once, 1 at least. More than one is for labs with a clock of their own.
    pub jobs: usize,
    /// Whether each lab is measured against what it claims before anything is measured in it.
    pub check: bool,
}

impl How {
    /// So many cases at once, in labs that are checked before.
    pub fn new(jobs: usize) -> Self {
        Self { jobs, check: true }
    }

    /// Believes the labs.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.check = false;
        self
    }
}

/// What happens while a plan is run.
#[non_exhaustive]
pub enum Event<'a> {
    /// A lab is measured against what it claims.
    Checks(&'a dyn Lab),
    /// That's over.
    Checked(&'a dyn Lab),
    /// A case begins.
    Begins(&'a dyn Lab, &'a Case),
    /// A case is over: keep it now, so that nothing is lost if the next one isn't.
    Measured(&'a dyn Lab, &'a Outcome),
    /// A case couldn't be measured; the others go on.
    Failed(&'a dyn Lab, &'a Case, &'a Unmeasured),
    /// A case isn't measured, because its lab's check is red.
    Rejected(&'a dyn Lab, &'a Unmeasured),
    /// Nothing more comes of this lab. The labs' ends come in the labs' order.
    Over(&'a dyn Lab, &'a Ran),
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

/// What came of a plan in one lab.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Ran {
    /// What was measured, in the plan's order.
    pub outcomes: Vec<Outcome>,
    /// Cases that couldn't be measured.
    pub failed: Vec<(Case, BenchError)>,
    /// What the lab's check found wrong, a line each. If there's anything, nothing was measured.
    pub red: Vec<String>,
}

impl Ran {
    /// Whether all of a plan was measured to the end.
    pub fn is_whole(&self, plan: &Plan) -> bool {
        self.outcomes.len() == plan.len() && self.outcomes.iter().all(|outcome| outcome.record.complete)
    }
}

/// Runs a plan in each lab, and tells `each` what happens, on this thread. After `stop` the cases at hand end early and
/// are marked incomplete; no other begins. Blocks; don't call it on a runtime's thread.
///
/// # Errors
/// [`BenchError::Plan`] before anything is measured; what `each` gives. A case that fails by itself stands in [`Ran::failed`].
pub fn run(
    plan: &Plan,
    labs: &[&dyn Lab],
    how: How,
    stop: &CancellationToken,
    mut each: impl FnMut(Event<'_>) -> Result<(), BenchError>,
) -> Result<Vec<Ran>, BenchError> {
    plan.check()?;
    labs.iter().try_for_each(|lab| plan.check_on(lab.rates_mbps()).and_then(|()| lab.permits(plan)))?;
    let mut ran: Vec<Ran> = labs.iter().map(|_| Ran::default()).collect();
    let mut checked = vec![false; labs.len()];
    if how.check {
        let check = |lab: &&dyn Lab| lab.check(plan, stop);
        in_parallel(labs, how.jobs, stop, check, |index, happened| {
            let Happened::Over(found) = happened else { return each(Event::Checks(labs[index])) };
            if let Some(red) = found? {
                (checked[index], ran[index].red) = (red.is_empty(), red);
            }
            each(Event::Checked(labs[index]))
        })?;
    }

    let environment = Environment::here();
    for (lab, ran) in labs.iter().zip(&ran).filter(|(_, ran)| !ran.red.is_empty()) {
        let why = format!("the lab's check: {}", ran.red.join("; "));
        for case in plan.cases(lab.rates_mbps()) {
            each(Event::Rejected(*lab, &Unmeasured::new(&case, *lab, true, &environment, Status::Rejected, why.clone())))?;
        }
    }
    let sound = (0..labs.len()).filter(|lab| ran[*lab].red.is_empty());
    let cases: Vec<(usize, Case)> = sound.flat_map(|lab| plan.cases(labs[lab].rates_mbps()).map(move |case| (lab, case))).collect();
    let mut left: Vec<usize> = (0..labs.len()).map(|lab| cases.iter().filter(|(of, _)| *of == lab).count()).collect();
    let mut found: Vec<Option<Outcome>> = cases.iter().map(|_| None).collect();
    let mut told = 0;
    let mut tell_ends =
        |ran: &mut [Ran], found: &mut [Option<Outcome>], is_over: &dyn Fn(usize) -> bool, each: &mut dyn FnMut(Event<'_>) -> _| {
            while told < labs.len() && is_over(told) {
                let its = cases.iter().zip(&mut *found).filter(|((lab, _), _)| *lab == told);
                ran[told].outcomes.extend(its.filter_map(|(_, outcome)| outcome.take()));
                each(Event::Over(labs[told], &ran[told]))?;
                told += 1;
            }
            Ok::<_, BenchError>(())
        };
    let measure = |(lab, case): &(usize, Case)| labs[*lab].measure(case, stop);
    in_parallel(&cases, how.jobs, stop, measure, |index, happened| {
        let (of, case) = (cases[index].0, &cases[index].1);
        let lab = labs[of];
        match happened {
            Happened::Begins => return each(Event::Begins(lab, case)),
            Happened::Over(Ok(measurement)) => {
                let record = Record::new(case, lab, checked[of], &environment, &measurement);
                let outcome = found[index].insert(Outcome { case: case.clone(), measurement, record });
                each(Event::Measured(lab, outcome))?;
            }
            Happened::Over(Err(BenchError::Interrupted)) => {}
            Happened::Over(Err(error @ (BenchError::Lab { .. } | BenchError::Emulation { .. }))) => {
                let record = Unmeasured::new(case, lab, checked[of], &environment, Status::Failed, error.to_string());
                each(Event::Failed(lab, case, &record))?;
                ran[of].failed.push((case.clone(), error));
            }
            Happened::Over(Err(error)) => return Err(error),
        }
        left[of] -= 1;
        tell_ends(&mut ran, &mut found, &|lab| left[lab] == 0, &mut each)
    })?;
    // A red one at the end, and what an interruption left.
    tell_ends(&mut ran, &mut found, &|_| true, &mut each)?;
    Ok(ran)
}

enum Happened<R> {
    Begins,
    Over(R),
}

/// Does something with each item, in order, so many at once, and tells of it on this thread. None begins after `stop`, or
/// after what is told ends in an error; what is under way then is waited for.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    stop: &CancellationToken,
    work: impl Fn(&T) -> R + Sync,
    mut told: impl FnMut(usize, Happened<R>) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (tell, heard) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            let (tell, next, failed, work) = (tell.clone(), &next, &failed, &work);
            scope.spawn(move || {
                while !stop.is_cancelled() && !failed.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    // The other side hears all.
                    let _ = tell.send((index, Happened::Begins));
                    let _ = tell.send((index, Happened::Over(work(item))));
                }
            });
        }
        drop(tell);
        let mut result = Ok(());
        for (index, happened) in heard {
            if result.is_ok() {
                result = told(index, happened);
                failed.store(result.is_err(), Ordering::Relaxed);
            }
        }
        result
    })
}
