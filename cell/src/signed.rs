//! Signed cells (CAD003 `0x90`, `0x91`): Ed25519 over the reference to a value.
//!
//! Signing the reference, not the value, lets the signature be judged from this one cell whatever the value's size. Natively the
//! profile's context and a zero byte come first, so that no signature made for another purpose fits here; then the network, so
//! that none made for another network does.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use super::encode::encode_ref_into;
use super::id::Profile;
use super::value::Ref;

/// The content of a signed cell. The decoder doesn't judge the signature: [`Signed::verify`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub(super) key: Option<[u8; 32]>,
    pub(super) signature: [u8; 64],
    pub(super) value: Ref,
}

/// Why a signature doesn't hold. The signer, or whoever changed the cell, is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The cell names no key (tag `0x91`), and none was given.
    #[error("the signed cell names no key")]
    NoKey,
    /// The key is no point of the curve, or of small order.
    #[error("the signer's key is not a valid Ed25519 key")]
    BadKey,
    /// The signature is not the key's for this value.
    #[error("the signature does not verify")]
    BadSignature,
}

impl Signed {
    /// Signs a value, which [`super::Writer::link`] has made a reference.
    #[must_use]
    pub fn sign(profile: &Profile, key: &SigningKey, value: Ref) -> Self {
        let signature = key.sign(&signed_bytes(profile, &value)).to_bytes();
        Self { key: Some(key.verifying_key().to_bytes()), signature, value }
    }

    /// Verifies with the key in the cell (`verify_strict`: no small-order key, no malleable signature).
    ///
    /// # Errors
    /// [`SignatureError`], saying what fails.
    pub fn verify(&self, profile: &Profile) -> Result<(), SignatureError> {
        self.verify_with(profile, self.key.as_ref().ok_or(SignatureError::NoKey)?)
    }

    /// Verifies with a key known from elsewhere, which the short form `0x91` needs.
    ///
    /// # Errors
    /// [`SignatureError`], saying what fails.
    pub fn verify_with(&self, profile: &Profile, key: &[u8; 32]) -> Result<(), SignatureError> {
        let key = VerifyingKey::from_bytes(key).map_err(|_| SignatureError::BadKey)?;
        if key.is_weak() {
            return Err(SignatureError::BadKey);
        }
        key.verify_strict(&signed_bytes(profile, &self.value), &Signature::from_bytes(&self.signature))
            .map_err(|_| SignatureError::BadSignature)
    }

    /// The signer's key, unless the short form leaves it out.
    #[must_use]
    pub const fn key(&self) -> Option<&[u8; 32]> {
        self.key.as_ref()
    }

    /// The 64 bytes of the signature.
    #[must_use]
    pub const fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    /// What is signed.
    #[must_use]
    pub const fn value(&self) -> &Ref {
        &self.value
    }
}

fn signed_bytes(profile: &Profile, value: &Ref) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(192);
    if let Some(context) = profile.signature_context {
        bytes.extend_from_slice(context);
        if let Some(network) = &profile.network {
            bytes.extend_from_slice(b" in");
            bytes.push(0);
            bytes.extend_from_slice(network);
        } else {
            bytes.push(0);
        }
    }
    encode_ref_into(value, &mut bytes);
    bytes
}
