//! Why a peer's identity wasn't accepted, or ours couldn't be made.

use rustls::{AlertDescription, CertificateError, Error as TlsError};
use thiserror::Error;

use super::peer_id::{PeerId, PeerIdError};

/// What is wrong with a peer's identity, or with making our own.
///
/// Each text says who refused. The transport closes the connection with it; nothing of the peer's goes up before.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The operating system gave no randomness for a new key.
    #[error("the operating system gave no randomness: {0}")]
    Randomness(String),
    /// Our own key couldn't be written as PKCS#8. Not the doing of any peer.
    #[error("our key couldn't be encoded: {0}")]
    Encoding(String),
    /// Our own certificate couldn't be made. Not the doing of any peer.
    #[error("our certificate couldn't be made: {0}")]
    OwnCertificate(String),
    /// The TLS library refused our configuration. Not the doing of any peer.
    #[error("the TLS configuration was refused: {0}")]
    Configuration(TlsError),
    /// The peer presented no certificate.
    #[error("we refused the peer: it presented no certificate")]
    NoCertificate,
    /// The peer presented more certificates than one; the number.
    #[error("we refused the peer: it presented {0} certificates, and one is expected")]
    CertificateCount(usize),
    /// The certificate is larger than [`CERTIFICATE_MAX`](super::CERTIFICATE_MAX); its size in bytes.
    #[error("we refused the peer: its certificate has {0} bytes")]
    CertificateSize(usize),
    /// The certificate doesn't parse.
    #[error("we refused the peer: its certificate doesn't parse ({0})")]
    CertificateEncoding(TlsError),
    /// The certificate's key is RSA, ECDSA or anything else than Ed25519.
    #[error("we refused the peer: its certificate's key isn't an Ed25519 key")]
    NotEd25519,
    /// 32 bytes that aren't acceptable as a key.
    #[error("the key isn't acceptable: {0}")]
    Key(#[from] PeerIdError),
    /// The peer has another key than the one that was dialed.
    #[error("we refused the peer: expected key {expected}, found key {found}")]
    WrongKey {
        /// The key that the dialer named.
        expected: PeerId,
        /// The key of the peer that answered.
        found: PeerId,
    },
    /// The other side has our own key: we dialed ourselves, or somebody has copied the key.
    #[error("we refused the peer: it has our own key (did we dial ourselves?)")]
    Ourselves,
    /// A server name that isn't of our making was given to our verifier.
    #[error("the server name names no key, so whoever answers can't be checked")]
    ServerName,
    /// The lists refuse the peer.
    #[error("we refused peer {peer}: {why}")]
    Refused {
        /// The peer, which has proven its key.
        peer: PeerId,
        /// Which list.
        why: Refusal,
    },
    /// The lists refused the peer during the handshake; the log has its key.
    #[error("we refused the peer during the handshake: not admitted by our lists")]
    RefusedInHandshake,
    /// The other side refused us during its handshake, by a TLS alert.
    #[error("the peer refused our identity (TLS alert {0:?})")]
    RefusedByRemote(AlertDescription),
    /// No application protocol, or not ours, was agreed.
    #[error("the peer speaks another protocol: ALPN {found:?} was agreed, {expected:?} is expected")]
    Protocol {
        /// What we offer, as text.
        expected: String,
        /// What was agreed, as text; empty if nothing.
        found: String,
    },
}

/// Which list refuses a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is a list of those allowed, and the peer isn't on it.
    #[error("it isn't on the allow list")]
    NotAllowed,
    /// The peer is on the block list.
    #[error("it is on the block list")]
    Blocked,
}

impl IdentityError {
    /// The identity error within an error of the TLS library, if there is one: what our verifier said, or an alert by
    /// which the other side's verifier refused us.
    ///
    /// A transport asks this first, since "expected key A, found key B" helps more than "invalid certificate".
    #[must_use]
    pub fn from_tls(error: &TlsError) -> Option<Self> {
        match error {
            TlsError::NoCertificatesPresented => Some(Self::NoCertificate),
            TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => Some(Self::RefusedInHandshake),
            TlsError::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref::<Self>().cloned(),
            TlsError::AlertReceived(alert) => Self::from_alert(*alert),
            _ => None,
        }
    }

    /// What a TLS alert received from the other side says of our identity, if anything (RFC 8446, section 6.2).
    ///
    /// QUIC carries the alert as the error code `0x100 + alert` (RFC 9001, section 4.8).
    #[must_use]
    pub fn from_alert(alert: AlertDescription) -> Option<Self> {
        match alert {
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::AccessDenied => Some(Self::RefusedByRemote(alert)),
            _ => None,
        }
    }

    /// The form in which our verifier hands the error to the TLS library, and the alert that follows from it: the
    /// lists' refusal is `access_denied`, all else `certificate_unknown`.
    pub(super) fn into_tls(self) -> TlsError {
        TlsError::InvalidCertificate(match self {
            Self::Refused { .. } => CertificateError::ApplicationVerificationFailure,
            other => CertificateError::Other(rustls::OtherError(std::sync::Arc::new(other))),
        })
    }
}
