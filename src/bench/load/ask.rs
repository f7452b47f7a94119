//! The end that asks, and floods.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use peerlane_transport::{Inbound, TrySend};
use tokio::{task::JoinSet, time::sleep_until};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    answer::{Taken, send, take, too_large},
    flood::{Pushed, flood},
    links::Links,
    questions::{Backlog, Questions},
    schedule,
    timer::Timer,
    transact::Applied,
};
use crate::bench::{Case, Flood, Measurement, Series, Workload, error::LabError, measurement::Times, recovery::STEP};

/// After an interruption answers are waited for so long.
const INTERRUPTED_GRACE: Duration = Duration::from_millis(250);

/// The path's scheduled events.
#[derive(Debug)]
pub(crate) struct Scheduled {
    /// When the lab started.
    pub(crate) start: Instant,
    /// From and until, from then on.
    pub(crate) events: Vec<[Duration; 2]>,
}

/// How the load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// All of it was applied.
    Applied,
    /// `stop` was cancelled.
    Stopped,
    /// The connection ended.
    Lost,
}

/// How long answers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Until the connection is over.
    Over,
    /// Until every query that was sent has its answer.
    AllAnswered,
}

/// Applies a case's load to connections whose other ends [`answer`](super::answer()). Both ends' paths are the lab's to
/// fill in.
///
/// # Errors
/// A message that's refused while the connection lives; a timer that the system refuses.
///
/// # Cancel safety
/// If the future is dropped, the flood ends and nothing is known.
pub(crate) async fn apply(
    links: &Links,
    case: &Case,
    taken: &Taken,
    rival: &Taken,
    schedule: Option<&Scheduled>,
    stop: &CancellationToken,
) -> Result<Measurement, LabError> {
    let work = &case.workload;
    let back = Arc::new(Taken::default());
    let queries = Queries::new(links, work, case.seed, back.clone()).await?;
    let _takes = (!links.shared()).then(|| AbortOnDropHandle::new(tokio::spawn(take(links.belief.clone(), back.clone()))));
    let pushed = Arc::new(Pushed::default());
    let _flood = (case.flood != Flood::None).then(|| flood(links, case, &pushed)).transpose()?;
    let taken = || ([taken.bytes(), back.bytes(), rival.bytes()], pushed.now());

    let (began, sampled) = (Cell::new(None), RefCell::default());
    let edges = async {
        sleep_until((queries.start + work.warm_up).into()).await;
        began.set(Some((Instant::now(), taken())));
        sleep_until((queries.start + work.warm_up + work.duration).into()).await;
    };
    let over = tokio::select! {
        biased;
        () = queries.receive(Until::Over) => Over::Lost,
        () = links.closed() => Over::Lost,
        never = sample(schedule, &sampled, || taken().0[0]) => match never {},
        asked = async { tokio::join!(queries.ask(), edges).0 } => asked.map(|()| Over::Applied)?,
        () = stop.cancelled() => Over::Stopped,
    };
    let ended = Instant::now();
    let (at, before) = began.get().unwrap_or((ended, taken()));
    let (now, pushed) = taken();
    let [belief_bytes, belief_bytes_back, rival_bytes] = std::array::from_fn(|i| now[i].saturating_sub(before.0[i]));

    // The last answers, under the same flood.
    let grace = if over == Over::Applied { work.grace } else { INTERRUPTED_GRACE };
    let all = tokio::select! {
        biased;
        () = queries.receive(Until::AllAnswered) => true,
        () = tokio::time::sleep(grace) => true,
        () = stop.cancelled(), if over == Over::Applied => false,
    };
    let series = schedule.map(|schedule| queries.series(schedule, &sampled.take()));
    let [out_of_order, refused] = queries.progress.borrow().wrong;
    let (latency, unfinished, lateness) = queries.sum_up(ended)?;
    let failure = links.close_reason().map(|closed| closed.to_string()).or_else(|| wrong(out_of_order, refused));
    Ok(Measurement {
        latency,
        unfinished,
        lateness,
        out_of_order,
        refused,
        belief_bytes,
        belief_bytes_back,
        rival_bytes,
        offered: case.offered_bps.map(|_| pushed.since(before.1)),
        window: ended.saturating_duration_since(at),
        complete: over == Over::Applied && all && failure.is_none(),
        failure,
        series,
        ..Measurement::empty()?
    })
}

/// What answers say that mustn't be: then the measurement isn't one.
fn wrong(out_of_order: u64, refused: u64) -> Option<String> {
    (out_of_order > 0 || refused > 0).then(|| format!("{out_of_order} answers say that order was broken, {refused} that they refuse"))
}

/// Notes what was taken at each step since the lab's start, and when the first step was.
async fn sample(schedule: Option<&Scheduled>, sampled: &RefCell<(Duration, Vec<u64>)>, taken: impl Fn() -> u64) -> Infallible {
    let Some(schedule) = schedule else { return std::future::pending().await };
    let first = u32::try_from(schedule.start.elapsed().as_millis() / STEP.as_millis()).unwrap_or(0) + 1;
    sampled.borrow_mut().0 = STEP * first;
    for step in first.. {
        sleep_until((schedule.start + STEP * step).into()).await;
        sampled.borrow_mut().1.push(taken());
    }
    std::future::pending().await
}

/// One run's queries: when they're due, and what became of them. An ID is an index into the schedule.
struct Queries<'a> {
    links: &'a Links,
    questions: Questions,
    /// For those that must leave in order.
    backlog: Option<Backlog>,
    /// BELIEFs that arrive where answers do.
    beliefs: Arc<Taken>,
    work: &'a Workload,
    timer: Timer,
    start: Instant,
    /// From `start` on.
    due: Vec<Duration>,
    progress: RefCell<Progress>,
    /// Queries that found no room. Bounded by the schedule.
    waiting: RefCell<JoinSet<()>>,
}

struct Progress {
    /// From due to answered.
    answered: Vec<Option<Duration>>,
    /// Queries sent and not answered.
    open: usize,
    /// Answers that say that order was broken, or that the question was refused otherwise.
    wrong: [u64; 2],
    lateness: Times,
}

impl<'a> Queries<'a> {
    async fn new(links: &'a Links, work: &'a Workload, seed: u64, beliefs: Arc<Taken>) -> Result<Self, LabError> {
        let due = schedule::poisson(work.rate, work.warm_up.saturating_add(work.duration), seed);
        let progress = RefCell::new(Progress { answered: vec![None; due.len()], open: 0, wrong: [0; 2], lateness: Times::new()? });
        let questions = Questions::new(work, due.len()).await?;
        let backlog = questions.are_ordered().then(|| Backlog::new(links.query.clone()));
        let timer = Timer::new()?;
        Ok(Self { links, questions, backlog, beliefs, work, timer, start: Instant::now(), due, progress, waiting: RefCell::default() })
    }

    /// Sends each query at its time. One that finds no room waits for it in a task of its own, as a request in a node does,
    /// and holds up neither the next one nor the end; where order counts, those behind it wait there too.
    async fn ask(&self) -> Result<(), LabError> {
        let mut free = self.start;
        for (id, due) in self.due.iter().enumerate() {
            let due = self.start + *due;
            self.timer.until(due).await?;
            let late = Instant::now().saturating_duration_since(due.max(free));
            {
                let mut progress = self.progress.borrow_mut();
                progress.open += 1;
                if due >= self.start + self.work.warm_up {
                    progress.lateness.record(late);
                }
            }
            let Some(question) = self.questions.get(id) else { break };
            if !self.send(question)? {
                break;
            }
            free = Instant::now();
        }
        Ok(())
    }

    /// Sends a question, or has it wait. `false`: the connection has ended; whoever receives learns of it, too, and says so.
    fn send(&self, question: Bytes) -> Result<bool, LabError> {
        let (lane, mut waiting) = (&self.links.query, self.waiting.borrow_mut());
        self.links.sent(question.len());
        match &self.backlog {
            Some(backlog) if !backlog.is_empty() => backlog.push(question.clone()),
            backlog => match (lane.try_send(question.clone()), backlog) {
                (TrySend::Queued, _) => {}
                (TrySend::Full { .. }, Some(backlog)) => backlog.push(question.clone()),
                (TrySend::Full { .. }, None) => drop(waiting.spawn(send(lane.clone(), question.clone()))),
                (TrySend::TooLarge { limit }, _) => return Err(too_large("question", limit)),
                (TrySend::Closed(_), _) => return Ok(false),
            },
        }
        if let Some(copies) = self.links.copies.clone() {
            waiting.spawn(copies.copy(question));
        }
        while waiting.try_join_next().is_some() {}
        Ok(true)
    }

    /// Takes answers, until the connection is over at the latest.
    async fn receive(&self, until: Until) {
        while until == Until::Over || self.progress.borrow().open > 0 {
            let Ok(inbound) = self.links.recv().await else { return };
            let now = Instant::now();
            let Inbound::Whole(answer) = inbound else { continue };
            let Some((id, applied)) = self.questions.answered(&answer) else {
                self.beliefs.add(answer.len());
                continue;
            };
            let mut progress = self.progress.borrow_mut();
            let Some((id, due)) = usize::try_from(id).ok().and_then(|id| Some((id, self.due.get(id)?))) else { continue };
            // Of an answer and its copy the first one counts.
            if progress.answered[id].is_none() {
                progress.answered[id] = Some(now.saturating_duration_since(self.start + *due));
                progress.open = progress.open.saturating_sub(1);
                progress.wrong[0] += u64::from(applied == Applied::OutOfOrder);
                progress.wrong[1] += u64::from(applied == Applied::Refused);
            }
        }
    }

    /// What happened when, from the lab's start.
    fn series(&self, schedule: &Scheduled, (first, samples): &(Duration, Vec<u64>)) -> Series {
        let start = self.start.saturating_duration_since(schedule.start);
        let progress = self.progress.borrow();
        let queries: Vec<_> = self.due.iter().zip(&progress.answered).map(|(due, took)| (start + *due, *took)).collect();
        Series::new(*first, samples, &queries, &schedule.events, start + self.work.warm_up)
    }

    /// The latencies of all queries due after the warm-up and before `ended`, the number of those without an answer,
    /// and the generator's lateness.
    fn sum_up(self, ended: Instant) -> Result<(Times, u64, Times), LabError> {
        let progress = self.progress.into_inner();
        let counted = self.due.iter().zip(progress.answered).filter(|(due, _)| **due >= self.work.warm_up && self.start + **due < ended);
        let (latency, unfinished) = latencies(counted, self.start.elapsed())?;
        Ok((latency, unfinished, progress.lateness))
    }
}

/// Sums queries up: when each was due and how long its answer took. One without counts with the time from when it was
/// due until `waited_until`, on the same clock, or with the longest answer's time if that's more.
pub(crate) fn latencies<'a>(
    queries: impl Iterator<Item = (&'a Duration, Option<Duration>)>,
    waited_until: Duration,
) -> Result<(Times, u64), LabError> {
    let (mut times, mut worst, mut without) = (Times::new()?, Duration::ZERO, Vec::new());
    for (due, answered) in queries {
        match answered {
            Some(latency) => {
                times.record(latency);
                worst = worst.max(latency);
            }
            None => without.push(waited_until.saturating_sub(*due)),
        }
    }
    without.iter().for_each(|waited| times.record(worst.max(*waited)));
    Ok((times, without.len() as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_query_without_an_answer_counts_as_the_worst() {
        let due = [10 * MS, 20 * MS, 30 * MS];
        // Waited for 100 ms and 80 ms: the longest answer took 90.
        let (times, unfinished) = latencies(due.iter().zip([None, Some(90 * MS), None]), 110 * MS).unwrap();
        assert_eq!((times.count(), unfinished), (3, 2));
        let max = times.max().unwrap();
        assert!((100_000.0..100_100.0).contains(&max), "{max}");
        let least = times.quantile(0.0).unwrap();
        assert!((89_900.0..90_100.0).contains(&least), "{least}");
    }

    #[test]
    fn a_broken_order_is_a_failure_and_said() {
        assert_eq!(wrong(0, 0), None);
        assert!(wrong(1, 0).is_some_and(|why| why.contains("1 answers say that order was broken")) && wrong(0, 1).is_some());
    }

    #[test]
    fn nothing_measured_is_no_time_rather_than_zero() {
        let (times, unfinished) = latencies(std::iter::empty(), MS).unwrap();
        assert_eq!((times.count(), unfinished, times.max(), times.mean()), (0, 0, None, None));
    }
}
