//! Futures that wake each other, in one task.
//!
//! A connection's readers and its writer wake each other all the time. As tasks of their own, or as parts of one that
//! wakes itself while it runs, they cost more than a small message's whole way: tokio puts a task that was woken while it
//! ran at the end of its worker's queue and rouses an idle worker for it, which then takes the connection over to
//! another core. So they're one task, and it goes on by itself until all have settled.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{task::coop, time::Instant};

/// How often a future is polled before others of the runtime get their turn. What one packet sets going needs three or
/// four rounds.
const ROUNDS: usize = 16;
/// Nor does it keep them waiting for longer than this, however much it has to do: a handler that is to answer a QUERY may
/// be among them, and a socket isn't looked at meanwhile. Measured over loopback, where the processor is the bottleneck: with 100 us a QUERY
/// under a flood waited for half as long again over QUIC, and twice as long over TCP (`benches/RESULTS.md`).
const TURN: Duration = Duration::from_micros(20);

/// Makes one task of futures that wake each other: when `future` was woken while it was polled, it's polled again at
/// once, a bounded number of times, rather than put behind the runtime's other tasks.
pub fn settle<F: Future>(future: F) -> Settle<F> {
    let bell = Arc::new(Bell { state: AtomicU8::new(IDLE), task: AtomicWaker::new() });
    Settle { future: Box::pin(future), waker: bell.clone().into(), bell }
}

/// See [`settle`].
#[derive(Debug)]
pub struct Settle<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Nobody polls: a wake goes to the task.
const IDLE: u8 = 0;
/// The future is being polled.
const POLLED: u8 = 1;
/// It was woken meanwhile.
const RUNG: u8 = 2;

#[derive(Debug)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.compare_exchange(POLLED, RUNG, Ordering::AcqRel, Ordering::Acquire) == Err(IDLE) {
            self.task.wake();
        }
    }
}

impl<F: Future> Future for Settle<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // Before the state is IDLE again, so that who finds it IDLE finds this waker.
        this.bell.task.register(cx.waker());
        // Asked for only where it goes on: mostly one round is all.
        let mut began = None;
        for _ in 0..ROUNDS {
            this.bell.state.store(POLLED, Ordering::Release);
            if let Poll::Ready(done) = this.future.as_mut().poll(&mut Context::from_waker(&this.waker)) {
                return Poll::Ready(done);
            }
            let unrung = this.bell.state.compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if unrung {
                return Poll::Pending;
            }
            // Out of budget, tokio's resources say "later" and wake at once: polling on would get nowhere.
            if !coop::has_budget_remaining() || began.get_or_insert_with(Instant::now).elapsed() >= TURN {
                break;
            }
        }
        this.bell.state.store(IDLE, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::task::noop_waker_ref;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wakes_itself(times: usize) -> impl Future<Output = ()> {
        let mut left = times;
        std::future::poll_fn(move |cx| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn a_future_that_wakes_itself_goes_on_and_the_task_is_not_woken() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = count.clone().into();
        let mut settled = settle(wakes_itself(ROUNDS - 1));
        assert!(Pin::new(&mut settled).poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_that_never_settles_lets_others_go_first() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = count.clone().into();
        let mut settled = settle(wakes_itself(ROUNDS + 1));
        assert!(Pin::new(&mut settled).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "it asked for its next turn");
        assert!(Pin::new(&mut settled).poll(&mut Context::from_waker(noop_waker_ref())).is_ready());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_another_thread_is_lost() {
        let (to, mut from) = tokio::sync::mpsc::channel::<usize>(1);
        let (back, mut answers) = tokio::sync::mpsc::channel::<usize>(1);
        let echo = settle(async move {
            while let Some(i) = from.recv().await {
                if back.send(i).await.is_err() {
                    return;
                }
            }
        });
        let echo = tokio::spawn(echo);
        for i in 0..20_000 {
            assert!(to.send(i).await.is_ok());
            assert_eq!(answers.recv().await, Some(i));
        }
        drop(to);
        assert!(echo.await.is_ok());
    }
}
