//! The gate: how many handshakes are let in, before anything is known of who makes them.
//!
//! A handshake costs its listener memory and a signature, and its dialer next to nothing. So there is
//! - a *permit* for each in progress, which goes back when its [`Handshake`] is dropped, however it ended;
//! - a *token* of its address and one of its network, spent when the address is validated (TCP's accept, QUIC's Retry:
//!   before that a token could be spent in somebody else's name) and given back when the handshake succeeds: those who
//!   prove a key pay nothing, those who never do run dry;
//! - a budget of *datagrams* from addresses that nobody has validated, for the whole process, each answered with a
//!   Retry at most;
//! - a budget of its own for *known* addresses, those that were configured or where an authenticated peer was seen in
//!   the last day: while strangers flood the gate, friends reconnect.
//!
//! One gate per process, for all transports. It does no I/O and reads no clock.
//!
//! Not provided: deadlines of handshakes and limits on connections, which are the transports' and the node's.

mod buckets;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

pub use buckets::Rate;
use buckets::{Bucket, Recent};

/// The gate's bounds. The defaults suit a peer on a public address.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GateConfig {
    /// Handshakes in progress at once from strangers. Worst case: 256 times what a transport
    /// lets a connection hold before its hello.
    pub strangers: usize,
    /// Handshakes in progress at once from known addresses, besides. Worst case: 64 times
    /// the same.
    pub known: usize,
    /// Handshakes that may fail from one address: one IPv4 address, or one IPv6 /64, which is one host's to choose from.
    /// One in progress has spent its token already, so this bounds how many an address can have in progress too; the
    /// burst leaves room for many peers that start at once behind one address.
    pub per_address: Rate,
    /// Handshakes that may fail from one network: an IPv4 /24 or an IPv6 /48.
    pub per_network: Rate,
    /// Handshakes that may fail from one known address. Once it's dry, the address is served as a stranger.
    pub per_known: Rate,
    /// Datagrams from addresses that aren't validated, in the whole process. A Retry each: about 10 µs and 120 bytes.
    pub unvalidated: Rate,
    /// How long an address stays known after an authenticated peer was seen there.
    pub known_for: Duration,
    /// Addresses remembered, in each of four tables. Worst case: 4 x 2 generations x 16,384 slots of 41 bytes = 6 MiB.
    pub remembered: usize,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            strangers: 256,
            known: 64,
            per_address: Rate { burst: 64, interval: Duration::from_secs(1) },
            per_network: Rate { burst: 200, interval: Duration::from_millis(100) },
            per_known: Rate { burst: 64, interval: Duration::from_millis(250) },
            unvalidated: Rate { burst: 1000, interval: Duration::from_micros(500) },
            known_for: Duration::from_secs(24 * 60 * 60),
            remembered: 16_384,
        }
    }
}

/// Why the gate is closed to a handshake or a datagram, now. Nothing is spent then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Denied {
    /// As many handshakes are in progress as may be.
    #[error("we are busy: too many handshakes in progress")]
    Busy,
    /// Too many handshakes from this address failed.
    #[error("we refused: too many failed handshakes from this address")]
    Address,
    /// Too many handshakes from this network failed.
    #[error("we refused: too many failed handshakes from this network")]
    Network,
    /// Too many datagrams from addresses that aren't validated, from anywhere.
    #[error("we are busy: too many datagrams from unvalidated addresses")]
    Unvalidated,
}

/// What the gate has done since it was made, and what it's doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GateStats {
    /// Handshakes in progress on a stranger's permit.
    pub strangers: usize,
    /// Handshakes in progress on a known address's permit.
    pub known: usize,
    /// Handshakes let in.
    pub admitted: u64,
    /// Handshakes that succeeded.
    pub succeeded: u64,
    /// Refusals with [`Denied::Busy`].
    pub denied_busy: u64,
    /// Refusals with [`Denied::Address`].
    pub denied_address: u64,
    /// Refusals with [`Denied::Network`].
    pub denied_network: u64,
    /// Refusals with [`Denied::Unvalidated`].
    pub denied_unvalidated: u64,
}

/// The gate. One per process, in an `Arc`.
#[derive(Debug)]
pub struct Gate {
    config: GateConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stats: GateStats,
    unvalidated: Bucket,
    addresses: Recent<Place, Bucket>,
    networks: Recent<Place, Bucket>,
    known: Recent<Place, Bucket>,
    /// When an authenticated peer was last seen.
    seen: Recent<Place, Instant>,
    configured: HashSet<Place>,
}

impl Gate {
    /// A gate with nothing spent and nobody known.
    #[must_use]
    pub fn new(config: GateConfig) -> Arc<Self> {
        let state = State {
            stats: GateStats::default(),
            unvalidated: Bucket::default(),
            addresses: Recent::new(config.remembered),
            networks: Recent::new(config.remembered),
            known: Recent::new(config.remembered),
            seen: Recent::new(config.remembered),
            configured: HashSet::new(),
        };
        Arc::new(Self { config, state: Mutex::new(state) })
    }

    /// Makes these addresses, and no others, known without end: those of the configured peers. Called again when names
    /// resolve to something else. Bounded by the configuration that they come from.
    pub fn configure(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let configured = addresses.into_iter().map(Place::address).collect();
        self.lock().configured = configured;
    }

    /// Asks for room for one datagram from an address that isn't validated: a QUIC Initial without a token of ours.
    /// Answer it with a Retry; drop it silently if denied.
    ///
    /// # Errors
    /// [`Denied::Unvalidated`].
    pub fn unvalidated(&self, now: Instant) -> Result<(), Denied> {
        let mut state = self.lock();
        if state.unvalidated.has(self.config.unvalidated, now) {
            state.unvalidated.spend(self.config.unvalidated, now);
            return Ok(());
        }
        Err(state.deny(Denied::Unvalidated))
    }

    /// Asks to begin a handshake from a *validated* address: one that TCP accepted, or that sent back our Retry's
    /// token. Keep what is returned until the handshake has ended, and tell it of success.
    ///
    /// A known address is served from the budget of the known while there's room, then as a stranger.
    ///
    /// # Errors
    /// [`Denied::Busy`], [`Denied::Address`], [`Denied::Network`].
    pub fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Handshake, Denied> {
        let place = Place::address(address);
        let network = Place::network(address);
        let config = &self.config;
        let mut state = self.lock();

        let known_has_room = state.stats.known < config.known
            && state.is_known(place, config.known_for, now)
            && state.known.get_or_default(place).has(config.per_known, now);
        let pool = if known_has_room {
            state.known.get_or_default(place).spend(config.per_known, now);
            state.stats.known = state.stats.known.saturating_add(1);
            Pool::Known
        } else {
            // All are asked before any is spent.
            if state.stats.strangers >= config.strangers {
                return Err(state.deny(Denied::Busy));
            }
            if !state.addresses.get_or_default(place).has(config.per_address, now) {
                return Err(state.deny(Denied::Address));
            }
            if !state.networks.get_or_default(network).has(config.per_network, now) {
                return Err(state.deny(Denied::Network));
            }
            state.addresses.get_or_default(place).spend(config.per_address, now);
            state.networks.get_or_default(network).spend(config.per_network, now);
            state.stats.strangers = state.stats.strangers.saturating_add(1);
            Pool::Strangers
        };
        state.stats.admitted = state.stats.admitted.saturating_add(1);
        Ok(Handshake { gate: Arc::clone(self), place, network, pool })
    }

    /// Whether the address is configured, or an authenticated peer was seen there within
    /// [`GateConfig::known_for`]. Says nothing about who is there now.
    #[must_use]
    pub fn is_known(&self, address: IpAddr, now: Instant) -> bool {
        self.lock().is_known(Place::address(address), self.config.known_for, now)
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> GateStats {
        self.lock().stats
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics; and if it did, wrong counts are better than a closed gate.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_known(&self, place: Place, known_for: Duration, now: Instant) -> bool {
        self.configured.contains(&place) || self.seen.get(&place).is_some_and(|seen| now.saturating_duration_since(*seen) < known_for)
    }

    fn deny(&mut self, why: Denied) -> Denied {
        let count = match why {
            Denied::Busy => &mut self.stats.denied_busy,
            Denied::Address => &mut self.stats.denied_address,
            Denied::Network => &mut self.stats.denied_network,
            Denied::Unvalidated => &mut self.stats.denied_unvalidated,
        };
        *count = count.saturating_add(1);
        why
    }
}

/// A handshake in progress: its permit, and what it has spent.
///
/// Dropped, it gives the permit back, and what was spent stays spent. [`Handshake::succeeded`] gives back that too.
#[must_use = "the permit goes back when this is dropped"]
#[derive(Debug)]
pub struct Handshake {
    gate: Arc<Gate>,
    place: Place,
    network: Place,
    pool: Pool,
}

impl Handshake {
    /// The peer has proven its key, has been admitted, and the hello is acknowledged: gives back permit and tokens, and
    /// makes the address known from now on.
    pub fn succeeded(self, now: Instant) {
        let config = &self.gate.config;
        let mut state = self.gate.lock();
        match self.pool {
            Pool::Known => {
                if let Some(bucket) = state.known.get_mut(&self.place) {
                    bucket.give_back(config.per_known);
                }
            }
            Pool::Strangers => {
                if let Some(bucket) = state.addresses.get_mut(&self.place) {
                    bucket.give_back(config.per_address);
                }
                if let Some(bucket) = state.networks.get_mut(&self.network) {
                    bucket.give_back(config.per_network);
                }
            }
        }
        state.seen.insert(self.place, now);
        state.stats.succeeded = state.stats.succeeded.saturating_add(1);
        // Released before `self` is dropped, which takes the lock for the permit.
        drop(state);
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        let in_progress = match self.pool {
            Pool::Known => &mut state.stats.known,
            Pool::Strangers => &mut state.stats.strangers,
        };
        *in_progress = in_progress.saturating_sub(1);
    }
}

/// Whose permit a handshake holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Known,
    Strangers,
}

/// An address or a network, cut to what one party controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    V4(u32),
    V6(u64),
}

impl Place {
    /// An IPv4 address, or an IPv6 /64: whoever has one address of it has all of them.
    fn address(address: IpAddr) -> Self {
        Self::masked(address, u32::MAX, u64::MAX)
    }

    /// An IPv4 /24 or an IPv6 /48.
    fn network(address: IpAddr) -> Self {
        Self::masked(address, 0xffff_ff00, 0xffff_ffff_ffff_0000)
    }

    /// An IPv4 address that a dual-stack socket shows as `::ffff:a.b.c.d` is that IPv4 address: as IPv6, all of IPv4
    /// would be one /64.
    fn masked(address: IpAddr, v4: u32, v6: u64) -> Self {
        let v4_of = |ip: Ipv4Addr| Self::V4(ip.to_bits() & v4);
        let v6_of = |ip: Ipv6Addr| {
            // The upper half; the shift leaves 64 bits.
            Self::V6(u64::try_from(ip.to_bits() >> 64).unwrap_or(u64::MAX) & v6)
        };
        match address.to_canonical() {
            IpAddr::V4(ip) => v4_of(ip),
            IpAddr::V6(ip) => v6_of(ip),
        }
    }
}

#[cfg(test)]
mod tests;
