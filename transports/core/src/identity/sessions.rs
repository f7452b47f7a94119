//! The dialer's store of TLS sessions to resume, bounded in peers and in tickets for each.
//!
//! rustls's own store keeps eight tickets for every server, and a server chooses how large its tickets are.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Most peers with a session to resume, per transport. The oldest is forgotten first, and met with a full handshake.
///
/// Worst case for a transport: 128 peers x 2 tickets x (64 KiB of ticket + 4 KiB of certificate) = 17 MiB, if every peer
/// dialed sends the largest tickets there are. Ours are below 1 KiB: 256 KiB in all.
pub const SESSION_SERVERS_MAX: usize = 128;

/// Most tickets kept per peer, the newest: as many as a server sends after a handshake. Each is used once.
pub const SESSION_TICKETS_MAX: usize = 2;

/// A bounded [`ClientSessionStore`], of TLS 1.3 alone. One per transport.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    servers: HashMap<ServerName<'static>, Server>,
    /// The servers, in the order in which they were first met.
    order: VecDeque<ServerName<'static>>,
}

#[derive(Default)]
struct Server {
    group: Option<NamedGroup>,
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Inner {
    fn server(&mut self, name: ServerName<'static>) -> &mut Server {
        if !self.servers.contains_key(&name) {
            while self.order.len() >= SESSION_SERVERS_MAX {
                if let Some(oldest) = self.order.pop_front() {
                    self.servers.remove(&oldest);
                }
            }
            self.order.push_back(name.clone());
        }
        self.servers.entry(name).or_default()
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing between lock and unlock can leave the store half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.lock().server(server_name).group = Some(group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.lock().servers.get(&server_name.to_owned())?.group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut inner = self.lock();
        let tickets = &mut inner.server(name).tickets;
        while tickets.len() >= SESSION_TICKETS_MAX {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.lock().servers.get_mut(name)?.tickets.pop_back()
    }
}

/// How much is kept, never what.
impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("servers", &self.lock().servers.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn name(n: usize) -> ServerName<'static> {
        ServerName::try_from(format!("s{n}.invalid")).unwrap()
    }

    #[test]
    fn the_oldest_server_goes_when_the_store_is_full() {
        let sessions = Sessions::default();
        for n in 0..=SESSION_SERVERS_MAX {
            sessions.set_kx_hint(name(n), NamedGroup::X25519);
            // Again, which makes it no second entry.
            sessions.set_kx_hint(name(n), NamedGroup::X25519);
        }
        assert_eq!(sessions.lock().servers.len(), SESSION_SERVERS_MAX);
        assert_eq!(sessions.lock().order.len(), SESSION_SERVERS_MAX);
        assert_eq!(sessions.kx_hint(&name(0)), None);
        assert_eq!(sessions.kx_hint(&name(1)), Some(NamedGroup::X25519));
    }
}
