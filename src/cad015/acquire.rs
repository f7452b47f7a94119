//! Acquires missing cells: MISSING_DATA to those who may have them, several hashes in a request, several requests in
//! flight. What comes back is verified by its hash: a DATA's cells are named by it.

use std::{collections::HashSet, future::Future};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use super::{MAX_HASHES, Message, Payload};
use crate::cell::{Profile, ValueId};

/// Requests in flight at once, over all sources.
pub const IN_FLIGHT: usize = 4;

/// Asks a source for cells.
pub trait Fetch: Sync {
    /// A source.
    type Source: Clone + Eq + Send + Sync;

    /// Sends MISSING_DATA and waits for the DATA; `None` if it doesn't come in time.
    fn fetch(&self, source: &Self::Source, request: Message) -> impl Future<Output = Option<Message>> + Send;
}

/// What one round brought.
#[derive(Debug)]
pub struct Fetched<S> {
    /// Cells that were asked for, by the hash of their bytes.
    pub cells: Vec<(ValueId, Bytes)>,
    /// Sources that gave nothing of what they were asked for.
    pub useless: Vec<S>,
}

/// One round: asks the sources, in turn, for these cells, [`MAX_HASHES`] at a time. Cells that a source leaves out are
/// for the caller to ask for again. Never more than [`IN_FLIGHT`] requests at once.
///
/// # Cancel safety
/// Not cancel-safe: what has come is lost if the future is dropped.
pub async fn acquire<F: Fetch>(fetch: &F, sources: &[F::Source], missing: &[ValueId], profile: &Profile) -> Fetched<F::Source> {
    let mut fetched = Fetched { cells: Vec::new(), useless: Vec::new() };
    if sources.is_empty() {
        return fetched;
    }
    // Small requests when there's little to ask for, so that all sources share in it.
    let size = missing.len().div_ceil(IN_FLIGHT).clamp(1, MAX_HASHES);
    let mut requests = missing.chunks(size).zip(sources.iter().cycle());
    let ask = |(hashes, source): (&[ValueId], &F::Source)| {
        let (hashes, source) = (hashes.to_vec(), source.clone());
        async move {
            let answer = match Message::missing_data(0, &hashes, profile) {
                Ok(request) => fetch.fetch(&source, request).await,
                Err(_) => None,
            };
            let wanted: HashSet<ValueId> = hashes.into_iter().collect();
            // Only what was asked for: a source can't fill our memory with other cells.
            let cells: Vec<_> = match answer {
                Some(answer) if matches!(answer.parse(profile), Ok(Payload::Data { .. })) => {
                    answer.branches.into_iter().filter(|(id, _)| wanted.contains(id)).collect()
                }
                _ => Vec::new(),
            };
            (source, cells)
        }
    };
    let mut asked: FuturesUnordered<_> = requests.by_ref().take(IN_FLIGHT).map(ask).collect();
    while let Some((source, cells)) = asked.next().await {
        if cells.is_empty() {
            fetched.useless.push(source);
        }
        fetched.cells.extend(cells);
        if let Some(next) = requests.next() {
            asked.push(ask(next));
        }
    }
    fetched
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::cell::{Cell, encode};

    const NATIVE: Profile = Profile::NATIVE;

    fn cell(n: u16) -> (ValueId, Bytes) {
        let mut bytes = vec![0; 300];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        let encoding = encode(&Cell::blob(bytes).unwrap());
        (NATIVE.id(&encoding), encoding)
    }

    /// Source "all" has everything, "none" nothing, "silent" never answers, "other" sends what wasn't asked for.
    #[derive(Default)]
    struct Sources {
        now: AtomicUsize,
        most: AtomicUsize,
        requests: AtomicUsize,
    }

    impl Fetch for Sources {
        type Source = &'static str;

        async fn fetch(&self, source: &&'static str, request: Message) -> Option<Message> {
            self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            self.requests.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            let Payload::MissingData { id, hashes } = request.parse(&NATIVE).unwrap() else { panic!() };
            let all: std::collections::BTreeMap<_, _> = (0..2000).map(cell).collect();
            let give = |hash: &ValueId| match *source {
                "all" => Some((*hash, all.get(hash)?.clone())),
                "other" => Some(cell(9999)),
                _ => None,
            };
            let cells: Vec<_> = hashes.iter().map(give).collect();
            (*source != "silent").then(|| Message::data(id, &cells, 1 << 20, &NATIVE).unwrap())
        }
    }

    #[tokio::test]
    async fn many_hashes_go_in_few_requests_and_few_at_once() {
        let sources = Sources::default();
        let missing: Vec<ValueId> = (0..2000).map(|n| cell(n).0).collect();
        let fetched = acquire(&sources, &["all"], &missing, &NATIVE).await;
        let got: HashSet<ValueId> = fetched.cells.iter().map(|(id, _)| *id).collect();
        assert_eq!(got, missing.into_iter().collect());
        assert_eq!(sources.requests.load(Ordering::SeqCst), 2000usize.div_ceil(MAX_HASHES));
        assert_eq!(sources.most.load(Ordering::SeqCst), IN_FLIGHT);
    }

    #[tokio::test]
    async fn sources_that_give_nothing_useful_are_named() {
        let missing: Vec<ValueId> = (0..8).map(|n| cell(n).0).collect();
        for useless in ["none", "silent", "other"] {
            let fetched = acquire(&Sources::default(), &[useless, "all"], &missing, &NATIVE).await;
            assert!(fetched.useless.iter().all(|s| *s == useless) && !fetched.useless.is_empty());
            assert_eq!(fetched.cells.len(), 4, "the other half came from the source that has all");
        }
    }
}
