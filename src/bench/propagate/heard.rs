//! What a peer of the star hears: the reference peer's handler, overheard.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use peerlane_transport::{ClassTable, Connection, identity::RemoteId};

use super::{AUTHOR, Board, HUB};
use crate::{
    bench::{End, Flood, load::Lane},
    cad015::{Cad015, Message, MessageType},
    node::{Context, Handler, StreamReader},
    peer::PeerHandler,
};

/// The connections by which something came, and the flood's bytes, for the board.
#[derive(Debug)]
pub(super) struct Heard {
    board: Arc<Board>,
    index: usize,
    connections: Mutex<BTreeMap<RemoteId, Connection>>,
}

impl Heard {
    pub(super) fn new(board: Arc<Board>, index: usize) -> Self {
        Self { board, index, connections: Mutex::default() }
    }

    fn hear(&self, context: &Context<Cad015>, message: &Message) {
        if self.board.case.flood != Flood::None && message.kind == MessageType::Belief {
            let bytes = message.encoded_len();
            if bytes == self.board.case.workload.belief_bytes {
                let [leaves, hub] = &self.board.taken;
                if self.index == HUB { hub } else { leaves }.add(bytes);
            }
        }
        if [HUB, AUTHOR].contains(&self.index) {
            // Nothing that's done under it can leave it half changed. A star has few peers.
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            connections.insert(context.peer().clone(), context.connection().clone());
        }
    }

    /// The connection between author and hub, of either.
    pub(super) fn end(&self) -> Option<End> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |id: &RemoteId| self.index == AUTHOR || id.as_peer_id() == self.board.author.get().copied();
        let (_, connection) = connections.iter().find(|(id, _)| is_it(id))?;
        let class = connection.classes().by_name(ClassTable::BELIEF)?;
        Some(End::of(&Lane { connection: connection.clone(), class }))
    }
}

/// The reference peer's handler.
pub(super) struct Listening {
    pub(super) handler: PeerHandler,
    pub(super) heard: Arc<Heard>,
}

impl Handler<Cad015> for Listening {
    async fn handle(&self, context: Context<Cad015>, message: Message) {
        self.heard.hear(&context, &message);
        self.handler.handle(context, message).await;
    }

    async fn handle_streamed(&self, context: Context<Cad015>, head: Option<Message>, body: StreamReader) {
        self.handler.handle_streamed(context, head, body).await;
    }
}
