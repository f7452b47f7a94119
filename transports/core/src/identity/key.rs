//! [`Identity`]: the secret half of a peer's key, in memory.

use std::fmt;

use ed25519_dalek::pkcs8::{EncodePrivateKey, KeypairBytes, SecretDocument};
use ed25519_dalek::{Signer, SigningKey};
use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use super::error::IdentityError;
use super::peer_id::PeerId;

/// A peer's Ed25519 key pair.
///
/// The secret is overwritten when the value is dropped, and stands in one place on the heap, so that moving the
/// identity leaves no copies behind. It isn't `Clone`: share it in an `Arc`.
pub struct Identity {
    key: Box<SigningKey>,
    id: PeerId,
}

impl Identity {
    /// A new identity from the operating system's randomness.
    ///
    /// # Errors
    /// [`IdentityError::Randomness`] if the operating system gives none.
    pub fn generate() -> Result<Self, IdentityError> {
        let mut seed = Zeroizing::new([0; 32]);
        SysRng.try_fill_bytes(seed.as_mut_slice()).map_err(|error| IdentityError::Randomness(error.to_string()))?;
        Self::from_seed(&seed)
    }

    /// The identity of a 32-byte seed (RFC 8032's private key). For tests and for keys kept elsewhere.
    ///
    /// # Errors
    /// None that a seed can cause: a public key made from a seed is never of small order.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, IdentityError> {
        Self::from_signing_key(Box::new(SigningKey::from_bytes(seed)))
    }

    pub(super) fn from_signing_key(key: Box<SigningKey>) -> Result<Self, IdentityError> {
        let id = PeerId::from_bytes(key.verifying_key().to_bytes())?;
        Ok(Self { key, id })
    }

    /// The public half.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.id
    }

    /// Signs `context ‖ 0 ‖ message` (Ed25519, 64 bytes), verified by [`PeerId::verify`].
    ///
    /// The context is a constant of the calling code that contains no zero byte, such as `peerlane/1 challenge`: a
    /// signature made for one purpose then never holds for another.
    #[must_use]
    pub fn sign(&self, context: &str, message: &[u8]) -> [u8; 64] {
        self.key.sign(&in_context(context, message)).to_bytes()
    }

    /// The key itself, for signatures whose form is fixed elsewhere (cells). It's the secret: don't pass it on.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// A secret of 32 bytes that depends on the *secret* seed and on `context`, the same after every restart.
    ///
    /// For keys that a restarted peer must have again: the stateless-reset key, the address-token key, the
    /// connection-ID key. The context is a constant, a different one for every purpose (BLAKE3's key derivation mode).
    #[must_use]
    pub fn derive_secret(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, self.key.as_bytes()))
    }

    /// Signs bytes as they are: for X.509, whose signatures have a structure of their own.
    pub(super) fn sign_raw(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// PKCS#8 version 1 (RFC 8410, section 7): the seed alone, the form that every other tool reads.
    pub(super) fn to_pkcs8(&self) -> Result<SecretDocument, IdentityError> {
        KeypairBytes { secret_key: self.key.to_bytes(), public_key: None }
            .to_pkcs8_der()
            .map_err(|error| IdentityError::Encoding(error.to_string()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is signed: `context ‖ 0 ‖ message`.
pub(super) fn in_context(context: &str, message: &[u8]) -> Vec<u8> {
    debug_assert!(!context.as_bytes().contains(&0), "a zero byte ends the context");
    [context.as_bytes(), &[0], message].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_public_key_is_rfc_8032s() {
        // RFC 8032, section 7.1, test 1.
        let seed = data_encoding::HEXLOWER.decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let identity = Identity::from_seed(&seed.try_into().unwrap()).unwrap();
        assert_eq!(identity.peer_id().to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }

    #[test]
    fn two_identities_differ() {
        let one = Identity::generate().unwrap();
        let two = Identity::generate().unwrap();
        assert_ne!(one.peer_id(), two.peer_id());
    }

    #[test]
    fn derived_secrets_depend_on_seed_and_context_and_nothing_else() {
        let one = Identity::from_seed(&[1; 32]).unwrap();
        let again = Identity::from_seed(&[1; 32]).unwrap();
        let two = Identity::from_seed(&[2; 32]).unwrap();
        assert_eq!(one.derive_secret("a"), again.derive_secret("a"));
        assert_ne!(one.derive_secret("a"), one.derive_secret("b"));
        assert_ne!(one.derive_secret("a"), two.derive_secret("a"));
        // From the secret: not what the public key, or the bare seed, would give.
        assert_ne!(*one.derive_secret("a"), blake3::derive_key("a", one.peer_id().as_bytes()));
        assert_ne!(*one.derive_secret("a"), [1; 32]);
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", Identity::from_seed(&[0xab; 32]).unwrap());
        assert!(!shown.contains("abababab") && !shown.contains("171, 171"));
    }
}
