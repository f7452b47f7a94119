//! Another protocol than CAD015: CometBFT's byte channels with their IDs and priorities, 16 of them, and two protocols
//! named by strings that share one class. What they carry is opaque: an ID (1 byte), then bytes.
//!
//! A class is a quality of service. So each channel in use has its own, and what has no priority of its own shares one;
//! a protocol's name becomes a small number, chosen by the sender and announced before its first message.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use peerlane::{
    node::{Context, Handler, Node, NodeBuilder, Silent},
    protocol::{Malformed, Protocol},
};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    AnyTransport, ClassId, ClassTable, Order, TrafficClass, Urgency,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerAddr, RemoteId},
};
use tokio::sync::{Mutex, mpsc};

type Error = Box<dyn std::error::Error>;

/// CometBFT's channels: ID, name, priority, and whether consensus waits for it.
const CHANNELS: [(u8, &str, u32, bool); 11] = [
    (0x22, "vote", 7, true),
    (0x20, "state", 6, true),
    (0x21, "data", 10, true),
    (0x23, "vote-set-bits", 1, true),
    (0x00, "pex", 1, false),
    (0x30, "mempool", 5, false),
    (0x31, "mempool-control", 10, false),
    (0x38, "evidence", 6, false),
    (0x40, "blocksync", 5, false),
    (0x60, "snapshot", 5, false),
    (0x61, "chunk", 3, false),
];
/// Five more, not in use yet: they share a class.
const OTHERS: std::ops::RangeInclusive<u8> = 0x70..=0x74;

/// In the class for names, the ID is a protocol's number; 0 announces one: number, then name.
#[derive(Debug, Clone)]
struct Opaque {
    class: ClassId,
    id: u8,
    bytes: Bytes,
}

struct Channels(ClassTable);

impl Channels {
    fn new() -> Result<Self, Error> {
        // MConnection keeps the order of each channel: Fifo. Larger messages than 256 KiB would be streamed.
        let class = |name: &str, weight, latency| {
            TrafficClass::new(name, weight, if latency { Urgency::Latency } else { Urgency::Bulk }, Order::Fifo)
        };
        let named = CHANNELS.iter().map(|(_, name, priority, latency)| class(name, priority * 10, *latency));
        Ok(Self(ClassTable::new(named.chain([class("others", 10, false), class("named", 10, false)]).collect())?))
    }

    fn class_of_channel(id: u8) -> Option<ClassId> {
        let own = CHANNELS.iter().position(|channel| channel.0 == id);
        own.or_else(|| OTHERS.contains(&id).then_some(CHANNELS.len())).map(|class| ClassId(class as u8))
    }
}

const NAMED: ClassId = ClassId(CHANNELS.len() as u8 + 1);

impl Protocol for Channels {
    type Message = Opaque;

    fn classes(&self) -> ClassTable {
        self.0.clone()
    }

    fn class_of(&self, message: &Opaque) -> ClassId {
        message.class
    }

    fn encode(&self, message: &Opaque) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + message.bytes.len());
        out.put_u8(message.id);
        out.put_slice(&message.bytes);
        out.freeze()
    }

    fn decode(&self, class: ClassId, mut bytes: Bytes) -> Result<Opaque, Malformed<Opaque>> {
        let id = bytes.try_get_u8().map_err(|_| Malformed::close("an empty message"))?;
        match class == NAMED || Self::class_of_channel(id) == Some(class) {
            true => Ok(Opaque { class, id, bytes }),
            false => Err(Malformed::close("no such channel in this class")),
        }
    }
}

/// Tells what arrives. A peer has 255 names at most.
struct Tell(mpsc::Sender<String>, Mutex<BTreeMap<(RemoteId, u8), Bytes>>);

impl Handler<Channels> for Tell {
    async fn handle(&self, context: Context<Channels>, Opaque { class, id, mut bytes }: Opaque) {
        let mut names = self.1.lock().await;
        let line = match (class, id) {
            (NAMED, 0) => {
                let Ok(number) = bytes.try_get_u8() else { return context.close("a name without a number") };
                return drop(names.insert((context.peer().clone(), number), bytes));
            }
            (NAMED, number) => match names.get(&(context.peer().clone(), number)) {
                Some(name) => format!("{}: {bytes:?}", String::from_utf8_lossy(name)),
                None => return context.close("a protocol that wasn't announced"),
            },
            _ => format!("channel {id:#04x}: {bytes:?}"),
        };
        let _ = self.0.send(line).await;
    }
}

fn builder() -> Result<NodeBuilder<Channels, Silent>, Error> {
    let (protocol, mut terms) = (Channels::new()?, Terms::new("opaque")?);
    terms.classes = protocol.classes();
    let local = LocalPeer::new(&Identity::generate()?, Arc::new(Lists::everybody()), terms)?;
    Ok(Node::builder(protocol, local.clone()).transport(AnyTransport::new(TcpTransport::new(local, TcpConfig::default())?)))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (tell, mut told) = mpsc::channel(16);
    let b = builder()?.listen("127.0.0.1:0".parse()?).handler(Tell(tell, Mutex::default())).start().await?;
    let a = builder()?.start().await?;
    let peer = a.connect(&PeerAddr::new(b.peer_id(), b.listening()[0].addr)).await?;
    for id in CHANNELS.iter().map(|channel| channel.0).chain(OTHERS) {
        let class = Channels::class_of_channel(id).ok_or("not a channel")?;
        a.send(peer.clone(), &Opaque { class, id, bytes: format!("to {id}").into() }).await?;
    }
    for (number, name) in [(1, "/ipfs/ping/1.0.0"), (2, "/meshsub/1.1.0")] {
        let announcement = [&[number], name.as_bytes()].concat();
        a.send(peer.clone(), &Opaque { class: NAMED, id: 0, bytes: announcement.into() }).await?;
        a.send(peer.clone(), &Opaque { class: NAMED, id: number, bytes: "hello".into() }).await?;
    }
    for _ in 0..18 {
        println!("{}", tokio::time::timeout(Duration::from_secs(10), told.recv()).await?.ok_or("the handler is gone")?);
    }
    a.shutdown().await;
    b.shutdown().await;
    Ok(())
}
