//! What one class has to send: its waiting messages, and the lanes on which they go out. No I/O, no locks.
//!
//! The bound stands beside the push: whole messages are paid for from the class's send budget before they come
//! here ([`super::outbox`]), streamed messages own a buffer of [`limits::STREAM_BUFFER`] bytes each.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, OnceLock},
};

use bytes::{Bytes, BytesMut};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    record::Record,
    table::{Order, TrafficClass},
};
use crate::limits;

/// Messages up to this size are copied together into one segment; a copy of so few bytes is cheaper than the
/// transport's bookkeeping for a piece of its own. Bytes.
const COALESCE: usize = 1024;

/// How a streamed message ended, from its writer's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    Aborted(u32),
}

/// A streamed message between its writer and the lane.
#[derive(Debug)]
pub(crate) struct StreamOut {
    chunks: VecDeque<Bytes>,
    end: Option<End>,
    /// The receiver's code, if it doesn't want the rest. Shared with the writer, which may ask when the lane is done.
    stopped: Arc<OnceLock<u32>>,
    /// Room for [`limits::STREAM_BUFFER`] bytes; the writer takes, the lane gives back.
    room: Arc<Semaphore>,
}

#[derive(Debug)]
enum Body {
    Whole(Bytes),
    Streamed(u64),
    /// Replaced by a newer message of its key.
    Superseded,
}

#[derive(Debug)]
struct Entry {
    body: Body,
    key: Option<u64>,
    queued: Instant,
}

/// A queue whose entries keep their number, so that a key can find its message.
#[derive(Debug, Default)]
struct Line {
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u64,
}

impl Line {
    fn push(&mut self, entry: Entry) -> u64 {
        self.entries.push_back(entry);
        self.first + self.entries.len() as u64 - 1
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Takes the front off, superseded ones included.
    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        Some(entry)
    }

    /// Removes superseded entries from the front and shows what comes next.
    fn peek(&mut self) -> Option<&Entry> {
        while let Some(Entry { body: Body::Superseded, .. }) = self.entries.front() {
            self.pop();
        }
        self.entries.front()
    }
}

/// Bytes on a lane, and the send budget that they still hold: given back as they leave, the rest with the last of them.
#[derive(Debug)]
struct Pending {
    bytes: Bytes,
    held: usize,
}

#[derive(Debug)]
struct LaneOut {
    /// Encoded, not yet handed to the transport.
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Bytes that may have been sent in all on this use of the lane, and bytes sent.
    allowed: u64,
    sent: u64,
    /// The transport couldn't take more when last asked.
    blocked: bool,
    /// The streamed message that this lane carries.
    streaming: Option<u64>,
    /// Lanes above 0: carries a message, or waits for its release.
    busy: bool,
    /// The lane ends with the pending bytes.
    fin: bool,
}

impl LaneOut {
    fn new(window: usize) -> Self {
        Self {
            pending: VecDeque::new(),
            pending_bytes: 0,
            allowed: window as u64,
            sent: 0,
            blocked: false,
            streaming: None,
            busy: false,
            fin: false,
        }
    }

    fn credit(&self) -> usize {
        usize::try_from(self.allowed.saturating_sub(self.sent)).unwrap_or(usize::MAX)
    }

    fn push(&mut self, bytes: Bytes, held: usize) {
        if !bytes.is_empty() {
            self.pending_bytes += bytes.len();
            self.pending.push_back(Pending { bytes, held });
        }
    }

    fn push_record(&mut self, record: Record) {
        let mut head = BytesMut::with_capacity(8);
        record.encode(&mut head);
        self.push(head.freeze(), 0);
    }
}

/// The writer's end of a streamed message.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) number: u64,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) stopped: Arc<OnceLock<u32>>,
}

/// Bytes taken off a lane for the transport.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) bytes: usize,
    /// The lane ends here.
    pub(crate) fin: bool,
    /// Send budget that is free again.
    pub(crate) released: usize,
    /// Messages that left the queue, and how long they waited in it, summed and at most, in nanoseconds.
    pub(crate) messages: u64,
    pub(crate) waited_sum: u64,
    pub(crate) waited_max: u64,
    /// Those of them that copies are kept of, with their numbers on the class's own lane.
    pub(crate) begun: Vec<(u64, Bytes)>,
}

/// One class's waiting messages and lanes.
#[derive(Debug)]
pub(crate) struct ClassQueue {
    order: Order,
    large_window: usize,
    small: Line,
    large: Line,
    keyed: HashMap<u64, (bool, u64)>,
    streams: BTreeMap<u64, StreamOut>,
    next_stream: u64,
    lanes: Vec<LaneOut>,
    /// Whole messages that lane 0 has carried, or begun to.
    numbered: u64,
    /// Copies are kept of those that come next.
    copying: bool,
    /// Where the round over the lanes goes on.
    turn: usize,
}

/// What a queued message costs of its class's budget.
pub(crate) const fn cost(len: usize) -> usize {
    len.saturating_add(limits::ENTRY_OVERHEAD)
}

/// What a message on a stream of its own costs of the credit of its class's own lane.
pub(crate) const fn message_stream_cost(len: usize) -> usize {
    len.saturating_add(limits::MESSAGE_STREAM_OVERHEAD)
}

impl ClassQueue {
    /// Windows and lanes are the receiver's, from its hello.
    pub(crate) fn new(class: &TrafficClass) -> Self {
        let mut lanes = vec![LaneOut::new(class.window)];
        lanes.extend((0..class.large_lanes).map(|_| LaneOut::new(class.large_window)));
        Self {
            order: class.order,
            large_window: class.large_window,
            small: Line::default(),
            large: Line::default(),
            keyed: HashMap::new(),
            streams: BTreeMap::new(),
            next_stream: 0,
            lanes,
            numbered: 0,
            copying: false,
            turn: 0,
        }
    }

    fn goes_large(&self, len: usize) -> bool {
        self.order == Order::Any && self.lanes.len() > 1 && len > limits::SMALL_MESSAGE
    }

    /// Queues a whole message, paid for.
    pub(crate) fn push(&mut self, bytes: Bytes, key: Option<u64>, queued: Instant) {
        let large = self.goes_large(bytes.len());
        let line = if large { &mut self.large } else { &mut self.small };
        let number = line.push(Entry { body: Body::Whole(bytes), key, queued });
        if let Some(key) = key {
            self.keyed.insert(key, (large, number));
        }
    }

    /// Takes a queued message of this key back, if it hasn't begun to leave.
    pub(crate) fn supersede(&mut self, key: u64) -> Option<Bytes> {
        let (large, number) = self.keyed.remove(&key)?;
        let line = if large { &mut self.large } else { &mut self.small };
        let entry = line.get_mut(number)?;
        match std::mem::replace(&mut entry.body, Body::Superseded) {
            Body::Whole(bytes) => Some(bytes),
            other => {
                entry.body = other;
                None
            }
        }
    }

    /// The size of the queued message of this key.
    pub(crate) fn keyed_len(&mut self, key: u64) -> Option<usize> {
        let (large, number) = *self.keyed.get(&key)?;
        match &(if large { &mut self.large } else { &mut self.small }).get_mut(number)?.body {
            Body::Whole(bytes) => Some(bytes.len()),
            _ => None,
        }
    }

    /// Queues a streamed message; its writer fills it by the number given back.
    pub(crate) fn open(&mut self, queued: Instant) -> Opened {
        let number = self.next_stream;
        self.next_stream += 1;
        let room = Arc::new(Semaphore::new(limits::STREAM_BUFFER));
        let stopped = Arc::new(OnceLock::new());
        self.streams.insert(number, StreamOut { chunks: VecDeque::new(), end: None, stopped: stopped.clone(), room: room.clone() });
        let large = self.order == Order::Any && self.lanes.len() > 1;
        let line = if large { &mut self.large } else { &mut self.small };
        line.push(Entry { body: Body::Streamed(number), key: None, queued });
        Opened { number, room, stopped }
    }

    /// Adds to a streamed message. Room was taken before.
    pub(crate) fn append(&mut self, number: u64, chunk: Bytes) {
        if let Some(stream) = self.streams.get_mut(&number).filter(|stream| stream.end.is_none()) {
            stream.chunks.push_back(chunk);
        }
    }

    /// Ends a streamed message. An abort takes back what hasn't left.
    pub(crate) fn end(&mut self, number: u64, end: End) {
        if let Some(stream) = self.streams.get_mut(&number).filter(|stream| stream.end.is_none()) {
            stream.end = Some(end);
            if end != End::Complete {
                stream.chunks.clear();
            }
        }
    }

    /// The receiver doesn't want the rest of this streamed message.
    pub(crate) fn stop(&mut self, number: u64, code: u32) {
        if let Some(stream) = self.streams.get_mut(&number) {
            let _ = stream.stopped.set(code);
            stream.chunks.clear();
            stream.end = Some(End::Aborted(code));
            stream.room.close();
        }
    }

    /// Raises a lane's credit to a total. `false`: there's no such lane.
    pub(crate) fn credit(&mut self, slot: u8, total: u64) -> bool {
        let Some(lane) = self.lanes.get_mut(usize::from(slot)) else { return false };
        lane.allowed = lane.allowed.max(total);
        true
    }

    /// Frees a large message's slot. `false`: it wasn't waiting for that.
    pub(crate) fn release(&mut self, slot: u8) -> bool {
        match self.lanes.get_mut(usize::from(slot)) {
            Some(lane) if slot > 0 && lane.busy && !lane.fin && lane.streaming.is_none() && lane.pending.is_empty() => {
                *lane = LaneOut::new(self.large_window);
                true
            }
            _ => false,
        }
    }

    fn stream_ready(&self, number: u64) -> bool {
        self.streams.get(&number).is_some_and(|s| !s.chunks.is_empty() || s.end.is_some())
    }

    /// Whether a lane has bytes to send, credit and the transport apart.
    fn has_data(&mut self, slot: usize) -> bool {
        let lane = &self.lanes[slot];
        if !lane.pending.is_empty() || lane.fin {
            return true;
        }
        if let Some(number) = lane.streaming {
            return self.stream_ready(number);
        }
        if slot == 0 { self.small.peek().is_some() } else { !lane.busy && self.large.peek().is_some() }
    }

    /// Whether anything of this class is waiting.
    pub(crate) fn waiting(&mut self) -> bool {
        (0..self.lanes.len()).any(|slot| self.has_data(slot))
    }

    /// Messages that haven't begun to leave.
    pub(crate) fn queued(&self) -> u64 {
        let waiting = |line: &Line| line.entries.iter().filter(|entry| !matches!(entry.body, Body::Superseded)).count();
        (waiting(&self.small) + waiting(&self.large)) as u64
    }

    /// Nothing queued, nothing begun, no streamed message open.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.streams.is_empty() && self.small.peek().is_none() && self.large.peek().is_none() && !self.waiting()
    }

    /// The lane that may send now, in turn.
    pub(crate) fn ready_lane(&mut self) -> Option<u8> {
        let count = self.lanes.len();
        for i in 0..count {
            let slot = (self.turn + i) % count;
            let lane = &self.lanes[slot];
            if !lane.blocked && (lane.credit() > 0 || (lane.fin && lane.pending.is_empty())) && self.has_data(slot) {
                return Some(slot as u8);
            }
        }
        None
    }

    /// Whether a message of so many bytes may leave on a stream of its own. It shares the credit of lane 0, whose begun
    /// bytes go first: else one message after another would overtake them for ever.
    pub(crate) fn may_leave_alone(&self, len: usize) -> bool {
        let lane = &self.lanes[0];
        lane.streaming.is_none() && lane.credit() >= lane.pending_bytes.saturating_add(message_stream_cost(len))
    }

    /// A message of so many bytes leaves on a stream of its own.
    pub(crate) fn leaves_alone(&mut self, len: usize) {
        self.lanes[0].sent += message_stream_cost(len) as u64;
    }

    /// The size of the first waiting message of lane 0, if it's a whole one.
    pub(crate) fn next_small(&mut self) -> Option<usize> {
        match self.small.peek()? {
            Entry { body: Body::Whole(bytes), .. } => Some(bytes.len()),
            _ => None,
        }
    }

    /// Takes the message that [`next_small`](Self::next_small) showed, to leave on no lane.
    pub(crate) fn take_small(&mut self, now: Instant) -> Option<(Bytes, Taken)> {
        let entry = self.small.pop()?;
        let Body::Whole(bytes) = entry.body else { return None };
        self.forget(entry.key, false);
        let mut taken = Taken { bytes: bytes.len(), released: cost(bytes.len()), ..Taken::default() };
        taken.left(entry.queued, now);
        Some((bytes, taken))
    }

    fn forget(&mut self, key: Option<u64>, large: bool) {
        let line = if large { &self.large } else { &self.small };
        if let Some(key) = key
            && self.keyed.get(&key).is_some_and(|(l, number)| *l == large && *number < line.first)
        {
            self.keyed.remove(&key);
        }
    }

    /// Whether copies are kept of the messages that leave on lane 0.
    pub(crate) fn keep_copies(&mut self, copying: bool) {
        self.copying = copying;
    }

    /// A whole message begins on lane 0.
    fn begins(&mut self, message: &Bytes, taken: &mut Taken) {
        if self.copying && message.len() <= limits::MESSAGE_STREAM {
            taken.begun.push((self.numbered, message.clone()));
        }
        self.numbered += 1;
    }

    fn refill(&mut self, slot: usize, now: Instant, taken: &mut Taken) {
        loop {
            let lane = &mut self.lanes[slot];
            if lane.pending_bytes > 0 || lane.fin {
                return;
            }
            if let Some(number) = lane.streaming {
                let Some(stream) = self.streams.get_mut(&number) else { return };
                while lane.pending_bytes < limits::QUANTUM
                    && let Some(chunk) = stream.chunks.pop_front()
                {
                    stream.room.add_permits(chunk.len());
                    lane.push_record(Record::Part(chunk.len() as u64));
                    lane.push(chunk, 0);
                }
                if stream.chunks.is_empty()
                    && let Some(end) = stream.end
                {
                    lane.push_record(match end {
                        End::Complete => Record::End,
                        End::Aborted(code) => Record::Abort(code),
                    });
                    lane.streaming = None;
                    lane.fin = slot > 0;
                    self.streams.remove(&number);
                }
                return;
            }
            if slot > 0 && lane.busy {
                return;
            }
            let large = slot > 0;
            let line = if large { &mut self.large } else { &mut self.small };
            if line.peek().is_none() {
                return;
            }
            let Some(entry) = line.pop() else { return };
            taken.left(entry.queued, now);
            match entry.body {
                Body::Whole(bytes) if !large && bytes.len() <= COALESCE => {
                    let mut run = BytesMut::with_capacity(bytes.len() + 4);
                    Record::Whole(bytes.len() as u64).encode(&mut run);
                    run.extend_from_slice(&bytes);
                    self.begins(&bytes, taken);
                    self.forget(entry.key, false);
                    let held = cost(bytes.len()) + self.coalesce(&mut run, now, taken);
                    self.lanes[slot].push(run.freeze(), held);
                    return;
                }
                Body::Whole(bytes) => {
                    if !large {
                        self.begins(&bytes, taken);
                    }
                    let lane = &mut self.lanes[slot];
                    lane.push_record(Record::Whole(bytes.len() as u64));
                    let held = cost(bytes.len());
                    lane.push(bytes, held);
                    lane.busy = large;
                    lane.fin = large;
                    self.forget(entry.key, large);
                    return;
                }
                Body::Streamed(number) => {
                    lane.push_record(Record::Start(number));
                    lane.streaming = Some(number);
                    lane.busy = large;
                    return;
                }
                Body::Superseded => {}
            }
        }
    }

    /// Adds the small messages that come next to a run, up to a quantum. The send budget that they hold.
    fn coalesce(&mut self, run: &mut BytesMut, now: Instant, taken: &mut Taken) -> usize {
        let mut held = 0;
        while let Some(Entry { body: Body::Whole(next), .. }) = self.small.peek()
            && next.len() <= COALESCE
            && run.len() + next.len() + 4 <= limits::QUANTUM
        {
            let Some(entry) = self.small.pop() else { break };
            if let Body::Whole(bytes) = entry.body {
                held += cost(bytes.len());
                Record::Whole(bytes.len() as u64).encode(run);
                run.extend_from_slice(&bytes);
                self.begins(&bytes, taken);
                taken.left(entry.queued, now);
                self.forget(entry.key, false);
            }
        }
        held
    }

    /// Takes at most `max` bytes off a lane, within its credit: the end of one message and the beginning of the next
    /// together, since a transport's cost is by the piece.
    pub(crate) fn take(&mut self, slot: u8, max: usize, now: Instant) -> Taken {
        let slot = usize::from(slot);
        let mut taken = Taken::default();
        let mut room = max.min(self.lanes[slot].credit());
        loop {
            self.refill(slot, now, &mut taken);
            let lane = &mut self.lanes[slot];
            while room > 0
                && let Some(mut front) = lane.pending.pop_front()
            {
                let piece = if front.bytes.len() <= room { std::mem::take(&mut front.bytes) } else { front.bytes.split_to(room) };
                room -= piece.len();
                taken.bytes += piece.len();
                lane.pending_bytes -= piece.len();
                let released = if front.bytes.is_empty() { front.held } else { front.held.min(piece.len()) };
                taken.released += released;
                if !front.bytes.is_empty() {
                    front.held -= released;
                    lane.pending.push_front(front);
                }
                taken.chunks.push(piece);
            }
            if room == 0 || lane.fin || !self.has_data(slot) {
                break;
            }
        }
        self.turn = (slot + 1) % self.lanes.len();
        let lane = &mut self.lanes[slot];
        lane.sent += taken.bytes as u64;
        if lane.fin && lane.pending.is_empty() {
            lane.fin = false;
            taken.fin = true;
        }
        taken
    }

    /// Gives back what the transport didn't take.
    pub(crate) fn give_back(&mut self, slot: u8, rest: Vec<Bytes>, fin: bool) {
        let Some(lane) = self.lanes.get_mut(usize::from(slot)) else { return };
        for chunk in rest.into_iter().rev().filter(|chunk| !chunk.is_empty()) {
            lane.pending_bytes += chunk.len();
            lane.sent = lane.sent.saturating_sub(chunk.len() as u64);
            // Its budget is free again already.
            lane.pending.push_front(Pending { bytes: chunk, held: 0 });
        }
        lane.fin |= fin;
    }

    /// Wakes the writers of streamed messages: the connection is over.
    pub(crate) fn close_rooms(&self) {
        self.streams.values().for_each(|stream| stream.room.close());
    }

    /// Marks a lane as blocked by the transport.
    pub(crate) fn block(&mut self, slot: u8) {
        if let Some(lane) = self.lanes.get_mut(usize::from(slot)) {
            lane.blocked = true;
        }
    }

    /// Lifts all marks.
    pub(crate) fn unblock(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.blocked = false);
    }

    /// Bytes waiting in the queue and on the lanes: for statistics.
    pub(crate) fn depth(&self) -> usize {
        self.lanes.iter().map(|lane| lane.pending_bytes).sum::<usize>()
            + [&self.small, &self.large]
                .into_iter()
                .flat_map(|line| &line.entries)
                .map(|e| if let Body::Whole(b) = &e.body { b.len() } else { 0 })
                .sum::<usize>()
    }
}

impl Taken {
    fn left(&mut self, queued: Instant, now: Instant) {
        let waited = u64::try_from(now.saturating_duration_since(queued).as_nanos()).unwrap_or(u64::MAX);
        self.messages += 1;
        self.waited_sum = self.waited_sum.saturating_add(waited);
        self.waited_max = self.waited_max.max(waited);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::class::table::Urgency;

    fn queue() -> ClassQueue {
        ClassQueue::new(&TrafficClass { window: 1 << 20, ..TrafficClass::new("a", 1, Urgency::Bulk, Order::Any) })
    }

    #[test]
    fn a_piece_holds_the_end_of_one_message_and_the_beginning_of_the_next() {
        let now = Instant::now();
        let mut queue = queue();
        let sizes = [65_536, 10, 5_000, 0, 2_000, 65_536, 1];
        for size in sizes {
            queue.push(Bytes::from(vec![size as u8; size]), None, now);
        }
        let (mut pieces, mut bytes, mut released, mut messages) = (Vec::new(), Vec::new(), 0, 0);
        while queue.waiting() {
            let slot = queue.ready_lane().unwrap();
            let taken = queue.take(slot, 16_000, now);
            pieces.push(taken.bytes);
            bytes.extend(taken.chunks.concat());
            released += taken.released;
            messages += taken.messages;
            // The budget comes back as the bytes leave, not before and not long after.
            assert!(released <= bytes.len() + sizes.len() * limits::ENTRY_OVERHEAD && released + 16_000 >= bytes.len());
        }
        let (last, full) = pieces.split_last().unwrap();
        assert!(full.iter().all(|len| *len == 16_000) && *last > 0, "{pieces:?}");
        assert_eq!(released, sizes.iter().map(|size| cost(*size)).sum::<usize>());
        assert_eq!(messages, sizes.len() as u64);
        let mut expected = Vec::new();
        for size in sizes {
            Record::Whole(size as u64).encode(&mut expected);
            expected.extend(vec![size as u8; size]);
        }
        assert_eq!(bytes, expected);
    }

    #[test]
    fn messages_that_leave_alone_use_the_lanes_credit_and_pass_no_begun_one() {
        let now = Instant::now();
        let mut queue = ClassQueue::new(&TrafficClass { window: 20_000, ..TrafficClass::new("a", 1, Urgency::Latency, Order::Any) });
        queue.push(Bytes::from(vec![1; 10_000]), None, now);
        let begun = queue.take(0, 4000, now).bytes;
        assert_eq!(begun, 4000);
        let rest = 10_000 + 4 - begun;
        let fits = 20_000 - begun - rest - limits::MESSAGE_STREAM_OVERHEAD;
        assert!(queue.may_leave_alone(fits) && !queue.may_leave_alone(fits + 1));
        queue.leaves_alone(fits);
        assert!(!queue.may_leave_alone(0));
        assert_eq!(queue.take(0, 10_000, now).bytes, rest, "the begun one's credit is left");
        assert_eq!(queue.ready_lane(), None);
        assert!(queue.credit(0, 20_000 + 1000) && queue.may_leave_alone(1000 - limits::MESSAGE_STREAM_OVERHEAD));
    }

    #[test]
    fn a_large_messages_lane_ends_with_its_message() {
        let now = Instant::now();
        let mut queue = queue();
        queue.push(Bytes::from(vec![1; 70_000]), None, now);
        queue.push(Bytes::from(vec![2; 70_000]), None, now);
        let mut ended = Vec::new();
        while let Some(slot) = queue.ready_lane() {
            let taken = queue.take(slot, 100_000, now);
            assert_eq!((taken.bytes, taken.fin), (70_004, true));
            ended.push(slot);
        }
        assert_eq!(ended, [1, 2]);
    }

    #[test]
    fn what_is_given_back_leaves_again_and_frees_no_budget_twice() {
        let now = Instant::now();
        let mut queue = queue();
        queue.push(Bytes::from(vec![1; 5_000]), None, now);
        queue.push(Bytes::from(vec![2; 5_000]), None, now);
        let first = queue.take(0, 8_000, now);
        let mut released = first.released;
        let whole = first.chunks.concat();
        queue.give_back(0, vec![Bytes::copy_from_slice(&whole[3_000..])], false);
        let rest = queue.take(0, 16_000, now);
        released += rest.released;
        assert_eq!(released, 2 * cost(5_000));
        assert_eq!(rest.chunks.concat()[..5_000], whole[3_000..]);
        assert_eq!(3_000 + rest.bytes, 2 * 5_004);
        assert!(!queue.waiting());
    }
}
