//! `peerlane transact`.

use std::{
    collections::VecDeque,
    io::IsTerminal as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Subcommand;
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use indicatif::{ProgressBar, ProgressStyle};
use peerlane_transport::identity::Identity;

use super::{
    CliError, operations,
    setup::{Client, ClientArgs, load_key, text_of},
};
use crate::{
    cad015::{ErrorCode, MAX_OPERATIONS, Message},
    cell::{MemoryCells, Profile},
    peer::{Account, Answer, Edit, Operation, Query, read_outcome},
};

/// Requests on their way at once: while one is stored, the next one travels.
const IN_FLIGHT: usize = 4;
/// Bytes of operations in one request. Below the transact class's 256 KiB, with room for the cells' own bytes.
const MAX_REQUEST: usize = 160 * 1024;
/// Tries of one request that finds no room or no connection.
const TRIES: u32 = 20;

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = false,
    after_long_help = "\
Examples:
  peerlane transact --key account.pem --to PEERID@127.0.0.1:4001 put colour blue
  peerlane transact --key account.pem --to PEERID@127.0.0.1:4001 --file OPS.jsonl
  peerlane transact --key account.pem --to PEERID@127.0.0.1:4001 --file OPS.jsonl --resume

A line of OPS.jsonl is {\"op\":\"put\",\"key\":\"..\",\"value\":\"..\"} or {\"op\":\"del\",\"key\":\"..\"}. The file is read whole
before anything is sent. Operations get the account's next sequence numbers; with --resume as many lines are skipped
as the account has operations, so that a load that was interrupted goes on."
)]
pub(super) struct Args {
    /// The account: a key file. It signs the operations, and is also who asks
    #[arg(long, value_name = "ACCOUNTKEY")]
    key: PathBuf,
    #[command(flatten)]
    client: ClientArgs,
    /// A file of operations, one JSON object per line
    #[arg(long, value_name = "OPS.jsonl")]
    file: Option<PathBuf>,
    /// Skip as many operations of the file as the account has already
    #[arg(long, requires = "file")]
    resume: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sets a key
    Put {
        /// The key
        key: String,
        /// The value
        value: String,
    },
    /// Removes a key
    Del {
        /// The key
        key: String,
    },
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let edits = match (&args.file, args.what) {
        (Some(file), None) => operations::read(file)?,
        (None, Some(What::Put { key, value })) => vec![Edit::Put { key: key.into(), value: value.into() }],
        (None, Some(What::Del { key })) => vec![Edit::Del { key: key.into() }],
        (None, None) => return Err(CliError::Usage("nothing to do: give `put KEY VALUE`, `del KEY` or --file OPS.jsonl".into())),
        (Some(_), Some(_)) => return Err(CliError::Usage("give either --file or an operation, not both".into())),
    };
    for edit in &edits {
        operations::check(edit).map_err(|what| CliError::Usage(format!("key {:?}: {what}", operations::name(edit))))?;
    }
    let identity = load_key(&args.key)?;
    let client = Client::connect(&args.client, &identity).await?;
    let started = Instant::now();
    let loaded = load(&client, &identity, edits, args.resume, true).await;
    let transport = client.transport();
    client.close().await;
    let Loaded { applied, skipped, next } = loaded?;
    let took = started.elapsed();
    if args.json {
        let object = serde_json::json!({
            "account": identity.peer_id().to_string(), "applied": applied, "skipped": skipped, "next_sequence": next,
            "transport": transport, "seconds": took.as_secs_f64(),
        });
        say!("{object}")?;
    } else {
        let rate = applied as f64 / took.as_secs_f64().max(1e-9);
        let skipped = if skipped > 0 { format!(", {skipped} were there already") } else { String::new() };
        say!(
            "{applied} operation{} applied{skipped}; the account's next sequence is {next}; {took:.2?}, {rate:.0}/s over {transport}",
            if applied == 1 { "" } else { "s" }
        )?;
    }
    Ok(())
}

/// What a load did.
pub(super) struct Loaded {
    pub(super) applied: u64,
    pub(super) skipped: u64,
    pub(super) next: u64,
}

async fn next_sequence(client: &Client, account: Account) -> Result<u64, CliError> {
    let query = Query::Next { account };
    let message = query.message(client.profile()).map_err(CliError::failed)?;
    let (answer, outcome) = client.ask(message).await?;
    match query.read_answer(&outcome.value, &answer.cells(), client.profile()).map_err(CliError::failed)? {
        Answer::Next(next) => Ok(next),
        _ => Err(CliError::Failed("the peer didn't say the account's sequence".into())),
    }
}

/// Some operations that travel together.
struct Batch {
    first: u64,
    count: u64,
    message: Message,
}

/// Loads operations, in order. A request that was lost is sent again: the same operation twice is applied once.
pub(super) async fn load(client: &Client, identity: &Identity, edits: Vec<Edit>, resume: bool, progress: bool) -> Result<Loaded, CliError> {
    let account: Account = *identity.peer_id().as_bytes();
    let total = edits.len() as u64;
    let start = next_sequence(client, account).await?;
    let skipped = if resume { (start - 1).min(total) } else { 0 };
    let mut edits: VecDeque<Edit> = edits.into_iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX)).collect();
    let bar = if progress && total > 1 && std::io::stderr().is_terminal() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} operations, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_position(skipped);
    let mut next = start;
    let mut waiting = FuturesOrdered::new();
    loop {
        while waiting.len() < IN_FLIGHT && !edits.is_empty() {
            let batch = Arc::new(batch(identity, &mut edits, next, client.profile())?);
            next += batch.count;
            waiting.push_back(apply(client, batch));
        }
        let Some(applied) = waiting.next().await else { break };
        bar.inc(applied?);
    }
    bar.finish_and_clear();
    Ok(Loaded { applied: next - start, skipped, next })
}

/// Signs as many operations as one request takes.
fn batch(identity: &Identity, edits: &mut VecDeque<Edit>, first: u64, profile: &Profile) -> Result<Batch, CliError> {
    let mut cells = MemoryCells::default();
    let mut signed = Vec::new();
    let mut bytes = 0;
    while let Some(edit) = edits.front() {
        let size = 256 + edit.key().len() + if let Edit::Put { value, .. } = edit { value.len() } else { 0 };
        if !signed.is_empty() && (bytes + size > MAX_REQUEST || signed.len() == MAX_OPERATIONS) {
            break;
        }
        bytes += size;
        let sequence = first + signed.len() as u64;
        signed.push(Operation::sign(edit, sequence, identity.signing_key(), profile, &mut cells).map_err(CliError::usage)?);
        edits.pop_front();
    }
    let count = signed.len() as u64;
    let message = Message::transact(0, signed, profile).map_err(CliError::failed)?.with_branches(cells.0);
    Ok(Batch { first, count, message })
}

/// Has a batch applied, again if the peer was busy or the connection was lost.
async fn apply(client: &Client, batch: Arc<Batch>) -> Result<u64, CliError> {
    let mut delay = Duration::from_millis(50);
    for attempt in 1..=TRIES {
        let answer = match client.request(batch.message.clone()).await {
            Ok(answer) => answer,
            Err(CliError::Interrupted) => return Err(CliError::Interrupted),
            Err(error) if attempt == TRIES => return Err(error),
            Err(error) => {
                tracing::info!(%error, attempt, "the request is sent again");
                super::setup::or_interrupted(tokio::time::sleep(delay)).await?;
                delay = (delay * 2).min(Duration::from_secs(2));
                if let Err(error) = client.reconnect().await {
                    tracing::info!(%error, "no connection yet");
                }
                continue;
            }
        };
        let outcome = read_outcome(&answer, client.profile()).map_err(CliError::failed)?;
        match &outcome.error {
            None => return Ok(batch.count),
            // Those before it, which are on their way too, may not have been applied yet: they were busy or lost.
            Some(ErrorCode::Load | ErrorCode::Sequence) if attempt < TRIES => {
                super::setup::or_interrupted(tokio::time::sleep(delay)).await?;
                delay = (delay * 2).min(Duration::from_secs(2));
            }
            Some(code) => {
                let what =
                    format!("operations {} to {} were refused: {code}: {}", batch.first, batch.first + batch.count - 1, text_of(&outcome));
                return Err(CliError::Failed(what));
            }
        }
    }
    Err(CliError::Failed("no answer".into()))
}
