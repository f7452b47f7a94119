//! The peers of a star in this process: each has an operating system's thread and a `current_thread` runtime of its own, in the
//! network namespace of its host.

use std::{sync::Arc, thread};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::ends::{Place, join};
use crate::bench::{
    BenchError, Case, Measurement,
    propagate::{self, Board},
};

/// The hosts of a star.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Star {
    pub(super) places: Vec<Place>,
    /// Tasks that each runtime polls between two looks at its sockets and timers, 1 at least.
    pub(super) event_interval: u32,
}

impl Star {
    /// Measures one case. See [`Lab::measure`](super::Lab::measure).
    pub(super) fn measure(&self, case: &Case, stop: &CancellationToken) -> Result<Measurement, BenchError> {
        let blame = |end| move |source| BenchError::Lab { end, variant: case.variant.name(), source };
        let board = Arc::new(Board::new(case));
        let played: Vec<_> = thread::scope(|scope| {
            let members: Vec<_> = (self.places.iter().enumerate())
                .map(|(index, place)| {
                    let (board, start) = (&board, thread::Builder::new().name(format!("bench-peer-{index}")));
                    let play = move || {
                        // Also if it doesn't come so far as to play.
                        let _over = board.over.clone().drop_guard();
                        place.run(self.event_interval, propagate::member(board, index, place.address, stop))
                    };
                    let member = start.spawn_scoped(scope, play);
                    if member.is_err() {
                        board.over.cancel();
                    }
                    member
                })
                .collect();
            members.into_iter().map(join).collect()
        });
        let mut measured = None;
        for member in played {
            measured = member.map_err(blame("a peer")).map(|gave| gave.or(measured.take()))?;
        }
        let mut measured: Measurement = measured.ok_or(BenchError::Interrupted)?;
        let ends = board.take_ends();
        ends.iter().try_for_each(|end| case.variant.verify(end)).map_err(blame("connection of author and hub"))?;
        [measured.client, measured.server] = ends;
        Ok(measured)
    }

    /// What the peers share, for a record.
    pub(super) fn threads(&self) -> String {
        let (peers, interval) = (self.places.len(), self.event_interval.max(1));
        format!("each of {peers} peers: a thread and a current_thread runtime of its own (event_interval {interval}), in one process")
    }
}
