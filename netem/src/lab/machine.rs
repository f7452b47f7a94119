//! The virtual lab's kernel: where it is, and how it's started.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::agent::{LOG, MARK};
use super::{LabError, LabKind};

/// Names a ready kernel.
const VARIABLE: &str = "PEERLANE_UML";
/// What the kernels in the cache are called; a version follows.
const PREFIX: &str = "linux-uml-";
/// Where programs are, for a kernel's first process.
pub(super) const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const REMEDY: &str = "`netem/virtual build` makes it (5 to 10 minutes), PEERLANE_UML=FILE names a ready one";

/// The kernel: `PEERLANE_UML`, or the newest one in the cache.
pub(super) fn kernel() -> Result<PathBuf, LabError> {
    let unavailable = |reason: String, remedy: &str| LabError::Unavailable { lab: LabKind::Virtual, reason, remedy: remedy.to_owned() };
    if !cfg!(target_arch = "x86_64") {
        return Err(unavailable(
            format!("User-Mode Linux with time travel needs x86-64, this is {}", env::consts::ARCH),
            "use --lab netem",
        ));
    }
    if let Some(path) = env::var_os(VARIABLE).map(PathBuf::from) {
        return if is_executable(&path) {
            Ok(path)
        } else {
            Err(unavailable(format!("{VARIABLE}={} is no executable file", path.display()), REMEDY))
        };
    }
    let directory = cache().ok_or_else(|| unavailable("neither XDG_CACHE_HOME nor HOME is set".to_owned(), REMEDY))?;
    let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
    let kernels = entries.map(|entry| entry.path()).filter(|path| version(path).is_some() && is_executable(path));
    kernels.max_by_key(|path| version(path)).ok_or_else(|| unavailable(format!("there's no kernel in {}", directory.display()), REMEDY))
}

fn cache() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("peerlane"))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// The numbers in a kernel's name.
fn version(path: &Path) -> Option<Vec<u64>> {
    let version = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    Some(version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect())
}

/// The kernel's arguments.
pub(super) fn arguments(agent: &Path, directory: &Path, memory: u32) -> Result<Vec<OsString>, LabError> {
    for path in [agent, directory] {
        if path.as_os_str().as_encoded_bytes().iter().any(u8::is_ascii_whitespace) {
            return Err(LabError::Path(path.to_owned()));
        }
    }
    let with = |key: &str, path: &Path| {
        let mut argument = OsString::from(key);
        argument.push(path);
        argument
    };
    let mut arguments: Vec<OsString> = vec![
        format!("mem={memory}M").into(),
        // Two orders of magnitude cheaper system calls than with ptrace, since 6.16; older kernels ignore it.
        "seccomp=on".into(),
        // The clock jumps from event to event, and processing takes no time.
        "time-travel=inf-cpu".into(),
        "rootfstype=hostfs".into(),
        "rootflags=/".into(),
        "ro".into(),
        // Its pid file and control socket, else under HOME.
        with("uml_dir=", &directory.join("uml")),
        "con=null".into(),
        format!("con0=null,fd:{LOG}").into(),
        "con1=null,fd:1".into(),
        "con2=null,fd:2".into(),
        "quiet".into(),
    ];
    // What the kernel doesn't know it puts into its first process's environment.
    arguments.push(format!("PATH={SYSTEM}").into());
    arguments.push(with("init=", agent));
    arguments.extend(["--".into(), MARK.into(), "init".into(), directory.into()]);
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        let version = |name: &str| version(Path::new(name));
        assert!(version("/x/linux-uml-6.12.9") > version("/x/linux-uml-6.9.12"));
        assert!(version("/x/linux-uml-7.3.4") > version("/x/linux-uml-6.12.9"));
        assert_eq!(version("/x/.build-1"), None);
    }

    #[test]
    fn a_path_that_the_kernel_cannot_be_told_is_refused() {
        assert!(matches!(arguments(Path::new("/a b/lab"), Path::new("/tmp/x"), 512), Err(LabError::Path(_))));
        assert!(arguments(Path::new("/a/lab"), Path::new("/tmp/x"), 512).is_ok());
    }
}
