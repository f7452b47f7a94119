//! Which build a figure is of, and how it was asked for.

use std::{path::Path, process::Command, time::SystemTime};

use serde::Serialize;

/// What was built, and the command. What can't be known is left empty.
#[derive(Debug, Clone, Serialize)]
pub struct Provenance {
    /// The work tree's commit when it ran.
    pub commit: Option<String>,
    /// Whether files that git tracks weren't as in that commit.
    pub dirty: Option<bool>,
    /// Whether a source was changed after the binary was built: then it isn't of that commit. `cargo bench` builds first;
    /// a binary that is called by its name may be an old one.
    pub stale: Option<bool>,
    /// Link-time optimisation, if the build's environment chose it; else what Cargo.toml says is in force.
    pub lto: &'static str,
    /// quinn's version in the lock file.
    pub quinn: Option<&'static str>,
    /// rustls's.
    pub rustls: Option<&'static str>,
    /// tokio's.
    pub tokio: Option<&'static str>,
    /// The command line; of the program's path the name alone.
    pub command: String,
}

/// Resolved when this was compiled.
const LOCK: &str = include_str!("../../Cargo.lock");

const LTO: &str = match (option_env!("CARGO_PROFILE_BENCH_LTO"), option_env!("CARGO_PROFILE_RELEASE_LTO")) {
    (Some(lto), _) | (None, Some(lto)) => lto,
    (None, None) => "as in Cargo.toml",
};

impl Provenance {
    /// Looks around: asks git.
    pub fn here() -> Self {
        let mut words = std::env::args();
        let program = words.next().unwrap_or_default();
        let name = Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned());
        Self {
            commit: git(&["rev-parse", "HEAD"]).map(|commit| commit.trim().into()),
            dirty: git(&["status", "--porcelain", "--untracked-files=no"]).map(|changes| !changes.trim().is_empty()),
            stale: stale(),
            lto: LTO,
            quinn: locked("quinn"),
            rustls: locked("rustls"),
            tokio: locked("tokio"),
            command: name.into_iter().chain(words).collect::<Vec<_>>().join(" "),
        }
    }
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(words).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

fn stale() -> Option<bool> {
    let modified = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let built = modified(&std::env::current_exe().ok()?)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let sources = git(&["ls-files", "--full-name", ":/*.rs", ":/*Cargo.toml", ":/Cargo.lock"])?;
    Some(sources.lines().filter_map(|source| modified(&root.join(source))).any(|changed| changed > built))
}

/// A package's version, if there's one of the name.
fn locked(name: &str) -> Option<&'static str> {
    let mut lines = LOCK.lines();
    lines.find(|line| line.strip_prefix("name = ").is_some_and(|quoted| quoted.trim_matches('"') == name))?;
    Some(lines.next()?.strip_prefix("version = ")?.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        for name in ["quinn", "rustls", "tokio"] {
            assert!(locked(name).is_some_and(|version| version.split('.').count() == 3), "{name}");
        }
        assert_eq!(locked("no such package"), None);
    }
}
