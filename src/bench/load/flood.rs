//! A flood of BELIEFs: as many as their class permits, or a set number in an open loop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use peerlane_transport::TrySend;
use tokio_util::task::AbortOnDropHandle;

use super::{
    links::Links,
    message::{self, Tag},
    timer::Timer,
};
use crate::bench::{Case, Offered, error::LabError};

/// What a flood in an open loop has done.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    offered: AtomicU64,
    refused: AtomicU64,
}

impl Pushed {
    /// So many messages were offered, and so many of them refused.
    pub(crate) fn add(&self, offered: usize, refused: usize) {
        self.offered.fetch_add(offered as u64, Ordering::Relaxed);
        self.refused.fetch_add(refused as u64, Ordering::Relaxed);
    }

    /// As it stands.
    pub(crate) fn now(&self) -> Offered {
        Offered { messages: self.offered.load(Ordering::Relaxed), refused: self.refused.load(Ordering::Relaxed) }
    }
}

/// Sends BELIEFs until it's dropped or the connection is over: at the case's rate, if it has one, else as fast as their class
/// permits.
pub(super) fn flood(links: &Links, case: &Case, pushed: &Arc<Pushed>) -> Result<AbortOnDropHandle<()>, LabError> {
    let (links, message) = (links.clone(), message::message(Tag::Belief, 0, case.workload.belief_bytes));
    let gap = case.offered_bps.map(|bits| Duration::from_secs_f64(8.0 * case.workload.belief_bytes as f64 / bits));
    let flooding = match gap {
        None => tokio::spawn(async move {
            while links.belief.send(message.clone()).await.is_ok() {
                links.sent(message.len());
            }
        }),
        Some(gap) => {
            let (timer, pushed) = (Timer::new()?, pushed.clone());
            tokio::spawn(async move {
                // Without its timer the flood ends: what was offered says so.
                let _ = in_open_loop(&links, &message, gap, &timer, &pushed).await;
            })
        }
    };
    Ok(AbortOnDropHandle::new(flooding))
}

/// Offers a message at each multiple of `gap`. One that finds no room is refused and gone: an application that produces at a
/// rate has the next one by then.
async fn in_open_loop(links: &Links, message: &bytes::Bytes, gap: Duration, timer: &Timer, pushed: &Pushed) -> std::io::Result<()> {
    let mut due = Instant::now();
    loop {
        timer.until(due).await?;
        let refused = match links.belief.try_send(message.clone()) {
            TrySend::Queued => 0,
            TrySend::Full { .. } => 1,
            TrySend::TooLarge { .. } | TrySend::Closed(_) => return Ok(()),
        };
        pushed.add(1, refused);
        links.sent(message.len() * (1 - refused));
        due += gap;
        // One that is late catches up, and lets others work meanwhile.
        tokio::task::yield_now().await;
    }
}
