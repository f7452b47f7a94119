//! What a connection measures of itself.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Counters of one class's sending side. Plain adds: no order between them is promised.
#[derive(Debug, Default)]
pub(crate) struct SendCounters {
    messages: AtomicU64,
    bytes: AtomicU64,
    waited_ns: AtomicU64,
    waited_max_ns: AtomicU64,
    pub(crate) superseded: AtomicU64,
    blocked_ns: AtomicU64,
}

impl SendCounters {
    pub(crate) fn taken(&self, messages: u64, bytes: u64, waited: u64, waited_max: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.waited_ns.fetch_add(waited, Ordering::Relaxed);
        self.waited_max_ns.fetch_max(waited_max, Ordering::Relaxed);
    }

    /// A sender has waited so long for room.
    pub(crate) fn blocked(&self, waited: Duration) {
        self.blocked_ns.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Messages that began to leave.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub(crate) fn snapshot(&self) -> ClassStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClassStats {
            sent_messages: get(&self.messages),
            sent_bytes: get(&self.bytes),
            queue_time: Duration::from_nanos(get(&self.waited_ns)),
            queue_time_max: Duration::from_nanos(get(&self.waited_max_ns)),
            superseded: get(&self.superseded),
            blocked_time: Duration::from_nanos(get(&self.blocked_ns)),
            ..ClassStats::default()
        }
    }
}

/// One class on one connection, since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Messages that began to leave.
    pub sent_messages: u64,
    /// Bytes handed to the transport, records' heads included.
    pub sent_bytes: u64,
    /// Time that messages waited in the queue, summed.
    pub queue_time: Duration,
    /// The longest such wait.
    pub queue_time_max: Duration,
    /// Time that senders waited for room in the queue, summed over them, those included that gave up.
    pub blocked_time: Duration,
    /// Bytes waiting now.
    pub queued_bytes: u64,
    /// Messages replaced by a newer one of their key.
    pub superseded: u64,
    /// Messages received.
    pub received_messages: u64,
    /// Bytes of whole messages received.
    pub received_bytes: u64,
    /// Time from a message's arrival (of a streamed one: of its beginning) until the application took it, summed.
    pub receive_time: Duration,
    /// The longest such time.
    pub receive_time_max: Duration,
    /// Datagrams dropped because the receive queue was full.
    pub dropped: u64,
}

/// What the transport knows of the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathStats {
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// The shortest round trip that the path has had.
    pub min_rtt: Option<Duration>,
    /// Congestion window in bytes.
    pub cwnd: Option<u64>,
    /// Packets (QUIC) or segments (TCP) that were lost or sent again.
    pub lost: Option<u64>,
    /// Packets or segments sent.
    pub sent: Option<u64>,
    /// Datagrams sent (RFC 9221): messages of `Datagram` classes, copies, probes.
    pub datagrams_sent: Option<u64>,
    /// Bytes of a packet on this path.
    pub mtu: Option<u16>,
    /// The congestion control in force, as read back.
    pub congestion_control: Option<String>,
    /// Socket buffers in bytes, as read back: send, receive. The first carrier's.
    pub socket_buffers: Option<(usize, usize)>,
    /// Byte streams that carry the connection now, where a transport has several (TCP), that for copies among them: 1 until others have joined.
    pub carriers: Option<u8>,
}

impl PathStats {
    /// Nothing known yet: fill in what the transport has.
    pub fn unknown() -> Self {
        Self::default()
    }
}

/// A snapshot of a connection's counters.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// By class, in the table's order.
    pub classes: Vec<ClassStats>,
    /// The path.
    pub path: PathStats,
    /// Copies of messages that were sent on a byte stream of their own (TCP).
    pub copies_sent: u64,
    /// Messages of which a copy came first, and was delivered.
    pub copies_first: u64,
    /// Round-trip time of the last PING answered by the other side's connection (not its handlers).
    pub ping_rtt: Option<Duration>,
}
