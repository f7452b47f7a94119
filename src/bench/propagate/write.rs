//! The author: appends operations at their times, and says what came of them.

use std::{cell::Cell, sync::Arc, time::Instant};

use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Board,
    belief::{self, Appendable},
    failed,
    member::Peer,
};
use crate::bench::{Measurement, error::LabError, load::Timer, measurement::Times};

/// All of a run's operations, made beforehand: signatures take their time.
pub(super) async fn operations(board: &Board) -> Result<Vec<Appendable>, LabError> {
    let (count, value) = (board.due.len(), board.case.workload.query_bytes);
    let made = tokio::task::spawn_blocking(move || belief::operations(count, value)).await;
    made.unwrap_or_else(|_| Err(failed("the operations couldn't be made")))
}

/// Appends each at its time, then waits until all have all of them, for the grace at most.
pub(super) async fn write(
    peer: &Peer,
    board: &Board,
    operations: Vec<Appendable>,
    stop: &CancellationToken,
) -> Result<Measurement, LabError> {
    let (work, timer, mut lateness) = (&board.case.workload, Timer::new()?, Times::new()?);
    let start = Instant::now();
    let appending = async {
        for (due, operation) in board.due.iter().zip(operations) {
            timer.until(start + *due).await?;
            if *due >= work.warm_up {
                lateness.record(Instant::now().saturating_duration_since(start + *due));
            }
            append(peer, operation).await?;
        }
        Ok::<_, LabError>(())
    };
    let from = Cell::new(None);
    let edges = async {
        sleep_until((start + work.warm_up).into()).await;
        from.set(Some(board.counts()));
        sleep_until((start + work.warm_up + work.duration).into()).await;
    };
    let applied = tokio::select! {
        biased;
        (appended, ()) = async { tokio::join!(appending, edges) } => appended.map(|()| true)?,
        () = stop.cancelled() => false,
    };
    let to = board.counts();
    if applied {
        tokio::select! {
            biased;
            () = board.done.notified() => {}
            () = sleep(work.grace) => {}
            () = stop.cancelled() => {}
        }
    }
    board.sum_up(start, [from.get().unwrap_or(to), to], lateness, applied && !stop.is_cancelled())
}

/// As the service does with a TRANSACT.
async fn append(peer: &Peer, (operation, cells): Appendable) -> Result<(), LabError> {
    let store = Arc::clone(&peer.store);
    let appended = tokio::task::spawn_blocking(move || store.append(vec![operation], &cells)).await;
    let appended = appended.map_err(failed)?.map_err(failed)?;
    peer.changed.notify_one();
    match appended.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        _ => Err(failed("an operation of the author isn't the next one")),
    }
}
