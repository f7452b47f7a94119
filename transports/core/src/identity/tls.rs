//! The TLS configurations of both roles, for any transport.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, KeyLogFile, ServerConfig};
use zeroize::Zeroizing;

use super::certificate::Credentials;
use super::error::IdentityError;
use super::key::Identity;
use super::peer_id::PeerId;
use super::sessions::Sessions;
use super::verifier::{Admission, PeerVerifier, check_peer};

/// The application protocol of peerlane's own transports (RFC 7301).
pub const ALPN: &[u8] = b"peerlane/1";

/// What a server name ends in: a domain that can't exist (RFC 6761, section 6.4).
const NAME_SUFFIX: &str = ".peerlane.invalid";

/// The name under which a peer is dialed: its key in base32, then `.peerlane.invalid`. It's never sent.
///
/// It makes the key part of what sessions are stored under: a session of one peer is never offered to another.
///
/// # Errors
/// [`IdentityError::ServerName`], which no key causes.
pub fn server_name(peer: &PeerId) -> Result<ServerName<'static>, IdentityError> {
    let name = format!("{}{NAME_SUFFIX}", peer.to_label());
    ServerName::try_from(name).map_err(|_| IdentityError::ServerName)
}

/// Reads what [`server_name`] made. The dialer's verifier has no other way to know whom was dialed, so any other name
/// is refused.
pub(super) fn expected_key(name: &ServerName<'_>) -> Result<PeerId, IdentityError> {
    let ServerName::DnsName(name) = name else {
        return Err(IdentityError::ServerName);
    };
    name.as_ref().strip_suffix(NAME_SUFFIX).and_then(PeerId::from_label).ok_or(IdentityError::ServerName)
}

/// Checks the application protocol after the handshake.
///
/// Two that offer different protocols fail in the handshake; but a peer that offers none at all connects over TCP, and
/// is found here.
///
/// # Errors
/// [`IdentityError::Protocol`] if `agreed` is none or another.
pub fn check_alpn(expected: &[u8], agreed: Option<&[u8]>) -> Result<(), IdentityError> {
    if agreed == Some(expected) {
        return Ok(());
    }
    Err(IdentityError::Protocol {
        expected: String::from_utf8_lossy(expected).into_owned(),
        found: String::from_utf8_lossy(agreed.unwrap_or_default()).into_owned(),
    })
}

/// What a transport may choose of its TLS.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsOptions {
    /// The application protocol. [`ALPN`] by default.
    pub alpn: Vec<u8>,
    /// Write the secrets of every connection to the file named by `SSLKEYLOGFILE`, so that a capture can be decrypted.
    /// For debugging alone; false by default.
    pub key_log: bool,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { alpn: ALPN.to_vec(), key_log: false }
    }
}

/// One process's TLS: its credentials, its verifier and its provider, from which each transport has its configurations.
///
/// Make one per process and identity, share it in an `Arc`, and ask it for one pair of configurations per transport:
/// each configuration has a session store or ticket key of its own, so what one transport began no other resumes.
pub struct Tls {
    /// From which transports derive secrets that a restarted peer must have again.
    secret: Zeroizing<[u8; 32]>,
    credentials: Arc<Credentials>,
    resolver: Arc<rustls::sign::SingleCertAndKey>,
    verifier: Arc<PeerVerifier>,
    provider: Arc<CryptoProvider>,
    flaw: Option<Flaw>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("peer", &self.peer_id()).finish_non_exhaustive()
    }
}

/// What can be wrong with a peer's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    NoCertificate,
    TwoCertificates,
    ForeignProtocol,
}

impl Tls {
    /// The TLS of `identity`, admitting whom `admission` admits.
    ///
    /// The provider is aws-lc-rs with X25519MLKEM768, a hybrid post-quantum key exchange, preferred.
    ///
    /// # Errors
    /// As [`Credentials::new`].
    pub fn new(identity: &Identity, admission: Arc<dyn Admission>) -> Result<Self, IdentityError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let credentials = Arc::new(Credentials::new(identity)?);
        Ok(Self {
            secret: identity.derive_secret("peerlane/1 transports"),
            resolver: credentials.resolver(),
            credentials,
            verifier: Arc::new(PeerVerifier::new(&provider, admission)),
            provider,
            flaw: None,
        })
    }

    /// A TLS with a flaw, which every peer must refuse: for the conformance suite alone.
    pub(crate) fn flawed(identity: &Identity, admission: Arc<dyn Admission>, flaw: Flaw) -> Result<Self, IdentityError> {
        let tls = Self::new(identity, admission)?;
        let count = match flaw {
            Flaw::NoCertificate => 0,
            Flaw::TwoCertificates => 2,
            Flaw::ForeignProtocol => 1,
        };
        let resolver = tls.credentials.presenting(count).map_or_else(|| tls.resolver.clone(), |certified| Arc::new(certified.into()));
        Ok(Self { resolver, flaw: Some(flaw), ..tls })
    }

    fn alpn(&self, options: &TlsOptions) -> Vec<Vec<u8>> {
        match self.flaw {
            Some(Flaw::ForeignProtocol) => vec![b"foreign/1".to_vec()],
            _ => vec![options.alpn.clone()],
        }
    }

    /// A secret of 32 bytes that depends on the identity's *secret* and on `context`, the same after every restart: for a
    /// transport's stateless-reset key, its address-token key, its connection-ID key. The context is a constant, a
    /// different one for every purpose (BLAKE3's key derivation mode).
    #[must_use]
    pub fn derive_secret(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, &*self.secret))
    }

    /// Our own key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.credentials.peer_id()
    }

    /// Our certificate and key.
    #[must_use]
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// The cryptography in use.
    #[must_use]
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// A dialer's configuration: TLS 1.3 alone, our certificate, resumption from a bounded store of its own (see
    /// [`SESSION_SERVERS_MAX`](super::SESSION_SERVERS_MAX)), no server name sent, no early data.
    ///
    /// Dial with [`server_name`]; then call [`Tls::check_peer`] and [`check_alpn`] after each handshake.
    ///
    /// # Errors
    /// [`IdentityError::Configuration`] if the library refuses, which no option causes.
    pub fn client_config(&self, options: &TlsOptions) -> Result<ClientConfig, IdentityError> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(IdentityError::Configuration)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_client_cert_resolver(self.resolver.clone());
        config.alpn_protocols = self.alpn(options);
        config.enable_sni = false;
        config.enable_early_data = false;
        config.resumption = Resumption::store(Arc::new(Sessions::default()));
        if options.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(config)
    }

    /// A listener's configuration: TLS 1.3 alone, our certificate, a certificate demanded of the dialer, resumption by
    /// tickets under a key of its own (no memory per session), no early data.
    ///
    /// Call [`Tls::check_peer`] and [`check_alpn`] after each handshake.
    ///
    /// # Errors
    /// [`IdentityError::Configuration`] if the library refuses: no randomness for the ticket key.
    pub fn server_config(&self, options: &TlsOptions) -> Result<ServerConfig, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(IdentityError::Configuration)?
            .with_client_cert_verifier(self.verifier.clone())
            .with_cert_resolver(self.resolver.clone());
        config.alpn_protocols = self.alpn(options);
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(IdentityError::Configuration)?;
        config.send_tls13_tickets = super::sessions::SESSION_TICKETS_MAX;
        if options.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(config)
    }

    /// [`check_peer`] with the admission that the verifier asks.
    ///
    /// # Errors
    /// As [`check_peer`].
    pub fn check_peer(&self, expected: Option<&PeerId>, certificates: &[CertificateDer<'_>]) -> Result<PeerId, IdentityError> {
        check_peer(expected, certificates, self.verifier.admission())
    }
}

#[cfg(test)]
mod tests;
