//! [`PeerId`]: who a peer is, as 32 bytes.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, VerifyingKey};
use thiserror::Error;

/// A peer's Ed25519 public key: its name, its certificate's key and what its signatures verify against.
///
/// Written as 64 hex digits; lower case is printed, either case is read. A value of this type is always the canonical
/// encoding of a point of large order: a small-order key would accept signatures that nobody made, and a second
/// encoding of one key would be a second name for one peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; PeerId::LEN]);

impl PeerId {
    /// Bytes in a public key (RFC 8032, section 5.1.5).
    pub const LEN: usize = 32;

    /// Checks and takes a public key. Costs one point decompression, some microseconds.
    ///
    /// # Errors
    /// [`PeerIdError::NotAKey`] if no point has this encoding, [`PeerIdError::NotCanonical`] if it's a second encoding
    /// of a point, [`PeerIdError::SmallOrder`] for one of the eight points of small order.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Result<Self, PeerIdError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| PeerIdError::NotAKey)?;
        if key.is_weak() {
            return Err(PeerIdError::SmallOrder);
        }
        // RFC 8032, section 5.1.3 has decoders refuse y >= p; the library's decompression reduces it instead.
        if key.to_edwards().compress().as_bytes() != &bytes {
            return Err(PeerIdError::NotCanonical);
        }
        Ok(Self(bytes))
    }

    /// As [`PeerId::from_bytes`], from a slice of any length.
    ///
    /// # Errors
    /// [`PeerIdError::Length`] unless there are 32 bytes; else as [`PeerId::from_bytes`].
    pub fn from_slice(bytes: &[u8]) -> Result<Self, PeerIdError> {
        let array = bytes.try_into().map_err(|_| PeerIdError::Length(bytes.len()))?;
        Self::from_bytes(array)
    }

    /// The public key's 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Verifies a signature made by [`Identity::sign`](super::Identity::sign) in the same context.
    ///
    /// Strict verification: no small-order point in the signature either, so that a signature that one peer accepts
    /// every peer accepts.
    ///
    /// # Errors
    /// [`BadSignature`], which says nothing more: whoever made it gets no help.
    pub fn verify(&self, context: &str, message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        let signed = super::key::in_context(context, message);
        key.verify_strict(&signed, &Signature::from_bytes(signature)).map_err(|_| BadSignature)
    }

    /// The key as one DNS label: 52 characters of lower-case base32 without padding (RFC 4648, section 6).
    ///
    /// 64 hex digits are one more than a label may have (RFC 1035, section 2.3.4).
    pub(crate) fn to_label(self) -> String {
        BASE32_NOPAD.encode(&self.0).to_ascii_lowercase()
    }

    /// Reads what [`PeerId::to_label`] wrote.
    pub(crate) fn from_label(label: &str) -> Option<Self> {
        let bytes = BASE32_NOPAD.decode(label.to_ascii_uppercase().as_bytes()).ok()?;
        Self::from_slice(&bytes).ok()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(position) = text.bytes().position(|byte| !byte.is_ascii_hexdigit()) {
            return Err(PeerIdError::NotHex { position: position.saturating_add(1) });
        }
        if text.len() != 2 * Self::LEN {
            return Err(PeerIdError::Digits(text.len()));
        }
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| PeerIdError::Digits(text.len()))?;
        Self::from_slice(&bytes)
    }
}

impl AsRef<[u8]> for PeerId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Why bytes or text are no [`PeerId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// Not 32 bytes; the number found.
    #[error("a peer's key has 32 bytes, not {0}")]
    Length(usize),
    /// Not 64 digits; the number found.
    #[error("a peer's key has 64 hex digits, not {0}")]
    Digits(usize),
    /// Something else than a hex digit.
    #[error("byte {position} of the peer's key isn't a hex digit")]
    NotHex {
        /// Counted in bytes from 1.
        position: usize,
    },
    /// No point of the curve has this encoding.
    #[error("these 32 bytes aren't an Ed25519 public key")]
    NotAKey,
    /// A second encoding of a point that has a shorter one.
    #[error("the Ed25519 public key isn't in its canonical encoding")]
    NotCanonical,
    /// One of the points of small order, under which anybody can sign.
    #[error("the Ed25519 public key is of small order: anybody could sign for it")]
    SmallOrder,
}

/// A signature doesn't verify: not this key, not this context, not this message, or not in strict form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the signature doesn't verify")]
pub struct BadSignature;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::identity::Identity;

    /// RFC 8032, section 7.1, test 1.
    const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn text_round_trips_in_either_case() {
        let id: PeerId = KEY.parse().unwrap();
        assert_eq!(id.to_string(), KEY);
        assert_eq!(KEY.to_uppercase().parse::<PeerId>().unwrap(), id);
        assert_eq!(PeerId::from_label(&id.to_label()), Some(id));
        assert_eq!(id.to_label().len(), 52);
    }

    #[test]
    fn bad_text_says_where() {
        assert_eq!("".parse::<PeerId>(), Err(PeerIdError::Digits(0)));
        assert_eq!(KEY[1..].parse::<PeerId>(), Err(PeerIdError::Digits(63)));
        let spoiled = format!("{}g{}", &KEY[..9], &KEY[10..]);
        assert_eq!(spoiled.parse::<PeerId>(), Err(PeerIdError::NotHex { position: 10 }));
        assert_eq!(format!("{}é", &KEY[..62]).parse::<PeerId>(), Err(PeerIdError::NotHex { position: 63 }));
    }

    #[test]
    fn small_order_keys_are_refused() {
        // Order 1 (the identity), order 4 (y = 0) and two of order 8, from the curve's torsion subgroup.
        for hex in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ] {
            assert_eq!(hex.parse::<PeerId>(), Err(PeerIdError::SmallOrder), "{hex}");
        }
    }

    #[test]
    fn a_second_encoding_of_a_key_is_refused() {
        // y = p + k encodes the point with y = k; for some small k that's a point of large order.
        let mut refused = 0;
        for k in 0..19u8 {
            let mut bytes = [0xff; 32];
            bytes[0] = 0xed + k;
            bytes[31] = 0x7f;
            match PeerId::from_bytes(bytes) {
                Ok(id) => panic!("accepted {id}"),
                Err(PeerIdError::NotCanonical) => refused += 1,
                Err(_) => {}
            }
        }
        assert!(refused > 0, "the loop must have met a real point");
    }

    #[test]
    fn bytes_that_are_no_point_are_refused() {
        let mut bytes = [0; 32];
        bytes[0] = 2;
        assert_eq!(PeerId::from_bytes(bytes), Err(PeerIdError::NotAKey));
        assert_eq!(PeerId::from_slice(&[1; 31]), Err(PeerIdError::Length(31)));
    }

    #[test]
    fn a_signature_holds_for_its_context_only() {
        let identity = Identity::generate().unwrap();
        let id = identity.peer_id();
        let signature = identity.sign("test one", b"message");
        assert_eq!(id.verify("test one", b"message", &signature), Ok(()));
        assert_eq!(id.verify("test two", b"message", &signature), Err(BadSignature));
        assert_eq!(id.verify("test one", b"massage", &signature), Err(BadSignature));
        let other = Identity::generate().unwrap().peer_id();
        assert_eq!(other.verify("test one", b"message", &signature), Err(BadSignature));
    }
}
