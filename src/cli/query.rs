//! `peerlane query`.

use std::{io::Write as _, path::PathBuf};

use bytes::Bytes;
use clap::Subcommand;
use peerlane_transport::identity::PeerId;

use super::{
    CliError,
    setup::{Client, ClientArgs, load_key},
};
use crate::peer::{Account, Answer, MAX_PAGE, Query};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  peerlane query --key me.pem --to PEERID@127.0.0.1:4001 get ACCOUNT colour
  peerlane query --key me.pem --to PEERID@127.0.0.1:4001 --json prefix ACCOUNT lib | head
  peerlane query --key me.pem --to PEERID@127.0.0.1:4001 root

ACCOUNT is the account's public key, 64 hex digits, as `peerlane key show` prints it.")]
pub(super) struct Args {
    /// Who asks: a key file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    client: ClientArgs,
    /// Print one JSON object per result
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The value of an account's key
    Get {
        /// The account
        account: PeerId,
        /// The key
        key: String,
    },
    /// The account's keys that start with a prefix, and their values
    Prefix {
        /// The account
        account: PeerId,
        /// The prefix; empty for all
        prefix: String,
    },
    /// The accounts, and how many operations each has
    Accounts,
    /// How much there is
    Count,
    /// The value ID of the root: peers with equal roots hold the same
    Root,
}

async fn ask(client: &Client, query: &Query) -> Result<Answer, CliError> {
    let message = query.message(client.profile()).map_err(CliError::failed)?;
    let (answer, outcome) = client.ask(message).await?;
    query.read_answer(&outcome.value, &answer.cells(), client.profile()).map_err(CliError::failed)
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let client = Client::connect(&args.client, &load_key(&args.key)?).await?;
    let result = answer(&client, &args).await;
    client.close().await;
    result
}

async fn answer(client: &Client, args: &Args) -> Result<(), CliError> {
    let mut out = std::io::stdout();
    let account = |id: &PeerId| -> Account { *id.as_bytes() };
    match &args.what {
        What::Get { account: whose, key } => {
            let query = Query::Get { account: account(whose), key: Bytes::from(key.clone()) };
            match ask(client, &query).await? {
                Answer::Value(Some(value)) if args.json => writeln!(out, "{}", entry(key.as_bytes(), &value))?,
                Answer::Value(Some(value)) => {
                    out.write_all(&value)?;
                    writeln!(out)?;
                }
                _ => return Err(CliError::Failed(format!("account {whose} has no key {key:?}"))),
            }
        }
        What::Prefix { account: whose, prefix } => {
            let mut after = None;
            loop {
                let query = Query::Prefix { account: account(whose), prefix: Bytes::from(prefix.clone()), after, limit: MAX_PAGE };
                let Answer::Entries(entries) = ask(client, &query).await? else { break };
                for (key, value) in &entries {
                    if args.json {
                        writeln!(out, "{}", entry(key, value))?;
                    } else {
                        writeln!(out, "{}\t{}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))?;
                    }
                }
                match entries.last() {
                    Some((key, _)) => after = Some(key.clone()),
                    None => break,
                }
            }
        }
        What::Accounts => {
            let mut after = None;
            loop {
                let Answer::Accounts(accounts) = ask(client, &Query::Accounts { after, limit: MAX_PAGE }).await? else { break };
                for (account, operations) in &accounts {
                    let account = data_encoding::HEXLOWER.encode(account);
                    if args.json {
                        writeln!(out, "{}", serde_json::json!({ "account": account, "operations": operations }))?;
                    } else {
                        writeln!(out, "{account}\t{operations}")?;
                    }
                }
                match accounts.last() {
                    Some((account, _)) => after = Some(*account),
                    None => break,
                }
            }
        }
        What::Count => {
            if let Answer::Counts(counts) = ask(client, &Query::Count).await? {
                let object = serde_json::json!({
                    "accounts": counts.accounts, "operations": counts.operations, "keys": counts.keys, "cells": counts.cells,
                });
                if args.json {
                    writeln!(out, "{object}")?;
                } else {
                    writeln!(
                        out,
                        "accounts    {}\noperations  {}\nkeys        {}\ncells       {}",
                        counts.accounts, counts.operations, counts.keys, counts.cells
                    )?;
                }
            }
        }
        What::Root => {
            if let Answer::Root(root) = ask(client, &Query::Root).await? {
                if args.json {
                    writeln!(out, "{}", serde_json::json!({ "root": root.to_string() }))?;
                } else {
                    writeln!(out, "{root}")?;
                }
            }
        }
    }
    Ok(())
}

/// Text as text, and what isn't UTF-8 as hex, so that nothing is lost.
fn entry(key: &[u8], value: &[u8]) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    for (name, bytes) in [("key", key), ("value", value)] {
        match std::str::from_utf8(bytes) {
            Ok(text) => object.insert(name.into(), text.into()),
            Err(_) => object.insert(format!("{name}_hex"), data_encoding::HEXLOWER.encode(bytes).into()),
        };
    }
    object.into()
}
