//! CHALLENGE: a connection starts unproven, and each side may have the other one prove its key (0.8.3 and newer).
//!
//! The challenger signs `[token target-key-or-nil context?]`; the answer is the responder's signature over
//! `[token challenger-key context?]`. The context is the network's ID. The reference peer up to 0.8.6 checks neither
//! signature, newer ones do; here both are checked, always.

use ed25519_dalek::SigningKey;
use peerlane_cell::{Cell, SignatureError, Signed, TreeError, ValueId};

use crate::value::{Build, CONVEX, Value};

/// What a challenger signs, and what a responder answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// 32 random bytes.
    pub token: [u8; 32],
    /// Whom it's for; `None`: whoever is there.
    pub target: Option<[u8; 32]>,
    /// The network's ID (its genesis hash).
    pub context: Option<ValueId>,
}

/// Why a challenge isn't answered, or an answer proves nothing. The other side is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChallengeError {
    /// Not a signed vector of two or three elements.
    #[error("it is not a signed vector of a token, a key and a context")]
    Format,
    /// The signature doesn't hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A challenge for another key than ours.
    #[error("it is for another key")]
    Target,
    /// Another network than ours.
    #[error("it is for another network")]
    Context,
    /// An answer to another challenge.
    #[error("its token is not the one of the challenge")]
    Token,
    /// An answer by another key than the one expected.
    #[error("it is signed by another key than the one expected")]
    Signer,
}

impl Challenge {
    /// The signed challenge, as CHALLENGE carries it.
    ///
    /// # Errors
    /// [`TreeError::TooLarge`], which doesn't happen.
    pub fn sign(&self, key: &SigningKey) -> Result<Value, TreeError> {
        sign(key, &self.token, self.target.as_ref(), self.context.as_ref())
    }

    /// Reads and verifies a challenge, and judges whether it's for the holder of `own` in the network `context` (`None`: any): the
    /// challenger's key and the challenge.
    ///
    /// # Errors
    /// [`ChallengeError`]: what to refuse it for.
    pub fn verify(signed: &Value, own: &[u8; 32], context: Option<&ValueId>) -> Result<([u8; 32], Self), ChallengeError> {
        let (signer, challenge) = open(signed)?;
        if challenge.target.is_some_and(|target| target != *own) {
            return Err(ChallengeError::Target);
        }
        if let (Some(ours), Some(theirs)) = (context, &challenge.context)
            && ours != theirs
        {
            return Err(ChallengeError::Context);
        }
        Ok((signer, challenge))
    }

    /// The answer to a challenge that was verified, as the value of a RESULT.
    ///
    /// # Errors
    /// As [`sign`](Self::sign).
    pub fn answer(&self, challenger: &[u8; 32], key: &SigningKey) -> Result<Value, TreeError> {
        sign(key, &self.token, Some(challenger), self.context.as_ref())
    }

    /// What an answer to this challenge, made by `own`, proves: the key at the other end.
    ///
    /// # Errors
    /// [`ChallengeError`]: why it proves nothing.
    pub fn verify_answer(&self, answer: &Value, own: &[u8; 32]) -> Result<[u8; 32], ChallengeError> {
        let (signer, inner) = open(answer)?;
        if inner.token != self.token {
            return Err(ChallengeError::Token);
        }
        if inner.target.as_ref() != Some(own) {
            return Err(ChallengeError::Target);
        }
        if inner.context != self.context {
            return Err(ChallengeError::Context);
        }
        if self.target.is_some_and(|target| target != signer) {
            return Err(ChallengeError::Signer);
        }
        Ok(signer)
    }
}

fn sign(key: &SigningKey, token: &[u8; 32], who: Option<&[u8; 32]>, context: Option<&ValueId>) -> Result<Value, TreeError> {
    let mut build = Build::default();
    let mut items = vec![build.blob32(token), who.map_or_else(peerlane_cell::Ref::nil, |who| build.blob32(who))];
    items.extend(context.map(|context| build.blob32(context.as_bytes())));
    let vector = build.vector(&items)?;
    let vector = build.link(vector)?;
    Ok(build.finish(Cell::Signed(Box::new(Signed::sign(&CONVEX, key, vector)))))
}

/// The signer and what was signed, once the signature holds.
fn open(value: &Value) -> Result<([u8; 32], Challenge), ChallengeError> {
    let Cell::Signed(signed) = &value.cell else { return Err(ChallengeError::Format) };
    signed.verify(&CONVEX)?;
    let key = *signed.key().ok_or(ChallengeError::Format)?;
    let inner = value.child(signed.value()).ok_or(ChallengeError::Format)?;
    let items: Option<Vec<&Cell>> =
        inner.cell.as_short_vector().ok_or(ChallengeError::Format)?.iter().map(|item| item.embedded()).collect();
    let items = items.ok_or(ChallengeError::Format)?;
    let (token, who, context) = match items[..] {
        [token, who] => (token, who, None),
        [token, who, context] => (token, who, Some(context)),
        _ => return Err(ChallengeError::Format),
    };
    let bytes = |cell: &Cell| cell.as_blob32().ok_or(ChallengeError::Format);
    let target = if who.is_nil() { None } else { Some(bytes(who)?) };
    // A context of nil is none: newer peers demand three elements.
    let context = context.filter(|context| !context.is_nil()).map(bytes).transpose()?.map(ValueId);
    Ok((key, Challenge { token: bytes(token)?, target, context }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn key(n: u8) -> (SigningKey, [u8; 32]) {
        let key = SigningKey::from_bytes(&[n; 32]);
        let public = key.verifying_key().to_bytes();
        (key, public)
    }

    #[test]
    fn an_answer_proves_the_key_and_nothing_else_does() {
        let ((ours, our_key), (theirs, their_key), (other, other_key)) = (key(1), key(2), key(3));
        let network = ValueId([9; 32]);
        for context in [None, Some(network)] {
            let challenge = Challenge { token: [5; 32], target: Some(their_key), context };
            let signed = challenge.sign(&ours).unwrap();
            let (challenger, seen) = Challenge::verify(&signed, &their_key, Some(&network)).unwrap();
            assert_eq!((challenger, &seen), (our_key, &challenge));
            let answer = seen.answer(&challenger, &theirs).unwrap();
            assert_eq!(challenge.verify_answer(&answer, &our_key), Ok(their_key));

            assert_eq!(Challenge::verify(&signed, &other_key, None).err(), Some(ChallengeError::Target));
            let signer = challenge.verify_answer(&seen.answer(&challenger, &other).unwrap(), &our_key);
            assert_eq!(signer, Err(ChallengeError::Signer));
            assert_eq!(challenge.verify_answer(&answer, &other_key), Err(ChallengeError::Target));
            let elsewhere = Challenge { token: [6; 32], ..challenge.clone() };
            assert_eq!(elsewhere.verify_answer(&answer, &our_key), Err(ChallengeError::Token));
            let elsewhere = Challenge { context: Some(ValueId([8; 32])), ..challenge.clone() };
            assert_eq!(elsewhere.verify_answer(&answer, &our_key), Err(ChallengeError::Context));
        }
        let signed = Challenge { token: [5; 32], target: None, context: Some(network) }.sign(&ours).unwrap();
        assert!(Challenge::verify(&signed, &other_key, Some(&network)).is_ok(), "for whoever is there");
        assert_eq!(Challenge::verify(&signed, &other_key, Some(&ValueId([1; 32]))).err(), Some(ChallengeError::Context));
    }

    #[test]
    fn a_tampered_signature_is_refused_both_ways() {
        let ((ours, our_key), (theirs, their_key)) = (key(1), key(2));
        let challenge = Challenge { token: [5; 32], target: None, context: None };
        let tampered = |value: &Value| {
            let mut bytes = peerlane_cell::encode(&value.cell).to_vec();
            bytes[40] ^= 1;
            Value { cell: peerlane_cell::decode(&bytes.into(), &CONVEX).unwrap(), cells: value.cells.clone() }
        };
        let signed = challenge.sign(&ours).unwrap();
        assert_eq!(Challenge::verify(&tampered(&signed), &their_key, None).err(), Some(SignatureError::BadSignature.into()));
        let answer = challenge.answer(&our_key, &theirs).unwrap();
        assert_eq!(challenge.verify_answer(&tampered(&answer), &our_key), Err(SignatureError::BadSignature.into()));
        assert_eq!(challenge.verify_answer(&Value::nil(), &our_key), Err(ChallengeError::Format));
    }
}
