//! For `fuzz/`, and compiled for nothing else: what a peer's datagrams and message streams do to a session, without a connection
//! between them.

use bytes::Bytes;
use peerlane_transport::Session;

use crate::messages::Receiving;

/// The receiving side of one connection.
#[derive(Debug, Default)]
pub struct Arriving(Receiving);

impl Arriving {
    /// A datagram has come. `false`: the connection is over.
    pub fn datagram(&self, session: &Session, datagram: &Bytes) -> bool {
        self.0.datagram(session, datagram).is_ok()
    }

    /// A message stream has come whole. `false`: a copy of it has come before.
    pub fn stream(&self, number: u64) -> bool {
        self.0.is_news(number)
    }
}
