//! Beliefs: deltas, folding, parts.

use super::*;
use crate::cad015::Staging;
use crate::cad015::{Message, MessageType};

fn store() -> Store {
    Store::in_memory("test", *NATIVE).unwrap()
}

fn fill(store: &Store, (ops, cells): (Vec<Verified>, MemoryCells)) {
    assert!(store.append(ops, &cells).unwrap().iter().all(Result::is_ok));
}

/// Sends messages as bytes and merges what they carry; what was missing.
fn receive(store: &Store, messages: &[Message]) -> Vec<ValueId> {
    let mut staging = Staging::new(1 << 24);
    let mut root = None;
    for (i, message) in messages.iter().enumerate() {
        let bytes = message.encode();
        assert!(bytes.len() <= MAX_BELIEF);
        let message = Message::decode(&bytes, &NATIVE).unwrap();
        let belief = Belief::open(&message, &NATIVE).unwrap();
        assert_eq!((belief.part, belief.parts, belief.peer), (i as u64, messages.len() as u64, account(9)));
        assert_eq!(belief.is_last(), i + 1 == messages.len());
        assert_eq!(staging.add(message.branches), 0);
        root = Some(belief.root);
    }
    store.merge(&root.unwrap(), &staging, 1000).unwrap().missing
}

#[test]
fn deltas_bring_another_store_up_to_date() {
    let (ours, theirs) = (store(), store());
    let mut since = 0;
    let mut sent = 0;
    for (sequence, count) in [(1, 1), (2, 30), (32, 1), (33, 400)] {
        fill(&ours, run(0, sequence, count, "a"));
        let delta = ours.belief(since, Include::Own);
        since = delta.version;
        let messages = delta.messages(&signer(9), 5, MAX_BELIEF, &NATIVE).unwrap();
        assert_eq!(messages.len() > 1, count == 400);
        assert_eq!(receive(&theirs, &messages), vec![]);
        assert_eq!(ours.root(), theirs.root());
        sent += messages.iter().map(Message::encoded_len).sum::<usize>();
    }
    assert!(sent < 400_000, "each cell went once: {sent}");
    let nothing = ours.belief(since, Include::All);
    assert_eq!(nothing.cells, vec![]);
    assert_eq!(theirs.belief(0, Include::Own).cells, vec![], "it appended nothing itself");
    assert!(!theirs.belief(0, Include::All).cells.is_empty());
}

#[test]
fn a_thousand_superseded_deltas_leave_nothing_missing() {
    let (ours, theirs) = (store(), store());
    let mut queued: Option<BeliefDelta> = None;
    let mut since = 0;
    for sequence in 1..=1000u64 {
        fill(&ours, run((sequence % 3) as u8, sequence.div_ceil(3), 1, "a"));
        let delta = ours.belief(since, Include::Own);
        since = delta.version;
        queued = Some(match queued.take() {
            Some(older) => BeliefDelta::fold(older, delta, &NATIVE),
            None => delta,
        });
    }
    let delta = queued.unwrap();
    let messages = delta.messages(&signer(9), 5, MAX_BELIEF, &NATIVE).unwrap();
    assert_eq!(receive(&theirs, &messages), vec![]);
    assert_eq!(ours.root(), theirs.root());
    // nodes that were superseded on the way aren't sent: two cells an operation, and the trees
    assert!(delta.cells.len() < 2_200, "{}", delta.cells.len());
}

#[test]
fn folding_is_the_same_in_either_order() {
    let ours = store();
    fill(&ours, run(0, 1, 20, "a"));
    let first = ours.belief(0, Include::Own);
    fill(&ours, run(0, 21, 20, "a"));
    let second = ours.belief(first.version, Include::Own);
    let sorted = |mut delta: BeliefDelta| {
        delta.cells.sort();
        delta
    };
    let folded = sorted(BeliefDelta::fold(first.clone(), second.clone(), &NATIVE));
    assert_eq!(folded, sorted(BeliefDelta::fold(second, first, &NATIVE)));
    assert_eq!(folded, sorted(ours.belief(0, Include::Own)));
}

#[test]
fn a_small_limit_makes_more_parts_and_an_empty_store_one() {
    let ours = store();
    let messages = ours.belief(0, Include::Own).messages(&signer(9), 1, MAX_BELIEF, &NATIVE).unwrap();
    assert_eq!(messages.len(), 1);
    assert_eq!(receive(&store(), &messages), vec![]);
    fill(&ours, run(0, 1, 1, "a"));
    assert_eq!(receive(&store(), &ours.belief(0, Include::Own).messages(&signer(9), 1, MAX_BELIEF, &NATIVE).unwrap()), vec![]);
    fill(&ours, run(0, 2, 30, "a"));
    let messages = ours.belief(0, Include::Own).messages(&signer(9), 1, 2_000, &NATIVE).unwrap();
    assert!(messages.len() > 8 && messages.iter().all(|m| m.encoded_len() <= 2_000));
    let theirs = store();
    assert_eq!(receive(&theirs, &messages), vec![]);
    assert_eq!(theirs.root(), ours.root());
}

#[test]
fn what_is_no_belief_is_refused() {
    let ours = store();
    fill(&ours, run(0, 1, 5, "a"));
    let good = ours.belief(0, Include::Own).messages(&signer(9), 1, MAX_BELIEF, &NATIVE).unwrap().remove(0);
    assert!(Belief::open(&good, &NATIVE).is_ok());
    let mut bytes = good.encode().to_vec();
    bytes[50] ^= 1; // in the signature
    let changed = Message::decode(&bytes.into(), &NATIVE).unwrap();
    assert!(matches!(Belief::open(&changed, &NATIVE), Err(BeliefError::Signature(_))));
    let mut other = good.clone();
    other.kind = MessageType::Transact;
    assert!(matches!(Belief::open(&other, &NATIVE), Err(BeliefError::Shape(_))));
    // an account's operation is signed in the same context, but is no belief
    let operation = put(9, 1, "k", b"v", &mut MemoryCells::default());
    assert!(matches!(Belief::open(&Message::belief(operation, []), &NATIVE), Err(BeliefError::Shape(_))));
    let mut staging = Staging::new(500);
    let refused = staging.add(good.branches.clone());
    assert!(refused > 0 && staging.bytes() <= 500);
}
