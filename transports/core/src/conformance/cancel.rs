//! Cancel safety: every async call is dropped at chosen polls, again and again; nothing is lost, doubled or cut.
//!
//! A call that is dropped is tried again a moment later, on tokio's clock: a loop that never sleeps would keep a paused
//! clock from moving on, and with it the message that it waits for.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::{
    Factory,
    kit::{Dice, Kit, both, give_up_after, meet, round_trips, standard, terms, until},
    report::{Stop, Verdict, ensure, fail},
    streams::{HEAD, Numbers, message, noise, number, streamed, whole},
};
use crate::{ClassId, ClassTable, CloseCode, Connection, Inbound, Listener, Transport, Upgrade, limits};

/// Classes that are tried: one of each order.
fn classes() -> Result<[ClassId; 2], Stop> {
    Ok([standard(ClassTable::TRANSACT)?, standard(ClassTable::BELIEF)?])
}

/// Calls until the call completes; each is dropped after 0 to 3 polls.
async fn insist<T, C: Future<Output = T>>(dice: &mut Dice, mut call: impl FnMut() -> C) -> T {
    loop {
        let polls = dice.roll(4);
        if let Some(done) = give_up_after(polls, call()).await {
            return done;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

pub(super) async fn dropped_sends_queue_nothing<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    const EACH: u64 = 150;
    let pair = kit.standard_pair().await?;
    for class in classes()? {
        kit.step(format!("class {class}"));
        let writer = |w: u64| {
            let a = pair.a.clone();
            async move {
                let mut dice = Dice::new(w + 1);
                for n in w * EACH..(w + 1) * EACH {
                    // Room is scarce for large ones, so that calls wait and are dropped while they do.
                    let message = message(n, if n % 3 == 0 { 150_000 } else { HEAD });
                    insist(&mut dice, || a.send(class, message.clone())).await?;
                }
                Ok(())
            }
        };
        let reader = async {
            let mut numbers = Numbers::default();
            let mut last = [None; 3];
            while numbers.len() < 3 * EACH {
                let found = numbers.add(&whole(&pair.b, class).await?)?;
                let last = &mut last[(found / EACH) as usize];
                let ordered = last.replace(found) < Some(found);
                ensure!(ordered || pair.b.classes()[class].order == crate::Order::Any, "a Fifo class lost its order at message {found}");
            }
            numbers.exactly(3 * EACH)
        };
        let writers = async { try_join_all((0..3).map(writer)).await.map(|_| ()) };
        both(writers, reader).await?;
        kit.step("after the last one");
        pair.a.send(class, message(0, HEAD)).await?;
        ensure!(number(&whole(&pair.b, class).await?)? == 0, "a message that was never sent arrives");
    }
    Ok(())
}

pub(super) async fn dropped_receives_lose_nothing<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    const COUNT: u64 = 300;
    let pair = kit.standard_pair().await?;
    for class in classes()? {
        kit.step(format!("class {class}"));
        let send = async {
            for n in 0..COUNT {
                pair.a.send(class, message(n, if n % 20 == 0 { 100_000 } else { 100 })).await?;
                if n % 50 == 0 {
                    sleep(Duration::from_millis(3)).await;
                }
            }
            Ok(())
        };
        let receive = async {
            let (mut dice, mut numbers) = (Dice::new(3), Numbers::default());
            while numbers.len() < COUNT {
                match insist(&mut dice, || pair.b.recv(class)).await? {
                    Inbound::Whole(message) => drop(numbers.add(&message)?),
                    Inbound::Streamed(_) => fail!("a streamed message that nobody sent"),
                }
            }
            numbers.exactly(COUNT)
        };
        both(send, receive).await?;
    }
    Ok(())
}

pub(super) async fn dropped_writes_opens_and_reads_keep_the_message<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    const LEN: usize = 1_000_000;
    let pair = kit.standard_pair().await?;
    for class in classes()? {
        kit.step(format!("class {class}: open, write, read"));
        let write = async {
            let mut dice = Dice::new(1);
            for n in 0..3 {
                let mut writer = insist(&mut dice, || pair.a.open(class)).await?;
                let mut left = noise(n, LEN);
                while !left.is_empty() {
                    let mut piece = left.split_to(left.len().min(70_000));
                    // `piece` holds what wasn't queued: that's what the next call goes on with.
                    while !piece.is_empty() {
                        if let Some(written) = give_up_after(dice.roll(4), writer.write(&mut piece)).await {
                            written?;
                        } else {
                            sleep(Duration::from_millis(1)).await;
                        }
                    }
                }
                writer.finish()?;
            }
            Ok(())
        };
        let read = async {
            let mut dice = Dice::new(2);
            for _ in 0..3 {
                let mut reader = streamed(&pair.b, class).await?;
                let mut all = Vec::new();
                loop {
                    match give_up_after(dice.roll(4), reader.read()).await {
                        Some(Ok(Some(chunk))) => all.extend_from_slice(&chunk),
                        Some(Ok(None)) => break,
                        Some(Err(error)) => fail!("a message whose writes were dropped ends with {error}"),
                        None => sleep(Duration::from_millis(1)).await,
                    }
                }
                let known = (0..3).any(|n| noise(n, LEN) == all);
                ensure!(known, "a streamed message of {LEN} bytes arrives otherwise than it was written, in {} bytes", all.len());
            }
            Ok(())
        };
        both(write, read).await?;
        kit.step(format!("class {class}: opens are dropped while no more may be open"));
        let mut open = Vec::new();
        for _ in 0..limits::MAX_OPEN_STREAMED {
            open.push(pair.a.open(class).await?);
        }
        for polls in 0..20 {
            // One poll at most: nothing would wake it for the second.
            ensure!(give_up_after(polls % 2, pair.a.open(class)).await.is_none(), "more streamed messages are open than permitted");
        }
        for writer in open {
            writer.finish()?;
        }
        for _ in 0..limits::MAX_OPEN_STREAMED {
            ensure!(streamed(&pair.b, class).await?.read().await?.is_none(), "an empty message has bytes");
        }
        pair.a.send(class, message(1, HEAD)).await?;
        ensure!(number(&whole(&pair.b, class).await?)? == 1, "a message whose open was dropped arrives");
    }
    Ok(())
}

pub(super) async fn dropped_accepts_lose_no_arrival<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    const COUNT: usize = 20;
    let (dialer, listener) = (kit.peer(&terms())?, kit.peer(&terms())?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let dials = async { Ok::<_, Stop>(try_join_all((0..COUNT).map(|_| dialer.transport.dial(&addr))).await?) };
    let accepts = async {
        let (mut dice, mut upgrades) = (Dice::new(1), Vec::new());
        while upgrades.len() < COUNT {
            match give_up_after(dice.roll(4), port.accept()).await {
                Some(arrival) => upgrades.push(tokio::spawn(arrival?.upgrade())),
                None => sleep(Duration::from_millis(1)).await,
            }
        }
        let mut connections = Vec::new();
        for upgrade in upgrades {
            connections.push(upgrade.await??);
        }
        Ok(connections)
    };
    let (dialed, accepted): (Vec<Connection>, Vec<Connection>) = tokio::try_join!(dials, accepts)?;
    kit.step("all are connections of their own");
    let query = standard(ClassTable::QUERY)?;
    for (n, a) in dialed.iter().enumerate() {
        a.send(query, message(n as u64, HEAD)).await?;
    }
    let mut numbers = Numbers::default();
    for b in &accepted {
        numbers.add(&whole(b, query).await?)?;
    }
    numbers.exactly(COUNT as u64)
}

pub(super) async fn dropped_dials_and_upgrades_leave_nothing<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let (dialer, listener) = (kit.peer(&terms())?, kit.peer(&terms())?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let query = standard(ClassTable::QUERY)?;
    let (a, b) = meet(&dialer, &addr, &mut port).await.both()?;
    for polls in 0..12 {
        kit.step(format!("a dial dropped after {polls} polls"));
        let accept = async {
            // The arrival, if there's one: its handshake ends with an error, or with a connection that's lost at once.
            tokio::select! {
                biased;
                arrival = port.accept() => if let Ok(b) = arrival?.upgrade().await { b.closed().await; },
                () = sleep(Duration::from_millis(200)) => {}
            }
            Ok(())
        };
        let dial = async {
            drop(give_up_after(polls, dialer.transport.dial(&addr)).await);
            Ok(())
        };
        both(dial, accept).await?;
        kit.step(format!("an upgrade dropped after {polls} polls"));
        let accept = async {
            drop(give_up_after(polls, port.accept().await?.upgrade()).await);
            Ok(())
        };
        let dial = async {
            // Refused; or a connection, which has ended already.
            if let Ok(a) = dialer.transport.dial(&addr).await {
                a.closed().await;
            }
            Ok(())
        };
        both(dial, accept).await?;
    }
    kit.step("a connection made before, and one made after");
    round_trips(&a, &b, query, 3, 100).await?;
    // What was dropped may still stand in the listener's line.
    loop {
        let meeting = meet(&dialer, &addr, &mut port).await;
        match (meeting.dialer, meeting.listener) {
            (Ok(a), Some(Ok(b))) => return round_trips(&a, &b, query, 3, 100).await,
            (_, Some(Err(_))) => {}
            (_, other) => fail!("no connection after dropped dials: {other:?}"),
        }
    }
}

pub(super) async fn a_dropped_drain_can_be_resumed<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    const COUNT: u64 = 200;
    let pair = kit.standard_pair().await?;
    let class = standard(ClassTable::DATA)?;
    let send = async {
        for n in 0..COUNT {
            pair.a.send(class, message(n, 20_000)).await?;
        }
        for polls in 0..4 {
            ensure!(give_up_after(polls, pair.a.drain()).await.is_none() || polls > 1, "drain is done before anything is received");
        }
        ensure!(pair.a.close_reason().is_none_or(|closed| closed.code == CloseCode::Done), "a dropped drain ends the connection");
        ensure!(pair.a.send(class, Bytes::new()).await.is_err(), "a message is taken in after a drain has begun");
        Ok(pair.a.drain().await?)
    };
    let receive = async {
        let mut numbers = Numbers::default();
        while numbers.len() < COUNT {
            numbers.add(&whole(&pair.b, class).await?)?;
        }
        numbers.exactly(COUNT)?;
        pair.b.remote_draining().await;
        Ok(pair.b.drain().await?)
    };
    both(send, receive).await?;
    until(|| pair.b.close_reason().is_some()).await;
    Ok(())
}
