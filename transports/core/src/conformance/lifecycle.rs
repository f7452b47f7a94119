//! From the first byte to the end, whichever way it comes; and that nothing is left behind.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime::Handle, task::JoinSet, time::sleep};

use super::{
    Factory,
    elsewhere::Elsewhere,
    kit::{Kit, both, meet, round_trips, standard, stuck, terms, until},
    load::Flood,
    report::{Verdict, ensure, fail},
    streams::{HEAD, Numbers, message, noise, streamed, whole, write_until_refused},
};
use crate::{
    ClassTable, CloseCode, Closed, ClosedBy, ConnectError, Connection, Inbound, Listener, RecvError, SendError, Transport, Upgrade, limits,
};

pub(super) async fn a_slow_handshake_holds_up_no_other<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let mut patient = terms();
    patient.limits.handshake_timeout = Duration::from_secs(600);
    let (slow, quick, listener) = (kit.peer(&patient)?, kit.peer(&patient)?, kit.peer(&patient)?);
    let (mut port, addr) = kit.listen(&listener).await?;
    // However far a handshake has come before it stands still.
    for polls in 1..=5 {
        kit.step(format!("a handshake stands still after {polls} polls of its dialer"));
        let dial = slow.transport.dial(&addr);
        tokio::pin!(dial);
        let mut left = polls;
        let some_way = poll_fn(|cx| match left {
            0 => Poll::Pending,
            _ => {
                left -= 1;
                dial.as_mut().poll(cx).map(|_| ())
            }
        });
        tokio::select! {
            biased;
            () = some_way => fail!("a dial is complete that nobody has accepted"),
            () = sleep(Duration::from_millis(100)) => {}
        }
        kit.step(format!("another dials meanwhile, {polls}"));
        let mut accepted = JoinSet::new();
        let others = async {
            loop {
                match port.accept().await {
                    Ok(arrival) => drop(accepted.spawn(arrival.upgrade())),
                    Err(error) => return error,
                }
            }
        };
        tokio::pin!(others);
        tokio::select! {
            biased;
            error = &mut others => fail!("the listener has ended: {error}"),
            dialed = quick.transport.dial(&addr) => drop(dialed?.ping().await?),
            () = sleep(Duration::from_secs(20)) => fail!("a handshake that stands still holds up the next"),
        }
        kit.step(format!("the first one goes on, {polls}"));
        tokio::select! {
            biased;
            error = &mut others => fail!("the listener has ended: {error}"),
            dialed = &mut dial => drop(dialed?.ping().await?),
        }
    }
    Ok(())
}

pub(super) async fn a_handshake_that_nobody_answers_ends<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let mut hasty = terms();
    hasty.limits.handshake_timeout = Duration::from_secs(1);
    let (dialer, listener) = (kit.peer(&hasty)?, kit.peer(&terms())?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let dial = dialer.transport.dial(&addr);
    tokio::pin!(dial);
    // Held, and not looked at.
    let mut arrivals = Vec::new();
    let ended = loop {
        tokio::select! {
            biased;
            arrival = port.accept() => arrivals.push(arrival?),
            dialed = &mut dial => break dialed,
        }
    };
    match ended {
        Err(error) => ensure!(error.may_retry(), "a handshake that nobody answered is said to be hopeless: {error:?}"),
        Ok(_) => fail!("a dial is complete that nobody has accepted"),
    }
    Ok(())
}

pub(super) async fn dialing_nobody_is_an_error<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let mut hasty = terms();
    hasty.limits.handshake_timeout = Duration::from_secs(1);
    let (dialer, listener) = (kit.peer(&hasty)?, kit.peer(&terms())?);
    let (port, addr) = kit.listen(&listener).await?;
    drop(port);
    drop(listener);
    match dialer.transport.dial(&addr).await {
        Err(error @ (ConnectError::Unreachable { .. } | ConnectError::Timeout { .. } | ConnectError::Refused(_) | ConnectError::Io(_))) => {
            ensure!(error.may_retry(), "nobody is there now, and it's said to be hopeless: {error:?}");
            Ok(())
        }
        Err(other) => fail!("nobody is there, and the error says {other:?}"),
        Ok(_) => fail!("a listener that was dropped accepts"),
    }
}

pub(super) async fn connections_outlive_their_listener<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let (dialer, listener) = (kit.peer(&terms())?, kit.peer(&terms())?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let (a, b) = meet(&dialer, &addr, &mut port).await.both()?;
    drop((port, listener, dialer));
    sleep(Duration::from_millis(100)).await;
    round_trips(&a, &b, standard(ClassTable::QUERY)?, 5, 1000).await
}

fn is(closed: &Closed, by: ClosedBy, code: CloseCode, reason: &str) -> Verdict {
    let same = (closed.by, closed.code, &*closed.reason) == (by, code, reason);
    ensure!(same, "should have ended by {by:?} with {code:?} and {reason:?}: {closed:?}");
    Ok(())
}

pub(super) async fn code_and_reason_reach_the_other_side<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let long = "x".repeat(limits::MAX_REASON);
    let cases =
        [(CloseCode::Application, "enough"), (CloseCode::Duplicate, ""), (CloseCode::Other(4711), "ünïcode"), (CloseCode::Done, &long)];
    for (code, reason) in cases {
        for dialer_closes in [true, false] {
            let pair = kit.standard_pair().await?;
            let (one, other) = if dialer_closes { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
            round_trips(one, other, standard(ClassTable::QUERY)?, 1, 100).await?;
            kit.step(format!("{code:?}, {} bytes of reason, the dialer closes: {dialer_closes}", reason.len()));
            one.close(code, reason);
            one.close(CloseCode::Internal, "only the first counts");
            is(&one.closed().await, ClosedBy::Local, code, reason)?;
            is(&other.closed().await, ClosedBy::Remote, code, reason)?;
        }
    }
    Ok(())
}

pub(super) async fn dropping_the_last_handle_closes<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let (dialer, listener) = (kit.peer(&terms())?, kit.peer(&terms())?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let (a, b) = meet(&dialer, &addr, &mut port).await.both()?;
    let again = a.clone();
    drop(a);
    round_trips(&again, &b, standard(ClassTable::QUERY)?, 1, 100).await?;
    drop(again);
    is(&b.closed().await, ClosedBy::Remote, CloseCode::Done, "")
}

pub(super) async fn a_graceful_close_delivers_what_is_queued<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    const COUNT: u64 = 12;
    let pair = kit.standard_pair().await?;
    let classes: Vec<_> = ClassTable::standard().iter().map(|(class, info)| (class, info.max_message)).collect();
    let queue = |at: &Connection| {
        for (class, limit) in &classes {
            for n in 0..COUNT {
                let len = if n == 0 { *limit } else { 3000 };
                let queued = at.try_send(*class, message(n, len));
                ensure!(matches!(queued, crate::TrySend::Queued), "message {n} of class {class} isn't queued: {queued:?}");
            }
        }
        Ok(())
    };
    let receive = |at: Connection| {
        let classes = classes.clone();
        async move {
            for (class, _) in classes {
                let mut numbers = Numbers::default();
                loop {
                    match at.recv(class).await {
                        Ok(Inbound::Whole(message)) => drop(numbers.add(&message)?),
                        Ok(Inbound::Streamed(_)) => fail!("a streamed message that nobody sent"),
                        Err(RecvError::Closed(closed)) => {
                            ensure!(closed.code == CloseCode::Done, "a graceful close ends with {closed:?}");
                            break;
                        }
                        Err(other) => fail!("a graceful close ends with {other}"),
                    }
                    // The connection ends when all is taken in, and that may be before we're done here.
                    if numbers.len() == COUNT {
                        break;
                    }
                }
                numbers.exactly(COUNT)?;
            }
            Ok(())
        }
    };
    queue(&pair.a)?;
    queue(&pair.b)?;
    kit.step("draining both ways");
    let drain_a = async { Ok(pair.a.drain().await?) };
    let drain_b = async {
        pair.b.remote_draining().await;
        Ok(pair.b.drain().await?)
    };
    let (one, other) = (both(drain_a, drain_b), both(receive(pair.a.clone()), receive(pair.b.clone())));
    both(one, other).await?;
    kit.step("after the end");
    let refused = pair.a.send(classes[0].0, Bytes::new()).await;
    ensure!(matches!(refused, Err(SendError::Closed(_))), "a drained connection takes messages: {refused:?}");
    for at in [&pair.a, &pair.b] {
        ensure!(at.closed().await.code == CloseCode::Done, "a drained connection ends with {:?}", at.closed().await);
    }
    Ok(())
}

pub(super) async fn a_graceful_close_of_an_unread_peer_ends<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let mut terms = terms();
    terms.limits.drain_timeout = Duration::from_secs(1);
    let pair = kit.pair(&terms).await?;
    let class = standard(ClassTable::BELIEF)?;
    let flood = Flood::start(&pair.a, class, 4, 1000, 60_000);
    stuck(&pair.a, &pair.b).await;
    kit.step("draining though nobody reads");
    ensure!(pair.a.drain().await.is_err(), "drain says that all was taken in, and nobody has read anything");
    drop(flood);
    pair.b.closed().await;
    kit.step("what had arrived is still there to be read");
    let mut numbers = Numbers::default();
    loop {
        match pair.b.recv(class).await {
            Ok(message) => drop(numbers.add(&message.collect(limits::SMALL_MESSAGE).await?)?),
            Err(RecvError::Closed(_)) => break,
            Err(other) => fail!("the end of the class should be Closed, not {other}"),
        }
    }
    ensure!(numbers.len() > 0, "nothing of what had arrived can be read after the end");
    Ok(())
}

pub(super) async fn a_close_in_the_middle_of_a_message_is_an_error<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    for class in [ClassTable::TRANSACT, ClassTable::DATA] {
        for writer_closes in [true, false] {
            kit.step(format!("in the middle of a streamed message of {class}, its writer closes: {writer_closes}"));
            let (pair, class) = (kit.standard_pair().await?, standard(class)?);
            let mut writer = pair.a.open(class).await?;
            writer.write(&mut noise(1, 5000)).await?;
            let mut reader = streamed(&pair.b, class).await?;
            let mut first = Vec::new();
            while first.len() < 5000 {
                first.extend(reader.read().await?.unwrap_or_default());
            }
            ensure!(first == noise(1, 5000), "the first bytes aren't those written");
            if writer_closes { &pair.a } else { &pair.b }.close(CloseCode::Shutdown, "now");
            match reader.read().await {
                Err(RecvError::Closed(closed)) if closed.code == CloseCode::Shutdown => {}
                other => fail!("the reader should see Closed, not {other:?}"),
            }
            let error = write_until_refused(&mut writer).await?;
            ensure!(
                matches!(&error, SendError::Closed(closed) if closed.code == CloseCode::Shutdown),
                "the writer should see Closed, not {error}"
            );
            ensure!(writer.finish().is_err(), "a message is complete on a connection that has ended");
        }
    }
    kit.step("in the middle of a whole message");
    let (pair, class) = (kit.standard_pair().await?, standard(ClassTable::TRANSACT)?);
    let flood = Flood::start(&pair.a, class, 2, 50, 200_000);
    stuck(&pair.a, &pair.b).await;
    pair.a.close(CloseCode::Shutdown, "now");
    drop(flood);
    let mut numbers = Numbers::default();
    loop {
        match pair.b.recv(class).await {
            // `add` finds a message that was cut.
            Ok(message) => drop(numbers.add(&message.collect(300_000).await?)?),
            Err(RecvError::Closed(closed)) if closed.code == CloseCode::Shutdown => return Ok(()),
            Err(other) => fail!("the class should end with Closed, not {other}"),
        }
    }
}

pub(super) async fn every_waiting_call_ends_with_the_connection<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    for closes_here in [true, false] {
        kit.step(format!("calls wait, this side closes: {closes_here}"));
        let pair = kit.standard_pair().await?;
        let (belief, query, data) = (standard(ClassTable::BELIEF)?, standard(ClassTable::QUERY)?, standard(ClassTable::DATA)?);
        let _flood = Flood::start(&pair.a, belief, 1, 1000, 60_000);
        let mut writer = pair.a.open(data).await?;
        let mut inbound = pair.b.open(data).await?;
        inbound.write(&mut noise(1, 1)).await?;
        let mut reader = streamed(&pair.a, data).await?;
        reader.read().await?;
        let mut others = Vec::new();
        for _ in 1..limits::MAX_OPEN_STREAMED {
            others.push(pair.a.open(data).await?);
        }
        stuck(&pair.a, &pair.b).await;
        let calls = async {
            tokio::join!(
                async { pair.a.send(belief, message(0, 60_000)).await.is_err() },
                async { pair.a.recv(query).await.is_err() },
                async { pair.a.open(data).await.is_err() },
                async { reader.read().await.is_err() },
                async { write_until_refused(&mut writer).await.is_ok() },
                async { pair.a.closed().await.code == CloseCode::Shutdown },
            )
        };
        let close = async {
            stuck(&pair.a, &pair.b).await;
            if closes_here { &pair.a } else { &pair.b }.close(CloseCode::Shutdown, "now");
        };
        let (ended, ()) = tokio::join!(calls, close);
        ensure!(ended == (true, true, true, true, true, true), "a call goes well on a connection that has ended: {ended:?}");
        ensure!(pair.a.ping().await.is_err(), "a ping is answered on a connection that has ended");
        ensure!(pair.a.drain().await.is_err(), "a connection that was closed is drained");
    }
    Ok(())
}

pub(super) async fn a_quiet_connection_lives_on<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let mut terms = terms();
    terms.limits.idle_timeout = Duration::from_secs(2);
    let pair = kit.pair(&terms).await?;
    sleep(Duration::from_secs(5)).await;
    for at in [&pair.a, &pair.b] {
        ensure!(at.close_reason().is_none(), "a quiet connection ends: {:?}", at.close_reason());
        at.ping().await?;
    }
    round_trips(&pair.a, &pair.b, standard(ClassTable::QUERY)?, 2, 100).await
}

pub(super) async fn a_vanished_peer_is_noticed<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let mut terms = terms();
    terms.limits.idle_timeout = Duration::from_secs(2);
    terms.limits.ping_interval = Duration::from_millis(200);
    if kit.factory.cut(false) {
        kit.step("the path is cut");
        let pair = kit.pair(&terms).await?;
        round_trips(&pair.a, &pair.b, standard(ClassTable::QUERY)?, 2, 100).await?;
        kit.factory.cut(true);
        both(bereaved(&pair.a), bereaved(&pair.b)).await
    } else {
        kit.step("the other process is killed");
        let pair = Elsewhere::new(&kit, &terms).await?;
        round_trips(&pair.a, &pair.b, standard(ClassTable::QUERY)?, 2, 100).await?;
        pair.kill();
        bereaved(&pair.a).await
    }
}

/// A side whose peer has gone without a word.
async fn bereaved(at: &Connection) -> Verdict {
    let query = standard(ClassTable::QUERY)?;
    let _expecting = at.expecting();
    let asked = async {
        loop {
            // Queued, and never answered; then refused.
            if let Err(error) = at.send(query, message(1, 1000)).await {
                return error;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let (error, answer) = tokio::join!(asked, at.recv(query));
    ensure!(matches!(error, SendError::Closed(_)) && matches!(answer, Err(RecvError::Closed(_))), "a call goes on: {error}, {answer:?}");
    let closed = at.closed().await;
    let noticed = closed.by == ClosedBy::Transport && matches!(closed.code, CloseCode::TimedOut | CloseCode::Lost);
    ensure!(noticed, "a peer that vanished should end by the transport, timed out or lost: {closed:?}");
    Ok(())
}

pub(super) async fn a_thousand_connections_leave_nothing<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    const CYCLES: u32 = 1000;
    // Other tests of the process may open some files meanwhile; a leak of one in ten connections shows.
    const FILES: usize = 100;
    const TASKS: usize = 50;
    let (dialer, listener) = (kit.peer(&terms())?, kit.peer(&terms())?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let (query, data) = (standard(ClassTable::QUERY)?, standard(ClassTable::DATA)?);
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let mut before = (0, None);
    for cycle in 0..CYCLES + 20 {
        if cycle == 20 {
            kit.step("waiting for the first ones to end");
            quiet(tasks).await;
            before = (tasks(), open_files());
        }
        kit.step(format!("connection {cycle}"));
        let (a, b) = meet(&dialer, &addr, &mut port).await.both()?;
        a.send(query, message(1, HEAD)).await?;
        whole(&b, query).await?;
        // Ends of all kinds, some in the middle of a message.
        let begun = if cycle % 3 == 0 {
            let mut writer = a.open(data).await?;
            writer.write(&mut noise(1, 1000)).await?;
            Some((writer, streamed(&b, data).await?))
        } else {
            None
        };
        let (one, other) = if cycle % 2 == 0 { (a, b) } else { (b, a) };
        if cycle % 4 < 2 {
            one.close(CloseCode::Done, "");
        } else {
            drop(one);
            drop(begun);
        }
        other.closed().await;
    }
    let (tasks_before, files_before) = before;
    kit.step(format!("waiting for tasks ({} alive, {tasks_before} before)", tasks()));
    until(|| tasks() <= tasks_before + TASKS).await;
    if let Some(files_before) = files_before {
        kit.step(format!("waiting for files ({:?} open, {files_before} before)", open_files()));
        until(|| open_files().is_none_or(|open| open <= files_before + FILES)).await;
    }
    // The listener still listens.
    let (a, b) = meet(&dialer, &addr, &mut port).await.both()?;
    round_trips(&a, &b, query, 1, 100).await
}

/// Waits until a count stands still.
async fn quiet(count: impl Fn() -> usize) {
    let mut last = count();
    let mut still = 0;
    while still < 20 {
        sleep(Duration::from_millis(50)).await;
        still = if count() == last { still + 1 } else { 0 };
        last = count();
    }
}

/// Files that this process has open, where the operating system tells (Linux).
fn open_files() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}
