//! Why a lab couldn't be had, or ended before its command did.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::LabKind;
use crate::plan::PlanError;
use crate::profile::ProfileError;

/// Why a lab couldn't be had, or ended before its command did. In every case nothing of it is left.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabError {
    /// The profile can't be used; nothing was started.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Profile and topology don't go together; nothing was started.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// This machine can't do this lab; nothing was started.
    #[error("the {lab} lab can't be had here: {reason}; {remedy}")]
    Unavailable {
        /// Which lab.
        lab: LabKind,
        /// What's missing.
        reason: String,
        /// The command that would add it, or the next best.
        remedy: String,
    },
    /// A program couldn't be started.
    #[error("{program} can't be started: {source}")]
    Spawn {
        /// Its name.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file or directory.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A path that a kernel's command line can't carry.
    #[error("{}: the virtual lab's kernel can't be told of a path with a space; use a link without one", .0.display())]
    Path(PathBuf),
    /// The network couldn't be built, or the command not be started.
    #[error("the {lab} lab couldn't be built: {what}")]
    Setup {
        /// Which lab.
        lab: LabKind,
        /// The command that failed, and its words.
        what: String,
    },
    /// The lab itself ended early: a kernel's panic, for example.
    #[error("the {lab} lab died before its command ended ({status}): {last}")]
    Died {
        /// Which lab.
        lab: LabKind,
        /// How its process ended.
        status: String,
        /// The kernel's last words.
        last: String,
    },
    /// It took longer than permitted, in real time, and was ended.
    #[error("ended after {0:?} of real time, the limit")]
    TimeLimit(Duration),
    /// The caller asked for its end.
    #[error("interrupted")]
    Interrupted,
    /// No lab stands.
    #[error("no lab is up; `netem/lab up --profile wan` makes one")]
    NotUp,
    /// One stands already.
    #[error("a lab is up already ({0}); `netem/lab down` ends it")]
    AlreadyUp(String),
}

impl LabError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    pub(crate) fn spawn(program: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let program = program.into();
        move |source| Self::Spawn { program, source }
    }
}
