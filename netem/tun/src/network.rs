//! Hosts, the links between them, and which packet takes which.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::Shape;
use crate::link::{Counters, Link, Packet};
use crate::random::Random;

/// Bytes of an Ethernet header, which a TUN device hasn't and netem's rate counts.
const ETHERNET: usize = 14;
/// Where an IPv4 packet has its destination (RFC 791, section 3.1).
const DESTINATION: std::ops::Range<usize> = 16..20;

/// The links that a packet crosses from one host to another, in order, by their numbers; each number must be higher than
/// the one before.
pub type Route = Vec<usize>;

/// A packet that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// At which host, by its number.
    pub host: usize,
    /// When it was due.
    pub due: Duration,
    /// The IPv4 packet.
    pub bytes: Vec<u8>,
    /// What was said of it when it was sent.
    pub unread: Duration,
}

/// Hosts and links. No I/O and no clock: time comes in.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Ipv4Addr>,
    /// From host to host.
    routes: Vec<Vec<Route>>,
    links: Vec<Link<Travelling>>,
    /// Across no link at all.
    arrived: Vec<Delivery>,
    /// Packets for nobody: not IPv4, or to no host's address.
    stray: u64,
}

#[derive(Debug, Clone)]
struct Travelling {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
    /// Links crossed.
    crossed: usize,
    unread: Duration,
}

impl Packet for Travelling {
    fn size(&self) -> usize {
        self.bytes.len() + ETHERNET
    }

    fn corrupt(&mut self, mut draw: impl FnMut(usize) -> usize) {
        let (byte, bit) = (draw(self.bytes.len()), draw(8));
        if let Some(byte) = self.bytes.get_mut(byte) {
            *byte ^= 1 << bit;
        }
    }
}

impl Network {
    /// Hosts by their addresses, links, and the route from each host to each.
    pub fn new(hosts: Vec<Ipv4Addr>, links: impl IntoIterator<Item = Shape>, routes: impl Fn(usize, usize) -> Route, seed: u64) -> Self {
        let mut seeds = Random::new(seed);
        let links = links.into_iter().map(|shape| Link::new(shape, seeds.next())).collect();
        let routes = (0..hosts.len()).map(|from| (0..hosts.len()).map(|to| routes(from, to)).collect()).collect();
        Self { hosts, routes, links, arrived: Vec::new(), stray: 0 }
    }

    /// A host sends a packet. `unread` is passed on with it: how long it may have lain before it was read.
    pub fn send(&mut self, now: Duration, from: usize, bytes: Vec<u8>, unread: Duration) {
        match self.destination(&bytes) {
            Some(to) => self.pass(now, Travelling { bytes, from, to, crossed: 0, unread }),
            None => self.stray += 1,
        }
    }

    /// A packet that's due by now, as long as there are any.
    pub fn deliver(&mut self, now: Duration) -> Option<Delivery> {
        // A link passes its packets on to later ones only.
        for index in 0..self.links.len() {
            while let Some((due, packet)) = self.links.get_mut(index).and_then(|link| link.depart(now)) {
                // The next link has it when it was due, not when it was fetched: lateness doesn't add up.
                self.pass(due, packet);
                if let Some(delivery) = self.arrived.pop() {
                    return Some(delivery);
                }
            }
        }
        self.arrived.pop()
    }

    /// When the next packet leaves a link, if there's one.
    pub fn next_due(&self) -> Option<Duration> {
        let waiting = self.links.iter().filter_map(Link::next_due).min();
        self.arrived.first().map(|delivery| delivery.due).or(waiting)
    }

    /// Another shape for a link, by its number, from now on.
    pub fn reshape(&mut self, link: usize, shape: Shape) {
        if let Some(link) = self.links.get_mut(link) {
            link.reshape(shape);
        }
    }

    /// What the links counted by now, in their order.
    pub fn counters(&mut self, now: Duration) -> Vec<Counters> {
        self.links.iter_mut().map(|link| link.counters(now)).collect()
    }

    /// Packets that were for nobody.
    pub fn stray(&self) -> u64 {
        self.stray
    }

    fn destination(&self, packet: &[u8]) -> Option<usize> {
        let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let address: [u8; 4] = packet.get(DESTINATION).filter(|_| is_ipv4)?.try_into().ok()?;
        let address = Ipv4Addr::from(address);
        self.hosts.iter().position(|host| *host == address)
    }

    /// On to the next link, or there.
    fn pass(&mut self, now: Duration, mut packet: Travelling) {
        let route = self.routes.get(packet.from).and_then(|routes| routes.get(packet.to));
        match route.and_then(|route| route.get(packet.crossed)).and_then(|link| self.links.get_mut(*link)) {
            Some(link) => {
                packet.crossed += 1;
                link.arrive(now, packet);
            }
            None => self.arrived.push(Delivery { host: packet.to, due: now, bytes: packet.bytes, unread: packet.unread }),
        }
    }
}
