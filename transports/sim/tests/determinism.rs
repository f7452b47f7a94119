//! The same seed gives the same run: several peers, bad links, cuts, stalls, resets, closes and drains, twice.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use common::*;
use peerlane_sim::{Link, SimListener, SimTransport, World};
use peerlane_transport::{ClassId, ClassTable, CloseCode, Connection, Inbound, Listener, Transport, Upgrade, identity::PeerAddr};
use rand::{Rng, RngExt, SeedableRng, rngs::ChaCha8Rng};
use tokio::sync::Mutex;

const PEERS: u8 = 5;
const SEEDS: u64 = 20;
const LASTS: Duration = Duration::from_secs(8);

/// Ends that must have been seen in some run, or it tests less than it says.
const KINDS: [&str; 6] = ["no life sign", "by chance", "reset", "nothing is wrong", "not dialed", "Aborted"];

/// What the applications saw, in their order: a trace of its own, which the network knows nothing of.
type Log = Arc<Mutex<String>>;

fn link(rng: &mut impl Rng) -> Link {
    Link {
        latency: ms(rng.random_range(0..60)),
        jitter: ms(rng.random_range(0..20)),
        loss: f64::from(rng.random_range(0..10u32)) / 100.0,
        rate: rng.random::<bool>().then(|| rng.random_range(200_000..5_000_000)),
        ..Link::default()
    }
}

/// Takes whatever comes, and notes it. Some of it is answered.
fn take(world: &World, connection: &Connection, log: &Log) {
    for (class, _) in ClassTable::standard().iter() {
        let (world, connection, log) = (world.clone(), connection.clone(), log.clone());
        tokio::spawn(async move {
            loop {
                let note = match connection.recv(class).await {
                    Ok(Inbound::Whole(bytes)) => {
                        if class == QUERY && connection.dialed() {
                            let _ = connection.try_send(QUERY, bytes.slice(..bytes.len().min(3)));
                        }
                        format!("{} bytes, {:?}", bytes.len(), bytes.first())
                    }
                    Ok(Inbound::Streamed(reader)) => format!("streamed {:?}", reader.collect(1 << 20).await.map(|bytes| bytes.len())),
                    Err(end) => {
                        writeln!(log.lock().await, "{:?} class {class} ends: {end}", world.elapsed()).unwrap();
                        return;
                    }
                };
                writeln!(log.lock().await, "{:?} class {class} {note} from {}", world.elapsed(), connection.remote_addr()).unwrap();
            }
        });
    }
}

/// Sends a mix on one connection until it ends, and ends it itself now and then.
async fn talk(connection: Connection, mut rng: ChaCha8Rng) {
    loop {
        let class = ClassId(rng.random_range(0..5));
        let len = [10, 300, 5_000, 60_000, 200_000][rng.random_range(0..5usize)].min(connection.classes()[class].max_message);
        let message = Bytes::from(vec![rng.random(); len]);
        let went = match rng.random_range(0..40u32) {
            0 => return connection.close(CloseCode::Application, "by chance"),
            1 => return drop(connection.drain().await),
            2 => match connection.open(class).await {
                Ok(mut writer) => {
                    let _ = writer.write(&mut message.clone()).await;
                    if rng.random() {
                        writer.finish()
                    } else {
                        writer.abort(7);
                        Ok(())
                    }
                }
                Err(error) => Err(error),
            },
            3..8 => connection.send_latest(class, 1, message).map(drop),
            8..12 => {
                let _ = connection.try_send(class, message);
                Ok(())
            }
            _ => connection.send(class, message).await,
        };
        if went.is_err() {
            return;
        }
        tokio::time::sleep(ms(rng.random_range(0..30))).await;
    }
}

async fn accept(world: World, mut listener: SimListener, log: Log, mut rng: ChaCha8Rng) {
    while let Ok(upgrade) = listener.accept().await {
        let (world, log, rng) = (world.clone(), log.clone(), ChaCha8Rng::from_rng(&mut rng));
        tokio::spawn(async move {
            match upgrade.upgrade().await {
                Ok(connection) => {
                    take(&world, &connection, &log);
                    talk(connection, rng).await;
                }
                Err(error) => writeln!(log.lock().await, "{:?} not accepted: {error}", world.elapsed()).unwrap(),
            }
        });
    }
}

/// Dials one of the others again and again.
async fn dial(world: World, transport: SimTransport, others: Vec<PeerAddr>, log: Log, mut rng: ChaCha8Rng) {
    loop {
        match transport.dial(&others[rng.random_range(0..others.len())]).await {
            Ok(connection) => {
                take(&world, &connection, &log);
                talk(connection, ChaCha8Rng::from_rng(&mut rng)).await;
            }
            Err(error) => writeln!(log.lock().await, "{:?} not dialed: {error}", world.elapsed()).unwrap(),
        }
        tokio::time::sleep(ms(rng.random_range(0..500))).await;
    }
}

/// Breaks things and mends them.
async fn chaos(world: World, mut rng: ChaCha8Rng) {
    while world.elapsed() < LASTS {
        tokio::time::sleep(ms(rng.random_range(0..400))).await;
        let (a, b) = (peer(rng.random_range(1..=PEERS)), peer(rng.random_range(1..=PEERS)));
        match rng.random_range(0..8u32) {
            0 => world.partition(&a, &b),
            1 => world.partition_one_way(&a, &b),
            2 => world.stall(&a, &b, "belief"),
            3 => world.unstall(&a, &b, "belief"),
            4 => drop(world.reset(&a, &b)),
            5 => world.set_link(&a, &b, link(&mut rng)),
            _ => world.heal(&a, &b),
        }
    }
}

/// One run: the network's trace, and the applications'.
fn once(seed: u64) -> (String, u64, String) {
    run(async {
        let world = World::new(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        world.set_default_link(link(&mut rng));
        let log = Log::default();
        let mut terms = terms();
        // Short enough for timeouts to happen within the run.
        (terms.limits.idle_timeout, terms.limits.ping_interval) = (ms(2_000), ms(300));
        let transports: Vec<_> = (1..=PEERS).map(|n| world.transport(peer(n), terms.clone())).collect();
        let mut addresses = Vec::new();
        for transport in &transports {
            let (listener, address) = listen(transport).await;
            tokio::spawn(accept(world.clone(), listener, log.clone(), ChaCha8Rng::from_rng(&mut rng)));
            addresses.push(address);
        }
        for transport in transports {
            let others = addresses.iter().filter(|address| address.id != transport.peer_id()).cloned().collect();
            tokio::spawn(dial(world.clone(), transport, others, log.clone(), ChaCha8Rng::from_rng(&mut rng)));
        }
        chaos(world.clone(), rng).await;
        (world.trace_hash().to_string(), world.delivered(), std::mem::take(&mut *log.lock().await))
    })
}

#[test]
fn twenty_seeds_twice() {
    let mut kinds = std::collections::BTreeSet::new();
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let (hash, delivered, log) = once(seed);
        let (again, delivered_again, log_again) = once(seed);
        let differs = log.lines().zip(log_again.lines()).find(|(one, two)| one != two);
        assert_eq!(differs, None, "seed {seed}: the applications saw different things");
        assert_eq!((&hash, delivered, log.len()), (&again, delivered_again, log_again.len()), "seed {seed}");
        // A run in which nothing happens is the same too, and shows nothing.
        assert!(delivered > 1_000, "seed {seed}: {delivered} segments");
        kinds.extend(KINDS.into_iter().filter(|kind| log.contains(kind)));
        println!("seed {seed}: {hash}, {delivered} segments, {} lines", log.lines().count());
        hashes.insert(hash);
    }
    assert_eq!(kinds, KINDS.into(), "every kind of end was seen");
    assert_eq!(hashes.len() as u64, SEEDS, "different seeds, different runs");
}
