//! The event loop: connections of ours and a rival over one path, on one clock.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use peerlane_quic::Heard;
use peerlane_transport::{
    admission::LocalPeer,
    identity::{Identity, TlsOptions, server_name},
};
use quinn_proto::{
    ClientConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
    congestion::ControllerFactory,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use super::{
    netem::{Link, Nanos, UDP_OVERHEAD},
    node::Node,
    profile::Profile,
    report::Outcome,
    tcp::{ACK, PAYLOAD, SEGMENT, TcpFlow},
    traffic::{Budget, Traffic, TrafficConfig},
    watch::{InFlight, Watch},
};

pub type Factory = Arc<dyn ControllerFactory + Send + Sync>;

/// Makes one end's controllers of what it tells to have heard.
pub type Make = Arc<dyn Fn(Arc<Heard>) -> Factory + Send + Sync>;

/// What is measured, and how long.
#[derive(Clone)]
pub struct Run {
    pub profile: Profile,
    pub controller: Make,
    pub seed: u64,
    pub duration: Duration,
    pub warm_up: Duration,
    pub flood: bool,
    /// QUERYs per second.
    pub rate: f64,
    pub stream_each: bool,
    pub copies: Vec<Duration>,
    /// quinn's packet threshold and time threshold of loss detection.
    pub loss_detection: (u32, f32),
    /// As in [`TrafficConfig`].
    pub budget: Budget,
    /// Prints the state of the first flow's controller this often.
    pub trace: Option<Duration>,
}

enum Arrival {
    Quic { flow: usize, client: bool, packet: BytesMut },
    Segment(u64),
    Ack(u64),
}

struct Due {
    at: Nanos,
    order: u64,
    what: Arrival,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct World {
    events: BinaryHeap<Reverse<Due>>,
    order: u64,
    forward: Link,
    backward: Link,
}

impl World {
    fn send(&mut self, now: Nanos, forward: bool, flow: usize, size: u32, what: Arrival) {
        let link = if forward { &mut self.forward } else { &mut self.backward };
        if let Some(at) = link.send(now, flow, size) {
            self.order += 1;
            self.events.push(Reverse(Due { at, order: self.order, what }));
        }
    }

    fn drive(&mut self, now: Nanos, flow: usize, client: bool, node: &mut Node) {
        node.drive(now, |packet| {
            let size = packet.len() as u32 + UDP_OVERHEAD;
            self.send(now, client, flow, size, Arrival::Quic { flow, client: !client, packet });
        });
    }
}

struct Keys {
    client: Arc<QuicClientConfig>,
    server: Arc<QuicServerConfig>,
    name: String,
}

impl Keys {
    fn new() -> Self {
        let (a, b) = (Identity::from_seed(&[1; 32]).unwrap(), Identity::from_seed(&[2; 32]).unwrap());
        let (dialer, listener) = (LocalPeer::open(&a, "link").unwrap(), LocalPeer::open(&b, "link").unwrap());
        let options = TlsOptions::default();
        Self {
            client: Arc::new(QuicClientConfig::try_from(dialer.tls.client_config(&options).unwrap()).unwrap()),
            server: Arc::new(QuicServerConfig::try_from(listener.tls.server_config(&options).unwrap()).unwrap()),
            name: server_name(&b.peer_id()).unwrap().to_str().into_owned(),
        }
    }
}

fn transport(run: &Run, controller: Factory) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(1452);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(100_000))
        .stream_receive_window(VarInt::from_u32(64 << 20))
        .receive_window(VarInt::from_u32(128 << 20))
        .send_window(QUANTUM)
        .max_idle_timeout(Some(IdleTimeout::try_from(Duration::from_secs(60)).unwrap()))
        .packet_threshold(run.loss_detection.0)
        .time_threshold(run.loss_detection.1)
        .initial_mtu(1200)
        .min_mtu(1200)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(None)
        .datagram_receive_buffer_size(Some(64 * 1024))
        .datagram_send_buffer_size(16 * 1024)
        .congestion_controller_factory(controller);
    transport
}

const QUANTUM: u64 = 16 * 1024;

fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos() as Nanos
}

impl Run {
    pub fn new(profile: Profile, controller: Make, seed: u64) -> Self {
        Self {
            duration: profile.duration,
            warm_up: profile.warm_up,
            profile,
            controller,
            seed,
            flood: true,
            rate: 50.0,
            stream_each: true,
            copies: [2, 8, 20].map(Duration::from_millis).to_vec(),
            loss_detection: (256, 1.25),
            budget: Budget::Filled,
            trace: None,
        }
    }

    /// The whole run, from handshake to the end of the measurement and a second more for late answers.
    pub fn go(&self) -> Outcome {
        let keys = Keys::new();
        let profile = &self.profile;
        let epoch = Instant::now();
        let flows = profile.flows + usize::from(profile.rival.is_some());
        let mut world = World {
            events: BinaryHeap::new(),
            order: 0,
            forward: Link::new(profile.forward.clone(), flows, self.seed * 2 + 1),
            backward: Link::new(profile.backward.clone(), flows, self.seed * 2 + 2),
        };
        let (client, server): (SocketAddr, SocketAddr) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:4000".parse().unwrap());
        let stop = nanos(self.duration);
        let mut nodes = Vec::new();
        for flow in 0..profile.flows {
            let start = nanos(profile.stagger) * flow as Nanos;
            let seed = self.seed * 1000 + flow as u64 * 2;
            let in_flight = [InFlight::default(), InFlight::default()];
            let heard: [Arc<Heard>; 2] = Default::default();
            let traffic = |asks: bool, seed| {
                Traffic::new(TrafficConfig {
                    flood: self.flood && (asks || profile.both_ways),
                    asks,
                    rate: self.rate,
                    start,
                    stop,
                    measure_from: nanos(self.warm_up),
                    stream_each: self.stream_each,
                    copies: self.copies.clone(),
                    budget: self.budget,
                    in_flight: in_flight[usize::from(!asks)].clone(),
                    heard: heard[usize::from(!asks)].clone(),
                    seed,
                })
            };
            let watched = |side: usize| {
                let watch = Watch { inner: (self.controller)(heard[side].clone()), in_flight: in_flight[side].clone() };
                Arc::new(transport(self, Arc::new(watch)))
            };
            let mut server_config = ServerConfig::with_crypto(keys.server.clone());
            server_config.transport_config(watched(1));
            let mut client_config = ClientConfig::new(keys.client.clone());
            client_config.transport_config(watched(0));
            let mut a = Node::new(epoch, server, None, seed + 1, traffic(true, seed), heard[0].clone());
            let b = Node::new(epoch, client, Some(Arc::new(server_config)), seed + 2, traffic(false, seed + 1), heard[1].clone());
            a.connect(0, client_config, &keys.name);
            nodes.push([a, b]);
        }
        let mut rival = profile.rival.map(|rival| TcpFlow::new(rival, nanos(profile.rival_at)));
        let rival_flow = profile.flows;
        let mut now: Nanos = 0;
        let mut next_trace = 0;
        let end = stop + 1_000_000_000;
        for (flow, [a, _]) in nodes.iter_mut().enumerate() {
            world.drive(0, flow, true, a);
        }
        loop {
            let arrival = world.events.peek().map(|Reverse(due)| due.at);
            let timer = nodes
                .iter_mut()
                .enumerate()
                .flat_map(|(flow, [a, b])| [(a.next_wakeup(), flow, true), (b.next_wakeup(), flow, false)])
                .filter_map(|(at, flow, client)| Some((at?, flow, client)))
                .min();
            let rival_timer = rival.as_ref().and_then(|rival| rival.timeout(now));
            let Some(next) = [arrival, timer.map(|(at, ..)| at), rival_timer].into_iter().flatten().min() else { break };
            now = now.max(next);
            if now > end {
                break;
            }
            if let Some(every) = self.trace.filter(|_| now >= next_trace) {
                next_trace = now + nanos(every);
                let connection = nodes[0][0].connection();
                if let Some(connection) = connection {
                    println!(
                        "{:8.3} w {:8} rtt {:7.2} q {:5} {}",
                        now as f64 / 1e9,
                        connection.congestion_state().window(),
                        connection.rtt().as_secs_f64() * 1e3,
                        world.forward.backlog(now),
                        connection
                            .congestion_state()
                            .clone_box()
                            .into_any()
                            .downcast::<peerlane_quic::Delay>()
                            .map_or_else(|_| String::new(), |delay| delay.to_string()),
                    );
                }
            }
            let mut rival_acts = false;
            if arrival == Some(next) {
                let Some(Reverse(due)) = world.events.pop() else { break };
                match due.what {
                    Arrival::Quic { flow, client, packet } => {
                        let node = &mut nodes[flow][usize::from(!client)];
                        node.receive(now, packet);
                        world.drive(now, flow, client, node);
                    }
                    Arrival::Segment(number) => {
                        if let Some(rival) = &mut rival {
                            let measuring = now >= nanos(self.warm_up) && now < stop;
                            if let Some(seen) = rival.receive(number, measuring) {
                                world.send(now, false, rival_flow, ACK, Arrival::Ack(seen));
                            }
                        }
                    }
                    Arrival::Ack(seen) => {
                        if let Some(rival) = &mut rival {
                            rival.acked(now, seen);
                            rival_acts = true;
                        }
                    }
                }
            } else if let Some((at, flow, client)) = timer.filter(|(at, ..)| *at == next) {
                debug_assert!(at <= now);
                world.drive(now, flow, client, &mut nodes[flow][usize::from(!client)]);
            } else if let Some(rival) = &mut rival {
                rival.on_timeout(now);
                rival_acts = true;
            }
            if let (true, Some(rival)) = (rival_acts, &mut rival) {
                for number in rival.sendable(now) {
                    world.send(now, true, rival_flow, SEGMENT, Arrival::Segment(number));
                }
            }
        }
        let rival_bytes = rival.map(|rival| rival.measured * PAYLOAD);
        Outcome::new(self, &nodes, rival_bytes, [&world.forward, &world.backward])
    }
}
