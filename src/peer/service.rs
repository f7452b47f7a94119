//! What the reference peer answers: STATUS, PING, QUERY, TRANSACT and MISSING_DATA. It knows the store and no network.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use peerlane_transport::identity::PeerId;
use tokio::{
    sync::{Mutex, Notify, Semaphore},
    time::Instant,
};

use super::{Counts, FormError, Operation, Query, Store, StoreError, Verified};
use crate::{
    cad015::{ErrorCode, Message, MessageError, Outcome, Payload},
    cell::{Cell, CellSource, MemoryCells, Profile, Reader, Ref, Signed, TreeError, ValueId, Vector, Writer},
};

/// A STATUS is answered from one that is younger than this (CAD015: "peers MAY cache their most recent status response").
pub const STATUS_AGE: Duration = Duration::from_secs(1);

/// Bytes of cells in one DATA: it stays below the data class's 512 KiB.
pub const MAX_DATA: usize = 384 * 1024;

/// Requests of one kind that work on the store at once. Count: as many as a node has workers for a class.
pub(super) const DESKS: usize = 16;

/// What a peer says of itself: the value of the RESULT to STATUS, `[root peer network accounts operations keys cells uptime]`,
/// the last in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The value ID of the root.
    pub root: ValueId,
    /// Who answers.
    pub peer: PeerId,
    /// The network's name.
    pub network: String,
    /// How much there is.
    pub counts: Counts,
    /// Time since the peer started.
    pub uptime: Duration,
}

impl Status {
    fn cell(&self) -> Cell {
        let blob = |bytes: &[u8; 32]| Ref::Embedded(Arc::new(Cell::blob(Bytes::copy_from_slice(bytes)).unwrap_or(Cell::Nil)));
        let integer = |n: u64| Ref::Embedded(Arc::new(Cell::Integer(i64::try_from(n).unwrap_or(i64::MAX))));
        let network = Cell::string(Bytes::copy_from_slice(self.network.as_bytes())).unwrap_or(Cell::Nil);
        let Counts { accounts, operations, keys, cells } = self.counts;
        let uptime = u64::try_from(self.uptime.as_millis()).unwrap_or(u64::MAX);
        let items = [blob(self.root.as_bytes()), blob(self.peer.as_bytes()), Ref::Embedded(Arc::new(network))];
        let items = items.into_iter().chain([accounts, operations, keys, cells, uptime].map(integer));
        Cell::Vector(Vector::short(items))
    }

    /// Reads the value of the RESULT to STATUS. Elements behind those known are ignored.
    ///
    /// # Errors
    /// [`FormError`] if it's no status.
    pub fn read(value: &Ref, cells: &dyn CellSource, profile: &Profile) -> Result<Self, FormError> {
        let wrong = || FormError::Shape("the answer isn't a status");
        let cell = Reader::new(profile, cells).resolve(value)?;
        let Some([root, peer, network, accounts, operations, keys, held, uptime, ..]) = cell.as_short_vector() else { return Err(wrong()) };
        let blob = |r: &Ref| r.embedded().and_then(Cell::as_blob32).ok_or_else(wrong);
        let number = |r: &Ref| r.embedded().and_then(Cell::as_integer).and_then(|n| u64::try_from(n).ok()).ok_or_else(wrong);
        let text = network.embedded().and_then(Cell::as_string).and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(wrong)?;
        Ok(Self {
            root: ValueId(blob(root)?),
            peer: PeerId::from_bytes(blob(peer)?).map_err(|_| wrong())?,
            network: text.to_owned(),
            counts: Counts { accounts: number(accounts)?, operations: number(operations)?, keys: number(keys)?, cells: number(held)? },
            uptime: Duration::from_millis(number(uptime)?),
        })
    }
}

/// Answers requests from a store. One per peer.
#[derive(Debug)]
pub struct Service {
    store: Arc<Store>,
    peer: PeerId,
    network: String,
    started: Instant,
    status: Mutex<Option<(Instant, Message)>>,
    changed: Arc<Notify>,
    desks: Desks,
}

/// Work on the store in progress, by what is asked, so that none takes another's. A request that is taken back frees its
/// worker at once, and the work goes on until it's done: without a bound of its own, who asks and takes back would fill our
/// memory with it.
#[derive(Debug)]
struct Desks {
    query: Arc<Semaphore>,
    transact: Arc<Semaphore>,
    data: Arc<Semaphore>,
    status: Arc<Semaphore>,
}

impl Desks {
    fn new() -> Self {
        let desk = || Arc::new(Semaphore::new(DESKS));
        Self { query: desk(), transact: desk(), data: desk(), status: desk() }
    }
}

impl Service {
    /// A service of this store. `changed` is notified when TRANSACT has added something.
    #[must_use]
    pub fn new(store: Arc<Store>, peer: PeerId, network: &str, changed: Arc<Notify>) -> Self {
        Self { store, peer, network: network.to_owned(), started: Instant::now(), status: Mutex::new(None), changed, desks: Desks::new() }
    }

    /// The answer to a request; `None` for what isn't one, or isn't this service's.
    ///
    /// # Cancel safety
    /// Dropping the future drops the answer; operations that the store had begun to append are appended.
    pub async fn answer(&self, message: &Message) -> Option<Message> {
        let profile = *self.store.profile();
        let payload = match message.parse(&profile) {
            Ok(payload) => payload,
            Err(error) => {
                let id = message.id().filter(|_| message.kind.is_request())?;
                let code = if matches!(error, MessageError::Tree(TreeError::Missing(_))) { ErrorCode::Missing } else { ErrorCode::Format };
                return Some(Message::error(id, &code, &error.to_string()));
            }
        };
        Some(match payload {
            Payload::Status { id } => self.status(id).await,
            Payload::Ping { id } => Message::result(
                id,
                Ref::Embedded(Arc::new(Cell::Integer(i64::try_from(self.store.surroundings.wall_ms()).unwrap_or(i64::MAX)))),
            ),
            Payload::Query { id, form } => match Query::read(&form, &message.cells(), &profile) {
                Ok(query) => {
                    self.blocking(&self.desks.query, id, move |store| Ok(query.answer(&store.snapshot()?)?.message(id, store.profile())?))
                        .await
                }
                Err(error) => Message::error(id, &code_of(&error), &error.to_string()),
            },
            Payload::Transact { id, operations } => {
                let cells = message.cells();
                let changed = self.changed.clone();
                self.blocking(&self.desks.transact, id, move |store| {
                    let answer = transact(store, id, &operations, &cells);
                    // Here, because who asked may have given up, and the operations are in all the same.
                    changed.notify_one();
                    answer
                })
                .await
            }
            Payload::MissingData { id, hashes } => {
                self.blocking(&self.desks.data, id, move |store| {
                    let snapshot = store.snapshot()?;
                    let cells: Vec<_> = hashes.iter().map(|hash| Some((*hash, snapshot.get(hash)?))).collect();
                    Message::data(id, &cells, MAX_DATA, store.profile()).map_err(|_| StoreError::from(TreeError::WrongType("data")))
                })
                .await
            }
            _ => return None,
        })
    }

    async fn status(&self, id: u64) -> Message {
        // One asks the store while the others wait for what it says.
        let mut cached = self.status.lock().await;
        if let Some((at, status)) = &*cached
            && at.elapsed() < STATUS_AGE
        {
            return status.clone().with_id(id);
        }
        let (peer, network, uptime) = (self.peer, self.network.clone(), self.started.elapsed());
        let status = self
            .blocking(&self.desks.status, id, move |store| {
                let snapshot = store.snapshot()?;
                let status = Status { root: snapshot.root()?, peer, network, counts: snapshot.counts()?, uptime };
                let mut cells = MemoryCells::default();
                // Usually too long to embed: then it's carried as a branch.
                let value = Writer::new(store.profile(), &mut cells).link(status.cell())?;
                Ok(Message::result(id, value).with_branches(cells.0))
            })
            .await;
        *cached = Some((Instant::now(), status.clone()));
        status
    }

    /// Work on the store, which blocks on the disk, off the runtime's threads.
    async fn blocking(
        &self,
        desk: &Arc<Semaphore>,
        id: u64,
        work: impl FnOnce(&Store) -> Result<Message, StoreError> + Send + 'static,
    ) -> Message {
        let store = self.store.clone();
        // Never closed.
        let place = desk.clone().acquire_owned().await;
        let working = self.store.surroundings.work(move || {
            let answer = work(&store);
            drop(place);
            answer
        });
        match working.await {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => {
                if !matches!(error, StoreError::Failed) {
                    tracing::error!(%error, "the store failed");
                }
                // Nothing of our disk to a client.
                Message::error(id, &ErrorCode::State, "the peer's store failed; its log says more")
            }
            None => Message::error(id, &ErrorCode::State, "the peer is shutting down"),
        }
    }
}

fn code_of(error: &FormError) -> ErrorCode {
    match error {
        FormError::Tree(TreeError::Missing(_)) => ErrorCode::Missing,
        _ => ErrorCode::Argument,
    }
}

/// Applies operations. The RESULT's value is their number, or a text about the first that failed. A request with a
/// malformed or badly signed operation is refused whole; one with a wrong sequence keeps what comes before it.
fn transact(store: &Store, id: u64, operations: &[Signed], cells: &dyn CellSource) -> Result<Message, StoreError> {
    let profile = store.profile();
    let reader = Reader::new(profile, cells);
    let refuse = |i: usize, code: &ErrorCode, why: &dyn std::fmt::Display| {
        Message::error(id, code, &format!("operation {i} of this request: {why}"))
    };
    let mut read = Vec::with_capacity(operations.len());
    for (i, signed) in operations.iter().enumerate() {
        match Operation::read(signed, &reader) {
            Ok(operation) => read.push(operation),
            Err(error) => return Ok(refuse(i, &error.code(), &error)),
        }
    }
    let verified = match Verified::all(read, profile) {
        Ok(verified) => verified,
        Err((i, error)) => return Ok(refuse(i, &error.code(), &error)),
    };
    let results = store.append(verified, cells)?;
    Ok(match results.iter().enumerate().find_map(|(i, result)| Some((i, result.as_ref().err()?))) {
        Some((i, wrong)) => refuse(i, &ErrorCode::Sequence, wrong),
        None => Message::result(id, Ref::Embedded(Arc::new(Cell::Integer(results.len() as i64)))),
    })
}

/// Reads the RESULT to a request.
///
/// # Errors
/// [`FormError`] if it's no RESULT.
pub fn read_outcome(message: &Message, profile: &Profile) -> Result<Outcome, FormError> {
    match message.parse(profile) {
        Ok(Payload::Result(outcome)) => Ok(outcome),
        Ok(_) => Err(FormError::Shape("the answer isn't a RESULT")),
        Err(MessageError::Tree(error)) => Err(error.into()),
        Err(_) => Err(FormError::Shape("the RESULT is malformed")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use ed25519_dalek::SigningKey;
    use peerlane_transport::identity::Identity;

    use std::sync::LazyLock;

    use super::*;
    use crate::peer::{Answer, Edit};

    /// The profile of the network of these tests.
    static NATIVE: LazyLock<Profile> = LazyLock::new(|| Profile::NATIVE.in_network("test"));

    fn service() -> Service {
        let store = Arc::new(Store::in_memory("test", *NATIVE).unwrap());
        Service::new(store, Identity::from_seed(&[1; 32]).unwrap().peer_id(), "test", Arc::default())
    }

    fn transact(operations: &[(u64, u8)]) -> Message {
        let key = SigningKey::from_bytes(&[9; 32]);
        let mut cells = MemoryCells::default();
        let sign = |(sequence, value): &(u64, u8)| {
            let edit = Edit::Put { key: Bytes::from_static(b"k"), value: Bytes::from(vec![*value; 300]) };
            Operation::sign(&edit, *sequence, &key, &NATIVE, &mut cells).unwrap()
        };
        let signed: Vec<_> = operations.iter().map(sign).collect();
        Message::transact(3, signed, &NATIVE).unwrap().with_branches(cells.0)
    }

    async fn ask(service: &Service, message: &Message) -> Outcome {
        // As it arrives.
        let message = Message::decode(&message.encode(), &NATIVE).unwrap();
        read_outcome(&service.answer(&message).await.unwrap(), &NATIVE).unwrap()
    }

    #[tokio::test]
    async fn operations_are_applied_read_back_and_refused_with_their_code() {
        let service = service();
        assert_eq!(ask(&service, &transact(&[(1, 1), (2, 2)])).await.error, None);
        let query = Query::Get { account: SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes(), key: Bytes::from_static(b"k") };
        let answer = service.answer(&query.message(&NATIVE).unwrap().with_id(8)).await.unwrap();
        let value = read_outcome(&answer, &NATIVE).unwrap();
        assert_eq!(value.id, 8);
        assert_eq!(query.read_answer(&value.value, &answer.cells(), &NATIVE).unwrap(), Answer::Value(Some(vec![2; 300].into())));
        // Again: already there. A gap, and another operation at a used sequence: refused.
        assert_eq!(ask(&service, &transact(&[(2, 2)])).await.error, None);
        assert_eq!(ask(&service, &transact(&[(4, 4)])).await.error, Some(ErrorCode::Sequence));
        assert_eq!(ask(&service, &transact(&[(2, 5)])).await.error, Some(ErrorCode::Sequence));
        let mut forged = transact(&[(3, 3)]).encode().to_vec();
        let at = forged.len() - 330;
        forged[at] ^= 1;
        if let Ok(message) = Message::decode(&forged.into(), &NATIVE)
            && let Some(answer) = service.answer(&message).await
        {
            assert!(read_outcome(&answer, &NATIVE).unwrap().error.is_some());
        }
    }

    #[tokio::test]
    async fn what_is_signed_for_one_network_holds_in_no_other() {
        // The same account, the same operations, and a peer of another network.
        let store = Arc::new(Store::in_memory("elsewhere", *NATIVE).unwrap());
        let other = Service::new(store.clone(), Identity::from_seed(&[1; 32]).unwrap().peer_id(), "elsewhere", Arc::default());
        assert_eq!(ask(&other, &transact(&[(1, 1)])).await.error, Some(ErrorCode::Signature));
        assert_eq!(store.snapshot().unwrap().counts().unwrap().operations, 0);
        // Nor by gossip: the lattice of the one is proven invalid to the other.
        let here = service();
        assert_eq!(ask(&here, &transact(&[(1, 1)])).await.error, None);
        let snapshot = here.store.snapshot().unwrap();
        let theirs = here.store.belief(0, crate::peer::Include::All).root;
        assert!(matches!(store.merge(&theirs, &snapshot, 100), Err(crate::peer::StoreMergeError::Invalid(_))));
        let key = SigningKey::from_bytes(&[1; 32]);
        let belief = here.store.belief(0, crate::peer::Include::All).messages(&key, 1, crate::peer::MAX_BELIEF, here.store.profile());
        let belief = belief.unwrap().remove(0);
        assert!(crate::peer::Belief::open(&belief, here.store.profile()).is_ok());
        assert!(matches!(crate::peer::Belief::open(&belief, store.profile()), Err(crate::peer::BeliefError::Signature(_))));
    }

    #[tokio::test]
    async fn missing_data_is_answered_with_what_is_held() {
        let service = service();
        ask(&service, &transact(&[(1, 1)])).await;
        let root = service.store.root();
        let absent = ValueId([5; 32]);
        let known: Vec<ValueId> =
            transact(&[(1, 1)]).branches.iter().map(|(id, _)| *id).filter(|id| service.store.snapshot().unwrap().has(id)).collect();
        assert!(!known.is_empty(), "{root:?}");
        let asked: Vec<ValueId> = known.iter().copied().chain([absent]).collect();
        let answer = service.answer(&Message::missing_data(4, &asked, &NATIVE).unwrap()).await.unwrap();
        let Payload::Data { id: 4, cells } = answer.parse(&NATIVE).unwrap() else { panic!() };
        let expected: Vec<_> = known.into_iter().map(Some).chain([None]).collect();
        assert_eq!(cells, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn status_is_cached_for_less_than_a_second() {
        let service = service();
        let read = |message: Message| Status::read(&read_outcome(&message, &NATIVE).unwrap().value, &message.cells(), &NATIVE).unwrap();
        let first = read(service.answer(&Message::status(1)).await.unwrap());
        service.answer(&transact(&[(1, 1)])).await.unwrap();
        let second = service.answer(&Message::status(2)).await.unwrap();
        assert_eq!(second.id(), Some(2));
        assert_eq!(read(second), first);
        tokio::time::advance(STATUS_AGE).await;
        assert_eq!(read(service.answer(&Message::status(3)).await.unwrap()).counts.operations, 1);
    }

    #[tokio::test]
    async fn what_is_no_request_gets_no_answer() {
        let service = service();
        assert!(service.answer(&Message::result(1, Ref::nil())).await.is_none());
        assert!(service.answer(&Message::goodbye("x")).await.is_none());
        let wrong = ask(&service, &Message::query(1, [Ref::nil()])).await;
        assert_eq!(wrong.error, Some(ErrorCode::Argument));
    }
}
