//! One end of a QUIC connection on the virtual clock: quinn's endpoint and connection, and the traffic on top.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use peerlane_quic::Heard;
use quinn_proto::{ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event, ServerConfig};

use super::{netem::Nanos, traffic::Traffic};

/// Segments of one GSO batch: what quinn's driver asks for at once.
const SEGMENTS: usize = 10;

pub struct Node {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    epoch: Instant,
    peer: SocketAddr,
    pub traffic: Traffic,
    heard: Arc<Heard>,
    pub established: bool,
    /// Why the connection ended before its time.
    pub failed: Option<String>,
    buffer: Vec<u8>,
}

impl Node {
    pub fn new(
        epoch: Instant,
        peer: SocketAddr,
        server: Option<Arc<ServerConfig>>,
        seed: u64,
        traffic: Traffic,
        heard: Arc<Heard>,
    ) -> Self {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[7; 32]);
        let mut config = EndpointConfig::new(Arc::new(key));
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        config.rng_seed(Some(bytes)).grease_quic_bit(false);
        Self {
            endpoint: Endpoint::new(Arc::new(config), server, true, None),
            connection: None,
            epoch,
            peer,
            traffic,
            heard,
            established: false,
            failed: None,
            buffer: Vec::new(),
        }
    }

    fn instant(&self, now: Nanos) -> Instant {
        self.epoch + Duration::from_nanos(now)
    }

    pub fn connect(&mut self, now: Nanos, config: ClientConfig, name: &str) {
        let now = self.instant(now);
        self.connection = Some(self.endpoint.connect(now, config, self.peer, name).unwrap());
    }

    /// A packet has arrived.
    pub fn receive(&mut self, now: Nanos, packet: BytesMut) {
        let at = self.instant(now);
        self.buffer.clear();
        match self.endpoint.handle(at, self.peer, None, None, packet, &mut self.buffer) {
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.connection = Some(self.endpoint.accept(incoming, at, &mut self.buffer, None).unwrap());
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    pub fn next_wakeup(&mut self) -> Option<Nanos> {
        let timer = self.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout());
        let timer = timer.map(|at| at.saturating_duration_since(self.epoch).as_nanos() as Nanos);
        let traffic = if self.established { self.traffic.next_wakeup() } else { None };
        [timer, traffic].into_iter().flatten().min()
    }

    pub fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref().map(|(_, connection)| connection)
    }

    /// Timers, traffic, and every packet that may leave now, by its payload.
    pub fn drive(&mut self, now: Nanos, mut send: impl FnMut(BytesMut)) {
        let at = self.instant(now);
        let Some((handle, connection)) = &mut self.connection else { return };
        self.heard.set_received(connection.stats().udp_rx.bytes);
        if connection.poll_timeout().is_some_and(|timer| timer <= at) {
            connection.handle_timeout(at);
        }
        loop {
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            while let Some(event) = connection.poll() {
                match event {
                    Event::Connected => {
                        self.established = true;
                        self.traffic.start(connection);
                    }
                    Event::ConnectionLost { reason } => {
                        (self.established, self.failed) = (false, Some(reason.to_string()));
                    }
                    event => self.traffic.on_event(now, connection, event),
                }
            }
            if self.established {
                self.traffic.write(now, connection);
            }
            self.buffer.clear();
            let Some(transmit) = connection.poll_transmit(at, SEGMENTS, &mut self.buffer) else { break };
            let bytes = &self.buffer[..transmit.size];
            for packet in bytes.chunks(transmit.segment_size.unwrap_or(transmit.size)) {
                send(BytesMut::from(packet));
            }
        }
    }
}
