//! Our own certificate: one, self-signed, whose key is the identity.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData, SerialNumber, SignatureAlgorithm};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::error::IdentityError;
use super::key::Identity;
use super::peer_id::PeerId;

/// What we show in a handshake: the certificate and the key to sign with. One per process.
///
/// rustls resumes a session only under the very `Arc` of credentials that it began with, so both transports and both
/// roles use this one.
pub struct Credentials {
    id: PeerId,
    certificate: CertificateDer<'static>,
    resolver: Arc<SingleCertAndKey>,
}

impl Credentials {
    /// Makes the certificate, the same bytes for the same identity: Ed25519 signatures are deterministic, and nothing
    /// else in it varies.
    ///
    /// It's valid from 1975 to 9999. The verifier looks at no date: the key decides, and a peer with a wrong clock is
    /// still the peer with this key.
    ///
    /// # Errors
    /// [`IdentityError::OwnCertificate`] or [`IdentityError::Encoding`] if a library refuses our key.
    pub fn new(identity: &Identity) -> Result<Self, IdentityError> {
        let own = |error: &dyn fmt::Display| IdentityError::OwnCertificate(error.to_string());
        let certificate = self_signed(identity).map_err(|error| own(&error))?;
        let pkcs8 = identity.to_pkcs8()?;
        // The provider copies the key into memory that it overwrites when it frees it; `pkcs8` overwrites its own.
        let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_bytes())).map_err(|error| own(&error))?;
        let certified = CertifiedKey::new(vec![certificate.clone()], key);
        certified.keys_match().map_err(|error| own(&error))?;
        Ok(Self { id: identity.peer_id(), certificate, resolver: Arc::new(SingleCertAndKey::from(certified)) })
    }

    /// Our own key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.id
    }

    /// Our certificate, in DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Our certificate so many times, with our key.
    pub(super) fn presenting(&self, count: usize) -> Option<CertifiedKey> {
        let own = self.resolver.resolve(&[], &[])?;
        Some(CertifiedKey::new(vec![self.certificate.clone(); count], own.key.clone()))
    }

    /// What rustls asks for certificate and key, in either role.
    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::clone(&self.resolver)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).finish_non_exhaustive()
    }
}

/// X.509 version 3 without extensions; issuer and subject are the constant `CN=peerlane`, the serial number is 1.
fn self_signed(identity: &Identity) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "peerlane");
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from(1u64));
    params.not_before = rcgen::date_time_ymd(1975, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    let signer = Signer { identity, public: identity.peer_id() };
    Ok(params.self_signed(&signer)?.into())
}

/// Lends the identity to the certificate's maker, so that it gets no copy of the secret.
struct Signer<'a> {
    identity: &'a Identity,
    public: PeerId,
}

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.identity.sign_raw(message).to_vec())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::identity::{CERTIFICATE_MAX, peer_key};

    #[test]
    fn the_certificate_has_the_key_and_is_the_same_each_time() {
        let identity = Identity::from_seed(&[3; 32]).unwrap();
        let one = Credentials::new(&identity).unwrap();
        let two = Credentials::new(&identity).unwrap();
        assert_eq!(one.certificate(), two.certificate());
        assert!(one.certificate().len() <= CERTIFICATE_MAX / 8);
        assert_eq!(peer_key(std::slice::from_ref(one.certificate())).unwrap(), identity.peer_id());
    }

    #[test]
    fn the_certificate_contains_no_secret() {
        let identity = Identity::from_seed(&[3; 32]).unwrap();
        let credentials = Credentials::new(&identity).unwrap();
        assert!(!credentials.certificate().windows(32).any(|window| window == [3; 32]));
    }
}
