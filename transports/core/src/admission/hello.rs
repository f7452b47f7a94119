//! The hello: who speaks which version, for which network, with which classes; and its acceptance.
//!
//! With TLS 1.3 a client believes itself connected before the server has judged its certificate. So each side
//! sends a HELLO, judges the other's, and sends ACCEPT (or CLOSE with the reason); a connection is one when both
//! have accepted. Limits take the smaller of both sides, classes match by name.
//!
//! HELLO's body: version (2 bytes) | network (1 byte length, name) | idle timeout (varint, ms) | count of
//! classes (1 byte) | per class: name (1 byte length, name) | flags (1 byte: 1 Fifo, 2 Datagram) | largest
//! message (varint) | window (varint) | large lanes (1 byte) | large window (varint). Extensions follow to the end, 16 at
//! most and none twice: tag (varint) | length (varint) | value. One with an even tag is ignored by who doesn't know it;
//! one with an odd tag is refused.
//!
//! | tag | name | value |
//! |---|---|---|
//! | 2 | carriers | 1 byte: how many byte streams may carry this connection together, 1 to 255. Absent: 1 |
//! | 4 | copies | empty: one more may carry copies of small messages. Absent: none does |

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    CloseCode, Closed, ClosedBy, ConnectError,
    class::{ClassId, ClassTable, Delivery, Lane, Order, TrafficClass},
    connection::{Control, framing::hear_out},
    limits::{self, Limits},
    varint,
};

/// Version of peerlane's protocol.
pub const VERSION: u16 = 1;

/// What two peers must have in common, and what each brings.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The network's name, 1 to [`limits::MAX_NETWORK_NAME`] bytes: peers of another one are refused.
    pub network: Arc<str>,
    /// The classes of this side.
    pub classes: ClassTable,
    /// The limits of this side.
    pub limits: Limits,
}

impl Terms {
    /// The standard classes and limits, for a network.
    ///
    /// # Errors
    /// [`ConnectError::Config`] if the name is empty or longer than [`limits::MAX_NETWORK_NAME`] bytes.
    pub fn new(network: &str) -> Result<Self, ConnectError> {
        if network.is_empty() || network.len() > limits::MAX_NETWORK_NAME {
            return Err(ConnectError::Config(format!("a network's name has 1 to {} bytes", limits::MAX_NETWORK_NAME)));
        }
        Ok(Self { network: network.into(), classes: ClassTable::standard(), limits: Limits::default() })
    }
}

/// What a transport announces behind the classes, and what the other side announced there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extensions {
    /// Byte streams that may carry one connection together, at least 1, the default.
    pub carriers: u8,
    /// One more may carry copies of small urgent messages, and this side takes them. Not by default.
    pub copies: bool,
}

impl Default for Extensions {
    fn default() -> Self {
        Self { carriers: 1, copies: false }
    }
}

/// The tag of [`Extensions::carriers`].
const CARRIERS: u64 = 2;
/// The tag of [`Extensions::copies`].
const COPIES: u64 = 4;

impl Extensions {
    fn encode(&self, out: &mut BytesMut) {
        if self.carriers > 1 {
            varint::put(out, CARRIERS);
            varint::put(out, 1);
            out.put_u8(self.carriers);
        }
        if self.copies {
            varint::put(out, COPIES);
            varint::put(out, 0);
        }
    }

    /// Reads all that stands behind the classes.
    fn decode(body: &mut Bytes) -> Result<Self, &'static str> {
        let mut found = Self::default();
        let mut tags = Vec::new();
        while !body.is_empty() {
            let (Some(tag), Some(len)) = (varint::get(body), varint::get(body)) else { return Err("a broken extension") };
            let len = usize::try_from(len).ok().filter(|len| *len <= body.len()).ok_or("a broken extension")?;
            let value = body.split_to(len);
            if tags.contains(&tag) {
                return Err("an extension that comes twice");
            }
            if tags.len() == limits::MAX_EXTENSIONS {
                return Err("too many extensions");
            }
            tags.push(tag);
            match tag {
                CARRIERS => match value[..] {
                    [carriers] if carriers > 0 => found.carriers = carriers,
                    _ => return Err("a broken number of carriers"),
                },
                COPIES if value.is_empty() => found.copies = true,
                COPIES => return Err("an offer of copies with a value"),
                _ if tag % 2 == 1 => return Err("an extension that must be understood and isn't"),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// What a hello agreed.
#[derive(Debug, Clone)]
pub struct Agreed {
    /// This side's classes as it may use them to send: largest message the smaller, windows and lanes the receiver's.
    pub(crate) sending: ClassTable,
    /// Which of them the other side has too.
    pub(crate) known: Vec<bool>,
    /// The other side's class index to the local one.
    pub(crate) from_remote: Vec<Option<ClassId>>,
    /// The smaller idle timeout.
    pub(crate) idle_timeout: Duration,
    /// What the other side announced behind its classes.
    pub(crate) extensions: Extensions,
}

impl Agreed {
    /// The other side has the same table and limits: for transports without a hello, in tests.
    pub fn same(terms: &Terms) -> Self {
        Self {
            sending: terms.classes.clone(),
            known: vec![true; terms.classes.len()],
            from_remote: terms.classes.iter().map(|(id, _)| Some(id)).collect(),
            idle_timeout: terms.limits.idle_timeout,
            extensions: Extensions::default(),
        }
    }

    /// What the other side announced behind its classes.
    pub fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// Whether the other side has this class too, by the local index.
    pub fn has_class(&self, class: ClassId) -> bool {
        self.known.get(class.index()).copied().unwrap_or(false)
    }
}

/// The body of a HELLO without extensions.
pub fn encode(terms: &Terms) -> Bytes {
    encode_with(terms, Extensions::default())
}

/// The body of a HELLO.
pub fn encode_with(terms: &Terms, extensions: Extensions) -> Bytes {
    let mut out = BytesMut::new();
    let name = |out: &mut BytesMut, name: &str| {
        out.put_u8(name.len().min(255) as u8);
        out.put_slice(&name.as_bytes()[..name.len().min(255)]);
    };
    out.put_u16(VERSION);
    name(&mut out, &terms.network);
    varint::put(&mut out, u64::try_from(terms.limits.idle_timeout.as_millis()).unwrap_or(varint::MAX));
    out.put_u8(terms.classes.len() as u8);
    for (_, class) in terms.classes.iter() {
        name(&mut out, &class.name);
        out.put_u8(u8::from(class.order == Order::Fifo) | u8::from(class.delivery == Delivery::Datagram) << 1);
        varint::put(&mut out, class.max_message as u64);
        varint::put(&mut out, class.window as u64);
        out.put_u8(class.large_lanes);
        varint::put(&mut out, class.large_window as u64);
    }
    extensions.encode(&mut out);
    out.freeze()
}

fn take_name(body: &mut Bytes, limit: usize) -> Option<Arc<str>> {
    let len = usize::from(body.try_get_u8().ok()?);
    if len == 0 || len > limit || len > body.remaining() {
        return None;
    }
    Some(std::str::from_utf8(&body.split_to(len)).ok()?.into())
}

/// One class as the other side announces it.
struct Announced {
    name: Arc<str>,
    order: Order,
    delivery: Delivery,
    max_message: usize,
    window: usize,
    large_lanes: u8,
    large_window: usize,
}

fn announced(body: &mut Bytes) -> Option<Announced> {
    let name = take_name(body, limits::MAX_CLASS_NAME)?;
    let flags = body.try_get_u8().ok().filter(|flags| *flags < 4)?;
    let mut size = || usize::try_from(varint::get(body)?).ok().map(|size| size.min(limits::MAX_BUDGET));
    let (max_message, window) = (size()?, size()?);
    let large_lanes = body.try_get_u8().ok().filter(|lanes| *lanes < Lane::MESSAGE)?;
    let large_window = usize::try_from(varint::get(body)?).ok()?.min(limits::MAX_BUDGET);
    Some(Announced {
        name,
        order: if flags & 1 != 0 { Order::Fifo } else { Order::Any },
        delivery: if flags & 2 != 0 { Delivery::Datagram } else { Delivery::Reliable },
        max_message,
        window,
        large_lanes,
        large_window,
    })
}

/// Judges the other side's hello.
///
/// # Errors
/// A [`Closed`] by this side with the code to send: another version or network, a class that the two see
/// differently, or a body that doesn't parse.
pub fn judge(terms: &Terms, mut body: Bytes) -> Result<Agreed, Closed> {
    let bad = || Closed::local(CloseCode::BadHello, "the hello doesn't parse");
    let version = body.try_get_u16().map_err(|_| bad())?;
    if version != VERSION {
        return Err(Closed::local(CloseCode::WrongVersion, format!("version {VERSION} here, {version} there")));
    }
    let network = take_name(&mut body, limits::MAX_NETWORK_NAME).ok_or_else(bad)?;
    if network != terms.network {
        return Err(Closed::local(CloseCode::WrongNetwork, format!("network {:?} here, {network:?} there", terms.network)));
    }
    let idle = Duration::from_millis(varint::get(&mut body).ok_or_else(bad)?);
    let count = body.try_get_u8().ok().filter(|count| usize::from(*count) <= limits::MAX_CLASSES).ok_or_else(bad)?;
    let mut sending: Vec<TrafficClass> = terms.classes.iter().map(|(_, class)| class.clone()).collect();
    let mut known = vec![false; sending.len()];
    let mut from_remote = vec![None; usize::from(count)];
    for slot in &mut from_remote {
        let theirs = announced(&mut body).ok_or_else(bad)?;
        let Some(id) = terms.classes.by_name(&theirs.name) else { continue };
        let ours = &mut sending[id.index()];
        if std::mem::replace(&mut known[id.index()], true) {
            return Err(bad());
        }
        if (ours.order, ours.delivery) != (theirs.order, theirs.delivery) {
            let what = format!(
                "class {:?} is {:?}, {:?} here and {:?}, {:?} there",
                ours.name, ours.order, ours.delivery, theirs.order, theirs.delivery
            );
            return Err(Closed::local(CloseCode::BadHello, what));
        }
        *slot = Some(id);
        ours.max_message = ours.max_message.min(theirs.max_message);
        ours.window = theirs.window;
        ours.large_lanes = theirs.large_lanes;
        ours.large_window = theirs.large_window;
        if ours.order == Order::Any && ours.large_lanes == 0 {
            ours.max_message = ours.max_message.min(limits::SMALL_MESSAGE);
        }
    }
    let extensions = Extensions::decode(&mut body).map_err(|what| Closed::local(CloseCode::BadHello, what))?;
    let sending =
        ClassTable::new(sending).map_err(|error| Closed::local(CloseCode::BadHello, format!("the other side's classes: {error}")))?;
    let idle_timeout = terms.limits.idle_timeout.min(idle.max(Duration::from_secs(1)));
    Ok(Agreed { sending, known, from_remote, idle_timeout, extensions })
}

/// Exchanges hellos over the control stream: bare control frames, no lane bytes yet. `admit` is this side's verdict
/// on the other's identity, told to the other side if it's a refusal. The stream must hold [`limits::MAX_HELLO`] bytes
/// that nobody has read yet: both sides write before they read. Gives what was agreed, and bytes that
/// arrived behind the ACCEPT.
///
/// # Errors
/// [`ConnectError::Refused`] with [`ClosedBy::Local`] or [`ClosedBy::Remote`]; [`ConnectError::Io`].
///
/// # Cancel safety
/// Not cancel-safe: dropping it leaves the stream in the middle of the exchange, of no use any more.
pub async fn exchange<IO: AsyncRead + AsyncWrite + Unpin + Send>(
    io: &mut IO,
    terms: &Terms,
    admit: Result<(), Closed>,
) -> Result<(Agreed, BytesMut), ConnectError> {
    exchange_with(io, terms, Extensions::default(), admit).await
}

/// The same, announcing extensions.
///
/// # Errors
/// As [`exchange`].
///
/// # Cancel safety
/// As [`exchange`].
pub async fn exchange_with<IO: AsyncRead + AsyncWrite + Unpin + Send>(
    io: &mut IO,
    terms: &Terms,
    extensions: Extensions,
    admit: Result<(), Closed>,
) -> Result<(Agreed, BytesMut), ConnectError> {
    let mut input = BytesMut::with_capacity(1024);
    if let Err(refusal) = admit {
        return refuse(io, refusal).await;
    }
    say(io, &mut input, &Control::Hello(encode_with(terms, extensions))).await?;
    let agreed = match next(io, &mut input).await? {
        Control::Hello(body) => match judge(terms, body) {
            Ok(agreed) => agreed,
            Err(refusal) => return refuse(io, refusal).await,
        },
        Control::Close { code, reason } => return Err(Closed::remote(CloseCode::from_number(code), &reason).into()),
        _ => return refuse(io, Closed::local(CloseCode::BadHello, "no hello")).await,
    };
    say(io, &mut input, &Control::Accept).await?;
    match next(io, &mut input).await? {
        Control::Accept => Ok((agreed, input)),
        Control::Close { code, reason } => Err(Closed::remote(CloseCode::from_number(code), &reason).into()),
        _ => refuse(io, Closed::local(CloseCode::BadHello, "no acceptance")).await,
    }
}

async fn write<IO: AsyncWrite + Unpin + Send>(io: &mut IO, frame: &Control) -> Result<(), ConnectError> {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    io.write_all(&out).await?;
    Ok(io.flush().await?)
}

/// Writes a frame. A side that refuses hangs up without waiting for ours: then what counts is its reason, which can
/// still be read, and not that we couldn't write.
pub(super) async fn say<IO: AsyncRead + AsyncWrite + Unpin + Send>(
    io: &mut IO,
    input: &mut BytesMut,
    frame: &Control,
) -> Result<(), ConnectError> {
    let Err(unwritten) = write(io, frame).await else { return Ok(()) };
    loop {
        match next(io, input).await {
            Ok(Control::Close { code, reason }) => return Err(Closed::remote(CloseCode::from_number(code), &reason).into()),
            Ok(_) => {}
            Err(_) => return Err(unwritten),
        }
    }
}

pub(super) async fn refuse<IO: AsyncRead + AsyncWrite + Unpin + Send, T>(io: &mut IO, refusal: Closed) -> Result<T, ConnectError> {
    if refusal.by == ClosedBy::Local {
        let frame = Control::Close { code: refusal.code.number(), reason: Bytes::copy_from_slice(refusal.reason.as_bytes()) };
        // It's over either way; the other side is told if it still listens.
        if write(io, &frame).await.is_ok() && io.shutdown().await.is_ok() {
            hear_out(io).await;
        }
    }
    Err(refusal.into())
}

pub(super) async fn next<IO: AsyncRead + AsyncWrite + Unpin + Send>(io: &mut IO, input: &mut BytesMut) -> Result<Control, ConnectError> {
    loop {
        match Control::decode(input) {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return refuse(io, Closed::local(CloseCode::BadHello, error.to_string())).await,
        }
        // Bounded by the decoder: a frame over its limit is refused by its head.
        if io.read_buf(input).await? == 0 {
            return Err(Closed::transport(CloseCode::Lost, "the other side hung up during the hello").into());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::class::Urgency;

    fn terms(network: &str) -> Terms {
        Terms::new(network).unwrap()
    }

    async fn meet(a: &Terms, b: &Terms) -> [Result<(Agreed, BytesMut), ConnectError>; 2] {
        let (mut x, mut y) = tokio::io::duplex(256);
        let (a, b) = tokio::join!(exchange(&mut x, a, Ok(())), exchange(&mut y, b, Ok(())));
        [a, b]
    }

    #[tokio::test]
    async fn limits_take_the_smaller_and_classes_match_by_name() {
        let a = terms("n");
        let small = TrafficClass { max_message: 1000, window: 32 * 1024, ..TrafficClass::new("query", 1, Urgency::Bulk, Order::Any) };
        let own = TrafficClass::new("own", 1, Urgency::Bulk, Order::Fifo);
        let limits = Limits { idle_timeout: Duration::from_secs(7), ..Limits::default() };
        let b = Terms { network: "n".into(), classes: ClassTable::new(vec![own, small]).unwrap(), limits };
        let [at_a, at_b] = meet(&a, &b).await;
        let (at_a, at_b) = (at_a.unwrap().0, at_b.unwrap().0);
        assert_eq!(at_a.known, [false, true, false, false, false]);
        assert_eq!(at_a.from_remote, [None, Some(ClassId(1))]);
        assert_eq!((at_a.sending[ClassId(1)].max_message, at_a.sending[ClassId(1)].window), (1000, 32 * 1024));
        assert_eq!(at_b.known, [false, true]);
        assert_eq!(at_b.sending[ClassId(1)].max_message, 1000);
        assert_eq!((at_a.idle_timeout, at_b.idle_timeout), (Duration::from_secs(7), Duration::from_secs(7)));
    }

    #[test]
    fn extensions_are_read_ignored_or_refused_by_their_tag() {
        let terms = terms("n");
        let judged = |extensions: &[u8]| {
            let judged = judge(&terms, [&encode(&terms), extensions].concat().into());
            judged.map(|agreed| agreed.extensions).map_err(|closed| closed.code)
        };
        let carriers = |carriers| Ok(Extensions { carriers, copies: false });
        for (carriers, copies) in [(1, false), (2, false), (255, true), (1, true)] {
            let extensions = Extensions { carriers, copies };
            assert_eq!(judge(&terms, encode_with(&terms, extensions)).unwrap().extensions(), extensions);
        }
        assert_eq!(encode_with(&terms, Extensions::default()), encode(&terms));
        assert_eq!(judged(&[]), carriers(1));
        assert_eq!(judged(&[4, 0]), Ok(Extensions { carriers: 1, copies: true }));
        assert_eq!(judged(&[6, 3, 7, 7, 7, 0x40, 0x40, 0, 2, 1, 3]), carriers(3));
        let many = |count: u8| (3..count + 3).flat_map(|n| [2 * n, 0]).collect::<Vec<_>>();
        assert_eq!(judged(&many(limits::MAX_EXTENSIONS as u8)), carriers(1));
        let too_many = many(limits::MAX_EXTENSIONS as u8 + 1);
        let twice = [4, 0, 4, 0];
        for bad in
            [&[1, 0][..], &[6, 1, 0, 3, 0], &[6, 2, 0], &[6], &[0x40], &[2, 0], &[2, 1, 0], &[2, 2, 1, 1], &[4, 1, 1], &twice, &too_many]
        {
            assert_eq!(judged(bad), Err(CloseCode::BadHello), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn another_network_is_told_to_both() {
        for result in meet(&terms("a"), &terms("b")).await {
            let ConnectError::Refused(closed) = result.unwrap_err() else { unreachable!() };
            assert_eq!(closed.code, CloseCode::WrongNetwork);
            assert!(closed.reason.contains("\"a\"") && closed.reason.contains("\"b\""), "{closed}");
        }
    }

    #[tokio::test]
    async fn a_refusal_of_identity_reaches_the_other_side() {
        let (mut x, mut y) = tokio::io::duplex(256);
        let refusal = Closed::local(CloseCode::NotAdmitted, "blocked");
        let t = terms("n");
        let (a, b) = tokio::join!(exchange(&mut x, &t, Err(refusal)), exchange(&mut y, &t, Ok(())));
        let (ConnectError::Refused(a), ConnectError::Refused(b)) = (a.unwrap_err(), b.unwrap_err()) else { unreachable!() };
        assert_eq!((a.by, a.code), (ClosedBy::Local, CloseCode::NotAdmitted));
        assert_eq!((b.by, b.code, &*b.reason), (ClosedBy::Remote, CloseCode::NotAdmitted, "blocked"));
    }

    #[tokio::test]
    async fn a_refusal_is_heard_after_the_refuser_has_hung_up() {
        let (mut x, mut y) = tokio::io::duplex(256);
        let close = Control::Close { code: CloseCode::NotAdmitted.number(), reason: Bytes::from_static(b"blocked") };
        write(&mut x, &close).await.unwrap();
        drop(x);
        // Our hello can't be written any more.
        let Err(ConnectError::Refused(closed)) = exchange(&mut y, &terms("n"), Ok(())).await else { unreachable!() };
        assert_eq!((closed.by, closed.code), (ClosedBy::Remote, CloseCode::NotAdmitted));
    }

    #[tokio::test]
    async fn an_order_seen_differently_is_refused() {
        let classes = ClassTable::new(vec![TrafficClass::new("transact", 1, Urgency::Bulk, Order::Any)]).unwrap();
        let [a, _] = meet(&terms("n"), &Terms { classes, ..terms("n") }).await;
        assert!(matches!(a, Err(ConnectError::Refused(c)) if c.code == CloseCode::BadHello));
    }

    proptest! {
        #[test]
        fn any_body_is_judged_without_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = judge(&terms("n"), body.into());
        }

        #[test]
        fn a_cut_or_changed_hello_is_judged_without_panic(cut in 0usize..200, at in 0usize..200, with in any::<u8>()) {
            let mut body = encode(&terms("n")).to_vec();
            let len = body.len();
            body[at % len] = with;
            body.truncate(cut.min(len));
            let _ = judge(&terms("n"), body.into());
        }
    }
}
