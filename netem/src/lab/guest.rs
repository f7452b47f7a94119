//! The first process of the virtual lab's kernel. It mounts, runs the job, and turns the power off.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::io;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};

use super::job::{Job, Outcome};
use super::session;

/// Where the command's output and errors go: consoles that the host reads.
const OUTPUT: &str = "/dev/tty1";
const ERRORS: &str = "/dev/tty2";
/// Open files; the kernel's default of 1,024 is little for a thousand peers.
const FILES: u64 = 65_536;

pub(super) fn init(directory: &Path) -> ExitCode {
    // The host's /proc and /run shine through the root file system until they're covered, so this comes first.
    let mounted = mounts(directory);
    let outcome = match mounted.map_err(|error| error.to_string()).and_then(|()| Job::read(directory).map_err(|error| error.to_string())) {
        Ok(job) => run(&job),
        Err(what) => Outcome::failed(format!("in the guest: {what}")),
    };
    if let Err(error) = outcome.write(directory) {
        eprintln!("{error}");
    }
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    // Not reached unless the kernel refuses; the first process must not return.
    ExitCode::from(1)
}

fn mounts(directory: &Path) -> io::Result<()> {
    let none = MountFlags::empty();
    mount("proc", "/proc", "proc", none, None)?;
    mount("sysfs", "/sys", "sysfs", none, None)?;
    mount("tmpfs", "/run", "tmpfs", none, None)?;
    // For shared memory; not all programs need it.
    let _ = fs::create_dir("/dev/shm").map(|()| mount("tmpfs", "/dev/shm", "tmpfs", none, None));
    let _ = fs::create_dir("/dev/pts").map(|()| mount("devpts", "/dev/pts", "devpts", none, None));
    writable(directory)
}

/// A directory of the host's, in the same place.
fn writable(directory: &Path) -> io::Result<()> {
    let mut option = directory.as_os_str().as_encoded_bytes().to_vec();
    option.push(0);
    let option = std::ffi::CStr::from_bytes_with_nul(&option).map_err(|_| io::Errno::INVAL)?;
    mount("hostfs", directory, "hostfs", MountFlags::empty(), option)
}

fn run(job: &Job) -> Outcome {
    for directory in &job.writable {
        if let Err(error) = writable(directory) {
            return Outcome::failed(format!("{} can't be made writable: {error}", directory.display()));
        }
    }
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum: Some(FILES) });
    let _ = Command::new("ip").args(["link", "set", "lo", "up"]).stdin(Stdio::null()).status();
    let consoles = console(OUTPUT).and_then(|output| Ok((output, console(ERRORS)?)));
    let (output, errors) = match consoles {
        Ok(consoles) => consoles,
        Err(error) => return Outcome::failed(format!("the consoles: {error}")),
    };
    let outcome = match (output.try_clone(), errors.try_clone()) {
        (Ok(output), Ok(errors)) => session::run_command(job, output.into(), errors.into()),
        (Err(error), _) | (_, Err(error)) => Outcome::failed(format!("the consoles: {error}")),
    };
    // What the host hasn't read yet would be lost with the power.
    let _ = tcdrain(&output).and_then(|()| tcdrain(&errors));
    outcome
}

/// A console that passes every byte on as it is.
fn console(path: &str) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut modes = tcgetattr(&file)?;
    modes.make_raw();
    tcsetattr(&file, OptionalActions::Now, &modes)?;
    Ok(file)
}
