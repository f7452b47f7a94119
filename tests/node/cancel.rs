//! A request that nobody waits for any more is cancelled at its responder: whole, streamed, late, and still queued.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use peerlane::node::{Context, Handler, Node, RequestError, Silent, StreamReader};
use peerlane_transport::ClassId;

use crate::kit::*;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

/// Works for ever on whatever it gets, and counts what it began and what it was made to drop.
#[derive(Clone, Default)]
struct Endless {
    begun: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Endless {
    async fn work(&self, message: &Message) {
        let _dropped = Dropped(self.dropped.clone());
        self.bodies.lock().unwrap().push(message.body().to_vec());
        self.begun.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>().await;
    }

    fn counts(&self) -> (usize, usize) {
        (self.begun.load(Ordering::SeqCst), self.dropped.load(Ordering::SeqCst))
    }
}

impl Handler<Simple> for Endless {
    async fn handle(&self, context: Context<Simple>, message: Message) {
        if message.body() == b"quick" {
            context.reply(&echo(&message).unwrap()).await.unwrap();
        } else {
            self.work(&message).await;
        }
    }

    async fn handle_streamed(&self, _: Context<Simple>, head: Option<Message>, _body: StreamReader) {
        self.work(&head.unwrap()).await;
    }
}

async fn pair(handler: Endless) -> (Node<Simple>, Node<Simple>) {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, handler).await);
    a.connect(&addr(&b)).await.unwrap();
    (a, b)
}

const CLASSES: [ClassId; 4] = [CONTROL, QUERY, ORDERED, BULK];

#[tokio::test(start_paused = true)]
async fn dropping_a_request_ends_its_handler() {
    let endless = Endless::default();
    let (a, b) = pair(endless.clone()).await;
    for (n, class) in CLASSES.into_iter().enumerate() {
        let mut asking = Box::pin(a.request(b.peer_id(), Message::ask(class, "work"), LONG));
        assert!(tokio::time::timeout(SECOND, &mut asking).await.is_err());
        assert_eq!(endless.counts(), (n + 1, n), "nobody has given up yet");
        drop(asking);
        until("its handler ends", || endless.counts() == (n + 1, n + 1)).await;
        // The class's worker is free again, in a Fifo class too, and nothing else was cancelled.
        assert_eq!(a.request(b.peer_id(), Message::ask(class, "quick"), SECOND).await.unwrap().body(), b"quick");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_ends_the_handler_too() {
    let endless = Endless::default();
    let (a, b) = pair(endless.clone()).await;
    let error = a.request(b.peer_id(), Message::ask(QUERY, "work"), SECOND).await.unwrap_err();
    assert!(matches!(error, RequestError::Deadline(_)));
    until("its handler ends", || endless.counts() == (1, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_request_for_a_stream_before_its_head_ends_the_handler() {
    let endless = Endless::default();
    let (a, b) = pair(endless.clone()).await;
    for (n, class) in CLASSES.into_iter().enumerate() {
        let mut asking = Box::pin(a.request_streamed(b.peer_id(), Message::ask(class, "work"), LONG));
        assert!(tokio::time::timeout(SECOND, &mut asking).await.is_err());
        drop(asking);
        until("its handler ends", || endless.counts() == (n + 1, n + 1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_reply_to_an_upload_ends_the_handler_and_stops_the_body() {
    let endless = Endless::default();
    let (a, b) = pair(endless.clone()).await;
    for (n, class) in CLASSES.into_iter().enumerate() {
        let upload = a.upload(b.peer_id(), Message::ask(class, "work"), LONG).await.unwrap();
        until("its handler has begun", || endless.counts() == (n + 1, n)).await;
        let mut writer = upload.writer;
        drop(upload.reply);
        until("its handler ends", || endless.counts() == (n + 1, n + 1)).await;
        let stopped = async { while writer.write(&mut vec![0; 10_000].into()).await.is_ok() {} };
        tokio::time::timeout(10 * SECOND, stopped).await.expect("the body is stopped");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_while_it_waits_for_a_worker_is_never_begun() {
    let world = World::new();
    let endless = Endless::default();
    let few = config(|c| c.workers = 1);
    let b = builder(&world, &local(2), &["quic"]).config(few).handler(endless.clone()).start().await.unwrap();
    let a = node(&world, 1, Silent).await;
    a.connect(&addr(&b)).await.unwrap();
    for class in [QUERY, ORDERED, BULK] {
        let before = endless.counts().0;
        let ask = |body: &'static str| Box::pin(a.request(b.peer_id(), Message::ask(class, body), LONG));
        let (mut first, mut second) = (ask("first"), ask("second"));
        assert!(tokio::time::timeout(SECOND, &mut first).await.is_err());
        assert!(tokio::time::timeout(SECOND, &mut second).await.is_err());
        drop(second);
        tokio::time::sleep(SECOND).await;
        drop(first);
        assert!(a.request(b.peer_id(), Message::ask(class, "quick"), 10 * SECOND).await.is_ok());
        assert_eq!(endless.counts(), (before + 1, before + 1));
        assert!(!endless.bodies.lock().unwrap().iter().any(|body| body == b"second"));
    }
}
