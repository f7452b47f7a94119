//! Joining: a further byte stream for a connection that stands, where a transport may use several.
//!
//! The hello stands on the first byte stream and says how many there may be ([`hello::Extensions::carriers`]). The dialer
//! dials again, proves its key again, and says JOIN instead of HELLO; ACCEPT answers, or CLOSE with
//! [`CloseCode::NoSuchJoin`].
//!
//! A JOIN names its connection by a *token*, keying material that both ends derive from the first byte stream's TLS and
//! nobody else can (RFC 8446, section 7.5). It travels within a TLS of its own, whose two keys the other side compares
//! with those of the connection. So
//! * whoever sees a JOIN elsewhere, or guesses, joins nothing: the token is another one in each connection;
//! * the peer that got a token can't use it: the connection is with *its* key at the other end, and only its dialer's
//!   key may join it;
//! * a JOIN that comes twice finds its place taken.

use std::fmt;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::hello;
use crate::{CloseCode, Closed, ConnectError, connection::Control};

/// The application protocol of a byte stream that joins: another one than a connection's, so that a listener knows
/// before the handshake whether somebody new arrives.
pub const ALPN: &[u8] = b"peerlane-join/1";

/// What shows that a byte stream belongs to a connection: 16 bytes to find it by, 32 to be compared.
#[derive(Clone, Copy, Eq)]
pub struct JoinToken([u8; JoinToken::LEN]);

impl JoinToken {
    /// Bytes.
    pub const LEN: usize = 48;

    /// The label for the exporter of the first byte stream's TLS, without context; all bytes are taken from it.
    pub const EXPORTER_LABEL: &'static [u8] = b"EXPORTER-peerlane-1-join";

    /// What a table finds it by. Being found proves nothing yet.
    pub fn handle(&self) -> [u8; 16] {
        self.0.first_chunk().copied().unwrap_or_default()
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl From<[u8; Self::LEN]> for JoinToken {
    fn from(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

/// Takes the same time wherever two of them differ.
impl PartialEq for JoinToken {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// A secret: not for logs.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken")
    }
}

/// The dialer's part: says JOIN and waits for ACCEPT. Gives the bytes that came behind it.
///
/// # Errors
/// [`ConnectError::Refused`] by the other side; [`ConnectError::Io`].
///
/// # Cancel safety
/// Not cancel-safe: dropping it leaves the stream in the middle of the exchange. The other side gives it up when it ends.
pub async fn ask<IO: AsyncRead + AsyncWrite + Unpin + Send>(io: &mut IO, carrier: u8, token: JoinToken) -> Result<BytesMut, ConnectError> {
    let mut input = BytesMut::new();
    hello::say(io, &mut input, &Control::Join { carrier, token }).await?;
    match hello::next(io, &mut input).await? {
        Control::Accept => Ok(input),
        Control::Close { code, reason } => Err(Closed::remote(CloseCode::from_number(code), &reason).into()),
        _ => refuse(io, Closed::local(CloseCode::Protocol, "no acceptance")).await,
    }
}

/// The listener's part: reads the JOIN. Gives the carrier, the token, and the bytes that came behind it. ACCEPT is said
/// by whoever drives the connection.
///
/// # Errors
/// [`ConnectError::Refused`] by this side, which the other one was told: it says something else than JOIN;
/// [`ConnectError::Io`].
///
/// # Cancel safety
/// Not cancel-safe.
pub async fn asked<IO: AsyncRead + AsyncWrite + Unpin + Send>(io: &mut IO) -> Result<(u8, JoinToken, BytesMut), ConnectError> {
    let mut input = BytesMut::new();
    match hello::next(io, &mut input).await? {
        Control::Join { carrier, token } => Ok((carrier, token, input)),
        Control::Close { code, reason } => Err(Closed::remote(CloseCode::from_number(code), &reason).into()),
        _ => refuse(io, Closed::local(CloseCode::Protocol, "no JOIN")).await,
    }
}

/// Tells the other side that it's refused, and hears it out for a moment.
///
/// # Errors
/// Always: the refusal.
///
/// # Cancel safety
/// Not cancel-safe.
pub async fn refuse<IO: AsyncRead + AsyncWrite + Unpin + Send, T>(io: &mut IO, refusal: Closed) -> Result<T, ConnectError> {
    hello::refuse(io, refusal).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn token(seed: u8) -> JoinToken {
        [seed; JoinToken::LEN].into()
    }

    #[tokio::test]
    async fn a_join_is_asked_and_accepted_or_refused_with_a_code() {
        let (mut a, mut b) = tokio::io::duplex(256);
        let accepting = async {
            let (carrier, found, early) = asked(&mut b).await.unwrap();
            assert_eq!((carrier, early.len()), (3, 0));
            assert!(found == token(1) && found != token(2));
            hello::say(&mut b, &mut BytesMut::new(), &Control::Accept).await.unwrap();
        };
        let (asked_for, ()) = tokio::join!(ask(&mut a, 3, token(1)), accepting);
        assert!(asked_for.unwrap().is_empty());

        for (first, code) in
            [(Control::Join { carrier: 1, token: token(1) }, CloseCode::NoSuchJoin), (Control::Accept, CloseCode::Protocol)]
        {
            let (mut a, mut b) = tokio::io::duplex(256);
            let refusing = async {
                match asked(&mut b).await {
                    Ok(_) => refuse::<_, ()>(&mut b, Closed::local(CloseCode::NoSuchJoin, "")).await.unwrap_err(),
                    Err(error) => error,
                }
            };
            let dialing = async {
                hello::say(&mut a, &mut BytesMut::new(), &first).await.unwrap();
                let told = hello::next(&mut a, &mut BytesMut::new()).await.unwrap();
                drop(a);
                told
            };
            let (refused, told) = tokio::join!(refusing, dialing);
            assert!(matches!(refused, ConnectError::Refused(closed) if closed.code == code));
            assert!(matches!(told, Control::Close { code: told, .. } if told == code.number()));
        }
    }
}
