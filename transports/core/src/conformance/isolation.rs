//! One class never delays another: the seven promises of DESIGN.md, end to end.
//!
//! Nothing here measures time. A class is stuck, or floods; the others' progress is what's asserted, or whose bytes
//! were delivered first.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::{
    Factory,
    elsewhere::Elsewhere,
    integrity::with_datagrams,
    kit::{Kit, round_trips, standard, stuck, terms, terms_of},
    load::{Flood, Held, Meter, fill, one_of_three, too_many},
    report::{Stop, Verdict, ensure, fail},
    streams::{message, noise, number, pour, streamed, taste, whole},
};
use crate::{ClassId, ClassTable, Connection, Order, TrafficClass, TrySend, Urgency, limits};

const MIB: usize = 1024 * 1024;

/// 1, write side: many writers wait for room in one class, each class in turn; the others have theirs.
pub(super) async fn blocked_writers_delay_no_other_class<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let one = |class: ClassId| {
        let kit = kit.clone();
        async move {
            let pair = kit.standard_pair().await?;
            let flood = Flood::start(&pair.a, class, 64, too_many(&pair.a, class, 16_000), 16_000);
            stuck(&pair.a, &pair.b).await;
            for (other, info) in ClassTable::standard().iter().filter(|(other, _)| *other != class) {
                kit.step(format!("64 writers of class {class} are blocked, round trips in {}", info.name));
                round_trips(&pair.a, &pair.b, other, 30, 3000).await?;
            }
            ensure!(full(&pair.a, class), "class {class} isn't full any more, though nobody reads it");
            kit.step("reading what waited");
            flood.finish(&pair.b).await
        }
    };
    try_join_all(ClassTable::standard().iter().map(|(class, _)| one(class))).await.map(|_| ())
}

fn full(a: &Connection, class: ClassId) -> bool {
    matches!(a.try_send(class, message(u64::MAX, 16_000)), TrySend::Full { .. })
}

/// Queues and windows so deep that neither senders nor readers nor credit decide who goes: the scheduler alone does.
fn deep(class: &TrafficClass) -> TrafficClass {
    TrafficClass { send_budget: 32 * MIB, receive_budget: 32 * MIB, window: 32 * MIB, ..class.clone() }
}

/// All classes have something to send all the time, by far: each gets its share of the bytes delivered,
/// less a tenth, and less what may wait somewhere between here and there. If latency and bulk classes go apart, the share
/// is that of all that goes with it, and neither kind gets less than a tenth in all.
async fn shares_hold<F: Factory>(kit: &Kit<F>, table: &ClassTable, len: usize) -> Verdict {
    let pair = kit.pair(&terms_of(table.clone())).await?;
    let meter = Meter::new(table.len(), 4 * MIB as u64, 36 * MIB as u64);
    let _readers: Vec<_> = table.iter().map(|(class, _)| meter.read(&pair.b, class)).collect();
    let classes: Vec<_> = table.iter().map(|(class, _)| (class, len)).collect();
    fill(&pair.a, &classes, 30 * MIB)?;
    let delivered = meter.counted().await;
    let all = delivered.iter().sum::<u64>();
    for ((_, class), bytes) in table.iter().zip(&delivered) {
        let beside = |other: &TrafficClass| !kit.factory.apart() || other.urgency == class.urgency;
        let sum = |of: &dyn Fn(&TrafficClass, u64) -> u64| {
            table.iter().zip(&delivered).filter(|((_, c), _)| beside(c)).map(|((_, c), n)| of(c, *n)).sum::<u64>()
        };
        let (total, weights) = (sum(&|_, bytes| bytes), sum(&|class, _| u64::from(class.weight)));
        ensure!(total >= all / 10, "the {:?} classes get {total} of {all} bytes: {delivered:?}", class.urgency);
        let share = total * u64::from(class.weight) / weights;
        let least = (share * 9 / 10).saturating_sub(2 * MIB as u64);
        ensure!(*bytes >= least, "{} gets {bytes} of {total} bytes, its share is {share}: {delivered:?}", class.name);
    }
    Ok(())
}

/// 2, scheduling: each class gets its weight's share.
pub(super) async fn weights_share_the_bytes_delivered<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let class = |weight: u32| deep(&TrafficClass::new(&format!("weight {weight}"), weight, Urgency::Bulk, Order::Any));
    let table = ClassTable::new([5, 15, 30, 50].map(class).to_vec())?;
    one_of_three(|| shares_hold(&kit, &table, 16_000)).await
}

/// 2, scheduling: latency classes go first, but not for ever.
pub(super) async fn floods_of_urgent_classes_starve_no_bulk_class<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let table = ClassTable::new(ClassTable::standard().iter().map(|(_, class)| deep(class)).collect())?;
    one_of_three(|| shares_hold(&kit, &table, 4000)).await
}

/// 2, scheduling: a latency class within its lead goes before every bulk class, whatever their weights.
pub(super) async fn an_urgent_burst_goes_before_a_backlog<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let urgent = TrafficClass::new("urgent", 1, Urgency::Latency, Order::Any);
    let table = ClassTable::new(vec![deep(&TrafficClass::new("bulk", 1000, Urgency::Bulk, Order::Any)), deep(&urgent)])?;
    let (bulk, urgent) = (ClassId(0), ClassId(1));
    let burst = || async {
        let pair = kit.pair(&terms_of(table.clone())).await?;
        let meter = Meter::new(table.len(), 0, 24 * MIB as u64);
        let _reader = meter.read(&pair.b, bulk);
        fill(&pair.a, &[(bulk, 16_000)], 28 * MIB)?;
        // Less than the scheduler's lead. By weight alone, the last of it would wait for 48 MB of the other class.
        fill(&pair.a, &[(urgent, 1000)], 48_000)?;
        for _ in 0..48 {
            whole(&pair.b, urgent).await?;
        }
        let before = meter.total();
        ensure!(before <= 14 * MIB as u64, "{before} bytes of a bulk class were delivered before 48 kB of an urgent one");
        Ok(())
    };
    one_of_three(burst).await
}

/// 2, scheduling: datagrams go through the scheduler too.
pub(super) async fn a_flood_of_datagrams_stops_nobody<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let (table, pulse) = with_datagrams()?;
    let table = ClassTable::new(table.iter().map(|(_, class)| deep(class)).collect())?;
    let (query, belief) = (standard(ClassTable::QUERY)?, standard(ClassTable::BELIEF)?);
    kit.step("QUERY under a flood of small messages in a Datagram class");
    let pair = kit.pair(&terms_of(table.clone())).await?;
    fill(&pair.a, &[(pulse, 900)], 24 * MIB)?;
    round_trips(&pair.a, &pair.b, query, 20, 200).await?;
    whole(&pair.b, pulse).await?;
    drop(pair);
    kit.step("BELIEF under a flood of small messages in a Datagram class");
    let beside = || async {
        let pair = kit.pair(&terms_of(table.clone())).await?;
        let meter = Meter::new(table.len(), 0, 8 * MIB as u64);
        let _readers = [pulse, belief].map(|class| meter.read(&pair.b, class));
        fill(&pair.a, &[(belief, 16_000), (pulse, 900)], 24 * MIB)?;
        meter.counted().await;
        let sent = pair.a.stats().classes.iter().map(|class| class.sent_bytes).collect::<Vec<_>>();
        // The weights are 20 and 5. Datagrams that were lost count as sent.
        ensure!(sent[belief.index()] >= sent[pulse.index()], "datagrams take more than BELIEF, with a quarter of its weight: {sent:?}");
        Ok(())
    };
    one_of_three(beside).await
}

/// 3, kernel and path queues: the other side has stopped taking bytes, and megabytes of BELIEF wait. A QUERY sent
/// after them arrives before most of them.
pub(super) async fn an_urgent_message_passes_a_backlog_that_nobody_takes<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    kit.needs(kit.claims.kernel_queue, "kernel_queue")?;
    const BACKLOG: u64 = 128;
    // Credit for all of it, so that nothing but the transport's own restraint holds it back.
    let mut classes: Vec<_> = ClassTable::standard().iter().map(|(_, class)| class.clone()).collect();
    let (query, belief) = (standard(ClassTable::QUERY)?, standard(ClassTable::BELIEF)?);
    for class in classes.iter_mut().filter(|class| &*class.name == ClassTable::BELIEF) {
        (class.window, class.send_budget, class.receive_budget) = (16 * MIB, 16 * MIB, 16 * MIB);
    }
    let terms = terms_of(ClassTable::new(classes)?);
    let passes = || async {
        let before = if kit.factory.cut(false) {
            let pair = kit.pair(&terms).await?;
            round_trips(&pair.a, &pair.b, query, 3, 100).await?;
            kit.factory.cut(true);
            backlog(&pair.a, &pair.b, belief, query, BACKLOG, || _ = kit.factory.cut(false)).await?
        } else {
            let pair = Elsewhere::new(&kit, &terms).await?;
            round_trips(&pair.a, &pair.b, query, 3, 100).await?;
            let stalled = pair.stall();
            backlog(&pair.a, &pair.b, belief, query, BACKLOG, || drop(stalled)).await?
        };
        let (before, all) = (before * limits::SMALL_MESSAGE as u64, BACKLOG * limits::SMALL_MESSAGE as u64);
        // Two socket buffers of the usual size, a congestion window and some quanta are within an eighth.
        ensure!(before <= all / 8, "{before} of {all} bytes of BELIEF were delivered before a QUERY sent after them");
        Ok(())
    };
    one_of_three(passes).await
}

/// Messages of BELIEF that arrive before a QUERY which is sent when all of them wait and nothing moves.
async fn backlog(a: &Connection, b: &Connection, belief: ClassId, query: ClassId, count: u64, go_on: impl FnOnce()) -> Result<u64, Stop> {
    for n in 0..count {
        let queued = a.try_send(belief, message(n, limits::SMALL_MESSAGE));
        ensure!(matches!(queued, TrySend::Queued), "message {n} of the backlog isn't queued: {queued:?}");
    }
    // Only this side can be asked: the other may be stopped.
    stuck(a, a).await;
    a.send(query, message(0, 100)).await?;
    stuck(a, a).await;
    go_on();
    let (mut before, mut after) = (0, false);
    for _ in 0..count {
        tokio::select! {
            biased;
            asked = b.recv(query), if !after => { drop(asked?); after = true; }
            found = b.recv(belief) => { drop(found?); before += u64::from(!after); }
        }
    }
    if !after {
        whole(b, query).await?;
    }
    Ok(before)
}

/// 4, flow control: a class holds all its streams unread, each class in turn; QUERY and a large message pass.
pub(super) async fn a_class_that_holds_its_streams_unread_stops_no_other<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let one = |held: ClassId| {
        let kit = kit.clone();
        async move {
            let pair = kit.standard_pair().await?;
            let hold = Held::new(&pair.a, held).await?;
            stuck(&pair.a, &pair.b).await;
            kit.step(format!("class {held} holds its streams unread, the others pass"));
            passes(&pair.a, &pair.b, held).await?;
            for connection in [&pair.a, &pair.b] {
                connection.ping().await?;
            }
            kit.step(format!("reading what class {held} held"));
            hold.release(&pair.b).await?;
            passes(&pair.a, &pair.b, held).await
        }
    };
    try_join_all(ClassTable::standard().iter().map(|(class, _)| one(class))).await.map(|_| ())
}

/// Round trips in every class but one, and a message of the largest size in each, streamed and whole.
async fn passes(a: &Connection, b: &Connection, held: ClassId) -> Verdict {
    for (class, info) in ClassTable::standard().iter().filter(|(class, _)| *class != held) {
        round_trips(a, b, class, 20, 200).await?;
        one_large(a, b, class, info.max_message).await?;
    }
    Ok(())
}

async fn one_large(a: &Connection, b: &Connection, class: ClassId, len: usize) -> Verdict {
    a.send(class, message(1, len)).await?;
    ensure!(number(&whole(b, class).await?)? == 1, "another message arrives in class {class}");
    let write = async { pour(a.open(class).await?, 2, |len| len >= MIB as u64).await };
    let read = async { Ok(taste(streamed(b, class).await?).await?) };
    let (wrote, read) = tokio::try_join!(write, read)?;
    ensure!(wrote == read, "a streamed message of class {class} arrives otherwise than it was written");
    Ok(())
}

/// 4, flow control: all classes but one hold their streams unread at once; the one has the connection to itself.
pub(super) async fn all_classes_held_but_one<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let one = |free: ClassId| {
        let kit = kit.clone();
        async move {
            let pair = kit.standard_pair().await?;
            let others = ClassTable::standard().iter().map(|(class, _)| class).filter(|class| *class != free).collect::<Vec<_>>();
            let mut held = Vec::new();
            for class in others {
                held.push(Held::new(&pair.a, class).await?);
            }
            stuck(&pair.a, &pair.b).await;
            kit.step(format!("all classes but {free} hold their streams unread"));
            round_trips(&pair.a, &pair.b, free, 50, 200).await?;
            one_large(&pair.a, &pair.b, free, pair.a.classes()[free].max_message).await?;
            kit.step("reading what all held");
            try_join_all(held.into_iter().map(|held| held.release(&pair.b))).await.map(|_| ())
        }
    };
    try_join_all(ClassTable::standard().iter().map(|(class, _)| one(class))).await.map(|_| ())
}

/// 5, receive side: a class is never read; its memory is bounded, the others go on, and the connection lives.
pub(super) async fn a_handler_that_never_reads_pauses_its_class_alone<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let mut terms = terms();
    // A busy machine is silent for a second or two.
    terms.limits.idle_timeout = Duration::from_secs(5);
    terms.limits.ping_interval = Duration::from_millis(500);
    // Small ones too: a transport may carry them otherwise.
    let one = |(class, len): (ClassId, usize)| {
        let (kit, terms) = (kit.clone(), terms.clone());
        async move {
            let pair = kit.pair(&terms).await?;
            let info = &terms.classes[class];
            let len = info.max_message.min(len);
            let flood = Flood::start(&pair.a, class, 8, too_many(&pair.a, class, len), len);
            stuck(&pair.a, &pair.b).await;
            kit.step(format!("nobody reads {}, messages of {len} bytes", info.name));
            // Queued, in transit and received, the writers' own messages, and a quantum per lane on either side.
            let slack = 9 * len + 2 * info.lanes() * limits::QUANTUM;
            let bound = info.send_budget + info.most(false) + usize::from(info.large_lanes) * info.most(true) + info.receive_budget + slack;
            let taken = flood.begun() as usize * len;
            ensure!(taken <= bound, "{taken} bytes of {} are taken in though nobody reads; its budgets make {bound}", info.name);
            for _ in 0..15 {
                // Longer than the idle timeout in all: the connection lives by its own life signs.
                sleep(Duration::from_millis(400)).await;
                pair.a.ping().await?;
                pair.b.ping().await?;
            }
            passes(&pair.a, &pair.b, class).await?;
            ensure!(full(&pair.a, class), "{} has room again, though nobody reads", info.name);
            kit.step(format!("reading {} at last", info.name));
            flood.finish(&pair.b).await
        }
    };
    for len in [100_000, 500] {
        try_join_all(ClassTable::standard().iter().map(|(class, _)| one((class, len)))).await?;
    }
    Ok(())
}

/// 6, within a class: in an `Any` class a large message, unread or unfinished, doesn't hold up small ones.
pub(super) async fn a_large_message_does_not_block_a_small_one_of_its_class<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let pair = kit.standard_pair().await?;
    for (class, info) in ClassTable::standard().iter().filter(|(_, class)| class.large_lanes > 0) {
        kit.step(format!("a streamed message of {} is unread, small ones pass", info.name));
        let mut writer = pair.a.open(class).await?;
        writer.write(&mut noise(1, 50_000)).await?;
        let reader = streamed(&pair.b, class).await?;
        round_trips(&pair.a, &pair.b, class, 20, 200).await?;
        kit.step(format!("a streamed message of {} is unfinished, small ones pass", info.name));
        drop(reader);
        drop(writer);
        let mut writer = pair.a.open(class).await?;
        let mut reader = streamed(&pair.b, class).await?;
        let mut last = Bytes::from_static(b"x");
        writer.write(&mut last).await?;
        ensure!(reader.read().await?.is_some(), "the message ends before its end");
        round_trips(&pair.a, &pair.b, class, 20, 200).await?;
        writer.finish()?;
        ensure!(reader.read().await?.is_none(), "the message goes on after its end");
        kit.step(format!("a large message of {} goes first, a small one passes", info.name));
        let (large, small) = (message(1, info.max_message), message(2, 100));
        let mut passed = 0;
        for _ in 0..10 {
            for queued in [pair.a.try_send(class, large.clone()), pair.a.try_send(class, small.clone())] {
                ensure!(matches!(queued, TrySend::Queued), "an empty class has no room: {queued:?}");
            }
            let first = number(&whole(&pair.b, class).await?)?;
            let second = number(&whole(&pair.b, class).await?)?;
            ensure!(first + second == 3, "other messages arrive");
            passed += u32::from(first == 2);
        }
        // On many threads the large one may be gone before the small one is queued, now and then.
        ensure!(passed >= 5, "a small message of {} arrives before a large one only {passed} times in 10", info.name);
    }
    Ok(())
}

/// 7, loss: the packet of a BELIEF is lost; a QUERY sent after it arrives before it.
pub(super) async fn a_lost_packet_delays_no_other_class<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    kit.needs(kit.claims.loss_isolated, "loss_isolated")?;
    const ROUNDS: u32 = 20;
    let (query, belief) = (standard(ClassTable::QUERY)?, standard(ClassTable::BELIEF)?);
    let pair = kit.standard_pair().await?;
    let (mut ahead, mut rounds) = (0, 0);
    while rounds < ROUNDS {
        kit.step(format!("round {rounds}"));
        round_trips(&pair.a, &pair.b, query, 2, 100).await?;
        stuck(&pair.a, &pair.b).await;
        let Some(lost) = kit.factory.lose_next() else { return Err(Stop::NotClaimed("the factory can't lose packets")) };
        pair.a.send(belief, message(u64::from(rounds), 500)).await?;
        lost.await;
        pair.a.send(query, message(u64::from(rounds), 100)).await?;
        let first = tokio::select! {
            biased;
            found = pair.b.recv(belief) => { drop(found?); belief }
            found = pair.b.recv(query) => { drop(found?); query }
        };
        ahead += u32::from(first == query);
        let other = if first == query { belief } else { query };
        ensure!(number(&whole(&pair.b, other).await?)? == u64::from(rounds), "another message arrives");
        rounds += 1;
    }
    // Now and then the packet lost is another one. In order of sending, it'd be none at all.
    if ahead < ROUNDS / 2 {
        fail!("in {ahead} of {ROUNDS} rounds only does a QUERY arrive before a BELIEF whose packet was lost");
    }
    Ok(())
}
