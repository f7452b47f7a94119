//! What an operator may set of a node. The default is the safe one.

use std::time::Duration;

/// Bounds and times of a node; those of a connection are in [`limits`](peerlane_transport::limits).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Handlers of one class that run at once. Count, at least 1. Twice as many may wait for peers. Worst case per class:
    /// three times so many of its largest messages and replies.
    pub workers: usize,
    /// Messages that wait for a worker, per class, over all peers, in classes that answer or drop when full. Count.
    pub queue_messages: usize,
    /// Bytes that wait for a worker, per class, likewise; at least the class's largest message is let in. Worst-case
    /// memory per class.
    pub queue_bytes: usize,
    /// Messages that one peer may have waiting for a worker in a class whose overflow is
    /// [`Wait`](crate::protocol::Overflow::Wait). Count, at least 1; the others stay in the connection's receive budget.
    /// Worst-case memory per peer and class: one largest message, or an eighth of `queue_bytes`.
    pub queue_per_peer: usize,
    /// Requests of this node that wait for a reply, per peer. Count. Worst case: a few hundred bytes each.
    pub requests_per_peer: usize,
    /// Peers connected at once. Count. Inbound ones above that are refused with
    /// [`Overloaded`](peerlane_transport::CloseCode::Overloaded).
    pub peers: usize,
    /// Addresses of peers that are kept connected or were dialed. Count.
    pub known_peers: usize,
    /// Handshakes of arrivals in progress at once, per listener. Count. The gate of the transports bounds them too.
    pub upgrades: usize,
    /// Events that wait for a slow listener of [`events`](super::NodeHandle::events) before it loses the oldest. Count.
    pub events: usize,
    /// The next address or transport is tried so long after the one before (RFC 8305, section 5: 250 ms).
    pub race_stagger: Duration,
    /// A race of all addresses and transports ends so.
    pub dial_timeout: Duration,
    /// Connected over a transport that isn't the first choice, a better one is tried after so long; doubled each time.
    pub upgrade_after: Duration,
    /// At most this between two such tries.
    pub upgrade_max: Duration,
    /// First delay before dialing again.
    pub backoff_min: Duration,
    /// Largest delay before dialing again.
    pub backoff_max: Duration,
    /// Delay before dialing again after a refusal that dialing won't change (wrong key, other network, blocked).
    pub backoff_refused: Duration,
    /// A connection that lived so long starts the delays anew.
    pub stable_after: Duration,
    /// A connection that has owed a life sign for so long has the other transports dialed beside it, by the side that dialed: where UDP
    /// goes dark, TCP may not. After a request, a life sign is asked for within
    /// [`ping_interval`](peerlane_transport::limits::Limits::ping_interval).
    pub dark_after: Duration,
    /// While two connections to a peer exist, each must answer a life sign within this.
    pub probe_timeout: Duration,
    /// A connection that is to give way to a better one waits so long for its streamed messages, then ends without them.
    pub move_timeout: Duration,
    /// A handler's reply waits so long for room in its class, then it's dropped.
    pub reply_timeout: Duration,
    /// The head of a streamed message must be there within this.
    pub head_timeout: Duration,
    /// A streamed message of which nothing moves for so long is given up, by whichever side notices: it's read, and nothing
    /// comes; it's written, and there's no room; or its handler does neither, and is dropped. The other side is told.
    pub stall_timeout: Duration,
    /// A shutdown waits so long for handlers; then connections drain, which has its own
    /// [limit](peerlane_transport::limits::Limits::drain_timeout).
    pub shutdown_timeout: Duration,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            workers: 16,
            queue_messages: 1024,
            queue_bytes: 8 * 1024 * 1024,
            queue_per_peer: 16,
            requests_per_peer: 1024,
            peers: 1024,
            known_peers: 4096,
            upgrades: 512,
            events: 1024,
            race_stagger: Duration::from_millis(250),
            dial_timeout: Duration::from_secs(15),
            upgrade_after: Duration::from_secs(60),
            upgrade_max: Duration::from_secs(3600),
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(60),
            backoff_refused: Duration::from_secs(300),
            stable_after: Duration::from_secs(3),
            dark_after: Duration::from_millis(500),
            probe_timeout: Duration::from_secs(2),
            move_timeout: Duration::from_secs(60),
            reply_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

/// Connections to one peer at once: the one in use, one that gives way to it, and two on their way. Count.
pub(super) const LINKS_PER_PEER: usize = 4;
/// Ended connections of one peer whose last messages are still to be handled. Count; the oldest are given up beyond. Of
/// peers that are gone, as many are kept in all as peers may be connected.
pub(super) const ENDED_PER_PEER: usize = 4;
/// Streamed messages of one class and connection whose head is awaited at once. Count; the transport permits as many.
pub(super) const HEADS: usize = peerlane_transport::limits::MAX_OPEN_STREAMED;
/// Requests of one peer that were taken back before they came, or when they were done with. Count, 8 bytes each.
pub(super) const EARLY_CANCELS: usize = 64;
/// One in so many messages comes from a peer that isn't trusted, even if trusted ones wait: they're not starved.
pub(super) const UNTRUSTED_SHARE: u8 = 8;
/// Addresses kept for one peer. Count.
pub(super) const ADDRS_PER_PEER: usize = 8;
/// Handlers of a class that wait for a peer at once and hold no worker, for each of its workers. Count.
pub(super) const AWAY_PER_WORKER: usize = 2;
/// Code with which a streamed message is stopped or aborted that nobody wants (any more).
pub(super) const STREAM_CANCELLED: u32 = 0;
/// Code with which a streamed message is stopped that doesn't parse or is too long.
pub(super) const STREAM_REFUSED: u32 = 1;
/// Code with which a streamed message is stopped or aborted in which nothing moves.
pub(super) const STREAM_STALLED: u32 = 2;
