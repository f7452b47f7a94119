//! What several commands need: a key, transports, a node to ask with, and a clean end.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::ValueEnum;
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    AnyTransport,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerAddr, RemoteId},
};

use tokio_util::sync::CancellationToken;

use super::CliError;
use crate::{
    cad015::{Cad015, Message, Outcome},
    cell::Profile,
    node::{Node, NodeConfig, PeerSendError, RequestError, Silent},
    peer::read_outcome,
};

/// How to reach peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TransportChoice {
    /// QUIC first, TCP 250 ms later, whichever answers
    Auto,
    /// QUIC alone
    Quic,
    /// TCP alone
    Tcp,
}

impl TransportChoice {
    /// The transports' names, as the ready line has them.
    pub(super) fn names(self) -> &'static str {
        match self {
            Self::Auto => "quic,tcp",
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// Closed connections have said all that matters by then; a dial that nobody answers would hold the end up.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(250);

/// A dial that doesn't end in its time has ended by then.
const DIAL_SLACK: Duration = Duration::from_secs(5);

/// Connections lost under one request before it's given up.
const RECONNECTS: u32 = 5;

/// For looking into connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Debugging {
    pub(super) qlog: Option<PathBuf>,
    pub(super) key_log: bool,
}

/// The transports chosen, in the order of preference.
pub(super) fn transports(
    choice: TransportChoice,
    local: &LocalPeer,
    debugging: &Debugging,
) -> Result<Vec<AnyTransport<PeerAddr, SocketAddr>>, CliError> {
    let mut chosen = Vec::new();
    if choice != TransportChoice::Tcp {
        let mut config = QuicConfig::default();
        config.qlog.clone_from(&debugging.qlog);
        config.key_log = debugging.key_log;
        let quic = QuicTransport::new(local.clone(), config).map_err(CliError::failed)?;
        chosen.push(AnyTransport::new(quic));
    }
    if choice != TransportChoice::Quic {
        let mut config = TcpConfig::default();
        config.key_log = debugging.key_log;
        let tcp = TcpTransport::new(local.clone(), config).map_err(CliError::failed)?;
        chosen.push(AnyTransport::new(tcp));
    }
    Ok(chosen)
}

/// Options of every command that asks a peer.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ClientArgs {
    /// The peer to ask: its ID and where it listens
    #[arg(long, value_name = "PEERID@HOST:PORT")]
    pub(super) to: PeerAddr,
    /// How to reach it
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) transport: TransportChoice,
    /// The network's name; both sides must have the same
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NETWORK)]
    pub(super) network: String,
    /// Give up after so many seconds without an answer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(super) timeout: Duration,
}

/// The network of those who don't name one.
pub(super) const DEFAULT_NETWORK: &str = "peerlane";

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    if value > 0.0 && value <= 1e6 { Ok(Duration::from_secs_f64(value)) } else { Err("more than 0 and at most 1,000,000 seconds".into()) }
}

pub(super) fn load_key(file: &std::path::Path) -> Result<Identity, CliError> {
    Identity::load(file).map_err(CliError::usage)
}

/// A node that asks one peer.
pub(super) struct Client {
    node: Node<Cad015>,
    transports: Vec<AnyTransport<PeerAddr, SocketAddr>>,
    peer: RemoteId,
    args: ClientArgs,
}

impl Client {
    pub(super) async fn connect(args: &ClientArgs, identity: &Identity) -> Result<Self, CliError> {
        if identity.peer_id() == args.to.id {
            let what = "--key is the key of the peer that --to names; who asks needs a key of its own: make one with `peerlane key new --out FILE`";
            return Err(CliError::Usage(what.into()));
        }
        let terms = Terms::new(&args.network).map_err(CliError::usage)?;
        let local = LocalPeer::new(identity, Arc::new(Lists::everybody()), terms).map_err(CliError::failed)?;
        let transports = transports(args.transport, &local, &Debugging::default())?;
        let config = NodeConfig { dial_timeout: args.timeout, ..NodeConfig::default() };
        let mut builder = Node::builder(Cad015::new(Profile::NATIVE.in_network(&args.network)), local).handler(Silent).config(config);
        for transport in &transports {
            builder = builder.transport(transport.clone());
        }
        let node = builder.start().await.map_err(CliError::failed)?;
        // The dial has its limit, and tells more of what was tried.
        let connecting = tokio::time::timeout(args.timeout + DIAL_SLACK, node.connect(&args.to));
        match or_interrupted(connecting).await? {
            Ok(Ok(peer)) => Ok(Self { node, transports, peer, args: args.clone() }),
            Ok(Err(error)) => Err(CliError::failed(error)),
            Err(_) => Err(CliError::Failed(format!("no connection to {} within {:?}", args.to, args.timeout))),
        }
    }

    pub(super) fn profile(&self) -> &Profile {
        self.node.protocol().profile()
    }

    /// The transport that the connection took.
    pub(super) fn transport(&self) -> &'static str {
        self.node.peer(self.peer.clone()).map_or("none", |peer| peer.transport)
    }

    /// Asks, and gives the whole answer. A request that was lost with its connection is sent again: all requests of the
    /// command line are such that twice is as good as once.
    pub(super) async fn request(&self, message: Message) -> Result<Message, CliError> {
        for _ in 0..RECONNECTS {
            match or_interrupted(self.node.request(self.peer.clone(), message.clone(), self.args.timeout)).await? {
                Err(RequestError::Disconnected(_) | RequestError::NotSent(PeerSendError::NotConnected(_))) => self.reconnect().await?,
                answer => return answer.map_err(CliError::failed),
            }
        }
        Err(CliError::Failed("the connection is lost again and again; does another program use the same key?".into()))
    }

    /// Asks, and gives the RESULT; one with an error is a failure.
    pub(super) async fn ask(&self, message: Message) -> Result<(Message, Outcome), CliError> {
        let answer = self.request(message).await?;
        let outcome = read_outcome(&answer, self.profile()).map_err(CliError::failed)?;
        match &outcome.error {
            Some(code) => Err(CliError::Failed(format!("the peer refused: {code}: {}", text_of(&outcome)))),
            None => Ok((answer, outcome)),
        }
    }

    /// Connects again after the connection was lost.
    pub(super) async fn reconnect(&self) -> Result<(), CliError> {
        or_interrupted(self.node.connect(&self.args.to)).await?.map(drop).map_err(CliError::failed)
    }

    /// Ends cleanly: the peer is told.
    pub(super) async fn close(self) {
        self.node.shutdown().await;
        for transport in &self.transports {
            let _ = tokio::time::timeout(LAST_WORDS, transport.idle()).await;
        }
    }
}

/// The text of a RESULT with an error.
pub(super) fn text_of(outcome: &Outcome) -> String {
    let text = outcome.value.embedded().and_then(crate::cell::Cell::as_string);
    text.map_or_else(String::new, |text| String::from_utf8_lossy(text).into_owned())
}

/// Ctrl-C and SIGTERM end what is waited for.
pub(super) async fn or_interrupted<T>(work: impl Future<Output = T>) -> Result<T, CliError> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = interrupted() => Err(CliError::Interrupted),
    }
}

/// Whether Ctrl-C or SIGTERM came. Once it did, it did for everybody who asks: none is lost between two questions.
static INTERRUPTED: std::sync::LazyLock<CancellationToken> = std::sync::LazyLock::new(CancellationToken::new);

/// Looks out for Ctrl-C and SIGTERM from now on. The first one ends what is waited for, the second one the process: what
/// is acknowledged is on disk. Called once, in a runtime, before anything is done.
pub(super) fn watch_signals() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        // As it was, they end the process at once.
        return;
    };
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                INTERRUPTED.cancel();
            }
        }
        let _ = CliError::Interrupted.report();
        std::process::exit(1);
    });
}

/// Completes at Ctrl-C or SIGTERM, and at once if one came before.
pub(super) async fn interrupted() {
    INTERRUPTED.cancelled().await;
}
