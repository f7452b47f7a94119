//! quinn on tokio, except that a connection's driver isn't a task of its own.
//!
//! quinn spawns its driver of each connection through its [`Runtime`]. Packets wake that driver, it wakes a reader, and
//! what we write wakes it again: three tasks, one behind the other, are a chain at which tokio rouses another worker
//! ([`settle`] says why that's dear). So the driver is caught here, and runs in one task with the session that it drives.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Instant,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use peerlane_transport::settle;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::sync::mpsc;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// Set while a connection is being opened on this thread: quinn spawns its driver before the call returns.
    static CAUGHT: RefCell<Option<FuturesUnordered<Task>>> = const { RefCell::new(None) };
}

/// quinn's runtime of our endpoints.
#[derive(Debug)]
pub(crate) struct Joined;

impl Runtime for Joined {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Task) {
        let free = CAUGHT.with_borrow_mut(|caught| match caught {
            Some(tasks) => {
                tasks.push(future);
                None
            }
            None => Some(future),
        });
        // The endpoint's own driver.
        if let Some(future) = free {
            tokio::spawn(future);
        }
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// The one task of a connection: quinn's driver, and what joins it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionTask(mpsc::Sender<Task>);

impl ConnectionTask {
    /// Opens a connection; what quinn spawns for it is this task. Must be called in a tokio runtime.
    pub(crate) fn spawn<T>(open: impl FnOnce() -> T) -> (T, Self) {
        let outer = CAUGHT.replace(Some(FuturesUnordered::new()));
        let opened = open();
        let tasks = CAUGHT.replace(outer).unwrap_or_default();
        let (sender, joining) = mpsc::channel(1);
        tokio::spawn(settle(run(tasks, joining)));
        (opened, Self(sender))
    }

    /// Runs a future in the same task.
    pub(crate) async fn join(&self, future: impl Future<Output = ()> + Send + 'static) {
        // Its end is the connection's: then there's nothing to drive.
        let _ = self.0.send(Box::pin(future)).await;
    }
}

/// Until all have ended and nobody can join any more.
async fn run(mut tasks: FuturesUnordered<Task>, mut joining: mpsc::Receiver<Task>) {
    let mut open = true;
    poll_fn(|cx| {
        while open && let Poll::Ready(joined) = joining.poll_recv(cx) {
            match joined {
                Some(task) => tasks.push(task),
                None => open = false,
            }
        }
        while let Poll::Ready(Some(())) = tasks.poll_next_unpin(cx) {}
        if open || !tasks.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}
