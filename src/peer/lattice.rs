//! The lattice: accounts' logs, joined.
//!
//! The value is an Index from account to its log, a vector of signed operations whose element i has sequence i + 1.
//!
//! *Order.* Two logs of one account are compared at their first difference: a log is above its own prefixes; where both have an operation,
//! the one whose signed cell has the smaller value ID is above. That's a total order on logs, the join of two is the greater, and the
//! join of two lattice values joins them account by account: idempotent, commutative, associative. An honest account never makes a
//! difference, so its logs only grow. One that signs two operations with one sequence (*equivocation*) has, on all peers, the
//! same one of the two in the end, and whoever sees both reports it.
//!
//! *Work.* What the store holds is complete and merged already, so a merge enters only what the store doesn't hold. Whether one log is a
//! prefix of another is decided by cutting the longer: equal vectors have equal cells.
//!
//! *Trust.* An operation enters the lattice only as [`Verified`], with its own sequence and account; one that fails condemns the whole
//! foreign root, because its signer vouched for it.
//!
//! No I/O and no clock here: sources come in, a [`Change`] goes out.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use super::operation::{Account, Operation, OperationError, Verified};
use crate::cell::{
    Cell, CellSource, Index, Layers, Overlay, Profile, Reader, Ref, Signed, TreeError, ValueId, Vector, Writer, missing_below, new_below,
};

/// The most operations that one step of a merge adopts: bounds the memory and the duration of one transaction.
pub const MERGE_STEP: usize = 4096;

/// A new lattice value, not stored yet.
#[derive(Debug, Clone)]
pub struct Change {
    /// The new root.
    pub root: Index,
    /// The cells below it, itself included, that the store doesn't hold, nearest first.
    pub cells: Vec<(ValueId, Bytes)>,
    /// What happened to each account, in the order of their keys.
    pub accounts: Vec<AccountChange>,
}

/// What happened to one account's log.
#[derive(Debug, Clone)]
pub struct AccountChange {
    /// Whose.
    pub account: Account,
    /// The length of the log before.
    pub before: u64,
    /// How many of its operations stay: fewer than `before` when an equivocation was decided against the rest.
    pub kept: u64,
    /// The operations that follow those.
    pub added: Vec<Verified>,
    /// The new log.
    pub log: Vector,
}

/// Two valid operations of one account with the same sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Equivocation {
    /// Who signed both.
    pub account: Account,
    /// The sequence of both.
    pub sequence: u64,
    /// The value ID of the signed operation that stays.
    pub kept: ValueId,
    /// The value ID of the one that goes.
    pub dropped: ValueId,
}

/// What became of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It's the account's newest.
    New,
    /// The log had this very operation at its sequence: a repeated request.
    Already,
}

/// Why an operation wasn't appended: its sequence isn't the account's next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sequence {got}: the account's next is {next}")]
pub struct WrongSequence {
    /// The operation's.
    pub got: u64,
    /// The account's next.
    pub next: u64,
}

/// Why a foreign root can't be merged at all. Its signer vouched for it and is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The cells aren't an index from account to log.
    #[error("the foreign root is malformed: {0}")]
    Malformed(TreeError),
    /// It has a key that's no account, or a log that's no vector.
    #[error("the foreign root is no lattice: {0}")]
    Shape(&'static str),
    /// One of its operations is invalid.
    #[error("operation {sequence} of account {}: {error}", hex(account))]
    Operation {
        /// Whose log.
        account: Account,
        /// Its place in the log.
        sequence: u64,
        /// What's wrong with it.
        error: OperationError,
    },
}

fn hex(account: &Account) -> String {
    data_encoding::HEXLOWER.encode(account)
}

/// One step of a merge.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// What to store, if anything is new.
    pub change: Option<Change>,
    /// Cells needed to go on, nearest first. Not all of them if they exceed the caller's limit.
    pub missing: Vec<ValueId>,
    /// [`MERGE_STEP`] was reached: store the change and call again.
    pub more: bool,
    /// Equivocations met.
    pub equivocations: Vec<Equivocation>,
}

/// Appends operations to their accounts' logs, each in its turn: O(log n) cells per account, whatever the number.
///
/// `staged` holds what the operations' cells refer to; `held` is the store. After one with a wrong sequence, those of its
/// account that follow in the batch are refused too.
///
/// # Errors
/// [`TreeError`] when the store's own cells are missing or malformed. A wrong sequence is that operation's result, not an error.
#[expect(clippy::type_complexity, reason = "a result per operation, and the change")]
pub fn append(
    profile: &Profile,
    held: &dyn CellSource,
    staged: &dyn CellSource,
    root: &Index,
    batch: Vec<Verified>,
) -> Result<(Option<Change>, Vec<Result<Appended, WrongSequence>>), TreeError> {
    let layers = Layers(staged, held);
    let mut cells = Overlay::new(&layers);
    let mut writer = Writer::new(profile, &mut cells);
    let mut logs: BTreeMap<Account, AccountChange> = BTreeMap::new();
    let mut results = Vec::with_capacity(batch.len());
    let mut failed = HashSet::new();
    for operation in batch {
        let account = operation.account;
        let change = match logs.entry(account) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let log = log_of(&writer.reader(), root, &account)?;
                let before = log.len();
                entry.insert(AccountChange { account, before, kept: before, added: Vec::new(), log })
            }
        };
        let next = change.log.len() + 1;
        let link = writer.link(Cell::Signed(Box::new(operation.signed.clone())))?;
        // What follows one that failed was signed to come after it.
        let wrong = Err(WrongSequence { got: operation.sequence, next });
        results.push(if failed.contains(&account) {
            wrong
        } else if operation.sequence == next {
            change.log = writer.vector_push(&change.log, link)?;
            change.added.push(operation);
            Ok(Appended::New)
        } else if operation.sequence < next && writer.reader().vector_get(&change.log, operation.sequence - 1)? == Some(link) {
            Ok(Appended::Already)
        } else {
            failed.insert(account);
            wrong
        });
    }
    Ok((finish(profile, held, cells, root, logs)?, results))
}

/// The log of an account, empty if it has none.
pub fn log_of(reader: &Reader<'_>, root: &Index, account: &Account) -> Result<Vector, TreeError> {
    let Some(log) = reader.index_get(root, account)? else { return Ok(Vector::empty()) };
    match &*reader.resolve(&log)? {
        Cell::Vector(log) => Ok(log.clone()),
        _ => Err(TreeError::WrongType("log")),
    }
}

/// Joins a foreign root into ours, as far as the cells at hand allow.
///
/// `staged` holds cells that came from outside, each hashed but not judged otherwise. The step adopts what is whole and names up to `limit` cells that
/// are missing; the caller stores the change, acquires those, and calls again with the new root. What it adopts is
/// valid by itself, so nothing is lost if the rest never comes, and staged cells that the store now holds can be let go.
///
/// # Errors
/// [`MergeError`]: the foreign root is proven invalid. Nothing of this step is to be stored then.
pub fn merge(
    profile: &Profile,
    held: &dyn CellSource,
    staged: &dyn CellSource,
    root: &Index,
    theirs: &Ref,
    limit: usize,
) -> Result<Step, MergeError> {
    let layers = Layers(staged, held);
    let mut merger = Merger {
        profile,
        held,
        staged,
        layers: &layers,
        root,
        limit: limit.max(1),
        seen: HashSet::new(),
        logs: BTreeMap::new(),
        adopted: 0,
        kept: Overlay::new(&layers),
        step: Step::default(),
    };
    merger.index(theirs)?;
    let Merger { logs, kept, mut step, .. } = merger;
    step.change = finish(profile, held, kept, root, logs).map_err(MergeError::Malformed)?;
    Ok(step)
}

/// Puts the changed logs under a new root and collects what's new below it.
fn finish(
    profile: &Profile,
    held: &dyn CellSource,
    mut cells: Overlay<'_>,
    root: &Index,
    logs: BTreeMap<Account, AccountChange>,
) -> Result<Option<Change>, TreeError> {
    let accounts: Vec<AccountChange> = logs.into_values().filter(|change| !change.added.is_empty()).collect();
    if accounts.is_empty() {
        return Ok(None);
    }
    let mut writer = Writer::new(profile, &mut cells);
    let mut root = root.clone();
    for change in &accounts {
        let log = writer.link(Cell::Vector(change.log.clone()))?;
        root = writer.index_assoc(&root, &change.account, log)?;
    }
    let link = writer.link(Cell::Index(root.clone()))?;
    let new = new_below(&Cell::Vector(Vector::short([link])), &cells, held, profile)?;
    Ok(Some(Change { root, cells: new, accounts }))
}

struct Merger<'a> {
    profile: &'a Profile,
    held: &'a dyn CellSource,
    staged: &'a dyn CellSource,
    layers: &'a Layers<'a>,
    root: &'a Index,
    limit: usize,
    /// What's in `step.missing`.
    seen: HashSet<ValueId>,
    logs: BTreeMap<Account, AccountChange>,
    adopted: usize,
    kept: Overlay<'a>,
    step: Step,
}

type Merged<T> = Result<T, MergeError>;

impl<'a> Merger<'a> {
    fn reader(&self) -> Reader<'a> {
        Reader::new(self.profile, self.layers)
    }

    fn note(&mut self, id: ValueId) {
        if self.step.missing.len() < self.limit && self.seen.insert(id) {
            self.step.missing.push(id);
        }
    }

    /// A missing cell is noted and gives `None`; what's malformed is an error.
    fn held_or_noted<T>(&mut self, result: Result<T, TreeError>) -> Merged<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(TreeError::Missing(id)) => {
                self.note(id);
                Ok(None)
            }
            Err(other) => Err(MergeError::Malformed(other)),
        }
    }

    fn full(&self) -> bool {
        self.step.missing.len() >= self.limit || self.adopted >= MERGE_STEP
    }

    /// In the store, so merged already.
    fn merged(&self, child: &Ref) -> bool {
        child.branch().is_some_and(|id| self.held.has(id))
    }

    fn index(&mut self, theirs: &Ref) -> Merged<()> {
        if self.merged(theirs) {
            return Ok(());
        }
        let reader = self.reader();
        let Some(top) = self.held_or_noted(reader.resolve(theirs))? else { return Ok(()) };
        let Cell::Index(top) = &*top else { return Err(MergeError::Shape("its root is an index")) };
        let mut stack = vec![top.clone()];
        while let Some(node) = stack.pop() {
            if let Some((key, log)) = node.entry() {
                let account = key.embedded().and_then(Cell::as_blob32).ok_or(MergeError::Shape("its keys are accounts"))?;
                self.account(account, log)?;
            }
            let at = stack.len();
            for (child, depth, place) in node.below() {
                if self.full() {
                    break;
                }
                if !self.merged(child) {
                    let below = self.held_or_noted(reader.index_child(child, depth, place))?;
                    stack.extend(below);
                }
            }
            stack[at..].reverse();
            if self.full() {
                break;
            }
        }
        self.step.more = self.adopted >= MERGE_STEP;
        Ok(())
    }

    fn account(&mut self, account: Account, log: &Ref) -> Merged<()> {
        if self.merged(log) || self.logs.contains_key(&account) {
            return Ok(());
        }
        let reader = self.reader();
        let Some(log) = self.held_or_noted(reader.resolve(log))? else { return Ok(()) };
        let Cell::Vector(theirs) = &*log else { return Err(MergeError::Shape("a log is a vector")) };
        let ours = log_of(&reader, self.root, &account).map_err(MergeError::Malformed)?;
        let shared = ours.len().min(theirs.len());
        let Some(equal) = self.same_start(&ours, theirs, shared)? else { return Ok(()) };
        if equal {
            if theirs.len() > shared { self.adopt(account, &ours, theirs, shared) } else { Ok(()) }
        } else {
            self.settle(account, &ours, theirs, shared)
        }
    }

    /// Are the first `count` elements the same? `None` when cells are missing for the answer.
    fn same_start(&mut self, ours: &Vector, theirs: &Vector, count: u64) -> Merged<Option<bool>> {
        let mut scratch = Overlay::new(self.layers);
        let mut writer = Writer::new(self.profile, &mut scratch);
        let ours = writer.vector_prefix(ours, count);
        let theirs = writer.vector_prefix(theirs, count);
        let Some(ours) = self.held_or_noted(ours)? else { return Ok(None) };
        let Some(theirs) = self.held_or_noted(theirs)? else { return Ok(None) };
        Ok(Some(ours == theirs))
    }

    /// The logs differ within their first `shared` operations: finds where, and decides.
    fn settle(&mut self, account: Account, ours: &Vector, theirs: &Vector, shared: u64) -> Merged<()> {
        // The longest equal start, by bisection: `same` elements are equal, `differ` are not.
        let (mut same, mut differ) = (0, shared);
        while differ - same > 1 {
            let middle = same + (differ - same) / 2;
            match self.same_start(ours, theirs, middle)? {
                None => return Ok(()),
                Some(true) => same = middle,
                Some(false) => differ = middle,
            }
        }
        let reader = self.reader();
        let pair = (reader.vector_get(ours, same), reader.vector_get(theirs, same));
        let (Some(Some(our_op)), Some(Some(their_op))) = (self.held_or_noted(pair.0)?, self.held_or_noted(pair.1)?) else {
            return Ok(());
        };
        // Theirs has to be valid, or a forger could have our operation dropped, or reported.
        let Some(signed) = self.signed(&their_op)? else { return Ok(()) };
        let Some(operation) = self.read(account, same, &signed)? else { return Ok(()) };
        Verified::new(operation, self.profile).map_err(|error| MergeError::Operation { account, sequence: same + 1, error })?;
        let (our_id, their_id) = (our_op.id(self.profile), their_op.id(self.profile));
        let keep_ours = our_id < their_id;
        let (kept, dropped) = if keep_ours { (our_id, their_id) } else { (their_id, our_id) };
        self.step.equivocations.push(Equivocation { account, sequence: same + 1, kept, dropped });
        if keep_ours { Ok(()) } else { self.adopt(account, ours, theirs, same) }
    }

    fn signed(&mut self, item: &Ref) -> Merged<Option<Signed>> {
        let cell = self.reader().resolve(item);
        match self.held_or_noted(cell)?.as_deref() {
            None => Ok(None),
            Some(Cell::Signed(signed)) => Ok(Some((**signed).clone())),
            Some(_) => Err(MergeError::Shape("a log's element is a signed operation")),
        }
    }

    /// Element `i` of an account's log, form and place checked. What's missing below it is noted.
    fn read(&mut self, account: Account, i: u64, signed: &Signed) -> Merged<Option<Operation>> {
        let bad = |error| MergeError::Operation { account, sequence: i + 1, error };
        match Operation::read(signed, &self.reader()) {
            Ok(op) if op.account == account && op.sequence == i + 1 => Ok(Some(op)),
            Ok(_) => Err(bad(OperationError::Format("its account and sequence are those of its place".into()))),
            Err(OperationError::Missing(_)) => {
                let room = self.limit - self.step.missing.len().min(self.limit);
                let cell = Cell::Signed(Box::new(signed.clone()));
                let missing = missing_below(&cell, self.staged, self.held, self.profile, room.max(1)).map_err(MergeError::Malformed)?;
                for id in missing {
                    self.note(id);
                }
                Ok(None)
            }
            Err(error) => Err(bad(error)),
        }
    }

    /// Takes their log in place of ours, which agrees with it up to `from`: as many operations as are here without a gap.
    fn adopt(&mut self, account: Account, ours: &Vector, theirs: &Vector, from: u64) -> Merged<()> {
        let mut scan = Scan { account, from, whole: true, found: Vec::new() };
        self.scan(theirs, 0, &mut scan)?;
        let found = scan.found;
        if found.is_empty() {
            return Ok(());
        }
        self.adopted += found.len();
        let until = from + found.len() as u64;
        let added = Verified::all(found, self.profile).map_err(|(i, error)| {
            let sequence = from + i as u64 + 1;
            MergeError::Operation { account, sequence, error }
        })?;
        let log = Writer::new(self.profile, &mut self.kept).vector_prefix(theirs, until);
        let Some(log) = self.held_or_noted(log)? else { return Ok(()) };
        self.logs.insert(account, AccountChange { account, before: ours.len(), kept: from, added, log });
        Ok(())
    }

    /// Walks a node of a log, whose first element has the index `start`, in order.
    fn scan(&mut self, node: &Vector, start: u64, scan: &mut Scan) -> Merged<()> {
        let reader = self.reader();
        let before = node.len() - node.tail().len() as u64;
        let prefix = node.prefix().map(|prefix| (prefix, before));
        let mut at = start;
        for (child, count) in prefix.into_iter().chain(node.parts()) {
            let end = at + count;
            if end > scan.from {
                if self.full() || self.adopted + scan.found.len() >= MERGE_STEP {
                    scan.whole = false;
                    return Ok(());
                }
                match self.held_or_noted(reader.vector_child(child, count))? {
                    Some(child) => self.scan(&child, at, scan)?,
                    None => scan.whole = false,
                }
            }
            at = end;
        }
        for (i, item) in (start + before..).zip(node.tail()) {
            if i < scan.from {
                continue;
            }
            if self.full() || self.adopted + scan.found.len() >= MERGE_STEP {
                scan.whole = false;
                return Ok(());
            }
            let operation = match self.signed(item)? {
                Some(signed) => self.read(scan.account, i, &signed)?,
                None => None,
            };
            match operation {
                Some(operation) if scan.whole => scan.found.push(operation),
                Some(_) => {}
                None => scan.whole = false,
            }
        }
        Ok(())
    }
}

/// The progress of [`Merger::scan`].
struct Scan {
    account: Account,
    from: u64,
    /// No gap so far.
    whole: bool,
    /// The operations from `from` on, up to the first gap.
    found: Vec<Operation>,
}
