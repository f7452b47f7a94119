//! A TUN device in a network namespace, whose other end this process holds.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;
use tun_rs::{DeviceBuilder, SyncDevice};

/// Of every device.
pub const MTU: u16 = 1500;
/// Where the kernel has its TUN devices.
const CLONE: &str = "/dev/net/tun";

/// Why there's no device.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The kernel has no TUN, or this user may not use it.
    #[error("{CLONE}: {0}")]
    Absent(io::Error),
    /// The namespace can't be entered.
    #[error("{}: {source}", path.display())]
    Namespace {
        /// Its file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The device can't be made.
    #[error("a TUN device in {}: {source}", path.display())]
    Make {
        /// The namespace's file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A TUN device. It's gone when this is, however the process ends.
pub struct Device(SyncDevice);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").finish_non_exhaustive()
    }
}

impl Device {
    /// Makes one of a name in the namespace of this file (`/run/netns/NAME`). It's down, and has no address.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn new(namespace: &Path, name: &str) -> Result<Self, DeviceError> {
        // The library would make the file if it weren't there; that's not its business here.
        File::options().read(true).write(true).open(CLONE).map_err(DeviceError::Absent)?;
        let path = namespace.to_owned();
        let make = || {
            let enter = |source| DeviceError::Namespace { path: path.clone(), source };
            let file = File::open(&path).map_err(enter)?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| enter(error.into()))?;
            let make = |source| DeviceError::Make { path: path.clone(), source };
            // Without offloads, so that the kernel cuts all to the MTU and reckons every checksum.
            let device = DeviceBuilder::new().name(name).mtu(MTU).enable(false).build_sync().map_err(make)?;
            device.set_nonblocking(true).map_err(make)?;
            Ok(Self(device))
        };
        // A thread of its own: it stays in the namespace.
        thread::scope(|scope| scope.spawn(make).join()).unwrap_or_else(|_| {
            let source = io::Error::other("its thread panicked");
            Err(DeviceError::Make { path: namespace.to_owned(), source })
        })
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }

    pub(crate) fn write(&self, packet: &[u8]) -> io::Result<usize> {
        self.0.send(packet)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
