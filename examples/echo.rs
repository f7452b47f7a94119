//! The smallest protocol: a request of any bytes, and a reply with the same. Two peers on this machine, QUIC first and
//! TCP a little later.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use peerlane::{
    node::{Context, Handler, Node, NodeBuilder, Silent},
    protocol::{Malformed, Protocol},
};
use peerlane_quic::{QuicConfig, QuicTransport};
use peerlane_tcp::{TcpConfig, TcpTransport};
use peerlane_transport::{
    AnyTransport, ClassId, ClassTable, Order, TrafficClass, Urgency,
    admission::{Lists, LocalPeer, Terms},
    identity::{Identity, PeerAddr},
};

type Error = Box<dyn std::error::Error>;

/// On the wire: 1 for a reply, 0 for a request | its ID (8 bytes) | the text.
#[derive(Debug, Clone)]
struct Line {
    reply: bool,
    id: u64,
    text: Bytes,
}

struct Echo(ClassTable);

impl Protocol for Echo {
    type Message = Line;

    fn classes(&self) -> ClassTable {
        self.0.clone()
    }

    fn class_of(&self, _: &Line) -> ClassId {
        ClassId(0)
    }

    fn encode(&self, line: &Line) -> Bytes {
        let mut out = BytesMut::with_capacity(9 + line.text.len());
        out.put_u8(u8::from(line.reply));
        out.put_u64(line.id);
        out.put_slice(&line.text);
        out.freeze()
    }

    fn decode(&self, _: ClassId, mut bytes: Bytes) -> Result<Line, Malformed<Line>> {
        if bytes.len() < 9 || bytes[0] > 1 {
            return Err(Malformed::close("neither a request nor a reply"));
        }
        Ok(Line { reply: bytes.get_u8() == 1, id: bytes.get_u64(), text: bytes })
    }

    fn request_id(&self, line: &Line) -> Option<u64> {
        (!line.reply).then_some(line.id)
    }

    fn reply_to(&self, line: &Line) -> Option<u64> {
        line.reply.then_some(line.id)
    }

    fn with_id(&self, line: &mut Line, id: u64) {
        line.id = id;
    }
}

struct Answer;

impl Handler<Echo> for Answer {
    async fn handle(&self, context: Context<Echo>, line: Line) {
        // Lost if the peer is gone: then nobody waits for it.
        let _ = context.reply(&Line { reply: true, ..line }).await;
    }
}

fn builder() -> Result<NodeBuilder<Echo, Silent>, Error> {
    let identity = Identity::generate()?;
    let classes = ClassTable::new(vec![TrafficClass::new("echo", 1, Urgency::Latency, Order::Any)])?;
    let mut terms = Terms::new("echo")?;
    terms.classes = classes.clone();
    let local = LocalPeer::new(&identity, Arc::new(Lists::everybody()), terms)?;
    Ok(Node::builder(Echo(classes), local.clone())
        .transport(AnyTransport::new(QuicTransport::new(local.clone(), QuicConfig::default())?))
        .transport(AnyTransport::new(TcpTransport::new(local, TcpConfig::default())?)))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let server = builder()?.listen("127.0.0.1:0".parse()?).handler(Answer).start().await?;
    let client = builder()?.start().await?;
    let peer = client.connect(&PeerAddr::new(server.peer_id(), server.listening()[0].addr)).await?;
    for text in ["hello", "hello again"] {
        let ask = Line { reply: false, id: 0, text: text.into() };
        let reply = client.request(peer.clone(), ask, Duration::from_secs(5)).await?;
        let transport = client.peer(peer.clone()).map_or("nothing", |peer| peer.transport);
        println!("{:?} over {transport}", String::from_utf8_lossy(&reply.text));
    }
    client.shutdown().await;
    server.shutdown().await;
    Ok(())
}
