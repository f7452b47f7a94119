//! MISSING_DATA from our side: cells by their hash, and whole trees of them.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use peerlane_cell::{CellSink as _, MAX_EMBEDDED, MemoryCells, Ref, ValueId, decode, encode, refs};

use super::{Client, ClientError};
use crate::{Message, Payload, Value, limits::MAX_HASHES, value::CONVEX};

/// Data requests under way at once. The reference peer serves them one after the other, from the queue that QUERY uses too.
const IN_FLIGHT: usize = 3;

/// How large a tree may be. What is held of it while it comes is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Cells.
    pub cells: usize,
    /// Bytes of their encodings. Each cell costs about 150 bytes besides.
    pub bytes: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { cells: 1_000_000, bytes: 256 << 20 }
    }
}

/// One DATA_REQUEST: the encodings in the order of the hashes.
pub(super) async fn data(client: &Client, hashes: &[ValueId]) -> Result<Vec<Option<Bytes>>, ClientError> {
    let result = client.request(Message::data_request(0, hashes)?).await?;
    let Payload::Result(outcome) = result.parse()? else { return Err(ClientError::Malformed("an answer that is no Result")) };
    if outcome.error.is_some() {
        let value = result.value(&outcome.value).unwrap_or_else(Value::nil);
        let info = result.value(&outcome.info).unwrap_or_else(Value::nil);
        let refused = super::Answer { value, error: outcome.error, log: Value::nil(), info }.ok();
        return Err(refused.err().unwrap_or(ClientError::Malformed("an error without a code")));
    }
    let cells = result.body().cells();
    let vector = Value::resolve(&outcome.value, cells).ok_or(ClientError::Malformed("an answer to a data request without its vector"))?;
    let items = match &vector.cell {
        peerlane_cell::Cell::Vector(items) if items.len() == hashes.len() as u64 => vector.reader().vector_iter(items, 0..items.len()),
        _ => return Err(ClientError::Malformed("an answer to a data request with more or fewer cells than asked for")),
    };
    let mut found = Vec::with_capacity(hashes.len());
    for (hash, item) in hashes.iter().zip(items) {
        found.push(match item? {
            Ref::Branch(id) if id == *hash => Some(vector.cells.0.get(&id).cloned().ok_or(ClientError::WrongCell(*hash))?),
            Ref::Branch(_) => return Err(ClientError::WrongCell(*hash)),
            // A cell of at most 140 bytes comes embedded; nil stands for one that isn't held, unless nil was asked for.
            Ref::Embedded(cell) => {
                let encoding = encode(&cell);
                match CONVEX.id(&encoding) == *hash {
                    true => Some(encoding),
                    false if cell.is_nil() => None,
                    false => return Err(ClientError::WrongCell(*hash)),
                }
            }
        });
    }
    Ok(found)
}

/// A tree: requests go out as soon as there is something to ask for, several at a time.
pub(super) async fn fetch(client: &Client, root: ValueId, limits: FetchLimits) -> Result<Value, ClientError> {
    let mut cells = MemoryCells::default();
    let mut top = None;
    let mut bytes = 0usize;
    let mut seen = HashSet::from([root]);
    let mut wanted = VecDeque::from([root]);
    let mut asked = FuturesUnordered::new();
    loop {
        while asked.len() < IN_FLIGHT && !wanted.is_empty() {
            // The width of a tree is shared among the requests, so that none waits for one that has it all.
            let size = wanted.len().div_ceil(IN_FLIGHT - asked.len()).clamp(1, MAX_HASHES);
            let part: Vec<ValueId> = wanted.drain(..size).collect();
            asked.push(async move {
                let found = data(client, &part).await;
                (part, found)
            });
        }
        let Some((part, found)) = asked.next().await else { break };
        for (id, encoding) in part.into_iter().zip(found?) {
            let encoding = encoding.ok_or(ClientError::Missing(id))?;
            let malformed = ClientError::Malformed("a cell that isn't in canonical form");
            let cell = decode(&encoding, &CONVEX).map_err(|_| malformed)?;
            if id != root && encoding.len() <= MAX_EMBEDDED {
                return Err(ClientError::Malformed("a branch of at most 140 bytes"));
            }
            bytes = bytes.saturating_add(encoding.len());
            if bytes > limits.bytes {
                return Err(ClientError::FetchLimit { what: "bytes", max: limits.bytes });
            }
            wanted.extend(refs(&cell).filter(|id| seen.insert(*id)));
            if seen.len() > limits.cells {
                return Err(ClientError::FetchLimit { what: "cells", max: limits.cells });
            }
            if id == root {
                top = Some(cell);
            }
            // Copied: a slice would hold the whole frame that it came in.
            cells.put(id, Bytes::copy_from_slice(&encoding));
        }
    }
    let cell = top.ok_or(ClientError::Missing(root))?;
    Ok(Value { cell, cells })
}
