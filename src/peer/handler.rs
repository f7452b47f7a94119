//! The reference peer as a handler of a node: requests to the service, beliefs to the gossip, challenges to the identity.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use peerlane_transport::identity::{Challenge, Identity, Role};

use super::{Gossip, Service};
use crate::{
    cad015::{Cad015, ErrorCode, Message, MessageType, Payload},
    cell::{Cell, Ref},
    node::{Context, Handler, StreamReader},
};

/// See the module's text.
#[derive(Debug)]
pub struct PeerHandler {
    service: Service,
    gossip: Arc<Gossip>,
    identity: Arc<Identity>,
    network: String,
    unknown: AtomicU64,
}

impl PeerHandler {
    /// A handler of these parts.
    #[must_use]
    pub fn new(service: Service, gossip: Arc<Gossip>, identity: Arc<Identity>, network: &str) -> Self {
        Self { service, gossip, identity, network: network.to_owned(), unknown: AtomicU64::new(0) }
    }

    /// Messages of unknown type so far: counted, not answered.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// RESPONSE to a CHALLENGE `[id nonce]`: this peer's signature over who it is on this very connection.
    fn respond(&self, context: &Context<Cad015>, message: &Message) -> Message {
        let id = message.id().unwrap_or(0);
        let wrong = |what| Message::error(id, &ErrorCode::Format, what);
        let profile = *context.node().protocol().profile();
        let Ok(Payload::Challenge { parts, .. }) = message.parse(&profile) else { return wrong("a CHALLENGE is [id nonce]") };
        let nonce = match &parts[..] {
            [nonce] => nonce.embedded().and_then(Cell::as_blob32),
            _ => None,
        };
        let (Some(nonce), Some(other)) = (nonce, context.peer_id()) else { return wrong("the nonce is a blob of 32 bytes") };
        let connection = context.connection();
        let role = if connection.dialed() { Role::Dialer } else { Role::Listener };
        let challenge = Challenge { role, other, network: &self.network, exporter: connection.exporter(), nonce };
        let signature = Bytes::copy_from_slice(&challenge.sign(&self.identity));
        Message::response(id, [Ref::Embedded(Arc::new(Cell::blob(signature).unwrap_or(Cell::Nil)))])
    }
}

/// Code with which a streamed message is stopped.
const NOT_STREAMED: u32 = 1;

impl Handler<Cad015> for PeerHandler {
    /// CAD015's messages are whole. One that trickles in would hold a worker as long as its sender likes.
    async fn handle_streamed(&self, context: Context<Cad015>, _: Option<Message>, body: StreamReader) {
        tracing::debug!(peer = %context.peer(), "a streamed message, which CAD015 has none of");
        body.stop(NOT_STREAMED);
    }

    async fn handle(&self, context: Context<Cad015>, message: Message) {
        let answer = match message.kind {
            MessageType::Belief => {
                if let Err(error) = self.gossip.receive(context.node(), context.peer(), &message).await {
                    tracing::warn!(peer = %context.peer(), %error, "not a belief");
                    context.close("not a belief");
                }
                None
            }
            MessageType::Challenge => Some(self.respond(&context, &message)),
            // The node has seen to it; one that names nothing comes here.
            MessageType::Cancel => None,
            MessageType::Goodbye => {
                tracing::debug!(peer = %context.peer(), "GOODBYE");
                None
            }
            MessageType::Unknown(_) | MessageType::Command | MessageType::RequestBelief => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                None
            }
            _ => self.service.answer(&message).await,
        };
        if let Some(answer) = answer
            && let Err(error) = context.reply(&answer).await
        {
            tracing::debug!(peer = %context.peer(), %error, "an answer was lost");
        }
    }
}
