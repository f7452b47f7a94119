//! The lists: whom a peer trusts (priority), allows (admission) and blocks.
//!
//! A list is a file with one PEERID a line; `#` starts a comment. Files are read whole: an error in any of them leaves
//! all lists as they were, since half an allow list would lock peers out and half a block list would let them in.
//!
//! A connected peer that a list now refuses is told so at once by [`Lists::refused`], rather than found at its next
//! handshake.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::watch;

use crate::identity::{Admission, PeerId, PeerIdError, Refusal};

/// Largest list file, in bytes: 130,000 keys of 65 bytes a line, more than any network has peers. Read in about a
/// second, since every key is checked. Worst case: 8 MiB while reading, 9 MiB kept for each of the three, and the lists
/// before a change as long as somebody looks at them: 62 MiB.
pub const LIST_FILE_MAX: usize = 8 * 1024 * 1024;

/// Which files the lists come from. An absent one: nobody is trusted, everybody is allowed, nobody is blocked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFiles {
    /// Those with priority.
    pub trust: Option<PathBuf>,
    /// Those admitted; absent: everybody. A file without keys admits nobody.
    pub allow: Option<PathBuf>,
    /// Those refused, even if allowed.
    pub block: Option<PathBuf>,
}

/// What the lists say at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListSets {
    /// Those with priority.
    pub trust: HashSet<PeerId>,
    /// Those admitted; `None`: everybody.
    pub allow: Option<HashSet<PeerId>>,
    /// Those refused, even if allowed.
    pub block: HashSet<PeerId>,
}

impl ListSets {
    /// Reads the files.
    fn read(files: &ListFiles) -> Result<Self, ListError> {
        let read = |path: &Option<PathBuf>| path.as_deref().map(read_list).transpose();
        Ok(Self {
            trust: read(&files.trust)?.unwrap_or_default(),
            allow: read(&files.allow)?,
            block: read(&files.block)?.unwrap_or_default(),
        })
    }
}

impl Admission for ListSets {
    fn admits(&self, peer: &PeerId) -> Result<(), Refusal> {
        if self.block.contains(peer) {
            return Err(Refusal::Blocked);
        }
        match &self.allow {
            Some(allowed) if !allowed.contains(peer) => Err(Refusal::NotAllowed),
            _ => Ok(()),
        }
    }
}

/// The lists in force, one per process. Replaced as a whole; readers see the old ones or the new ones.
#[derive(Debug)]
pub struct Lists {
    files: ListFiles,
    sets: watch::Sender<Arc<ListSets>>,
}

impl Lists {
    /// Reads the files. Blocks on the disk.
    ///
    /// # Errors
    /// [`ListError`], naming file and line.
    pub fn open(files: ListFiles) -> Result<Self, ListError> {
        let sets = ListSets::read(&files)?;
        Ok(Self::with(files, sets))
    }

    /// Lists without files. [`Lists::reload`] leaves them empty.
    #[must_use]
    pub fn everybody() -> Self {
        Self::with(ListFiles::default(), ListSets::default())
    }

    fn with(files: ListFiles, sets: ListSets) -> Self {
        Self { files, sets: watch::Sender::new(Arc::new(sets)) }
    }

    /// Reads the files again (SIGHUP), and says whether anything changed. Blocks on the disk.
    ///
    /// # Errors
    /// [`ListError`], naming file and line; the lists are then as they were.
    pub fn reload(&self) -> Result<bool, ListError> {
        Ok(self.replace(ListSets::read(&self.files)?))
    }

    /// Puts other lists in force, and says whether they differ. They hold until the next [`Lists::reload`].
    pub fn replace(&self, sets: ListSets) -> bool {
        self.sets.send_if_modified(|current| {
            let differs = **current != sets;
            if differs {
                *current = Arc::new(sets);
            }
            differs
        })
    }

    /// The lists in force now.
    #[must_use]
    pub fn current(&self) -> Arc<ListSets> {
        Arc::clone(&self.sets.borrow())
    }

    /// Whether the peer has priority. Being trusted admits nobody: that's the allow list's business.
    #[must_use]
    pub fn trusted(&self, peer: &PeerId) -> bool {
        self.sets.borrow().trust.contains(peer)
    }

    /// A receiver that is told of every change of the lists; several quick ones may be told as one.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<ListSets>> {
        self.sets.subscribe()
    }

    /// Waits until the lists refuse `peer`, at once if they do already. One per connection, which ends with it.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped: a later call looks at the lists afresh.
    pub async fn refused(&self, peer: &PeerId) -> Refusal {
        let mut sets = self.subscribe();
        loop {
            if let Err(why) = sets.borrow_and_update().admits(peer) {
                return why;
            }
            if sets.changed().await.is_err() {
                // The sender is `self`, which is still borrowed; so this isn't reached. It waits rather than refuses.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Admission for Lists {
    fn admits(&self, peer: &PeerId) -> Result<(), Refusal> {
        self.sets.borrow().admits(peer)
    }
}

fn read_list(path: &Path) -> Result<HashSet<PeerId>, ListError> {
    let fail = |source| ListError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(LIST_FILE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > LIST_FILE_MAX {
        return Err(ListError::TooLarge(path.to_owned()));
    }
    let mut peers = HashSet::new();
    for (number, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
        let at = |problem| ListError::Line { path: path.to_owned(), line: number, problem };
        let key = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let key = std::str::from_utf8(key.trim_ascii()).map_err(|_| at(PeerIdError::NotHex { position: 1 }))?;
        if !key.is_empty() {
            peers.insert(key.parse().map_err(at)?);
        }
    }
    Ok(peers)
}

/// Why a list couldn't be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListError {
    /// The operating system refused.
    #[error("{}: reading the list: {source}", .path.display())]
    Io {
        /// The list's file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file has over [`LIST_FILE_MAX`] bytes.
    #[error("{}: larger than {LIST_FILE_MAX} bytes, so not a list of peers", .0.display())]
    TooLarge(PathBuf),
    /// A line is neither a key nor a comment.
    #[error("{}:{line}: {problem}; one PEERID a line is expected, `#` starts a comment", .path.display())]
    Line {
        /// The list's file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with the key.
        problem: PeerIdError,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::fs;

    use super::*;
    use crate::identity::Identity;

    fn peer(seed: u8) -> PeerId {
        Identity::from_seed(&[seed; 32]).unwrap().peer_id()
    }

    fn set<const N: usize>(seeds: [u8; N]) -> HashSet<PeerId> {
        seeds.into_iter().map(peer).collect()
    }

    #[test]
    fn without_files_everybody_is_admitted_and_nobody_trusted() {
        let lists = Lists::open(ListFiles::default()).unwrap();
        assert_eq!(lists.admits(&peer(1)), Ok(()));
        assert!(!lists.trusted(&peer(1)));
        assert_eq!(*lists.current(), *Lists::everybody().current());
    }

    #[test]
    fn files_are_read_with_comments_blank_lines_and_either_line_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(directory.path().join(name));
        let files = ListFiles { trust: path("trust"), allow: path("allow"), block: path("block") };
        fs::write(files.trust.as_ref().unwrap(), format!("{}\r\n\r\n", peer(1))).unwrap();
        let allowed = format!("# us\n  {}  # one\n{}", peer(1), peer(2)).to_uppercase();
        fs::write(files.allow.as_ref().unwrap(), allowed).unwrap();
        fs::write(files.block.as_ref().unwrap(), peer(2).to_string()).unwrap();
        let lists = Lists::open(files).unwrap();
        assert_eq!(lists.admits(&peer(1)), Ok(()));
        assert_eq!(lists.admits(&peer(2)), Err(Refusal::Blocked));
        assert_eq!(lists.admits(&peer(3)), Err(Refusal::NotAllowed));
        assert!(lists.trusted(&peer(1)) && !lists.trusted(&peer(2)));
    }

    #[test]
    fn an_empty_allow_list_admits_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let allow = directory.path().join("allow");
        fs::write(&allow, "").unwrap();
        let files = ListFiles { allow: Some(allow), ..ListFiles::default() };
        let lists = Lists::open(files).unwrap();
        assert_eq!(lists.admits(&peer(1)), Err(Refusal::NotAllowed));
    }

    #[test]
    fn an_error_names_file_and_line_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (allow, block) = (directory.path().join("allow"), directory.path().join("block"));
        fs::write(&allow, peer(1).to_string()).unwrap();
        fs::write(&block, peer(2).to_string()).unwrap();
        let files = ListFiles { allow: Some(allow.clone()), block: Some(block.clone()), ..ListFiles::default() };
        let lists = Lists::open(files).unwrap();
        let before = lists.current();

        // The first file is good and different, the second is broken.
        fs::write(&allow, peer(3).to_string()).unwrap();
        for (text, expected) in [("\n# x\nxyz # y\n", "block:3: byte 1 of"), ("abcd", "block:1: a peer's key has 64")] {
            fs::write(&block, text).unwrap();
            let message = lists.reload().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        fs::write(&block, vec![b'\n'; LIST_FILE_MAX + 1]).unwrap();
        assert!(matches!(lists.reload(), Err(ListError::TooLarge(_))));
        fs::remove_file(&block).unwrap();
        let message = lists.reload().unwrap_err().to_string();
        assert!(message.contains("block: reading the list"), "{message}");
        assert_eq!(lists.current(), before);

        fs::write(&block, "").unwrap();
        assert!(lists.reload().unwrap());
        assert!(!lists.reload().unwrap(), "nothing has changed since");
        assert_eq!(lists.admits(&peer(3)), Ok(()));
        assert_eq!(lists.admits(&peer(1)), Err(Refusal::NotAllowed));
    }

    #[test]
    fn a_binary_list_is_an_error_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        fs::write(&path, [0xff, 0xfe, b'\n']).unwrap();
        assert!(matches!(read_list(&path), Err(ListError::Line { line: 1, .. })));
    }

    #[tokio::test]
    async fn a_connected_peer_is_told_when_it_is_blocked() {
        let lists = Arc::new(Lists::everybody());
        let waiting = tokio::spawn({
            let lists = Arc::clone(&lists);
            async move { lists.refused(&peer(1)).await }
        });
        let mut changes = lists.subscribe();
        // Somebody else is blocked first: this wakes the waiting connection, and doesn't end it.
        for seeds in [[2, 2], [1, 2]] {
            assert!(!waiting.is_finished());
            lists.replace(ListSets { block: set(seeds), ..ListSets::default() });
            changes.changed().await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(waiting.await.unwrap(), Refusal::Blocked);
        // And at once if it's refused already.
        assert_eq!(lists.refused(&peer(2)).await, Refusal::Blocked);
    }

    #[tokio::test]
    async fn the_same_lists_again_wake_nobody() {
        let lists = Lists::everybody();
        let changes = lists.subscribe();
        assert!(!lists.replace(ListSets::default()));
        assert!(!changes.has_changed().unwrap());
    }
}
