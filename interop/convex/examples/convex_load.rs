//! Measures a Convex network from beside one of its peers: `convex_load LOCAL REMOTE TRANSFERS WINDOW KEY-SEED-BYTE`.
//!
//! LOCAL is the peer that takes the transfers of account 11, REMOTE where another one is reached: directly, or through gateways. All on one
//! line of `name=value`, times in milliseconds: lone transfers (sent to final, the time to consensus), a stream of transfers, and small
//! queries to REMOTE: with nothing beside, during the stream, and beside queries of 200 KB each way on the same connection.
//! Queries are sent every 20 ms whatever is answered, and timed from when they were due.
#![allow(clippy::print_stdout)]

use std::{collections::VecDeque, error::Error, time::Duration};

use ed25519_dalek::SigningKey;
use peerlane_convex::{Client, ClientConfig, Transaction, Value, form};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

const USER: u64 = 11;
const EVERY: Duration = Duration::from_millis(20);
const LONE: usize = 20;
const LARGE: usize = 200_000;

type Failure = Box<dyn Error + Send + Sync>;

fn percentile(times: &[Duration], share: f64) -> f64 {
    let at = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1)) - 1;
    times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    print!(
        "{name}_n={} {name}_p50={:.1} {name}_p99={:.1} {name}_max={:.1} ",
        times.len(),
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        percentile(&times, 1.0)
    );
}

/// Small queries until told to stop, but at least so many.
async fn queries(client: Client, least: usize, mut stop: oneshot::Receiver<()>) -> Result<Vec<Duration>, Failure> {
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut asked = JoinSet::new();
    let mut times = Vec::new();
    let mut stopped = false;
    while !(stopped && times.len() + asked.len() >= least) {
        tokio::select! {
            _ = &mut stop, if !stopped => stopped = true,
            due = ticks.tick() => {
                let client = client.clone();
                asked.spawn(async move {
                    let three = form::read("(+ 1 2)")?;
                    client.query(three, Some(USER)).await?.ok()?;
                    Ok::<_, Failure>(due.elapsed())
                });
            }
            Some(time) = asked.join_next() => times.push(time??),
        }
    }
    while let Some(time) = asked.join_next().await {
        times.push(time??);
    }
    Ok(times)
}

async fn transfer(client: Client, sequence: i64, key: SigningKey) -> Result<Duration, Failure> {
    let began = Instant::now();
    let transfer = Transaction::Transfer { origin: USER, sequence, target: 12, amount: 1000 };
    client.transact(&transfer, &key).await?.ok()?;
    Ok(began.elapsed())
}

async fn stream(client: &Client, count: usize, window: usize, key: &SigningKey) -> Result<Vec<Duration>, Failure> {
    let first = client.sequence(USER).await? + 1;
    let (mut waiting, mut times) = (VecDeque::new(), Vec::new());
    for sequence in (first..).take(count) {
        // Sent as soon as it's polled, so in order: a window fits the client's queue (64), and no budget of the task's holds it back.
        let mut sent = Box::pin(tokio::task::unconstrained(transfer(client.clone(), sequence, key.clone())));
        match futures_util::poll!(sent.as_mut()) {
            std::task::Poll::Ready(time) => times.push(time?),
            std::task::Poll::Pending => waiting.push_back(sent),
        }
        if waiting.len() >= window
            && let Some(sent) = waiting.pop_front()
        {
            times.push(sent.await?);
        }
    }
    for sent in waiting {
        times.push(sent.await?);
    }
    Ok(times)
}

/// Two large queries at a time, without end.
async fn large(client: Client) -> Result<(), Failure> {
    let blob: Value = form::read(&format!("0x{}", "5a".repeat(LARGE)))?;
    loop {
        client.query(blob.clone(), Some(USER)).await?.ok()?;
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let [_, local, remote, count, window, seed] = &args[..] else {
        return Err("convex_load LOCAL REMOTE TRANSFERS WINDOW KEY-SEED-BYTE".into());
    };
    let (count, window): (usize, usize) = (count.parse()?, window.parse()?);
    if !(1..=64).contains(&window) {
        return Err("a window is 1 to 64".into());
    }
    let mut bytes = [0; 32];
    bytes[31] = seed.parse()?;
    let key = SigningKey::from_bytes(&bytes);
    let config = || ClientConfig { deadline: Duration::from_secs(120), ..ClientConfig::default() };
    let (client, far) = (Client::connect(local, config()).await?, Client::connect(remote, config()).await?);
    if client.status().await?.key == far.status().await?.key {
        return Err("both addresses lead to the same peer".into());
    }
    let during = async |work: &mut (dyn Future<Output = Result<(), Failure>> + Unpin + Send), least| {
        let (done, stop) = oneshot::channel();
        let asking = tokio::spawn(queries(far.clone(), least, stop));
        work.await?;
        let _ = done.send(());
        asking.await?
    };
    report("query_idle", during(&mut std::future::ready(Ok(())), 500).await?);
    let mut lone = Vec::new();
    let first = client.sequence(USER).await? + 1;
    for sequence in (first..).take(LONE) {
        lone.push(transfer(client.clone(), sequence, key.clone()).await?);
    }
    report("lone_transfer", lone);
    let mut results = (Vec::new(), Duration::ZERO);
    let mut streaming = Box::pin(async {
        let began = Instant::now();
        results.0 = stream(&client, count, window, &key).await?;
        results.1 = began.elapsed();
        Ok(())
    });
    let times = during(&mut streaming, 100).await?;
    drop(streaming);
    print!(
        "transfers={count} window={window} seconds={:.2} per_second={:.1} ",
        results.1.as_secs_f64(),
        count as f64 / results.1.as_secs_f64()
    );
    report("transfer", results.0);
    report("query_transfers", times);
    let floods = [tokio::spawn(large(far.clone())), tokio::spawn(large(far.clone()))];
    let times = during(&mut std::future::ready(Ok(())), 500).await?;
    report("query_large", times);
    for flood in floods {
        flood.abort();
    }
    println!();
    Ok(())
}
