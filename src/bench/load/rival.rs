//! Another flow through the same bottleneck: a plain kernel TCP connection, as fast as it can. Nothing of ours is in it.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::answer::Taken;
use crate::bench::{Rival, error::LabError};

/// What is written or read at once, in bytes.
const PIECE: usize = 256 * 1024;

/// How often the receiving end looks whether the sending one has come.
const LOOK: Duration = Duration::from_millis(1);

/// Both ends' sockets, so that they can be ended from outside.
#[derive(Debug, Default)]
pub(crate) struct Ending(Mutex<(bool, Vec<TcpStream>)>);

impl Ending {
    /// Ends them, and those that are still to come.
    pub(crate) fn end(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        for stream in state.1.drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn watch(&self, stream: &TcpStream) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            stream.shutdown(Shutdown::Both)?;
        }
        state.1.push(stream.try_clone()?);
        Ok(())
    }
}

/// A place for its receiving end.
///
/// # Errors
/// The system's.
pub(crate) fn listen(address: IpAddr) -> Result<TcpListener, LabError> {
    Ok(TcpListener::bind((address, 0))?)
}

/// Takes what one sender sends, until it's ended.
///
/// # Errors
/// The system's, at the start; a connection that ends is its end.
pub(crate) fn drain(listener: &TcpListener, taken: &Taken, ending: &Ending) -> Result<(), LabError> {
    listener.set_nonblocking(true)?;
    // The sender may never come.
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) if ending.is_over() => return Ok(()),
            Err(_) => thread::sleep(LOOK),
        }
    };
    stream.set_nonblocking(false)?;
    ending.watch(&stream)?;
    let mut piece = vec![0; PIECE];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        taken.add(read);
    }
    Ok(())
}

/// Sends until it's ended.
///
/// # Errors
/// [`LabError::Kernel`] if the kernel hasn't its congestion control, [`LabError::Congestion`] if another one was in force;
/// the system's, at the start.
pub(crate) fn push(rival: Rival, to: SocketAddr, ending: &Arc<Ending>) -> Result<(), LabError> {
    let mut stream = connect(rival, to)?;
    ending.watch(&stream)?;
    let piece = vec![0x5a; PIECE];
    while stream.write_all(&piece).is_ok() {}
    Ok(())
}

#[cfg(target_os = "linux")]
fn connect(rival: Rival, to: SocketAddr) -> Result<TcpStream, LabError> {
    let name = rival.name();
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // Before the handshake: some set up their state with it.
    socket.set_tcp_congestion(name.as_bytes()).map_err(|error| LabError::Kernel { name, reason: error.to_string() })?;
    socket.connect(&to.into())?;
    let found = socket.tcp_congestion()?;
    let found = String::from_utf8_lossy(found.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    if found == name { Ok(socket.into()) } else { Err(LabError::Congestion { name, found }) }
}

#[cfg(not(target_os = "linux"))]
fn connect(rival: Rival, _: SocketAddr) -> Result<TcpStream, LabError> {
    Err(LabError::Kernel { name: rival.name(), reason: "it can't be named on this system".to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn it_flows_until_its_ended_and_not_before() {
        let listener = listen(Ipv4Addr::LOCALHOST.into()).unwrap();
        let (taken, ending) = (Taken::default(), Arc::new(Ending::default()));
        let to = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let draining = scope.spawn(|| drain(&listener, &taken, &ending));
            let pushing = scope.spawn(|| push(Rival::Cubic, to, &ending));
            while taken.bytes() < 10 << 20 && !pushing.is_finished() {
                std::thread::yield_now();
            }
            ending.end();
            match pushing.join().unwrap() {
                Err(error @ LabError::Kernel { .. }) => println!("SKIPPED: {error}"),
                pushed => pushed.unwrap(),
            }
            draining.join().unwrap().unwrap();
        });
    }
}
