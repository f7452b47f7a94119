//! Who still has something to say: connections that are over, and whose streams haven't ended yet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use peerlane_transport::Session;
use tokio::sync::Notify;

/// The sessions that are driven now. One entry per connection.
#[derive(Default)]
pub(crate) struct Driven {
    sessions: Mutex<HashMap<usize, Arc<Session>>>,
    ended: Notify,
}

/// Keeps a session counted until it's dropped.
pub(crate) struct Counted {
    driven: Arc<Driven>,
    key: usize,
}

impl Driven {
    /// Counts a session from now on.
    pub(crate) fn count(self: &Arc<Self>, session: &Arc<Session>) -> Counted {
        // Unique as long as the session lives, and the entry keeps it alive.
        let key = Arc::as_ptr(session) as usize;
        self.lock().insert(key, session.clone());
        Counted { driven: self.clone(), key }
    }

    /// Waits until every connection that is over has said its last words. Living ones aren't waited for.
    pub(crate) async fn idle(&self) {
        loop {
            // Before looking: an end in between is not missed.
            let ended = self.ended.notified();
            if !self.lock().values().any(|session| session.over().is_cancelled()) {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Arc<Session>>> {
        // Nothing panics between lock and unlock.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let session = self.driven.lock().remove(&self.key);
        drop(session);
        self.driven.ended.notify_waiters();
    }
}
