//! What happened, in 32 bytes.

use std::{fmt, time::Duration};

use bytes::Bytes;
use peerlane_transport::identity::PeerId;

use crate::wire::Channel;

/// A hash over every segment delivered so far: when, from whom, to whom, on which lane, how long, and its bytes.
/// Two runs with equal hashes were the same run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceHash([u8; 32]);

impl TraceHash {
    /// As bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 64 hex digits.
impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceHash({self})")
    }
}

/// The running hash.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    pub(crate) segments: u64,
}

impl Trace {
    pub(crate) fn delivered(&mut self, at: Duration, from: &PeerId, to: &PeerId, channel: Channel, fin: bool, chunks: &[Bytes]) {
        self.segments += 1;
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let length: usize = chunks.iter().map(Bytes::len).sum();
        // Every field has a fixed width, or its length before it: two different runs never hash alike by their seams.
        self.hasher.update(&nanos.to_be_bytes()).update(from.as_bytes()).update(to.as_bytes());
        self.hasher.update(&channel.name()).update(&[u8::from(fin)]).update(&(length as u64).to_be_bytes());
        for chunk in chunks {
            self.hasher.update(chunk);
        }
    }

    pub(crate) fn hash(&self) -> TraceHash {
        TraceHash(*self.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use peerlane_transport::{class::Lane, identity::Identity};

    use super::*;

    #[test]
    fn every_field_counts_and_the_cuts_between_chunks_do_not() {
        let [a, b] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]).unwrap().peer_id());
        let hash = |at, from, to, channel, fin, chunks: &[&'static [u8]]| {
            let mut trace = Trace::default();
            let chunks: Vec<_> = chunks.iter().copied().map(Bytes::from_static).collect();
            trace.delivered(Duration::from_millis(at), from, to, channel, fin, &chunks);
            trace.hash()
        };
        let lane = |class, slot| Channel::Lane(Lane { class, slot });
        let base = hash(1, &a, &b, lane(1, 0), false, &[b"one", b"two"]);
        assert_eq!(base, hash(1, &a, &b, lane(1, 0), false, &[b"onetwo"]));
        assert_eq!(base.to_string().len(), 64);
        for other in [
            hash(2, &a, &b, lane(1, 0), false, &[b"onetwo"]),
            hash(1, &b, &a, lane(1, 0), false, &[b"onetwo"]),
            hash(1, &a, &b, lane(1, 1), false, &[b"onetwo"]),
            hash(1, &a, &b, lane(1, 0), true, &[b"onetwo"]),
            hash(1, &a, &b, lane(1, 0), false, &[b"onetw"]),
            hash(1, &a, &b, Channel::Control, false, &[b"onetwo"]),
        ] {
            assert_ne!(base, other);
        }
    }
}
