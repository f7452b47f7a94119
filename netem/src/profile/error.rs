//! What's wrong with a profile, and what to do about it.

use std::path::PathBuf;

use thiserror::Error;

/// What's wrong with a value, before it's known where the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    pub(super) fn at(self, file: &str, key: impl Into<String>) -> ProfileError {
        ProfileError::Value { file: file.to_owned(), key: key.into(), what: self.what, remedy: self.remedy }
    }
}

/// Why a profile can't be used. Nothing was started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// There's no such profile.
    #[error("no profile is called `{name}`; there are {known}, or give the path of a .toml file")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The built-in ones.
        known: String,
    },
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It's no TOML, or has a key that no profile has.
    #[error("{file}: {what}")]
    Syntax {
        /// The file's name.
        file: String,
        /// The parser's words, with line, key, and the keys that there are.
        what: String,
    },
    /// A value can't be.
    #[error("{file}: {key}: {what}; {remedy}")]
    Value {
        /// The file's name.
        file: String,
        /// The key, with its table: `both.delay`.
        key: String,
        /// What's wrong.
        what: String,
        /// What would be right.
        remedy: String,
    },
}
