//! Opening and closing leaves nothing behind. Alone in its process, since it counts the process's descriptors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use peerlane_transport::CloseCode;
use tokio::runtime::Handle;

#[cfg(target_os = "linux")]
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[cfg(not(target_os = "linux"))]
fn descriptors() -> usize {
    0
}

#[tokio::test]
async fn two_hundred_connections_leave_no_task_and_no_descriptor() {
    let (a, b) = (Node::new(1), Node::new(2));
    let (mut listener, addr) = b.listen().await;
    let (tasks, files) = (Handle::current().metrics().num_alive_tasks(), descriptors());
    for n in 0..200u64 {
        let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
        let (here, there) = if n % 2 == 0 { (dialed, accepted) } else { (accepted, dialed) };
        here.send(QUERY, pattern(1000, n)).await.unwrap();
        assert_eq!(whole(&there, QUERY).await, pattern(1000, n));
        match n % 3 {
            0 => here.close(CloseCode::Done, ""),
            1 => drop(here),
            _ => {
                let other = async {
                    there.remote_draining().await;
                    there.drain().await.unwrap();
                };
                let (drained, ()) = bounded(async { tokio::join!(here.drain(), other) }).await;
                drained.unwrap();
            }
        }
        bounded(there.closed()).await;
        // Refused ones leave nothing either.
        if n % 10 == 0 {
            b.block(&[a.id()]);
            let (dialed, accepted) = try_meet(&a, &mut listener, &addr).await;
            assert!(dialed.is_err() && accepted.is_err());
            b.block(&[]);
        }
    }
    bounded(async {
        while Handle::current().metrics().num_alive_tasks() > tasks || descriptors() > files {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let gate = b.local.gate.stats();
    assert_eq!(gate.strangers + gate.known, 0);
    // Twenty were refused, and so were joins that came while the peer was blocked. Those whose connection has merely ended
    // before them count against nobody.
    let failed = gate.admitted - gate.succeeded;
    assert!((20..=40).contains(&failed), "{gate:?}");
}
