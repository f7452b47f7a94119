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
            waiting.push_back(apply(client, account, batch));
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
async fn apply(client: &Client, account: Account, batch: Arc<Batch>) -> Result<u64, CliError> {
    let mut delay = Duration::from_millis(50);
    let mut taken = 0;
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
            Some(code @ (ErrorCode::Load | ErrorCode::Sequence)) if attempt < TRIES => {
                // Operations of this very batch that were applied before, and whose answer was lost, are no error to the
                // peer. So one that has a sequence of the batch isn't ours. Twice: the first time an earlier copy of the
                // batch may have been on its way.
                if *code == ErrorCode::Sequence && next_sequence(client, account).await? > batch.first {
                    taken += 1;
                    if taken == 2 {
                        return Err(CliError::Failed(format!(
                            "{}; does another program sign with this account? From operation {} on nothing was applied that isn't there \
                             already: wait for the other one, then run this again, with --resume if all of the account's operations are \
                             the file's",
                            text_of(&outcome),
                            batch.first
                        )));
                    }
                }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use peerlane_transport::{
        CloseCode,
        admission::{Lists, LocalPeer, Terms},
        identity::PeerAddr,
    };

    use super::*;
    use crate::{
        cad015::{Cad015, MessageType},
        cli::setup::{Debugging, TransportChoice, transports},
        node::{Context, Handler, Node},
        peer::{Service, Store, Verified},
    };

    const NATIVE: Profile = Profile::NATIVE;

    /// A peer that applies what it's sent, and does something else as well for the first few.
    struct Unlucky {
        service: Service,
        store: Arc<Store>,
        /// Connections that are lost when their operations are applied and not answered yet.
        lose: AtomicUsize,
        /// Signed by somebody else with the account's key, and applied before the first of ours.
        foreign: Option<Identity>,
        transacts: AtomicUsize,
    }

    impl Handler<Cad015> for Unlucky {
        async fn handle(&self, context: Context<Cad015>, message: Message) {
            let transact = message.kind == MessageType::Transact;
            if transact
                && self.transacts.fetch_add(1, Ordering::SeqCst) == 0
                && let Some(key) = &self.foreign
            {
                let mut cells = MemoryCells::default();
                let edit = Edit::Put { key: "theirs".into(), value: "1".into() };
                let signed = Operation::sign(&edit, 1, key.signing_key(), self.store.profile(), &mut cells).unwrap();
                let operation = Operation::read(&signed, &crate::cell::Reader::new(self.store.profile(), &cells)).unwrap();
                let verified = Verified::new(operation, self.store.profile()).unwrap();
                self.store.append(vec![verified], &cells).unwrap();
            }
            let answer = self.service.answer(&message).await;
            let lost = |n: usize| n.checked_sub(1);
            if transact && self.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lost).is_ok() {
                return context.connection().close(CloseCode::Lost, "the answer is lost");
            }
            if let Some(answer) = answer {
                let _ = context.reply(&answer).await;
            }
        }
    }

    async fn peer(lose: usize, foreign: Option<Identity>) -> (Node<Cad015>, Arc<Store>, ClientArgs) {
        let identity = Identity::from_seed(&[1; 32]).unwrap();
        let local = LocalPeer::new(&identity, Arc::new(Lists::everybody()), Terms::new("test").unwrap()).unwrap();
        let store = Arc::new(Store::in_memory("test", NATIVE).unwrap());
        let service = Service::new(store.clone(), identity.peer_id(), "test", Arc::default());
        let handler = Unlucky { service, store: store.clone(), lose: lose.into(), foreign, transacts: AtomicUsize::new(0) };
        let mut builder = Node::builder(Cad015::new(NATIVE), local.clone()).listen("127.0.0.1:0".parse().unwrap()).handler(handler);
        for transport in transports(TransportChoice::Tcp, &local, &Debugging::default()).unwrap() {
            builder = builder.transport(transport);
        }
        let node = builder.start().await.unwrap();
        let to = PeerAddr::new(identity.peer_id(), node.listening()[0].addr);
        let args = ClientArgs { to, transport: TransportChoice::Tcp, network: "test".into(), timeout: Duration::from_secs(10) };
        (node, store, args)
    }

    fn edits(count: usize) -> Vec<Edit> {
        (0..count).map(|n| Edit::Put { key: format!("k{n}").into(), value: vec![7; 1000].into() }).collect()
    }

    #[tokio::test]
    async fn operations_whose_answer_was_lost_with_the_connection_are_applied_once() {
        let (_node, store, args) = peer(3, None).await;
        let account = Identity::from_seed(&[2; 32]).unwrap();
        let client = Client::connect(&args, &account).await.unwrap();
        // Several requests, so that later ones meet a gap while earlier ones are sent again.
        let loaded = load(&client, &account, edits(1000), false, false).await.unwrap();
        assert_eq!((loaded.applied, loaded.next), (1000, 1001));
        assert_eq!(store.snapshot().unwrap().counts().unwrap().operations, 1000);
        client.close().await;
    }

    #[tokio::test]
    async fn a_sequence_that_somebody_else_has_used_is_told_and_nothing_is_applied_twice() {
        let account = Identity::from_seed(&[2; 32]).unwrap();
        let (_node, store, args) = peer(0, Some(Identity::from_seed(&[2; 32]).unwrap())).await;
        let client = Client::connect(&args, &account).await.unwrap();
        let error = load(&client, &account, edits(3), false, false).await.err().unwrap().to_string();
        assert!(error.contains("another program") && error.contains("--resume"), "{error}");
        assert_eq!(store.snapshot().unwrap().counts().unwrap().operations, 1);
        client.close().await;
    }
}
