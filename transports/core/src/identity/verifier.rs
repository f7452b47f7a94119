//! The verifier: the key is the certificate.
//!
//! The certificate is parsed by `rustls-webpki`, the parser that reads it again to verify the handshake's signature, so
//! that no difference between two parsers can put one key here and another there. Names, dates, extensions and the
//! certificate's own signature decide nothing: whoever signs the handshake has the key, and the key is the peer.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error as TlsError, PeerIncompatible, SignatureScheme};

use super::error::{IdentityError, Refusal};
use super::peer_id::PeerId;
use super::tls::expected_key;

/// Largest certificate read, in bytes; ours has about 250. One per connection and per session to resume.
pub const CERTIFICATE_MAX: usize = 4096;

/// A SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410, section 4): `SEQUENCE { SEQUENCE { OID
/// 1.3.101.112 }, BIT STRING of 32 bytes }`. DER has one encoding for it, so the comparison is exact.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Who decides whether a peer with a proven key may connect. The lists do.
pub trait Admission: fmt::Debug + Send + Sync {
    /// Asked in every full handshake and after every handshake. Must not block.
    ///
    /// # Errors
    /// Why the peer isn't admitted.
    fn admits(&self, peer: &PeerId) -> Result<(), Refusal>;
}

/// The key of the peer that presented these certificates: exactly one, with an Ed25519 key, and nothing odd about it.
///
/// Says nothing about admission or expectation: [`check_peer`] does.
///
/// # Errors
/// [`IdentityError`]: no certificate or several, too large, doesn't parse, another kind of key, a small-order key.
pub fn peer_key(certificates: &[CertificateDer<'_>]) -> Result<PeerId, IdentityError> {
    let certificate = match certificates {
        [] => return Err(IdentityError::NoCertificate),
        [one] => one,
        several => return Err(IdentityError::CertificateCount(several.len())),
    };
    if certificate.len() > CERTIFICATE_MAX {
        return Err(IdentityError::CertificateSize(certificate.len()));
    }
    let spki = ParsedCertificate::try_from(certificate).map_err(IdentityError::CertificateEncoding)?.subject_public_key_info();
    match spki.strip_prefix(&SPKI_PREFIX) {
        Some(key) if key.len() == PeerId::LEN => Ok(PeerId::from_slice(key)?),
        _ => Err(IdentityError::NotEd25519),
    }
}

/// The check after *every* handshake, resumed or not, on both sides, before a byte goes up.
///
/// A resumed handshake never asks the verifier, in either role: the certificates then come from the session's first
/// handshake. rustls returns them as `peer_certificates()`, quinn as `peer_identity()`. Since then the peer may have
/// been blocked; and the dialer may have meant somebody else.
///
/// # Errors
/// [`IdentityError::WrongKey`] with both keys, if `expected` is another; [`IdentityError::Refused`] by `admission`;
/// else as [`peer_key`].
pub fn check_peer(
    expected: Option<&PeerId>,
    certificates: &[CertificateDer<'_>],
    admission: &dyn Admission,
) -> Result<PeerId, IdentityError> {
    let found = peer_key(certificates)?;
    check_expected(expected, found)?;
    admission.admits(&found).map_err(|why| IdentityError::Refused { peer: found, why })?;
    Ok(found)
}

fn check_expected(expected: Option<&PeerId>, found: PeerId) -> Result<(), IdentityError> {
    match expected {
        Some(&expected) if expected != found => Err(IdentityError::WrongKey { expected, found }),
        _ => Ok(()),
    }
}

/// Verifies certificates and handshake signatures, as server and as client. One per process.
///
/// rustls resumes a session only under the very `Arc` of the verifier that it began with, so both transports use this
/// one. What it verifies is checked again by [`check_peer`], since a resumed handshake passes it by.
#[derive(Debug)]
pub struct PeerVerifier {
    algorithms: WebPkiSupportedAlgorithms,
    admission: Arc<dyn Admission>,
}

impl PeerVerifier {
    pub(super) fn new(provider: &CryptoProvider, admission: Arc<dyn Admission>) -> Self {
        Self { algorithms: provider.signature_verification_algorithms, admission }
    }

    /// Whom the verifier and the check after the handshake ask.
    pub(super) fn admission(&self) -> &dyn Admission {
        &*self.admission
    }

    fn verify_certificate(
        expected: Option<&PeerId>,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), TlsError> {
        let count = intermediates.len().saturating_add(1);
        let verified = if count > 1 {
            Err(IdentityError::CertificateCount(count))
        } else {
            peer_key(std::slice::from_ref(end_entity)).and_then(|found| check_expected(expected, found))
        };
        verified.map_err(IdentityError::into_tls)
    }

    /// The signature first, then the lists: else anybody could show somebody's certificate to learn who is listed.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let valid = verify_tls13_signature(message, certificate, signature, &self.algorithms)?;
        check_peer(None, std::slice::from_ref(certificate), self.admission())
            .inspect_err(|error| tracing::debug!(%error, "refused in the handshake"))
            .map_err(IdentityError::into_tls)?;
        Ok(valid)
    }
}

/// TLS 1.2 is never offered; should it ever be, this is where it ends.
fn refuse_tls12() -> Result<HandshakeSignatureValid, TlsError> {
    Err(TlsError::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled))
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let expected = expected_key(server_name).map_err(IdentityError::into_tls)?;
        Self::verify_certificate(Some(&expected), end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Self::verify_certificate(None, end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
