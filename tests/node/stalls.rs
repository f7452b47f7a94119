//! A streamed message in which nothing moves ends on both sides, and each is told why. One that moves slowly doesn't.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use peerlane::node::{Context, Handler, Node, NodeConfig, StreamReader};
use peerlane_transport::{RecvError, SendError};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::kit::*;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

/// What a handler of a streamed message does, by the first byte of its head.
#[derive(Clone)]
struct Stalling {
    /// How reading or writing ended.
    ended: mpsc::UnboundedSender<String>,
    dropped: Arc<AtomicBool>,
}

struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Handler<Simple> for Stalling {
    async fn handle(&self, context: Context<Simple>, message: Message) {
        match message.body() {
            b"begin a reply" => {
                let mut writer = context.reply_streamed(&echo(&message).unwrap()).await.unwrap();
                writer.write(&mut Bytes::from_static(b"first")).await.unwrap();
                std::future::pending().await
            }
            b"endless reply" => {
                let mut writer = context.reply_streamed(&echo(&message).unwrap()).await.unwrap();
                loop {
                    if let Err(error) = writer.write(&mut Bytes::from_static(&[7; 10_000])).await {
                        return self.ended.send(error.to_string()).unwrap();
                    }
                }
            }
            _ => drop(context.reply(&echo(&message).unwrap()).await),
        }
    }

    async fn handle_streamed(&self, _: Context<Simple>, head: Option<Message>, mut body: StreamReader) {
        if head.unwrap().body() == b"read nothing" {
            let _dropped = Dropped(self.dropped.clone());
            return std::future::pending().await;
        }
        let error = loop {
            match body.read().await {
                Ok(Some(_)) => {}
                Ok(None) => break "complete".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        self.ended.send(error).unwrap();
    }
}

type Endings = mpsc::UnboundedReceiver<String>;

/// Both sides give a stalled message up after so long; the handler's side has one worker.
async fn pair(here: Duration, there: Duration) -> (Node<Simple>, Node<Simple>, Endings, Arc<AtomicBool>) {
    let world = World::new();
    let (ended, endings) = mpsc::unbounded_channel();
    let dropped: Arc<AtomicBool> = Arc::default();
    let handler = Stalling { ended, dropped: dropped.clone() };
    let a = builder(&world, &local(1), &["quic"]).config(config(|c| c.stall_timeout = here)).start().await.unwrap();
    let few = config(|c| (c.stall_timeout, c.workers) = (there, 1));
    let b = builder(&world, &local(2), &["quic"]).config(few).handler(handler).start().await.unwrap();
    a.connect(&addr(&b)).await.unwrap();
    (a, b, endings, dropped)
}

async fn write_until_refused(writer: &mut peerlane::node::StreamWriter) -> SendError {
    let writing = async {
        loop {
            if let Err(error) = writer.write(&mut vec![1; 1000].into()).await {
                return error;
            }
            sleep(SECOND / 100).await;
        }
    };
    timeout(LONG, writing).await.expect("refused")
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_stalls_in_the_middle_costs_no_worker_for_longer_than_the_limit() {
    let (a, b, mut endings, _) = pair(LONG, 5 * SECOND).await;
    for class in [QUERY, ORDERED, BULK] {
        let mut writer = a.open(b.peer_id(), class, Some(&Message::note(class, "read it"))).await.unwrap();
        writer.write(&mut vec![1; 1000].into()).await.unwrap();
        let start = Instant::now();
        let ended = timeout(LONG, endings.recv()).await.expect("the handler's side ends").unwrap();
        assert!(ended.contains("5s") && start.elapsed() < 6 * SECOND, "{ended} after {:?}", start.elapsed());
        let error = write_until_refused(&mut writer).await;
        assert!(matches!(error, SendError::Stopped(2)), "{error}");
        assert!(a.request(b.peer_id(), Message::ask(class, "x"), SECOND).await.is_ok(), "the only worker is free");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_stalls_in_the_middle_is_dropped_and_the_sender_told() {
    let (a, b, _endings, dropped) = pair(LONG, 5 * SECOND).await;
    for class in [QUERY, ORDERED, BULK] {
        let mut writer = a.open(b.peer_id(), class, Some(&Message::note(class, "read nothing"))).await.unwrap();
        let start = Instant::now();
        let error = write_until_refused(&mut writer).await;
        assert!(matches!(error, SendError::Stopped(2)), "{error}");
        assert!(start.elapsed() < 7 * SECOND, "{:?}", start.elapsed());
        assert!(dropped.swap(false, Ordering::SeqCst));
        assert!(a.request(b.peer_id(), Message::ask(class, "x"), SECOND).await.is_ok(), "the only worker is free");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_stalls_ends_for_who_reads_it_and_for_who_writes_it() {
    let (a, b, mut endings, _) = pair(5 * SECOND, 5 * SECOND).await;
    for class in [QUERY, ORDERED, BULK] {
        let reply = a.request_streamed(b.peer_id(), Message::ask(class, "begin a reply"), LONG).await.unwrap();
        let mut body = reply.body.unwrap();
        assert_eq!(body.read().await.unwrap().unwrap(), "first");
        let error = timeout(LONG, body.read()).await.expect("the reader ends").unwrap_err();
        assert!(matches!(error, RecvError::Stalled(limit) if limit == 5 * SECOND), "{error}");
    }
    let (a, b, mut endings2, _) = pair(LONG, 5 * SECOND).await;
    std::mem::swap(&mut endings, &mut endings2);
    for class in [QUERY, ORDERED, BULK] {
        // Nobody reads this one: the writer gives up, and who reads at last is told.
        let reply = a.request_streamed(b.peer_id(), Message::ask(class, "endless reply"), LONG).await.unwrap();
        let mut body = reply.body.unwrap();
        let ended = timeout(LONG, endings.recv()).await.expect("the writer ends").unwrap();
        assert!(ended.contains("5s"), "{ended}");
        let error = loop {
            if let Err(error) = timeout(LONG, body.read()).await.expect("the reader ends") {
                break error;
            }
        };
        assert!(matches!(error, RecvError::Aborted(2)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_message_waits_for_a_worker_is_no_stall_of_its_handler() {
    let (a, b, mut endings, _) = pair(LONG, 20 * SECOND).await;
    // The only worker is busy for longer than the limit.
    let mut first = a.open(b.peer_id(), BULK, Some(&Message::note(BULK, "read it"))).await.unwrap();
    let mut second = a.open(b.peer_id(), BULK, Some(&Message::note(BULK, "read it"))).await.unwrap();
    for _ in 0..6 {
        sleep(10 * SECOND).await;
        first.write(&mut vec![1].into()).await.unwrap();
    }
    first.finish().unwrap();
    assert_eq!(timeout(LONG, endings.recv()).await.unwrap().unwrap(), "complete");
    sleep(10 * SECOND).await;
    second.write(&mut vec![1].into()).await.unwrap();
    second.finish().unwrap();
    assert_eq!(timeout(LONG, endings.recv()).await.unwrap().unwrap(), "complete");
}

#[tokio::test(start_paused = true)]
async fn what_moves_slowly_is_no_stall() {
    let limit = NodeConfig::default().stall_timeout;
    let (a, b, mut endings, _) = pair(limit, limit).await;
    for class in [QUERY, ORDERED, BULK] {
        let mut writer = a.open(b.peer_id(), class, Some(&Message::note(class, "read it"))).await.unwrap();
        for _ in 0..10 {
            sleep(limit - SECOND).await;
            writer.write(&mut vec![1].into()).await.unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(timeout(LONG, endings.recv()).await.unwrap().unwrap(), "complete");
    }
}
