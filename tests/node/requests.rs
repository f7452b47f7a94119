//! Requests and their replies, whole and streamed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use peerlane::node::{Context, Handler, Node, RequestError, Silent, StreamReader};
use peerlane_transport::{CloseCode, SendError};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::kit::*;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

async fn pair(handler: impl Handler<Simple>) -> (World, Node<Simple>, Node<Simple>) {
    let world = World::new();
    let (a, b) = (node(&world, 1, Silent).await, node(&world, 2, handler).await);
    a.connect(&addr(&b)).await.unwrap();
    (world, a, b)
}

#[tokio::test(start_paused = true)]
async fn each_request_gets_its_own_reply_in_any_class() {
    let (_world, a, b) = pair(Echo::default()).await;
    let asks = (0..200u64).map(|i| {
        let a = a.handle();
        let to = b.peer_id();
        async move {
            let class = [CONTROL, QUERY, ORDERED, BULK][i as usize % 4];
            let reply = a.request(to, Message::ask(class, i.to_be_bytes().to_vec()), LONG).await.unwrap();
            assert_eq!(reply.as_number(), i);
            assert!(matches!(reply, Message::Reply { class: c, .. } if c == class), "a reply travels in its request's class");
        }
    });
    futures_util::future::join_all(asks).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passes_and_the_late_reply_finds_nobody() {
    let (_world, a, b) = pair(Echo::default()).await;
    let start = Instant::now();
    // The reply leaves after a second and 5 ms and takes 5 ms: it's on its way when nobody waits for it any more.
    let deadline = SECOND + Duration::from_millis(7);
    let error = a.request(b.peer_id(), Message::ask(QUERY, "slow"), deadline).await.unwrap_err();
    assert!(matches!(error, RequestError::Deadline(limit) if limit == deadline), "{error}");
    assert_eq!(start.elapsed(), deadline);
    tokio::time::sleep(SECOND).await;
    let metrics = a.metrics_text();
    assert!(metrics.lines().any(|l| l.starts_with("peerlane_unmatched_total{") && l.contains("query") && l.ends_with(" 1")), "{metrics}");
    // An endless deadline is no overflow.
    assert_eq!(a.request(b.peer_id(), Message::ask(QUERY, "x"), Duration::MAX).await.unwrap().body(), b"x");
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_fails_its_requests_at_once() {
    let (world, a, b) = pair(Echo::default()).await;
    let start = Instant::now();
    let (lost, ()) = tokio::join!(a.request(b.peer_id(), Message::ask(CONTROL, "stuck"), LONG), async {
        tokio::time::sleep(SECOND).await;
        world.wire(None, Wire::Cut);
    });
    assert!(matches!(&lost, Err(RequestError::Disconnected(closed)) if closed.code == CloseCode::Lost), "{lost:?}");
    assert_eq!(start.elapsed(), SECOND);
    let unsent = a.request(b.peer_id(), Message::ask(CONTROL, "x"), LONG).await.unwrap_err();
    assert!(matches!(unsent, RequestError::NotSent(_)), "{unsent}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_path_is_noticed_while_an_answer_is_expected() {
    let (world, a, b) = pair(Echo::default()).await;
    world.wire(None, Wire::Hole);
    let start = Instant::now();
    let error = a.request(b.peer_id(), Message::ask(QUERY, "x"), LONG).await.unwrap_err();
    assert!(matches!(&error, RequestError::Disconnected(closed) if closed.code == CloseCode::TimedOut), "{error}");
    assert!(start.elapsed() < 35 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn requests_are_bounded_and_a_dropped_one_gives_its_place_back() {
    let world = World::new();
    let b = node(&world, 2, Echo::default()).await;
    let a = builder(&world, &local(1), &["quic"]).config(config(|c| c.requests_per_peer = 2)).start().await.unwrap();
    a.connect(&addr(&b)).await.unwrap();
    let ask = || a.request(b.peer_id(), Message::ask(BULK, "stuck"), LONG);
    let mut first = Box::pin(ask());
    let mut second = Box::pin(ask());
    for pending in [&mut first, &mut second] {
        assert!(tokio::time::timeout(SECOND, pending).await.is_err());
    }
    assert!(matches!(ask().await, Err(RequestError::TooMany(2))));
    drop(first);
    assert!(tokio::time::timeout(SECOND, ask()).await.is_err());
    assert!(matches!(a.request(b.peer_id(), Message::note(BULK, "x"), LONG).await, Err(RequestError::NotARequest)));
}

/// Replies with a stream that never ends, and tells how writing ended; takes uploads and replies with their length.
struct Streams {
    ended: mpsc::Sender<Ended>,
    begun: Arc<Notify>,
}

/// How writing ended; `None`: the handler was dropped.
type Ended = Option<SendError>;

/// Tells that a handler was dropped, unless it has told how it ended.
struct Watched(Option<mpsc::Sender<Ended>>);

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(ended) = self.0.take() {
            ended.try_send(None).unwrap();
        }
    }
}

impl Handler<Simple> for Streams {
    async fn handle(&self, context: Context<Simple>, message: Message) {
        let mut writer = context.reply_streamed(&echo(&message).unwrap()).await.unwrap();
        self.begun.notify_one();
        if message.body() == b"finite" {
            for i in 0..100u8 {
                writer.write(&mut vec![i; 10_000].into()).await.unwrap();
            }
            return writer.finish().unwrap();
        }
        let mut watched = Watched(Some(self.ended.clone()));
        loop {
            if let Err(error) = writer.write(&mut Bytes::from_static(&[7; 10_000])).await {
                return watched.0.take().unwrap().send(Some(error)).await.unwrap();
            }
        }
    }

    async fn handle_streamed(&self, context: Context<Simple>, head: Option<Message>, body: StreamReader) {
        let Some(Message::Request { class, id, .. }) = head else { panic!("{head:?}") };
        let len = body.collect(usize::MAX).await.unwrap().len() as u64;
        context.reply(&Message::Reply { class, id, body: len.to_be_bytes().to_vec().into() }).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_streamed_reply_arrives_and_dropping_it_stops_the_responder() {
    let (ended, mut endings) = mpsc::channel(4);
    let begun = Arc::new(Notify::new());
    let (_world, a, b) = pair(Streams { ended, begun: begun.clone() }).await;
    for class in [QUERY, ORDERED, BULK] {
        let reply = a.request_streamed(b.peer_id(), Message::ask(class, "finite"), LONG).await.unwrap();
        assert_eq!(reply.message.body(), b"finite");
        let body = reply.body.unwrap().collect(10_000_000).await.unwrap();
        assert_eq!(body.len(), 1_000_000);
        assert!(body.chunks(10_000).enumerate().all(|(i, part)| part.iter().all(|b| usize::from(*b) == i)));

        // In the middle of the body.
        let reply = a.request_streamed(b.peer_id(), Message::ask(class, "endless"), LONG).await.unwrap();
        let mut body = reply.body.unwrap();
        assert!(!body.read().await.unwrap().unwrap().is_empty());
        drop(body);
        assert!(matches!(endings.recv().await.unwrap(), Some(SendError::Stopped(0))));

        // Before its head has arrived.
        begun.notified().await;
        let asked = a.handle();
        let to = b.peer_id();
        let asking = tokio::spawn(async move { asked.request_streamed(to, Message::ask(class, "endless"), LONG).await.map(drop) });
        begun.notified().await;
        asking.abort();
        assert!(endings.recv().await.unwrap().is_none(), "the handler was dropped");
        // And a whole request that gets a stream.
        let error = a.request(b.peer_id(), Message::ask(class, "endless"), LONG).await.unwrap_err();
        assert!(matches!(error, RequestError::Streamed));
        assert!(matches!(endings.recv().await.unwrap(), Some(SendError::Stopped(0))));
        begun.notified().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_many_windows_is_answered() {
    let (ended, _endings) = mpsc::channel(4);
    let (_world, a, b) = pair(Streams { ended, begun: Arc::default() }).await;
    for class in [ORDERED, BULK] {
        let mut upload = a.upload(b.peer_id(), Message::ask(class, "length?"), LONG).await.unwrap();
        for _ in 0..300 {
            upload.writer.write(&mut vec![1; 10_007].into()).await.unwrap();
        }
        upload.writer.finish().unwrap();
        assert_eq!(upload.reply.wait().await.unwrap().message.as_number(), 300 * 10_007);
    }
}

#[tokio::test(start_paused = true)]
async fn a_streamed_message_without_a_head_is_collected_or_refused() {
    let echo = Echo::default();
    let (_world, a, b) = pair(echo.clone()).await;
    for class in [ORDERED, BULK] {
        let mut writer = a.open(b.peer_id(), class, None).await.unwrap();
        let whole = [&[3u8][..], &[0; 8], &[9; 200_000]].concat();
        for part in whole.chunks(7_000) {
            writer.write(&mut Bytes::copy_from_slice(part)).await.unwrap();
        }
        writer.finish().unwrap();
        until("it's handled", || echo.count() == 1).await;
        let (_, message) = echo.got.lock().unwrap().pop().unwrap();
        assert_eq!(message.body(), [9; 200_000]);

        // Longer than the class's largest message.
        let mut writer = a.open(b.peer_id(), class, None).await.unwrap();
        let error = loop {
            if let Err(error) = writer.write(&mut vec![3; 10_000].into()).await {
                break error;
            }
        };
        assert!(matches!(error, SendError::Stopped(_)), "{error}");
        assert_eq!(echo.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_long_is_refused_here_and_costs_no_connection() {
    let (_world, a, b) = pair(Echo::default()).await;
    let head = Message::note(BULK, vec![1; 17 * 1024]);
    let error = a.open(b.peer_id(), BULK, Some(&head)).await.unwrap_err();
    assert!(matches!(error, peerlane::node::PeerSendError::Send(SendError::TooLarge { .. })), "{error}");
    assert_eq!(a.request(b.peer_id(), Message::ask(QUERY, "x"), LONG).await.unwrap().body(), b"x");
}
