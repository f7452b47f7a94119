//! The workload `transact`: signed operations of one account, in their order, to a reference peer's service.
//!
//! The messages are CAD015's, made before the load begins; the responder is [`Service`] over a store in memory, which checks each
//! signature and that each sequence is the next one. Order holds from end to end or the RESULT says so.

use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use peerlane_transport::identity::Identity;

use crate::{
    bench::{Workload, error::LabError, variant::NETWORK},
    cad015::{ErrorCode, Message, MessageType, peek_id, peek_kind},
    cell::{MemoryCells, Profile},
    peer::{Edit, Operation, Service, Store, read_outcome},
};

/// The account's secret key: any.
const ACCOUNT: [u8; 32] = [7; 32];
/// Keys that the account writes over and over.
const KEYS: u64 = 64;
/// What a TRANSACT has beside the operation's value, in bytes, at most.
pub(crate) const OVERHEAD: usize = 1024;

/// The profile of its cells.
fn profile() -> Profile {
    Profile::NATIVE.in_network(NETWORK)
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LabError {
    std::io::Error::other(error).into()
}

/// So many requests, each with the account's next operation; the ID of each is its index.
pub(super) fn requests(count: usize, work: &Workload) -> Result<Vec<Bytes>, LabError> {
    let (key, profile) = (SigningKey::from_bytes(&ACCOUNT), profile());
    let request = |i: u64| {
        let value: Bytes = (0..work.query_bytes).map(|at| (at as u8).wrapping_mul(151).wrapping_add(i as u8)).collect();
        let edit = Edit::Put { key: format!("key {}", i % KEYS).into(), value };
        let mut cells = MemoryCells::default();
        let signed = Operation::sign(&edit, i + 1, &key, &profile, &mut cells).map_err(failed)?;
        Ok(Message::transact(i, vec![signed], &profile).map_err(failed)?.with_branches(cells.0).encode())
    };
    (0..count as u64).map(request).collect()
}

/// What a RESULT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// It's in the log.
    InOrder,
    /// Its sequence wasn't the next one.
    OutOfOrder,
    /// It was refused for another reason.
    Refused,
}

/// The ID of a RESULT, and what it says; `None` if it's none.
pub(super) fn read(message: &Bytes) -> Option<(u64, Applied)> {
    let id = peek_id(message).filter(|_| peek_kind(message) == Some(MessageType::Result))?;
    let profile = profile();
    let outcome = Message::decode(message, &profile).ok().and_then(|message| read_outcome(&message, &profile).ok());
    let applied = match outcome.map(|outcome| outcome.error) {
        Some(None) => Applied::InOrder,
        Some(Some(ErrorCode::Sequence)) => Applied::OutOfOrder,
        Some(Some(_)) | None => Applied::Refused,
    };
    Some((id, applied))
}

/// The responder.
#[derive(Debug)]
pub(super) struct Responder(Service, Profile);

impl Responder {
    pub(super) fn new() -> Result<Self, LabError> {
        let store = Arc::new(Store::in_memory(NETWORK, Profile::NATIVE).map_err(failed)?);
        Ok(Self(Service::new(store, Identity::generate()?.peer_id(), NETWORK, Arc::default()), profile()))
    }

    /// The RESULT to a TRANSACT; `None` for what is none.
    pub(super) async fn answer(&self, message: &Bytes) -> Option<Bytes> {
        if peek_kind(message) != Some(MessageType::Transact) {
            return None;
        }
        let message = Message::decode(message, &self.1).ok()?;
        Some(self.0.answer(&message).await?.encode())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn operations_are_applied_in_order_and_one_that_comes_too_early_is_told() {
        for query_bytes in [0, 100, 5_000] {
            let work = Workload { query_bytes, ..Workload::default() };
            let requests = requests(4, &work).unwrap();
            assert!(requests.iter().all(|request| request.len() <= query_bytes + OVERHEAD), "{}", requests[0].len());
            let responder = Responder::new().unwrap();
            let mut said = Vec::new();
            for i in [0, 1, 3, 2] {
                said.push(read(&responder.answer(&requests[i]).await.unwrap()).unwrap());
            }
            assert_eq!(said, [(0, Applied::InOrder), (1, Applied::InOrder), (3, Applied::OutOfOrder), (2, Applied::InOrder)]);
            // One that was changed on its way.
            let mut forged = requests[3].to_vec();
            let last = forged.len() - 1;
            forged[last] ^= 1;
            let answer = responder.answer(&forged.into()).await;
            assert!(answer.is_none_or(|answer| read(&answer).is_some_and(|(_, applied)| applied == Applied::Refused)));
            assert!(responder.answer(&Bytes::from_static(&[3; 100])).await.is_none(), "a BELIEF of a flood");
        }
    }
}
