//! What is sent arrives: whole, once, as it was sent, and in order where order is promised.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{FutureExt, future::try_join_all};
use tokio::task::JoinSet;

use super::{
    Factory,
    kit::{Dice, Kit, both, round_trips, standard, stuck, terms_of},
    load::{Flood, too_many},
    report::{Stop, Verdict, ensure, fail},
    streams::{HEAD, Numbers, message, noise, number, pour, streamed, taste, whole, write_until_refused},
};
use crate::{ClassId, ClassTable, Connection, Delivery, Inbound, Order, RecvError, SendError, TrafficClass, TrySend, Urgency, limits};

/// Sizes around each boundary of the code below: varint lengths, coalescing, the quantum, the small message, the window.
const SIZES: [usize; 24] = [
    0, 1, 2, 7, 8, 63, 64, 1023, 1024, 1025, 2047, 2048, 8191, 8192, 16_378, 16_379, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537,
    131_072, 262_144,
];

pub(super) async fn every_size_up_to_the_limit_and_one_over<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let pair = kit.standard_pair().await?;
    for (class, info) in ClassTable::standard().iter() {
        let (name, limit) = (&info.name, info.max_message);
        for (a, b) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            for len in SIZES.into_iter().filter(|len| *len < limit - 1).chain([limit - 1, limit]) {
                kit.step(format!("{len} bytes in {name}"));
                a.send(class, noise(len as u64, len)).await?;
                ensure!(whole(b, class).await? == noise(len as u64, len), "arrives otherwise than it was sent");
            }
            kit.step(format!("one byte over the limit in {name}"));
            let over = noise(0, limit + 1);
            match a.send(class, over.clone()).now_or_never() {
                Some(Err(SendError::TooLarge { limit: found, .. })) if found == limit => {}
                other => fail!("send should refuse at once with TooLarge, not {other:?}"),
            }
            match a.try_send(class, over.clone()) {
                TrySend::TooLarge { limit: found } if found == limit => {}
                other => fail!("try_send should refuse with TooLarge, not {other:?}"),
            }
            ensure!(matches!(a.send_latest(class, 1, over), Err(SendError::TooLarge { .. })), "send_latest takes too large a message");
            a.send(class, message(7, HEAD)).await?;
            ensure!(number(&whole(b, class).await?)? == 7, "what was refused as too large arrives");
        }
    }
    kit.step("a class that isn't agreed");
    let unknown = ClassId(15);
    ensure!(matches!(pair.a.send(unknown, noise(1, 1)).await, Err(SendError::NoSuchClass(_))), "send takes an unknown class");
    ensure!(matches!(pair.a.recv(unknown).await, Err(RecvError::NoSuchClass(_))), "recv takes an unknown class");
    ensure!(matches!(pair.a.open(unknown).await, Err(SendError::NoSuchClass(_))), "open takes an unknown class");
    Ok(())
}

pub(super) async fn streamed_64_mib_in_an_any_class<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    streamed_64_mib(kit, ClassTable::DATA).await
}

pub(super) async fn streamed_64_mib_in_a_fifo_class<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    streamed_64_mib(kit, ClassTable::TRANSACT).await
}

async fn streamed_64_mib<F: Factory>(kit: Arc<Kit<F>>, class: &str) -> Verdict {
    const LEN: u64 = 64 * 1024 * 1024;
    let (pair, class) = (kit.standard_pair().await?, standard(class)?);
    let write = async { pour(pair.a.open(class).await?, 64, |len| len >= LEN).await };
    let read = async { Ok(taste(streamed(&pair.b, class).await?).await?) };
    let (wrote, read) = tokio::try_join!(write, read)?;
    ensure!(wrote == read, "wrote {wrote:?}, read {read:?}");
    kit.step("a message behind it");
    pair.a.send(class, message(1, HEAD)).await?;
    ensure!(number(&whole(&pair.b, class).await?)? == 1, "another message arrives");
    Ok(())
}

pub(super) async fn every_class_at_once_both_ways<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    const WHOLE: u64 = 150;
    const STREAMED: u64 = 6;
    let pair = kit.standard_pair().await?;
    let one_way = |a: Connection, b: Connection, class: ClassId| async move {
        let limit = a.classes()[class].max_message;
        let wholes = async {
            let mut dice = Dice::new(u64::from(class.0) + 1);
            for n in 0..WHOLE {
                let most = if n % 10 == 0 { limit - HEAD } else { 5000 };
                a.send(class, message(n, HEAD + dice.roll(most as u32 + 1) as usize)).await?;
            }
            Ok::<_, Stop>(())
        };
        let streams = async {
            let mut wrote = Vec::new();
            for n in 0..STREAMED {
                wrote.push(pour(a.open(class).await?, n, |len| len >= n * 100_000).await?);
            }
            Ok(wrote)
        };
        let receive = async {
            let (mut numbers, mut tasters, mut read) = (Numbers::default(), JoinSet::new(), Vec::new());
            for _ in 0..WHOLE + STREAMED {
                match b.recv(class).await? {
                    Inbound::Whole(bytes) => drop(numbers.add(&bytes)?),
                    Inbound::Streamed(reader) => drop(tasters.spawn(taste(reader))),
                }
            }
            while let Some(digest) = tasters.join_next().await {
                read.push(digest??);
            }
            numbers.exactly(WHOLE)?;
            Ok(read)
        };
        let (_, mut wrote, mut read) = tokio::try_join!(wholes, streams, receive)?;
        wrote.sort();
        read.sort();
        ensure!(wrote == read, "class {class}: streamed messages arrive otherwise than they were written");
        Ok(())
    };
    let table = ClassTable::standard();
    let ways = table.iter().flat_map(|(class, _)| {
        [one_way(pair.a.clone(), pair.b.clone(), class).boxed(), one_way(pair.b.clone(), pair.a.clone(), class).boxed()]
    });
    try_join_all(ways.collect::<Vec<_>>()).await.map(|_| ())
}

pub(super) async fn a_fifo_class_keeps_the_order_of_mixed_sizes<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    const COUNT: u64 = 300;
    let (pair, class) = (kit.standard_pair().await?, standard(ClassTable::TRANSACT)?);
    let send = async {
        for n in 0..COUNT {
            if n % 50 == 7 {
                // Streamed ones stand in the same order as whole ones.
                pour(pair.a.open(class).await?, n, |len| len >= 300_000).await?;
            } else {
                let len = [HEAD, 200_000, 17, 70_000, 1024, 65_536, 65_537, 16_384][n as usize % 8];
                pair.a.send(class, message(n, len)).await?;
            }
        }
        Ok(())
    };
    let receive = async {
        for n in 0..COUNT {
            match pair.b.recv(class).await? {
                Inbound::Whole(bytes) => {
                    let found = number(&bytes)?;
                    ensure!(found == n && n % 50 != 7, "message {found} arrives in place of {n}");
                }
                Inbound::Streamed(reader) => {
                    ensure!(n % 50 == 7, "a streamed message arrives in place of {n}");
                    ensure!(taste(reader).await?.number == n, "another streamed message arrives in place of {n}");
                }
            }
        }
        Ok(())
    };
    both(send, receive).await
}

pub(super) async fn the_latest_replaces_and_arrives<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    const COUNT: u64 = 1000;
    let (pair, class) = (kit.standard_pair().await?, standard(ClassTable::BELIEF)?);
    kit.step("filling the class, so that a queue stands");
    let flood = Flood::start(&pair.a, class, 1, 8 * 1024, 1000);
    stuck(&pair.a, &pair.b).await;
    // The writer that waits would be served before us.
    drop(flood);
    kit.step("superseding");
    const KEY: u64 = 5;
    const BASE: u64 = 1 << 32;
    let mut superseded = BTreeSet::new();
    let mut sent = 0;
    while sent < COUNT {
        // Lengths differ, so that room is paid for and given back.
        match pair.a.send_latest(class, KEY, message(BASE + sent, 100 + sent as usize % 50))? {
            Ok(None) => sent += 1,
            Ok(Some(old)) => {
                ensure!(superseded.insert(number(&old)?), "a message is handed back twice");
                sent += 1;
            }
            Err(TrySend::Full { .. }) => drop(pair.b.recv(class).await?),
            Err(other) => fail!("send_latest should queue or say Full, not {other:?}"),
        }
    }
    kit.step("receiving what wasn't superseded");
    let mut arrived = BTreeSet::new();
    while arrived.last() != Some(&(BASE + COUNT - 1)) {
        let found = number(&whole(&pair.b, class).await?)?;
        ensure!(found < BASE || arrived.insert(found), "message {found} arrives twice");
    }
    arrived.retain(|n| *n >= BASE);
    let all: BTreeSet<_> = arrived.union(&superseded).copied().collect();
    ensure!(all.into_iter().eq(BASE..BASE + COUNT), "a message neither arrived nor was handed back");
    ensure!(arrived.is_disjoint(&superseded), "a message that was handed back arrives");
    ensure!(superseded.len() > COUNT as usize / 2, "only {} of {COUNT} were replaced in a standing queue", superseded.len());
    Ok(())
}

/// A class of small unreliable messages beside the standard ones.
pub(super) fn with_datagrams() -> Result<(ClassTable, ClassId), Stop> {
    let mut classes: Vec<_> = ClassTable::standard().iter().map(|(_, class)| class.clone()).collect();
    let pulse = TrafficClass::new("pulse", 5, Urgency::Bulk, Order::Any);
    classes.push(TrafficClass { delivery: Delivery::Datagram, ..pulse });
    let table = ClassTable::new(classes)?;
    let class = ClassId(table.len() as u8 - 1);
    Ok((table, class))
}

pub(super) async fn datagrams_arrive_whole_or_not_at_all<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let (table, class) = with_datagrams()?;
    let pair = kit.pair(&terms_of(table)).await?;
    if !kit.claims.datagrams {
        kit.step("without datagrams the class is reliable");
        return Flood::start(&pair.a, class, 4, 5000, 900).finish(&pair.b).await;
    }
    kit.step("a message that fits no datagram is reliable");
    pair.a.send(class, message(1, 200_000)).await?;
    ensure!(number(&whole(&pair.b, class).await?)? == 1, "another message arrives");
    kit.step("small messages, one after the other");
    let mut numbers = Numbers::default();
    for n in 0..200 {
        pair.a.send(class, message(n, 900)).await?;
        // A reliable message behind it: when it's there, the datagram is too, or it's lost.
        round_trips(&pair.a, &pair.b, standard(ClassTable::QUERY)?, 1, 100).await?;
        while let Some(message) = pair.b.try_recv(class) {
            numbers.add(&message.collect(limits::SMALL_MESSAGE).await?)?;
        }
    }
    ensure!(numbers.len() >= 100, "only {} of 200 datagrams arrive on a quiet path", numbers.len());
    Ok(())
}

pub(super) async fn a_full_class_waits_and_loses_nothing<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let pair = kit.standard_pair().await?;
    for (class, info) in ClassTable::standard().iter() {
        kit.step(format!("filling {}", info.name));
        let len = 10_000;
        let limit = too_many(&pair.a, class, len);
        let flood = Flood::start(&pair.a, class, 3, limit, len);
        stuck(&pair.a, &pair.b).await;
        kit.step(format!("{} is full", info.name));
        let again = message(u64::MAX, len);
        ensure!(flood.begun() < limit, "a class takes {limit} messages that nobody receives: no backpressure");
        match pair.a.try_send(class, again.clone()) {
            TrySend::Full { class: found, bytes } => {
                ensure!(found == class && bytes > 0 && bytes <= info.send_budget, "Full tells class {found} and {bytes} bytes");
            }
            other => fail!("try_send should say Full, not {other:?}"),
        }
        ensure!(pair.a.send(class, again).now_or_never().is_none(), "send doesn't wait for room");
        kit.step(format!("receiving all of {}", info.name));
        flood.finish(&pair.b).await?;
    }
    Ok(())
}

pub(super) async fn either_end_may_give_a_streamed_message_up<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let pair = kit.standard_pair().await?;
    for (class, info) in ClassTable::standard().iter() {
        // More often than there are lanes and permits: a slot that isn't given back is missed.
        for round in 0..20u32 {
            kit.step(format!("the writer gives up in {}, round {round}", info.name));
            let mut writer = pair.a.open(class).await?;
            writer.write(&mut noise(1, 100)).await?;
            let mut reader = streamed(&pair.b, class).await?;
            let mut first = Vec::new();
            while first.len() < 100 {
                first.extend(reader.read().await?.unwrap_or_default());
            }
            ensure!(first == noise(1, 100), "the first bytes aren't those written");
            let code = if round % 2 == 0 {
                drop(writer);
                0
            } else {
                writer.abort(round);
                round
            };
            match reader.read().await {
                Err(RecvError::Aborted(found)) if found == code => {}
                other => fail!("the reader should see Aborted({code}), not {other:?}"),
            }
            kit.step(format!("the reader gives up in {}, round {round}", info.name));
            let mut writer = pair.a.open(class).await?;
            writer.write(&mut noise(1, 100)).await?;
            let reader = streamed(&pair.b, class).await?;
            let code = if round % 2 == 0 {
                drop(reader);
                0
            } else {
                reader.stop(round);
                round
            };
            let stopped = write_until_refused(&mut writer).await?;
            ensure!(
                matches!(stopped, SendError::Stopped(found) if found == code),
                "the writer should see Stopped({code}), not {stopped:?}"
            );
            drop(writer);
            pair.a.send(class, message(u64::from(round), 500)).await?;
            ensure!(number(&whole(&pair.b, class).await?)? == u64::from(round), "another message arrives");
        }
    }
    Ok(())
}
