//! Messages that leave are remembered for a moment, while there's a byte stream for copies of them.

use std::{future::poll_fn, pin::pin, sync::atomic::Ordering, task::Poll, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::Outbox;
use crate::class::{
    copies::{Copies, MessageCopy, may_be_copied},
    queue::Taken,
    table::ClassId,
};

impl Outbox {
    /// From now on there are copies, so long after their messages; or none any more.
    pub(crate) fn copy_after(&self, after: Option<Duration>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.copies = after.filter(|_| state.closed.is_none()).map(Copies::new);
        for (queue, (class, info)) in state.classes.iter_mut().zip(self.table.iter()) {
            // Class 15, slot 15 is the control frames' lane.
            queue.keep_copies(state.copies.is_some() && may_be_copied(info) && class.0 < 15);
        }
    }

    /// Remembers what has left.
    pub(super) fn copy(&self, copies: &mut Option<Copies>, class: ClassId, taken: &mut Taken, now: Instant) {
        let Some(copies) = copies else { return };
        copies.sent(taken.bytes);
        let idle = copies.due().is_none();
        for (number, message) in taken.begun.drain(..) {
            copies.add(class, number, message, now);
        }
        // Who waits for copies has its turn before this one, or waits for a moment that has come closer.
        if idle && copies.due().is_some() {
            self.wake.wake();
        }
    }

    /// Waits until a copy is due.
    ///
    /// # Cancel safety
    /// Cancel-safe. To be polled by the task that drives the connection.
    pub(crate) async fn next_copy(&self) -> MessageCopy {
        let mut timer = pin!(sleep_until(Instant::now()));
        poll_fn(|cx| {
            loop {
                self.wake.register(cx.waker());
                if let Some(copy) = self.due_copy() {
                    return Poll::Ready(copy);
                }
                let due = self.state.lock().copies.as_ref().and_then(Copies::due);
                let Some(due) = due else { return Poll::Pending };
                timer.as_mut().reset(due);
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// A copy that is due, if there's one.
    pub(crate) fn due_copy(&self) -> Option<MessageCopy> {
        let copy = self.state.lock().copies.as_mut()?.take(Instant::now())?;
        self.copied.fetch_add(1, Ordering::Relaxed);
        Some(copy)
    }

    pub(crate) fn copies_sent(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }
}
