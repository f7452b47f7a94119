//! The node's own rows of the table of bounds: what it holds beside its connections.

use peerlane_transport::{
    ClassId, ClassTable,
    limits::{ENTRY_OVERHEAD, LimitRow, Limits, MAX_HELLO},
};

use super::config::{ADDRS_PER_PEER, AWAY_PER_WORKER, EARLY_CANCELS, ENDED_PER_PEER, HEADS, LINKS_PER_PEER, NodeConfig};
use crate::protocol::{MAX_HEAD, Overflow};

/// A request that waits for a reply: its place in the table, its channel, its caller's timer. Bytes, generously.
const REQUEST: usize = 512;
/// An event with what it names. Bytes, generously: its text comes from a peer, bounded.
const EVENT: usize = 512;
/// An address of a peer with its host name. Bytes.
const ADDRESS: usize = 384;

/// The node's rows: see [`NodeConfig::limit_rows`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeLimits {
    /// Worst cases per connected peer, in addition to one connection's rows.
    pub per_peer: Vec<LimitRow>,
    /// Worst cases per node.
    pub per_node: Vec<LimitRow>,
}

impl NodeConfig {
    /// The table of what a node holds beside one connection per peer: one row for each bound. `limits` are the
    /// connection's, `overflow` the [protocol's](crate::protocol::Protocol::overflow).
    pub fn limit_rows(&self, classes: &ClassTable, limits: &Limits, overflow: impl Fn(ClassId) -> Overflow) -> NodeLimits {
        let row = |name: String, bound: String, reason, worst_case| LimitRow { name, bound, reason, worst_case };
        let connection: usize = limits.rows(classes).iter().map(|row| row.worst_case).sum();
        let received: usize = classes.iter().map(|(_, class)| class.receive_budget).sum();
        let budgets: usize = classes.iter().map(|(_, class)| class.receive_budget.saturating_add(class.send_budget)).sum();
        let windows = classes.window_total().saturating_add(limits.window_growth);
        let taken = budgets.saturating_add(windows.saturating_mul(4));
        let mut per_peer = vec![
            row(
                "further connections".into(),
                format!("{}", LINKS_PER_PEER - 1),
                "one gives way to another; both sides may dial",
                (LINKS_PER_PEER - 1) * connection,
            ),
            row(
                "ended connections".into(),
                format!("{ENDED_PER_PEER}"),
                "their last messages are still to be handled",
                ENDED_PER_PEER * received,
            ),
            row(
                "taken in while giving way".into(),
                format!("{LINKS_PER_PEER} x {taken} B"),
                "a slow handler doesn't keep a connection from draining",
                LINKS_PER_PEER * taken,
            ),
            row(
                "heads of streamed messages".into(),
                format!("{HEADS} x {MAX_HEAD} B per class"),
                "read whole before a handler gets them",
                LINKS_PER_PEER * classes.len() * HEADS * (MAX_HEAD + peerlane_transport::varint::MAX_LEN),
            ),
            row(
                "requests waiting".into(),
                format!("{}", self.requests_per_peer),
                "each waits for one reply",
                self.requests_per_peer.saturating_mul(REQUEST),
            ),
            row("requests taken back early".into(), format!("{EARLY_CANCELS}"), "their IDs, until they come", EARLY_CANCELS * 8),
        ];
        let mut per_node = Vec::new();
        for (id, class) in classes.iter() {
            let name = |what: &str| format!("{}: {what}", class.name);
            let largest = class.max_message.saturating_add(ENTRY_OVERHEAD);
            match overflow(id) {
                Overflow::Wait => per_peer.push(row(
                    name("waiting for a worker"),
                    format!("{} messages", self.queue_per_peer),
                    "one message of any size, or an eighth of the queue",
                    largest.max(self.queue_bytes.max(largest) / 8),
                )),
                Overflow::Answer | Overflow::DropOldest => per_node.push(row(
                    name("waiting for a worker"),
                    format!("{} messages, {} B", self.queue_messages, self.queue_bytes.max(largest)),
                    "beyond it, requests are answered LOAD and others dropped",
                    self.queue_bytes.max(largest),
                )),
            }
            per_node.push(row(
                name("with workers"),
                format!("{} and {} that wait for peers", self.workers, self.workers.saturating_mul(AWAY_PER_WORKER)),
                "messages that handlers hold, each with a reply as large",
                self.workers.saturating_mul(1 + AWAY_PER_WORKER).saturating_mul(class.max_message.saturating_mul(2)),
            ));
        }
        per_node.extend([
            row(
                "ended connections of peers that are gone".into(),
                format!("{}", self.peers.max(ENDED_PER_PEER)),
                "their last messages are still to be handled",
                self.peers.max(ENDED_PER_PEER).saturating_mul(received),
            ),
            row("known peers".into(), format!("{}", self.known_peers), "addresses to dial", self.known_peers * ADDRS_PER_PEER * ADDRESS),
            row("handshakes".into(), format!("{} per listener", self.upgrades), "each holds a hello", self.upgrades * MAX_HELLO),
            row("events".into(), format!("{}", self.events), "a slow listener loses the oldest", self.events.saturating_mul(EVENT)),
        ]);
        NodeLimits { per_peer, per_node }
    }
}
