//! CHALLENGE: proof of a key within a connection that's already open.
//!
//! A peer whose transport proves nothing (a Java peer over plain TCP), or an account that isn't the peer's own key,
//! signs a transcript that holds for one connection alone: `context ‖ 0 ‖ role ‖ signer's key ‖ other's key ‖ length of
//! network (8 bytes, big-endian) ‖ network ‖ TLS exporter (32) ‖ nonce (32)`. Every field but the network has a fixed
//! length and that one is preceded by its length, so that no two sets of fields give the same bytes.

use super::key::Identity;
use super::peer_id::{BadSignature, PeerId};

/// The signature's context: see [`Identity::sign`].
const CONTEXT: &str = "peerlane/1 challenge";

/// What a signature answers: which connection, which roles, which network. The verifier builds it from what *it* knows
/// of the connection, never from what the signer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// The signer's role in the connection: a signature can't be sent back to its maker as the answer.
    pub role: Role,
    /// The key of the other one, who verifies: a signature made for one peer is worth nothing to another.
    pub other: PeerId,
    /// The network's name, as in the hello.
    pub network: &'a str,
    /// The connection's exporter, under [`Challenge::EXPORTER_LABEL`] without context: a signature made in one
    /// connection is worth nothing in another (RFC 8446, section 7.5). All zero if the transport has none.
    pub exporter: [u8; 32],
    /// The verifier's nonce, random and used once.
    pub nonce: [u8; 32],
}

/// Who opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The one who dialed; 0 in the transcript.
    Dialer,
    /// The one who accepted; 1 in the transcript.
    Listener,
}

impl Challenge<'_> {
    /// The label for the TLS exporter, of which 32 bytes are taken.
    pub const EXPORTER_LABEL: &'static [u8] = b"EXPORTER-peerlane-1-challenge";

    /// The signer's answer, 64 bytes.
    #[must_use]
    pub fn sign(&self, signer: &Identity) -> [u8; 64] {
        signer.sign(CONTEXT, &self.transcript(&signer.peer_id()))
    }

    /// Verifies an answer by `signer`, strictly.
    ///
    /// # Errors
    /// [`BadSignature`] if any field differs from what was signed.
    pub fn verify(&self, signer: &PeerId, signature: &[u8; 64]) -> Result<(), BadSignature> {
        signer.verify(CONTEXT, &self.transcript(signer), signature)
    }

    fn transcript(&self, signer: &PeerId) -> Vec<u8> {
        let role = match self.role {
            Role::Dialer => 0,
            Role::Listener => 1,
        };
        // Lossless: no platform has a usize over 64 bits.
        let length = (self.network.len() as u64).to_be_bytes();
        [&[role], signer.as_bytes().as_slice(), self.other.as_bytes(), &length, self.network.as_bytes(), &self.exporter, &self.nonce]
            .concat()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn an_answer_holds_for_its_challenge_and_no_other() {
        let signer = Identity::from_seed(&[1; 32]).unwrap();
        let other = Identity::from_seed(&[2; 32]).unwrap().peer_id();
        let third = Identity::from_seed(&[3; 32]).unwrap().peer_id();
        let challenge = Challenge { role: Role::Dialer, other, network: "main", exporter: [4; 32], nonce: [5; 32] };
        let answer = challenge.sign(&signer);
        assert_eq!(challenge.verify(&signer.peer_id(), &answer), Ok(()));
        assert_eq!(challenge.verify(&third, &answer), Err(BadSignature));

        let changes: [fn(&mut Challenge<'_>); 4] = [
            |challenge| challenge.role = Role::Listener,
            |challenge| challenge.network = "test",
            |challenge| challenge.exporter[31] = 0,
            |challenge| challenge.nonce[0] = 0,
        ];
        for change in changes {
            let mut changed = challenge;
            change(&mut changed);
            assert_eq!(changed.verify(&signer.peer_id(), &answer), Err(BadSignature));
        }
        let changed = Challenge { other: third, ..challenge };
        assert_eq!(changed.verify(&signer.peer_id(), &answer), Err(BadSignature));

        let mut spoiled = answer;
        spoiled[40] ^= 1;
        assert_eq!(challenge.verify(&signer.peer_id(), &spoiled), Err(BadSignature));
    }

    #[test]
    fn a_byte_cannot_move_from_one_field_into_the_next() {
        let signer = Identity::from_seed(&[1; 32]).unwrap().peer_id();
        let other = Identity::from_seed(&[2; 32]).unwrap().peer_id();
        let with = |network| Challenge { role: Role::Dialer, other, network, exporter: [b'a'; 32], nonce: [b'a'; 32] };
        let (short, long) = (with("x").transcript(&signer), with("xa").transcript(&signer));
        assert_ne!(short[..], long[..short.len()]);
        assert_eq!(short.len(), 1 + 32 + 32 + 8 + 1 + 32 + 32);
    }

    #[test]
    fn the_transcript_is_golden() {
        let signer = Identity::from_seed(&[1; 32]).unwrap();
        let challenge = Challenge {
            role: Role::Listener,
            other: Identity::from_seed(&[2; 32]).unwrap().peer_id(),
            network: "main",
            exporter: [4; 32],
            nonce: [5; 32],
        };
        let mut message = b"peerlane/1 challenge\0\x01".to_vec();
        message.extend_from_slice(signer.peer_id().as_bytes());
        message.extend_from_slice(challenge.other.as_bytes());
        message.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 4]);
        message.extend_from_slice(b"main");
        message.extend_from_slice(&[4; 32]);
        message.extend_from_slice(&[5; 32]);
        assert_eq!(challenge.sign(&signer), signer.sign_raw(&message));
    }
}
