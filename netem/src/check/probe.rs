//! The tiny programs at the ends of a path: they send and receive numbered, timed packets, or a TCP stream.
//!
//! Both ends of a lab share a clock, so one packet tells a one-way delay.

use std::io::{self, BufWriter, ErrorKind, Read, Write, stdin, stdout};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Number and time of sending, in a packet.
pub(super) const HEAD: usize = 16;
/// How often a receiver looks whether it's done.
const LOOK: Duration = Duration::from_millis(20);
/// The most packets that a receiver keeps: 24 bytes each.
const KEPT: usize = 2_000_000;
/// Largest packet.
const LARGEST: usize = 2048;

/// Nanoseconds of the clock that all of a lab's hosts share.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

/// One packet as it arrived; times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) number: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// Sends groups of packets, a group at once, an interval apart; prints the first and last time of sending.
pub(super) fn send(to: &str, groups: u64, group: u64, size: usize, interval: Duration) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let mut packet = vec![0u8; size.clamp(HEAD, LARGEST)];
    let start = now();
    let mut number: u64 = 0;
    for index in 0..groups {
        let due = start.saturating_add((interval.as_nanos() as u64).saturating_mul(index));
        let wait = due.saturating_sub(now());
        if wait > 0 {
            thread::sleep(Duration::from_nanos(wait));
        }
        for _ in 0..group {
            if let Some((head, _)) = packet.split_first_chunk_mut::<HEAD>() {
                let both = (u128::from(number) << 64) | u128::from(now());
                *head = both.to_be_bytes();
            }
            number += 1;
            match socket.send(&packet) {
                // A full device queue or an ICMP error: lost, and found out so.
                Err(error) if !matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::OutOfMemory) => return Err(error),
                _ => {}
            }
        }
    }
    println!("{start} {}", now());
    Ok(())
}

/// Says `ready`, receives until standard input ends, and prints number, sending time and arrival of each packet.
pub(super) fn receive(address: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(LOOK))?;
    let done = when_input_ends();
    println!("ready");
    let mut arrivals: Vec<Arrival> = Vec::new();
    let mut packet = [0u8; LARGEST];
    loop {
        match socket.recv(&mut packet) {
            Ok(HEAD..) if arrivals.len() < KEPT => {
                let received = now();
                let head = packet.first_chunk::<HEAD>().map_or(0, |head| u128::from_be_bytes(*head));
                arrivals.push(Arrival { number: (head >> 64) as u64, sent: head as u64, received });
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    let mut out = BufWriter::new(stdout().lock());
    for Arrival { number, sent, received } in arrivals {
        writeln!(out, "{number} {sent} {received}")?;
    }
    out.flush()
}

fn when_input_ends() -> Arc<AtomicBool> {
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    thread::spawn(move || {
        let mut nothing = [0];
        while let Ok(1..) = stdin().read(&mut nothing) {}
        flag.store(true, Ordering::Relaxed);
    });
    done
}

/// Says `ready`, takes one connection, reads it to its end, and prints how much came.
pub(super) fn drain(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("ready");
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; 64 * 1024];
    let mut total: usize = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            read => total += read,
        }
    }
    println!("{total}");
    Ok(())
}

/// Pushes so many bytes through one connection, and waits until the other end has read them.
pub(super) fn push(to: &str, mut bytes: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    let piece = vec![0; 64 * 1024];
    while bytes > 0 {
        let part = piece.get(..bytes.min(piece.len())).unwrap_or(&piece);
        stream.write_all(part)?;
        bytes -= part.len();
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The other end closes when it has everything.
    io::copy(&mut stream, &mut io::sink()).map(drop)
}
