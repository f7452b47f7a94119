//! `peerlane convex`: what a Convex peer says, in its own protocol over TCP.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Subcommand;
use data_encoding::HEXLOWER;
use peerlane_convex::{Answer, Client, ClientConfig, ClientError, FetchLimits, Transaction, Value, cell::ValueId, form, limits::MAX_FRAME};
use peerlane_transport::identity::Identity;

use super::{CliError, convex_cell, setup::or_interrupted};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  peerlane convex cell --form '{:a [1 2.5 0xcafe]}'
  peerlane convex status --to 127.0.0.1:18888
  peerlane convex query --to 127.0.0.1:18888 --account 12 '*balance*'
  peerlane convex transact --to 127.0.0.1:18888 --account 11 --account-key account.pem '(transfer #12 1000)'
  peerlane convex fetch --to 127.0.0.1:18888 --json
  peerlane convex challenge --to 127.0.0.1:18888 --key me.pem")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows a form's or an encoding's form, canonical encoding, value ID and branches
    Cell(convex_cell::Args),
    /// Asks the peer how it is
    Status(Connect),
    /// Evaluates a form; nothing it changes is kept
    Query {
        #[command(flatten)]
        connect: Connect,
        /// As which account; without it the peer chooses
        #[arg(long, value_name = "N")]
        account: Option<u64>,
        /// The form: (+ 1 2)
        form: String,
    },
    /// Signs a transaction with the account's key and waits until it's final
    Transact(Transact),
    /// Fetches a tree of cells down to its last one, and checks every hash
    Fetch {
        #[command(flatten)]
        connect: Connect,
        /// The root's value ID; without it, the state in consensus
        root: Option<ValueId>,
        /// Give up above so many cells
        #[arg(long, value_name = "N", default_value_t = FetchLimits::default().cells)]
        max_cells: usize,
        /// Give up above so many bytes
        #[arg(long, value_name = "BYTES", default_value_t = FetchLimits::default().bytes)]
        max_bytes: usize,
    },
    /// Has the peer prove its key (0.8.3 and newer)
    Challenge {
        #[command(flatten)]
        connect: Connect,
        /// Who asks: a key file
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The key that the peer must have, 64 hex digits; without it, whichever it proves
        #[arg(long, value_name = "KEY")]
        expect: Option<ValueId>,
    },
}

#[derive(Debug, clap::Args)]
struct Connect {
    /// The peer to talk to
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Give up after so many seconds without an answer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = super::setup::seconds)]
    timeout: Duration,
    /// The largest message that is taken
    #[arg(long, value_name = "BYTES", default_value_t = MAX_FRAME)]
    max_frame: usize,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Transact {
    #[command(flatten)]
    connect: Connect,
    /// The account's key: a key file. The peer's own key is never used
    #[arg(long, value_name = "FILE")]
    account_key: PathBuf,
    /// The account
    #[arg(long, value_name = "N")]
    account: u64,
    /// The transaction's sequence; without it the peer is asked for the account's, and the next is used
    #[arg(long, value_name = "N")]
    sequence: Option<i64>,
    /// Send coins to this account instead of running a form
    #[arg(long, value_name = "N", requires = "amount", conflicts_with = "form")]
    transfer_to: Option<u64>,
    /// How much, in coppers
    #[arg(long, value_name = "COPPERS", requires = "transfer_to")]
    amount: Option<i64>,
    /// The form to run
    #[arg(required_unless_present = "transfer_to")]
    form: Option<String>,
}

impl Connect {
    async fn client(&self) -> Result<Client, CliError> {
        let config =
            ClientConfig { connect_timeout: self.timeout, deadline: self.timeout, max_frame: self.max_frame, ..ClientConfig::default() };
        or_interrupted(Client::connect(&self.to, config)).await?.map_err(|error| CliError::Failed(format!("{}: {error}", self.to)))
    }
}

/// Waits for an answer, or for Ctrl-C.
async fn asked<T>(request: impl Future<Output = Result<T, ClientError>>) -> Result<T, CliError> {
    or_interrupted(request).await?.map_err(CliError::failed)
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    super::setup::watch_signals();
    match args.command {
        Command::Cell(args) => convex_cell::run(&args),
        Command::Status(connect) => status(&connect).await,
        Command::Query { connect, account, form } => {
            let form = form::read(&form).map_err(CliError::usage)?;
            let client = connect.client().await?;
            let answer = asked(client.query(form, account)).await?;
            report(answer, None, connect.json)
        }
        Command::Transact(args) => transact(&args).await,
        Command::Fetch { connect, root, max_cells, max_bytes } => {
            fetch(&connect, root, FetchLimits { cells: max_cells, bytes: max_bytes }).await
        }
        Command::Challenge { connect, key, expect } => challenge(&connect, &key, expect).await,
    }
}

async fn status(connect: &Connect) -> Result<(), CliError> {
    let client = connect.client().await?;
    let status = asked(client.status()).await?;
    let key = HEXLOWER.encode(&status.key);
    if connect.json {
        let object = serde_json::json!({
            "key": key, "proven": false, "genesis": status.genesis.to_string(), "state": status.state.to_string(),
            "belief": status.belief.to_string(), "consensus": status.consensus, "proposal": status.proposal, "blocks": status.blocks,
        });
        say!("{object}")?;
        return Ok(());
    }
    let number = |number: Option<i64>| number.map_or_else(|| "?".into(), |number| number.to_string());
    say!("peer        {key} (claimed; `peerlane convex challenge` proves it)")?;
    say!("network     {}", status.genesis)?;
    say!("state       {}", status.state)?;
    say!("belief      {}", status.belief)?;
    say!("consensus   {}", number(status.consensus))?;
    say!("proposal    {}", number(status.proposal))?;
    say!("blocks      {}", number(status.blocks))?;
    Ok(())
}

/// Prints an answer. One that says an error fails the command, whichever way it's printed.
fn report(answer: Answer, sequence: Option<i64>, json: bool) -> Result<(), CliError> {
    let print = |value: &Value| form::print(value, form::DEFAULT_PRINT);
    if json {
        let error = answer.error.as_ref().map(ToString::to_string);
        let some = |value: &Value| (!value.cell.is_nil()).then(|| print(value));
        let object = serde_json::json!({
            "value": print(&answer.value), "id": answer.value.id().to_string(), "error": error, "log": some(&answer.log),
            "info": some(&answer.info), "sequence": sequence,
        });
        say!("{object}")?;
        return answer.ok().map(drop).map_err(CliError::failed);
    }
    let value = answer.ok().map_err(CliError::failed)?;
    say!("{}", print(&value))?;
    Ok(())
}

fn load(file: &Path) -> Result<Identity, CliError> {
    Identity::load(file).map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))
}

async fn transact(args: &Transact) -> Result<(), CliError> {
    let key = load(&args.account_key)?;
    let command = args.form.as_deref().map(form::read).transpose().map_err(CliError::usage)?;
    let client = args.connect.client().await?;
    let sequence = match args.sequence {
        Some(sequence) => sequence,
        None => asked(client.sequence(args.account)).await?.saturating_add(1),
    };
    let origin = args.account;
    let transaction = match (command, args.transfer_to) {
        (Some(command), _) => Transaction::Invoke { origin, sequence, command },
        (None, Some(target)) => Transaction::Transfer { origin, sequence, target, amount: args.amount.unwrap_or(0) },
        (None, None) => return Err(CliError::Usage("a form, or --transfer-to".into())),
    };
    let answer = asked(client.transact(&transaction, key.signing_key())).await?;
    report(answer, Some(sequence), args.connect.json)
}

async fn fetch(connect: &Connect, root: Option<ValueId>, limits: FetchLimits) -> Result<(), CliError> {
    let client = connect.client().await?;
    let root = match root {
        Some(root) => root,
        None => asked(client.status()).await?.state,
    };
    let value = asked(client.fetch(root, limits)).await?;
    let bytes: usize = value.cells.0.values().map(bytes::Bytes::len).sum();
    let cells = value.cells.0.len();
    if connect.json {
        say!("{}", serde_json::json!({ "root": root.to_string(), "cells": cells, "bytes": bytes, "form": form::print(&value, 1000) }))?;
    } else {
        say!("root    {root}")?;
        say!("cells   {cells}, all hashes checked")?;
        say!("bytes   {bytes}")?;
    }
    Ok(())
}

async fn challenge(connect: &Connect, key: &Path, expect: Option<ValueId>) -> Result<(), CliError> {
    let key = load(key)?;
    let client = connect.client().await?;
    let network = asked(client.status()).await?.genesis;
    let proven = asked(client.challenge(key.signing_key(), expect.map(|key| key.0), Some(network))).await?;
    let proven = HEXLOWER.encode(&proven);
    if connect.json {
        say!("{}", serde_json::json!({ "key": proven, "proven": true, "network": network.to_string() }))?;
    } else {
        say!("{proven} is proven, in network {network}")?;
    }
    Ok(())
}
