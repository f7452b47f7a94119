//! Every bound of the transport layer, in one place: unit, reason, worst-case memory.
//!
//! Constants are what the wire format fixes; [`Limits`] is what an operator may set. `peerlane limits` prints
//! [`Limits::rows`] and the sums.

use std::time::Duration;

use crate::class::ClassTable;

/// Classes in a table. Count. A lane's class fits four bits on the wire.
pub const MAX_CLASSES: usize = 16;
/// Length of a class's name. Bytes.
pub const MAX_CLASS_NAME: usize = 32;
/// Length of a network's name. Bytes.
pub const MAX_NETWORK_NAME: usize = 64;
/// Length of a close reason that is taken from a peer. Bytes. It ends in a log line.
pub const MAX_REASON: usize = 256;
/// Length of a hello. Bytes. 16 classes of 32-byte names and their numbers fit twice.
pub const MAX_HELLO: usize = 2048;
/// A message up to this size shares its class's stream; a larger one of an `Any` class takes its own. Bytes, encoded.
pub const SMALL_MESSAGE: usize = 64 * 1024;
/// A message up to this size of an urgent `Any` class may go on a stream of its own where a transport has streams to
/// spare, so that a loss of one delays no other. Bytes: three packets, which most queries and answers fit.
pub const MESSAGE_STREAM: usize = 4096;
/// Such streams at once, per direction and connection. Count. Beyond it messages share their class's stream.
pub const MESSAGE_STREAMS: usize = 64;
/// What such a message costs beside its bytes of its class's credit. Bytes: about what it costs the receiver while it
/// waits for room.
pub const MESSAGE_STREAM_OVERHEAD: usize = 512;
/// Copies of small urgent messages that wait for their moment on a byte stream of their own. Bytes, their bookkeeping
/// included: what the budget of copies lets gather.
pub const COPIES_WAITING: usize = 16 * 1024;
/// Messages of a class that a copy has brought before its lane. Count: at 1,000 in a second, a quarter of one.
pub const COPIES_EARLY: usize = 256;
/// How far ahead of its lane such a message may be. Messages. The rest waits for the lane.
pub const COPIES_AHEAD: u64 = 1024;
/// What the scheduler lets go at once. Bytes. The longest that an urgent message waits behind one already begun.
pub const QUANTUM: usize = 16 * 1024;
/// What is counted for a queued message beside its bytes, so that empty messages are bounded too. Bytes.
pub const ENTRY_OVERHEAD: usize = 64;
/// Smallest window of a stream. Bytes. Below one quantum it would crawl.
pub const MIN_WINDOW: usize = QUANTUM;
/// Largest budget or window of a class. Bytes. Counters of credit are 32 bits wide.
pub const MAX_BUDGET: usize = 1 << 30;
/// Byte streams that may carry one connection together, where a transport has several. Count. One for the latency classes
/// and one for the bulk classes is what measurement favours; the rest is for tables with more kinds of classes.
pub const MAX_CARRIERS: usize = 4;
/// What each of them beside the first costs. Bytes: two quanta of input, one frame of output, and the same again in TLS.
pub const CARRIER_BUFFERS: usize = 6 * QUANTUM;
/// Extensions of a hello. Count. There are two.
pub const MAX_EXTENSIONS: usize = 16;
/// Bytes of a streamed message that wait between its writer and the transport, and between the transport and its reader.
pub const STREAM_BUFFER: usize = 2 * QUANTUM;
/// Streamed messages of one class that may be open at once, per direction and connection. Count.
pub const MAX_OPEN_STREAMED: usize = 4;
/// Length of a control frame's body. Bytes. The longest is a CLOSE with its reason.
pub const MAX_CONTROL_FRAME: usize = 512;

/// What an operator may set. The default is the safe one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// From a connection's first byte to its acknowledged hello.
    pub handshake_timeout: Duration,
    /// Without a life sign for so long, a connection is over. Both sides use the smaller.
    pub idle_timeout: Duration,
    /// A life sign is asked for after so long without one, while something is expected.
    pub ping_interval: Duration,
    /// The same while nothing is expected.
    pub quiet_ping_interval: Duration,
    /// A graceful close waits so long for what is queued.
    pub drain_timeout: Duration,
    /// Bytes by which the windows of all streams of a connection may grow together, beyond the classes' first ones.
    /// Worst-case memory per connection.
    pub window_growth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(1),
            quiet_ping_interval: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
            // One class at its largest.
            window_growth: 2 * 1024 * 1024,
        }
    }
}

/// One row of the table that `peerlane limits` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRow {
    /// What is bounded.
    pub name: String,
    /// The bound, with its unit.
    pub bound: String,
    /// Why it is there, and why it is so large.
    pub reason: &'static str,
    /// Worst-case memory per connection in bytes; 0 for a bound that holds none.
    pub worst_case: usize,
}

impl Limits {
    /// The table of bounds for a class table: one row each.
    pub fn rows(&self, classes: &ClassTable) -> Vec<LimitRow> {
        let row = |name: String, bound: String, reason, worst_case| LimitRow { name, bound, reason, worst_case };
        let bytes = |n: usize| format!("{n} B");
        let mut rows = vec![
            row("handshake".into(), format!("{:?}", self.handshake_timeout), "a slow handshake holds a permit; it must end", 0),
            row("idle timeout".into(), format!("{:?}", self.idle_timeout), "a vanished peer frees its memory", 0),
            row("ping interval".into(), format!("{:?}", self.ping_interval), "a dead path is noticed while an answer is expected", 0),
            row(
                "quiet ping interval".into(),
                format!("{:?}", self.quiet_ping_interval),
                "keeps a quiet connection and its NAT entry alive",
                0,
            ),
            row("drain".into(), format!("{:?}", self.drain_timeout), "a close can't be held up by the other side", 0),
            row(
                "window growth".into(),
                bytes(self.window_growth),
                "what all windows together may grow by where they hold a sender up",
                self.window_growth,
            ),
            row("hello".into(), bytes(MAX_HELLO), "one per connection, before anything is trusted", MAX_HELLO),
            row("control frame".into(), bytes(MAX_CONTROL_FRAME), "one at a time", MAX_CONTROL_FRAME),
            row(
                "quantum".into(),
                bytes(QUANTUM),
                "the longest that an urgent message waits behind one begun",
                QUANTUM * classes.lanes_total(),
            ),
        ];
        rows.push(row(
            "message streams".into(),
            format!("{MESSAGE_STREAMS} x {MESSAGE_STREAM} B"),
            "small urgent messages in transit on streams of their own (QUIC)",
            MESSAGE_STREAMS * MESSAGE_STREAM,
        ));
        rows.push(row(
            "further carriers".into(),
            format!("{} x {CARRIER_BUFFERS} B", MAX_CARRIERS - 1),
            "buffers of a connection's byte streams beside the first (TCP)",
            (MAX_CARRIERS - 1) * CARRIER_BUFFERS,
        ));
        rows.push(row(
            "copies".into(),
            format!("{COPIES_WAITING} B, {COPIES_EARLY} a class ahead"),
            "small urgent messages sent twice, on a byte stream of their own (TCP); numbers of those that came early",
            // A set's node has room for twice what it holds, at worst.
            COPIES_WAITING + CARRIER_BUFFERS + classes.len() * COPIES_EARLY * 2 * size_of::<u64>(),
        ));
        for (_, class) in classes.iter() {
            let streamed = MAX_OPEN_STREAMED * STREAM_BUFFER;
            let name = |what: &str| format!("{}: {what}", class.name);
            rows.extend([
                row(name("largest message"), bytes(class.max_message), "larger ones are streamed", 0),
                row(
                    name("send budget"),
                    bytes(class.send_budget),
                    "what waits for the scheduler, and one keyed message beyond it",
                    class.send_budget + class.max_message + ENTRY_OVERHEAD,
                ),
                row(name("receive budget"), bytes(class.receive_budget), "what waits for a handler", class.receive_budget),
                row(name("window"), bytes(class.window), "in transit on the class's stream, not taken up", class.window),
                row(
                    name("large messages"),
                    format!("{} x {} B", class.large_lanes, class.large_window),
                    "in transit on streams of their own",
                    usize::from(class.large_lanes) * class.large_window,
                ),
                row(
                    name("streamed messages"),
                    format!("{MAX_OPEN_STREAMED} x {STREAM_BUFFER} B each way"),
                    "between the application and the transport",
                    2 * streamed,
                ),
            ]);
        }
        rows
    }
}
