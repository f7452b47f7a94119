//! The inner ends of a lab, played by the program itself under other arguments: so a lab is one executable, without
//! scripts beside it, and a test can stand in for none of it.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, stdin};
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio, exit};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};

use super::job::{Job, Outcome};
use super::{guest, namespaces, session};

/// The first argument of a program that plays an inner end.
pub(crate) const MARK: &str = "__peerlane-netem";
/// Where the kernel log's descriptor goes in an argument of `launch`.
pub(super) const LOG: &str = "{log}";

/// Call this first in `main` of a program that starts labs: if the program was started to play an inner end of one, it
/// does, and the exit code is returned.
///
/// # Examples
///
/// ```
/// fn main() -> std::process::ExitCode {
///     if let Some(code) = peerlane_netem::enter() {
///         return code;
///     }
///     std::process::ExitCode::SUCCESS
/// }
/// ```
pub fn enter() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next()? != MARK {
        return None;
    }
    let (part, rest) = (arguments.next()?, arguments.collect::<Vec<_>>());
    Some(match (part.to_str(), rest.as_slice()) {
        (Some("launch"), [parent, log, program, rest @ ..]) => launch(parent, Path::new(log), program, rest),
        // The kernel adds words of its own (root=, console=) after ours.
        (Some("init"), [directory, ..]) => guest::init(Path::new(directory)),
        (Some("session"), [directory]) => within_namespaces(Path::new(directory), false),
        (Some("hold"), [directory]) => within_namespaces(Path::new(directory), true),
        (Some("counts"), []) => super::emulated::print_counts(),
        (Some("probe"), rest) => crate::check::probe(rest),
        _ => {
            eprintln!("{MARK}: the host and this program are of different versions");
            ExitCode::from(2)
        }
    })
}

/// Becomes the program, which dies with the parent, and dumps no core (a kernel's panic would, of all its memory).
fn launch(parent: &OsString, log: &Path, program: &OsString, arguments: &[OsString]) -> ExitCode {
    let expected = parent.to_str().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // It may have died before it could be watched.
    if getppid() != expected {
        return ExitCode::from(1);
    }
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let descriptor = File::create(log).and_then(|file| {
        fcntl_setfd(file.as_fd(), FdFlags::empty())?;
        Ok(file.into_raw_fd().to_string())
    });
    let error = match descriptor {
        Ok(descriptor) => {
            let arguments = arguments.iter().map(|argument| match argument.to_str() {
                Some(text) => text.replace(LOG, &descriptor).into(),
                None => argument.clone(),
            });
            Command::new(program).args(arguments).exec()
        }
        Err(error) => error,
    };
    eprintln!("{}: {error}", Path::new(program).display());
    ExitCode::from(127)
}

/// The first process of a lab in namespaces of its own: when it ends, all in them ends.
fn within_namespaces(directory: &Path, hold: bool) -> ExitCode {
    let answered = Job::read(directory).and_then(|job| {
        namespaces::prepare(job.lab)?;
        if hold {
            namespaces::hold(directory, &job)?;
        } else {
            die_with_host();
            let outcome = session::run_command(&job, Stdio::inherit(), Stdio::inherit());
            outcome.write(directory)?;
        }
        Ok(())
    });
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = Outcome { error: Some(error.to_string()), ..Outcome::default() }.write(directory);
            ExitCode::from(1)
        }
    }
}

/// The host holds the other end of standard input. A signal at the parent's death wouldn't survive a user namespace.
fn die_with_host() {
    std::thread::spawn(|| {
        let mut nothing = [0];
        while let Ok(1..) = stdin().read(&mut nothing) {}
        exit(1);
    });
}
