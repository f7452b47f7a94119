//! The thread between the devices: reads, lets the network reckon, sleeps, writes, and counts how late it was.

use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::setpriority_process;
use rustix::thread::{gettid, set_current_timer_slack};

use crate::Shape;
use crate::device::{Device, MTU};
use crate::lateness::{Lateness, Watch};
use crate::link::Counters;
use crate::network::Network;

/// How long before something is due it stops sleeping: what the kernel takes to wake it.
const SPIN: Duration = Duration::from_micros(20);
/// A poll that takes longer has slept.
const SLEPT: Duration = Duration::from_micros(20);
/// Packets that are read from a device before another one has its turn and what's due is written.
const BATCH: usize = 32;
/// Larger than any packet.
const LARGEST: usize = 65_536;
/// Real-time priority, of 1 to 99: above all that isn't real-time.
const PRIORITY: &str = "10";
/// Without it, as nice as can be to itself.
const NICE: i32 = -20;

/// Runs a network between devices, until it's dropped.
#[derive(Debug)]
pub struct Emulator {
    orders: mpsc::Sender<Order>,
    waker: OwnedFd,
    thread: Option<thread::JoinHandle<()>>,
}

enum Order {
    Reshape(usize, Shape),
    Counters(mpsc::Sender<Vec<Counters>>),
    Lateness(mpsc::Sender<Lateness>),
    End,
}

impl Emulator {
    /// Starts it: a device for each of the network's hosts, in their order. It takes real-time priority if it may.
    ///
    /// # Errors
    /// The system's, if it has no threads or descriptors left.
    pub fn start(devices: Vec<Device>, network: Network) -> io::Result<Self> {
        let waker = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let woken = waker.try_clone()?;
        let (orders, received) = mpsc::channel();
        let watch = Watch::new().ok_or_else(|| io::Error::other("no histogram"))?;
        let thread = thread::Builder::new().name("tun-emulator".into()).spawn(move || {
            let realtime = hurry();
            let start = Instant::now();
            let (empty, gone) = (vec![Duration::ZERO; devices.len()], vec![false; devices.len()]);
            let mut worker = Worker { devices, network, watch, start, gone, empty, woken, received, refused: 0, oversized: 0, realtime };
            worker.run();
        })?;
        Ok(Self { orders, waker, thread: Some(thread) })
    }

    /// Another shape for a link, from now on.
    pub fn reshape(&self, link: usize, shape: Shape) {
        self.order(Order::Reshape(link, shape));
    }

    /// What the links counted, in their order; nothing if it has ended.
    pub fn counters(&self) -> Vec<Counters> {
        let (tell, told) = mpsc::channel();
        self.order(Order::Counters(tell));
        told.recv().unwrap_or_default()
    }

    /// How late it was so far.
    pub fn lateness(&self) -> Lateness {
        let (tell, told) = mpsc::channel();
        self.order(Order::Lateness(tell));
        told.recv().unwrap_or_default()
    }

    fn order(&self, order: Order) {
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&self.waker, &1u64.to_ne_bytes());
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.order(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Timers to the nanosecond, and the processor as soon as it's wanted, as far as this user may.
fn hurry() -> bool {
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    let thread = gettid();
    let realtime = Command::new("chrt")
        .args(["--fifo", "--pid", PRIORITY, &thread.as_raw_nonzero().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !realtime {
        let _ = setpriority_process(Some(thread), NICE);
    }
    realtime
}

struct Worker {
    devices: Vec<Device>,
    network: Network,
    watch: Watch,
    start: Instant,
    /// Which devices are gone, with their namespaces: they'd be readable for ever.
    gone: Vec<bool>,
    /// When each device was last known to have nothing to read.
    empty: Vec<Duration>,
    woken: OwnedFd,
    received: mpsc::Receiver<Order>,
    refused: u64,
    oversized: u64,
    realtime: bool,
}

impl Worker {
    fn run(&mut self) {
        let mut buffer = vec![0; LARGEST];
        loop {
            let Ok(readable) = self.wait() else { return };
            if readable.first() == Some(&true) && self.obey().is_err() {
                return;
            }
            self.write_due();
            for (host, _) in readable.iter().skip(1).enumerate().filter(|(_, readable)| **readable) {
                self.read(host, &mut buffer);
                self.write_due();
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Sleeps until something arrives or is due soon. Which can be read: orders, then each device.
    fn wait(&mut self) -> io::Result<Vec<bool>> {
        let before = self.now();
        let sleep = self.network.next_due().map(|due| due.saturating_sub(before).saturating_sub(SPIN));
        let sleep = sleep.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
        // In the place of one that's gone nothing is asked for.
        let devices = self.devices.iter().zip(&self.gone).map(|(device, gone)| match gone {
            true => (self.woken.as_fd(), PollFlags::empty()),
            false => (device.as_fd(), PollFlags::IN),
        });
        let sources = std::iter::once((self.woken.as_fd(), PollFlags::IN)).chain(devices);
        let mut sources: Vec<_> = sources.map(|(source, wanted)| PollFd::from_borrowed_fd(source, wanted)).collect();
        match poll(&mut sources, sleep.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let readable: Vec<_> = sources.iter().map(|source| !source.revents().is_empty()).collect();
        drop(sources);
        let after = self.now();
        for (empty, readable) in self.empty.iter_mut().zip(readable.iter().skip(1)) {
            // It was empty all the while it slept; whoever arrived then woke it.
            if !readable || after - before > SLEPT {
                *empty = after;
            }
        }
        Ok(readable)
    }

    fn read(&mut self, host: usize, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Some(device) = self.devices.get(host) else { return };
            let read = device.read(buffer);
            let now = self.now();
            let Some(empty) = self.empty.get_mut(host) else { return };
            match read {
                Ok(length) => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    self.oversized += u64::from(length > usize::from(MTU));
                    let unread = now.saturating_sub(*empty);
                    self.network.send(now, host, packet.to_vec(), unread);
                }
                Err(error) => {
                    *empty = now;
                    if let Some(gone) = self.gone.get_mut(host) {
                        *gone |= !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted);
                    }
                    return;
                }
            }
        }
    }

    fn write_due(&mut self) {
        while let Some(delivery) = self.network.deliver(self.now()) {
            let Some(device) = self.devices.get(delivery.host) else { continue };
            // Its write takes in all that the receiving host's kernel does with the packet: it's late until it's begun.
            let late = self.now().saturating_sub(delivery.due);
            self.refused += u64::from(device.write(&delivery.bytes).is_err());
            self.watch.record(late + delivery.unread);
        }
    }

    fn obey(&mut self) -> Result<(), ()> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.woken, &mut count);
        loop {
            match self.received.try_recv() {
                Ok(Order::Reshape(link, shape)) => self.network.reshape(link, shape),
                Ok(Order::Counters(tell)) => {
                    let _ = tell.send(self.network.counters(self.now()));
                }
                Ok(Order::Lateness(tell)) => {
                    let _ = tell.send(self.lateness());
                }
                Ok(Order::End) | Err(mpsc::TryRecvError::Disconnected) => return Err(()),
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
            }
        }
    }

    fn lateness(&self) -> Lateness {
        let (refused, oversized, stray, realtime) = (self.refused, self.oversized, self.network.stray(), self.realtime);
        Lateness { refused, oversized, stray, realtime, ..self.watch.lateness() }
    }
}
