//! More queries than the reference peer has room for.

use futures_util::{StreamExt as _, stream::FuturesUnordered};

use super::*;

/// On each of two connections. 0.8.0 has room for 10,000 and refuses the rest at once; newer ones take what waits in one go and have room for
/// as many again, stop reading a connection whose next message finds none, and refuse that one after 8 seconds.
const FLOOD: i64 = 24_000;

#[tokio::test]
async fn a_flood_of_queries_is_refused_with_load_and_disturbs_no_status() {
    let Some(java) = java().await else { return };
    let slow = form::read("(loop [] (recur))").unwrap();
    let mut frames = Vec::new();
    for id in 0..FLOOD {
        frames.extend(Message::query(id, slow.clone(), Some(USER)).unwrap().frame());
    }
    // The first refusal says that the peer is full.
    let (refused, mut full) = tokio::sync::mpsc::channel(1);
    for _ in 0..2 {
        let (mut reader, mut writer) = java.raw().await.into_split();
        let (frames, refused) = (frames.clone(), refused.clone());
        // It stops in the middle when the peer doesn't read on, and ends with the peer.
        tokio::spawn(async move { writer.write_all(&frames).await });
        tokio::spawn(async move {
            let mut frames = Frames::new(1 << 20);
            while reader.read_buf(frames.buffer()).await.is_ok_and(|n| n > 0) {
                while let Some(body) = frames.next_frame().unwrap() {
                    let Payload::Result(outcome) = Message::decode(&body).unwrap().parse().unwrap() else { panic!() };
                    if outcome.error == Some(ErrorCode::Load) {
                        let _ = refused.try_send(outcome.id);
                    }
                }
            }
        });
    }
    assert!(timeout(START, full.recv()).await.expect("it's full in time").flatten().is_some(), "the refusal names its request");

    // The same for whoever comes now, whatever he asks. A place that came free may be his: one of many isn't.
    let client = java.client(ClientConfig { deadline: START, ..ClientConfig::default() }).await;
    let mut asked: FuturesUnordered<_> = (0..50).map(|_| query(&client, "(+ 1 2)")).collect();
    let refusal = async {
        loop {
            if let Err(error) = asked.next().await.expect("one is refused").ok() {
                return error;
            }
        }
    };
    let error = timeout(START, refusal).await.expect("refused in time");
    assert!(matches!(&error, ClientError::Refused { code: ErrorCode::Load, .. }), "{error}");
    assert!(matches!(&error, ClientError::Refused { code, .. } if code.may_retry()));
    // STATUS is none of the queue's business.
    java.client(config()).await.status().await.unwrap();
    println!("refused: {error}; STATUS is answered meanwhile");
}
