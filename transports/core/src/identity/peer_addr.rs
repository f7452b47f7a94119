//! [`PeerAddr`]: whom to dial, and where.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use thiserror::Error;

use super::peer_id::{PeerId, PeerIdError};

/// Most addresses taken from one name, so that a hostile resolver can't make a dial endless.
pub const RESOLVED_MAX: usize = 16;

/// Longest DNS name, in bytes of text without the final dot (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;
/// Longest label of a DNS name, in bytes (the same).
const LABEL_MAX: usize = 63;

/// `PEERID@host:port`: the key that is expected, and where it should answer.
///
/// The host is an IPv4 address, an IPv6 address in brackets or a DNS name. Reading is strict, and what is printed
/// reads back as the same value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddr {
    /// The key that is expected.
    pub id: PeerId,
    /// Where.
    pub host: Host,
}

/// Where a peer is: an address, or a name to be resolved at each dial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address and a port.
    Address(SocketAddr),
    /// A DNS name in lower case, and a port.
    Name(String, u16),
}

impl PeerAddr {
    /// A peer at a known address.
    #[must_use]
    pub fn new(id: PeerId, address: SocketAddr) -> Self {
        Self { id, host: Host::Address(address) }
    }

    /// The addresses to try, in the resolver's order, each once, [`RESOLVED_MAX`] at most and at least one.
    ///
    /// # Errors
    /// [`ResolveError`] if the name has no address or the resolver fails. No deadline of its own: the system's
    /// resolver has one.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped. A lookup that has begun ends on its own thread, unheard.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        match &self.host {
            Host::Address(address) => Ok(vec![*address]),
            Host::Name(name, port) => {
                let found = tokio::net::lookup_host((name.as_str(), *port))
                    .await
                    .map_err(|source| ResolveError::Lookup { name: name.clone(), source })?;
                let mut addresses: Vec<SocketAddr> = Vec::new();
                for address in found {
                    if addresses.len() < RESOLVED_MAX && !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                if addresses.is_empty() {
                    return Err(ResolveError::NoAddress { name: name.clone() });
                }
                Ok(addresses)
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.host)
    }
}

impl FromStr for PeerAddr {
    type Err = PeerAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, host) = text.split_once('@').ok_or(PeerAddrError::NoKey)?;
        Ok(Self { id: id.parse()?, host: host.parse()? })
    }
}

impl FromStr for Host {
    type Err = PeerAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(PeerAddrError::NoPort)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(PeerAddrError::Unbracketed);
        }
        let port = parse_port(port)?;
        if let Some(inner) = host.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(PeerAddrError::Ipv6)?;
            // The socket form reads a scope (`fe80::1%2`), which an address alone has no room for.
            let address: SocketAddrV6 = format!("[{inner}]:{port}").parse().map_err(|_| PeerAddrError::Ipv6)?;
            return Ok(Self::Address(address.into()));
        }
        // Like a URL's host: what ends in a number is an IPv4 address or a mistake, never a name.
        let last_label = host.rsplit('.').next().unwrap_or_default();
        if !last_label.is_empty() && last_label.bytes().all(|byte| byte.is_ascii_digit()) {
            let ip: Ipv4Addr = host.parse().map_err(|_| PeerAddrError::Ipv4)?;
            return Ok(Self::Address(SocketAddrV4::new(ip, port).into()));
        }
        check_name(host)?;
        Ok(Self::Name(host.to_ascii_lowercase(), port))
    }
}

fn parse_port(text: &str) -> Result<u16, PeerAddrError> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    match text.parse() {
        Ok(port) if canonical => Ok(port),
        _ => Err(PeerAddrError::Port),
    }
}

/// Letters, digits, hyphens and underscores (in use for service names), in labels of 1 to 63.
fn check_name(name: &str) -> Result<(), PeerAddrError> {
    let good_label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.len() <= NAME_MAX && name.split('.').all(good_label) { Ok(()) } else { Err(PeerAddrError::Name) }
}

/// Why text is no [`PeerAddr`] or no [`Host`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerAddrError {
    /// There is no `@`.
    #[error("a peer's address is PEERID@host:port, and the key is missing")]
    NoKey,
    /// What stands before the `@` is no key.
    #[error("before the `@`: {0}")]
    Key(#[from] PeerIdError),
    /// There is no `:port`.
    #[error("the port is missing: host:port is expected")]
    NoPort,
    /// The port isn't a number from 1 to 65535.
    #[error("the port is a number from 1 to 65535")]
    Port,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address stands in brackets: [::1]:port")]
    Unbracketed,
    /// What stands in brackets is no IPv6 address.
    #[error("what stands in brackets isn't an IPv6 address")]
    Ipv6,
    /// Ends in a number, and is no IPv4 address.
    #[error("the host looks like an IPv4 address and isn't one")]
    Ipv4,
    /// Neither an address nor a DNS name.
    #[error("the host is neither an IP address nor a DNS name")]
    Name,
}

/// Why a name gave no address to dial.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The resolver failed.
    #[error("looking up {name}: {source}")]
    Lookup {
        /// The DNS name.
        name: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name exists, without an address.
    #[error("looking up {name}: it has no address")]
    NoAddress {
        /// The DNS name.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;
    use crate::identity::Identity;

    fn host(text: &str) -> Result<Host, PeerAddrError> {
        text.parse()
    }

    #[test]
    fn the_forms_are_read_and_printed_back() {
        let id = Identity::from_seed(&[1; 32]).unwrap().peer_id();
        for text in [
            "127.0.0.1:1",
            "[::1]:65535",
            "[2001:db8::2]:443",
            "[fe80::1%2]:4000",
            "localhost:4000",
            "peer-1.example.org:4000",
            "_peer._udp.example.org:4000",
            "1st.example:80",
        ] {
            let whole = format!("{id}@{text}");
            assert_eq!(whole.parse::<PeerAddr>().unwrap().to_string(), whole);
        }
        assert_eq!(host("Example.ORG:5"), Ok(Host::Name("example.org".into(), 5)));
    }

    #[test]
    fn all_else_is_refused_and_says_why() {
        let id = Identity::from_seed(&[1; 32]).unwrap().peer_id();
        assert_eq!("h:1".parse::<PeerAddr>(), Err(PeerAddrError::NoKey));
        assert_eq!("ab@h:1".parse::<PeerAddr>(), Err(PeerAddrError::Key(PeerIdError::Digits(2))));
        assert_eq!(format!("{id}@a@b:1").parse::<PeerAddr>(), Err(PeerAddrError::Name));
        assert_eq!(host("localhost"), Err(PeerAddrError::NoPort));
        for port in ["", "0", "65536", "+1", "01", "1x", " 1", "٣"] {
            assert_eq!(host(&format!("h:{port}")), Err(PeerAddrError::Port), "{port}");
        }
        assert_eq!(host("::1:80"), Err(PeerAddrError::Unbracketed));
        for text in ["[::1:80", "[]:80", "[127.0.0.1]:80", "[::1]x:80", "[[::1]]:80", "[a]:80]:1"] {
            assert_eq!(host(text), Err(PeerAddrError::Ipv6), "{text}");
        }
        for text in ["1.2.3:80", "1.2.3.256:80", "01.2.3.4:80", "5:80", "a.1:80"] {
            assert_eq!(host(text), Err(PeerAddrError::Ipv4), "{text}");
        }
        let long_label = format!("{}.org:80", "a".repeat(64));
        let long_name = format!("{}a:80", "a.".repeat(127));
        for text in [":80", ".:80", "a..b:80", "a.:80", "-a:80", "a-:80", "a b:80", "ä:80", "a/b:80", &long_label, &long_name] {
            assert_eq!(host(text), Err(PeerAddrError::Name), "{text}");
        }
    }

    #[tokio::test]
    async fn resolving_gives_addresses_or_an_error_with_the_name() {
        let id = Identity::from_seed(&[1; 32]).unwrap().peer_id();
        let address: SocketAddr = "127.0.0.1:9".parse().unwrap();
        assert_eq!(PeerAddr::new(id, address).resolve().await.unwrap(), vec![address]);
        let local: PeerAddr = format!("{id}@localhost:9").parse().unwrap();
        let found = local.resolve().await.unwrap();
        assert!(found.iter().all(|found| found.ip().is_loopback() && found.port() == 9));
        assert!((1..=RESOLVED_MAX).contains(&found.len()));
    }

    proptest! {
        #[test]
        fn whatever_is_read_prints_to_what_reads_the_same(text in "[a-z0-9.:\\[\\]%_-]{0,24}:[0-9]{1,5}") {
            if let Ok(read) = text.parse::<Host>() {
                prop_assert_eq!(read.to_string().parse::<Host>().unwrap(), read);
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,80}") {
            let _ = text.parse::<PeerAddr>();
            let _ = text.parse::<Host>();
        }
    }
}
