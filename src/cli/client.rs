//! `peerlane status` and `peerlane ping`.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    CliError,
    setup::{Client, ClientArgs, load_key},
};
use crate::{cad015::Message, peer::Status};

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Who asks: a key file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    client: ClientArgs,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(args: StatusArgs) -> Result<(), CliError> {
    let client = Client::connect(&args.client, &load_key(&args.key)?).await?;
    let (answer, outcome) = client.ask(Message::status(0)).await?;
    let status = Status::read(&outcome.value, &answer.cells(), client.profile()).map_err(CliError::failed)?;
    let transport = client.transport();
    client.close().await;
    let counts = status.counts;
    if args.json {
        let object = serde_json::json!({
            "peer": status.peer.to_string(), "network": status.network, "transport": transport, "root": status.root.to_string(),
            "accounts": counts.accounts, "operations": counts.operations, "keys": counts.keys, "cells": counts.cells,
            "uptime_ms": status.uptime.as_millis() as u64,
        });
        say!("{object}")?;
    } else {
        say!("peer        {}", status.peer)?;
        say!("network     {}", status.network)?;
        say!("transport   {transport}")?;
        say!("root        {}", status.root)?;
        say!("accounts    {}", counts.accounts)?;
        say!("operations  {}", counts.operations)?;
        say!("keys        {}", counts.keys)?;
        say!("cells       {}", counts.cells)?;
        say!("up          {}", indicatif::HumanDuration(status.uptime))?;
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
pub(super) struct PingArgs {
    /// Who asks: a key file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    client: ClientArgs,
    /// How often
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Seconds between two
    #[arg(long, value_name = "SECONDS", default_value = "0.2", value_parser = super::setup::seconds)]
    interval: Duration,
    /// Print one JSON object per answer, and one with the summary
    #[arg(long)]
    json: bool,
}

pub(super) async fn ping(args: PingArgs) -> Result<(), CliError> {
    let started = Instant::now();
    let client = Client::connect(&args.client, &load_key(&args.key)?).await?;
    let connected = started.elapsed();
    let transport = client.transport();
    if !args.json {
        say!("connected to {} over {transport} in {connected:.2?}", args.client.to)?;
    }
    let mut took = Vec::new();
    let mut interrupted = false;
    for n in 1..=args.count {
        let asked = Instant::now();
        match client.ask(Message::ping(0)).await {
            Err(CliError::Interrupted) => {
                interrupted = true;
                break;
            }
            answer => drop(answer?),
        }
        let rtt = asked.elapsed();
        took.push(rtt);
        if args.json {
            say!("{}", serde_json::json!({ "n": n, "rtt_us": rtt.as_micros() as u64, "transport": transport }))?;
        } else {
            say!("{n}: {rtt:.2?}")?;
        }
        if n < args.count && super::setup::or_interrupted(tokio::time::sleep(args.interval)).await.is_err() {
            interrupted = true;
            break;
        }
    }
    client.close().await;
    let count = took.len() as u32;
    if count == 0 {
        return Err(CliError::Interrupted);
    }
    took.sort_unstable();
    let mean = took.iter().sum::<Duration>() / count;
    let [min, median, max] = [took[0], took[took.len() / 2], took[took.len() - 1]];
    if args.json {
        let us = |d: Duration| d.as_micros() as u64;
        let object = serde_json::json!({
            "count": count, "connect_us": us(connected), "min_us": us(min), "median_us": us(median), "mean_us": us(mean), "max_us": us(max),
        });
        say!("{object}")?;
    } else {
        say!("{} answered: min {min:.2?}, median {median:.2?}, mean {mean:.2?}, max {max:.2?}", count)?;
    }
    if interrupted { Err(CliError::Interrupted) } else { Ok(()) }
}
