//! Control frames: the hello, life signs, credit, and the end. They have a stream of their own (QUIC) or lane
//! byte `0xff` (class framing), and go before all classes.
//!
//! `type (1 byte) | length (varint) | body`. Lanes are named by the class index of the side that sends data on
//! them, one byte each ([`Lane::to_byte`]).
//!
//! | type | name | body |
//! |---|---|---|
//! | 1 | HELLO | see `admission/hello.rs` |
//! | 2 | ACCEPT | - ; the other side's hello and identity are accepted |
//! | 3 | PING | 8 bytes |
//! | 4 | PONG | the PING's 8 bytes |
//! | 5 | CREDIT | lane, varint: bytes that may have been sent on this use of the lane in all |
//! | 6 | RELEASE | lane (slot 1 to 14): the large message is taken; the slot is free again |
//! | 7 | STOP | lane, varint number, varint code: the rest of this streamed message isn't wanted |
//! | 8 | FINISHED | varint: reliable messages sent in all, streamed ones included; no more will follow |
//! | 9 | DRAINED | - ; all that was sent has been taken in |
//! | 10 | CLOSE | varint code, reason (UTF-8) |
//! | 11 | JOIN | carrier, 48 bytes of token: this byte stream belongs to another one's connection ([`crate::admission::join`]) |
//! | 12 | MOVED | carrier: classes of mine go on it from here on |

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{admission::JoinToken, class::Lane, limits, varint};

/// A control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// The hello's body.
    Hello(Bytes),
    /// The other side's hello and identity are accepted.
    Accept,
    /// A life sign is asked for.
    Ping(u64),
    /// A life sign.
    Pong(u64),
    /// Bytes that may have been sent on this use of the lane in all.
    Credit {
        /// The lane, by the class index of the side that sends on it.
        lane: Lane,
        /// The total in bytes.
        total: u64,
    },
    /// The slot of a large message is free again.
    Release(Lane),
    /// The rest of a streamed message isn't wanted.
    Stop {
        /// Where it travels.
        lane: Lane,
        /// Which one.
        number: u64,
        /// Why, for the sender.
        code: u32,
    },
    /// Nothing more will be sent on any lane.
    Finished {
        /// Reliable messages sent in all, streamed ones included.
        messages: u64,
    },
    /// All that was sent has been taken in.
    Drained,
    /// The connection is over.
    Close {
        /// A [`CloseCode`](crate::CloseCode)'s number.
        code: u32,
        /// In words.
        reason: Bytes,
    },
    /// First on a byte stream that is to carry a connection together with another one.
    Join {
        /// Which of the connection's byte streams it is to be, from 1.
        carrier: u8,
        /// What shows that it's meant by the connection's dialer.
        token: JoinToken,
    },
    /// Classes of the sender's go on this carrier from here on: what comes on it comes after all that came before.
    Moved(u8),
}

/// A control frame that can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a control frame of type {kind} is malformed")]
pub struct BadControl {
    /// Its type byte.
    pub kind: u8,
}

impl Control {
    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        let kind = match self {
            Self::Hello(hello) => {
                body.put_slice(hello);
                1
            }
            Self::Accept => 2,
            Self::Ping(nonce) => {
                body.put_u64(*nonce);
                3
            }
            Self::Pong(nonce) => {
                body.put_u64(*nonce);
                4
            }
            Self::Credit { lane, total } => {
                body.put_u8(lane.to_byte());
                varint::put(&mut body, *total);
                5
            }
            Self::Release(lane) => {
                body.put_u8(lane.to_byte());
                6
            }
            Self::Stop { lane, number, code } => {
                body.put_u8(lane.to_byte());
                varint::put(&mut body, *number);
                varint::put(&mut body, u64::from(*code));
                7
            }
            Self::Finished { messages } => {
                varint::put(&mut body, *messages);
                8
            }
            Self::Drained => 9,
            Self::Close { code, reason } => {
                varint::put(&mut body, u64::from(*code));
                body.put_slice(&reason[..reason.len().min(limits::MAX_REASON)]);
                10
            }
            Self::Join { carrier, token } => {
                body.put_u8(*carrier);
                body.put_slice(token.as_bytes());
                11
            }
            Self::Moved(carrier) => {
                body.put_u8(*carrier);
                12
            }
        };
        out.put_u8(kind);
        varint::put(out, body.len() as u64);
        out.put_slice(&body);
    }

    /// Takes one frame off the front of `input`. `Ok(None)`: more bytes are needed.
    ///
    /// # Errors
    /// [`BadControl`]: the frame is over [`limits::MAX_CONTROL_FRAME`] ([`limits::MAX_HELLO`] for a hello), or
    /// its body isn't what its type says. An unknown type is an error: there's one version, agreed before.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, BadControl> {
        let Some(&kind) = input.first() else { return Ok(None) };
        let bad = BadControl { kind };
        let mut rest = &input[1..];
        let Some(len) = varint::get(&mut rest) else {
            return Ok(None);
        };
        let limit = if kind == 1 { limits::MAX_HELLO } else { limits::MAX_CONTROL_FRAME };
        let len = usize::try_from(len).ok().filter(|len| *len <= limit).ok_or(bad)?;
        if rest.len() < len {
            return Ok(None);
        }
        let head = input.len() - rest.len();
        input.advance(head);
        let mut body = input.split_to(len).freeze();
        let lane = |body: &mut Bytes| body.has_remaining().then(|| Lane::from_byte(body.get_u8())).ok_or(bad);
        let number = |body: &mut Bytes| varint::get(body).ok_or(bad);
        let frame = match kind {
            1 => Self::Hello(std::mem::take(&mut body)),
            2 => Self::Accept,
            3 | 4 => {
                let nonce = body.try_get_u64().map_err(|_| bad)?;
                if kind == 3 { Self::Ping(nonce) } else { Self::Pong(nonce) }
            }
            5 => Self::Credit { lane: lane(&mut body)?, total: number(&mut body)? },
            6 => Self::Release(lane(&mut body)?),
            7 => Self::Stop { lane: lane(&mut body)?, number: number(&mut body)?, code: number(&mut body)?.try_into().map_err(|_| bad)? },
            8 => Self::Finished { messages: number(&mut body)? },
            9 => Self::Drained,
            10 => Self::Close { code: number(&mut body)?.try_into().map_err(|_| bad)?, reason: std::mem::take(&mut body) },
            11 => {
                let carrier = body.try_get_u8().map_err(|_| bad)?;
                let mut token = [0; JoinToken::LEN];
                body.try_copy_to_slice(&mut token).map_err(|_| bad)?;
                Self::Join { carrier, token: token.into() }
            }
            12 => Self::Moved(body.try_get_u8().map_err(|_| bad)?),
            _ => return Err(bad),
        };
        if body.has_remaining() { Err(bad) } else { Ok(Some(frame)) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn frames() -> Vec<Control> {
        let lane = Lane { class: 4, slot: 8 };
        vec![
            Control::Hello(Bytes::from(vec![7; limits::MAX_HELLO])),
            Control::Accept,
            Control::Ping(u64::MAX),
            Control::Pong(1),
            Control::Credit { lane, total: 1 << 40 },
            Control::Release(lane),
            Control::Stop { lane, number: 77, code: 5 },
            Control::Finished { messages: 12 },
            Control::Drained,
            Control::Close { code: 3, reason: Bytes::from_static(b"because") },
            Control::Join { carrier: 1, token: [9; JoinToken::LEN].into() },
            Control::Moved(3),
        ]
    }

    #[test]
    fn frames_round_trip_at_every_cut() {
        for frame in frames() {
            let mut whole = BytesMut::new();
            frame.encode(&mut whole);
            for cut in 0..whole.len() {
                let mut part = BytesMut::from(&whole[..cut]);
                assert_eq!(Control::decode(&mut part), Ok(None), "{frame:?} cut at {cut}");
            }
            assert_eq!(Control::decode(&mut whole), Ok(Some(frame)));
            assert!(whole.is_empty());
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_encoded_alike(input in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = BytesMut::from(&input[..]);
            if let Ok(Some(frame)) = Control::decode(&mut bytes) {
                let mut again = BytesMut::new();
                frame.encode(&mut again);
                prop_assert_eq!(Control::decode(&mut again), Ok(Some(frame)));
            }
        }

        #[test]
        fn a_long_declaration_is_refused_at_once(kind in 1u8..13, len in 2049u64..varint::MAX) {
            let mut bytes = BytesMut::new();
            bytes.put_u8(kind);
            varint::put(&mut bytes, len);
            prop_assert!(Control::decode(&mut bytes).is_err());
        }
    }
}
