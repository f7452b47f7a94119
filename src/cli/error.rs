//! How a command fails: what to say, and with which exit code.

use std::process::ExitCode;

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The input is at fault: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It didn't work: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Interrupted by the user: exit code 1, nothing more to say.
    #[error("interrupted")]
    Interrupted,
    /// The reader of our output has gone (`peerlane query ... | head`): exit code 1, and nobody is left to tell.
    #[error("nobody reads the output any more")]
    NoReader,
}

impl CliError {
    /// Of anything that says what went wrong.
    pub(super) fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Of anything that says what is wrong with the input.
    pub(super) fn usage(error: impl std::fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }

    /// Prints it and gives the exit code.
    pub(super) fn report(&self) -> ExitCode {
        if !matches!(self, Self::NoReader) {
            use std::io::Write as _;
            // Standard error may have gone as well.
            let _ = writeln!(std::io::stderr(), "peerlane: {self}");
        }
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) | Self::Interrupted | Self::NoReader => ExitCode::from(1),
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe { Self::NoReader } else { Self::failed(error) }
    }
}

impl From<crate::bench::BenchError> for CliError {
    fn from(error: crate::bench::BenchError) -> Self {
        match error {
            crate::bench::BenchError::Plan { .. } => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}
