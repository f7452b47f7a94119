//! Acquires missing cells: MISSING_DATA to those who may have them, several hashes in a request, several requests in
//! flight. What comes back is verified by its hash: a DATA's cells are named by it.

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::oneshot, time::sleep};

use super::{MAX_HASHES, Message, Payload};
use crate::cell::{Profile, ValueId};

/// Parts of what is missing that are asked for at once, over all sources.
pub const IN_FLIGHT: usize = 4;
/// A source that has said nothing for so long isn't waited for alone: another one is asked too. Longer than an honest
/// answer of some 64 KiB takes on a slow path.
pub const HEDGE: Duration = Duration::from_secs(1);

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
    /// Sources that gave nothing of what they were asked for, or nothing before another one did.
    pub useless: Vec<S>,
}

/// One round: asks the sources, in turn, for these cells, [`MAX_HASHES`] at a time. A source that says nothing for
/// [`HEDGE`], or has nothing, doesn't hold its part of them up: another one is asked for it. Cells that a source leaves out
/// are for the caller to ask for again. Never more than [`IN_FLIGHT`] such parts at once, each with two requests at most.
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
    let mut parts = missing.chunks(size).enumerate();
    let ask = |(i, hashes)| ask_each(fetch, sources.iter().cycle().skip(i % sources.len()).take(sources.len()), hashes, profile);
    let mut asked: FuturesUnordered<_> = parts.by_ref().take(IN_FLIGHT).map(ask).collect();
    while let Some((cells, useless)) = asked.next().await {
        fetched.cells.extend(cells);
        fetched.useless.extend(useless);
        if let Some(next) = parts.next() {
            asked.push(ask(next));
        }
    }
    fetched
}

/// Asks the sources for the same cells, one after the other, until one gives some. The cells, and the sources that gave none.
async fn ask_each<'a, F: Fetch>(
    fetch: &F,
    mut sources: impl Iterator<Item = &'a F::Source>,
    hashes: &[ValueId],
    profile: &Profile,
) -> (Vec<(ValueId, Bytes)>, Vec<F::Source>)
where
    F::Source: 'a,
{
    let ask = |source: &'a F::Source| {
        let (giving_up, given_up) = oneshot::channel::<()>();
        let asking = async move {
            tokio::select! {
                biased;
                cells = ask_one(fetch, source, hashes, profile) => (source, cells),
                // Dropping the request tells the source.
                _ = given_up => (source, Vec::new()),
            }
        };
        (giving_up, asking)
    };
    let mut useless = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut silent = VecDeque::new();
    let mut more = true;
    loop {
        if more {
            match sources.next() {
                Some(source) => {
                    let (giving_up, asking) = ask(source);
                    running.push(asking);
                    silent.push_back((source, giving_up));
                    // The bound.
                    if silent.len() > 2 {
                        silent.pop_front();
                    }
                }
                None => more = false,
            }
        }
        tokio::select! {
            biased;
            Some((source, cells)) = running.next() => {
                silent.retain(|(asked, _)| *asked != source);
                if !cells.is_empty() {
                    // Whoever is still silent was asked before, and was slower.
                    let slower = silent.drain(..).map(|(source, _)| source.clone());
                    useless.extend(slower);
                    return (cells, useless);
                }
                useless.push(source.clone());
                if running.is_empty() && !more {
                    return (Vec::new(), useless);
                }
            }
            () = sleep(HEDGE), if more => {}
            else => return (Vec::new(), useless),
        }
    }
}

/// The cells that one source gives of those it's asked for.
async fn ask_one<F: Fetch>(fetch: &F, source: &F::Source, hashes: &[ValueId], profile: &Profile) -> Vec<(ValueId, Bytes)> {
    let answer = match Message::missing_data(0, hashes, profile) {
        Ok(request) => fetch.fetch(source, request).await,
        Err(_) => None,
    };
    let wanted: HashSet<&ValueId> = hashes.iter().collect();
    // Only what was asked for: a source can't fill our memory with other cells.
    match answer {
        Some(answer) if matches!(answer.parse(profile), Ok(Payload::Data { .. })) => {
            answer.branches.into_iter().filter(|(id, _)| wanted.contains(id)).collect()
        }
        _ => Vec::new(),
    }
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

    /// Source "all" has everything, "none" nothing, "late" comes to nothing in 5 s, "stuck" never answers, "other" sends what
    /// wasn't asked for.
    #[derive(Default)]
    struct Sources {
        now: AtomicUsize,
        most: AtomicUsize,
        requests: AtomicUsize,
    }

    /// A request under way, which may be dropped.
    struct Now<'a>(&'a AtomicUsize);

    impl Drop for Now<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Fetch for Sources {
        type Source = &'static str;

        async fn fetch(&self, source: &&'static str, request: Message) -> Option<Message> {
            self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let now = Now(&self.now);
            self.requests.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            match *source {
                "late" => sleep(Duration::from_secs(5)).await,
                "stuck" => std::future::pending().await,
                _ => {}
            }
            drop(now);
            let Payload::MissingData { id, hashes } = request.parse(&NATIVE).unwrap() else { panic!() };
            let all: std::collections::BTreeMap<_, _> = (0..2000).map(cell).collect();
            let give = |hash: &ValueId| match *source {
                "all" => Some((*hash, all.get(hash)?.clone())),
                "other" => Some(cell(9999)),
                _ => None,
            };
            let cells: Vec<_> = hashes.iter().map(give).collect();
            (*source != "late").then(|| Message::data(id, &cells, 1 << 20, &NATIVE).unwrap())
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

    #[tokio::test(start_paused = true)]
    async fn sources_that_give_nothing_useful_are_named_and_others_asked_in_their_place() {
        let missing: Vec<ValueId> = (0..8).map(|n| cell(n).0).collect();
        for useless in ["none", "late", "stuck", "other"] {
            let fetched = acquire(&Sources::default(), &[useless, "all"], &missing, &NATIVE).await;
            assert!(fetched.useless.iter().all(|s| *s == useless) && !fetched.useless.is_empty());
            assert_eq!(fetched.cells.len(), 8, "{useless}: all came from the source that has all");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_never_answers_holds_nothing_up_for_longer_than_it_takes_to_ask_the_next() {
        let missing: Vec<ValueId> = (0..1000).map(|n| cell(n).0).collect();
        for stuck in 1..6u32 {
            let mut sources = vec!["stuck"; stuck as usize];
            sources.push("all");
            let start = tokio::time::Instant::now();
            let asked = Sources::default();
            let fetched = acquire(&asked, &sources, &missing, &NATIVE).await;
            assert_eq!(fetched.cells.len(), 1000);
            assert!(start.elapsed() <= HEDGE * stuck, "{:?}", start.elapsed());
            assert!(asked.most.load(Ordering::SeqCst) <= 2 * IN_FLIGHT + IN_FLIGHT);
        }
    }
}
