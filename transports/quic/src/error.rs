//! quinn's errors in peerlane's words.

use peerlane_transport::{
    CloseCode, Closed, ConnectError,
    identity::{IdentityError, PeerId},
};
use quinn::{ConnectionError, VarInt};

/// Why a connection ended.
pub(crate) fn closed(error: &ConnectionError) -> Closed {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
            Closed::remote(CloseCode::from_number(code), &close.reason)
        }
        ConnectionError::LocallyClosed => Closed::local(CloseCode::Done, ""),
        ConnectionError::TimedOut => Closed::transport(CloseCode::TimedOut, "no packet for the negotiated time"),
        ConnectionError::Reset => {
            Closed::transport(CloseCode::Lost, "stateless reset: the other side has forgotten this connection (did it restart?)")
        }
        other => Closed::transport(CloseCode::Lost, other.to_string()),
    }
}

/// The number for QUIC's CONNECTION_CLOSE frame.
pub(crate) fn close_number(code: CloseCode) -> VarInt {
    VarInt::from_u32(code.number())
}

/// TLS alerts travel as `0x100 + alert` (RFC 9001, section 4.8).
const CRYPTO: std::ops::Range<u64> = 0x100..0x200;

/// Why a handshake failed.
pub(crate) fn connect(error: ConnectionError) -> ConnectError {
    match &error {
        ConnectionError::TransportError(ours) => match wrong_key(&ours.reason) {
            Some(identity) => identity.into(),
            // So rustls calls what our verifier says when the lists refuse (`IdentityError::from_tls`).
            None if ours.reason.contains("ApplicationVerificationFailure") => IdentityError::RefusedInHandshake.into(),
            None => ConnectError::Handshake(error.to_string()),
        },
        ConnectionError::ConnectionClosed(theirs) => {
            let code = u64::from(theirs.error_code);
            let alert = CRYPTO.contains(&code).then(|| rustls::AlertDescription::from((code - CRYPTO.start) as u8));
            match alert.and_then(IdentityError::from_alert) {
                Some(identity) => identity.into(),
                None => ConnectError::Handshake(error.to_string()),
            }
        }
        ConnectionError::TimedOut => ConnectError::Handshake("nobody answered".into()),
        ConnectionError::ApplicationClosed(_) | ConnectionError::Reset => closed(&error).into(),
        _ => ConnectError::Handshake(error.to_string()),
    }
}

/// quinn keeps of a TLS error only its text, which for our verifier's error is its `Debug` form. Both keys are read
/// back from it, so that the caller gets the same error as from the other transports.
fn wrong_key(reason: &str) -> Option<IdentityError> {
    let after = |mark: &str| -> Option<PeerId> { reason.split_once(mark)?.1.get(..64)?.parse().ok() };
    Some(IdentityError::WrongKey { expected: after("WrongKey { expected: PeerId(")?, found: after("found: PeerId(")? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use peerlane_transport::identity::Identity;

    use super::*;

    #[test]
    fn the_keys_are_read_back_from_the_verifiers_text() {
        let key = |n| Identity::from_seed(&[n; 32]).unwrap().peer_id();
        let error = IdentityError::WrongKey { expected: key(1), found: key(2) };
        let text = format!("invalid peer certificate: Other(OtherError({error:?}))");
        let Some(IdentityError::WrongKey { expected, found }) = wrong_key(&text) else { unreachable!() };
        assert_eq!((expected, found), (key(1), key(2)));
        assert!(wrong_key("WrongKey { expected: PeerId(1234), found: PeerId(é").is_none());
    }
}
