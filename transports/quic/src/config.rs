//! quinn's configuration: every default that matters is set on purpose.

use std::{path::PathBuf, sync::Arc, time::Duration};

use peerlane_transport::{
    ClassTable, ConnectError, ListenError,
    admission::LocalPeer,
    identity::{Tls, TlsOptions},
    limits,
};
use quinn::{
    EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig},
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use crate::congestion::{DelayBothWays, DelayConfig, Factory, Published};

/// Which congestion controller a connection uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CongestionControl {
    /// RFC 9438, as quinn has it.
    Cubic,
    /// Bottleneck bandwidth and round-trip propagation time, first version, as quinn has it.
    Bbr,
    /// RFC 9002, appendix B.
    NewReno,
    /// Ours: keeps the bottleneck's queue short, and takes loss for congestion only where it comes with more data in flight.
    #[default]
    Delay,
}

impl CongestionControl {
    /// The name in records and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
            Self::NewReno => "newreno",
            Self::Delay => "delay",
        }
    }

    fn factory(self, delay: DelayConfig, published: &Published) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Cubic => Arc::new(CubicConfig::default()),
            Self::Bbr => Arc::new(BbrConfig::default()),
            Self::NewReno => Arc::new(NewRenoConfig::default()),
            Self::Delay => Arc::new(DelayBothWays { config: delay, heard: published.heard().clone() }),
        }
    }
}

/// What may be chosen of the QUIC transport. The default is the safe one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuicConfig {
    /// The congestion controller.
    pub congestion: CongestionControl,
    /// The parts of [`CongestionControl::Delay`]: each can be switched off, to see what it gives.
    pub delay: DelayConfig,
    /// Kernel buffers of each UDP socket in bytes, each way; what the kernel cut is logged.
    pub socket_buffer: usize,
    /// The most that is handed to quinn and not acknowledged, in bytes. Worst-case memory per connection.
    pub max_in_flight: u64,
    /// Largest UDP payload that path MTU discovery tries, in bytes.
    pub max_mtu: u16,
    /// Small messages of urgent `Any` classes have a stream each where a round trip takes so long or longer, so that a lost
    /// packet holds up no message but its own; `None`: they share their class's stream. Shorter than that a repair is quick,
    /// and a stream for each costs more than it gives.
    pub message_streams: Option<Duration>,
    /// When a message on such a stream is sent again as a datagram, as long as it isn't acknowledged: times from its
    /// departure. Empty: never. All copies of a connection together are at most 5% of the bytes sent or 64 kB/s, whichever
    /// is more, and a tenth of what the path carries, once [`CongestionControl::Delay`] knows that.
    pub copies: Vec<Duration>,
    /// Asks a path that has fallen silent for life signs more often than quinn does by itself, so that the end of an outage
    /// is noticed at once: see `docs/WIRE.md`, section 6.
    pub rescue: bool,
    /// Writes one qlog file per connection into this directory.
    pub qlog: Option<PathBuf>,
    /// Writes TLS secrets to the file named by `SSLKEYLOGFILE`.
    pub key_log: bool,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            congestion: CongestionControl::default(),
            delay: DelayConfig::default(),
            // A burst of a 1 Gbit/s path for 16 ms, or of 64 GSO batches.
            socket_buffer: 2 * 1024 * 1024,
            max_in_flight: 8 * 1024 * 1024,
            // Ethernet, less IPv6 and UDP headers.
            max_mtu: 1452,
            message_streams: Some(Duration::from_millis(2)),
            // Spread over a burst of loss; `shared/lab-baselines.md` in the project's notes measured these.
            copies: [2, 8, 20].map(Duration::from_millis).to_vec(),
            rescue: true,
            qlog: None,
            key_log: false,
        }
    }
}

/// Bytes for control frames in each direction, beside the classes' windows.
const CONTROL_WINDOW: usize = 64 * 1024;
/// Bytes that are taken of somebody whose hello isn't agreed to: the hello, and what may come right after it.
const STRANGER_WINDOW: usize = 64 * 1024;
/// Bytes on message streams in each direction.
const MESSAGE_WINDOW: usize = limits::MESSAGE_STREAMS * (1 + limits::MESSAGE_STREAM);
/// Datagrams that wait in quinn: one quantum, so that our scheduler decides about the rest.
const DATAGRAM_BUFFER: usize = limits::QUANTUM;
/// Datagrams received and not yet taken up.
const DATAGRAM_RECEIVE_BUFFER: usize = 64 * 1024;
/// quinn's own idle timeout comes after the session's, which knows why.
const IDLE_SLACK: Duration = Duration::from_secs(5);
/// Handshakes that wait to be accepted. Each buffers [`INCOMING_BUFFER`] bytes at most.
const MAX_INCOMING: usize = 1024;
/// Bytes buffered for a handshake before it's accepted.
const INCOMING_BUFFER: u64 = 64 * 1024;
/// The same for all of them.
const INCOMING_BUFFER_TOTAL: u64 = 8 * 1024 * 1024;
/// Memory of the filter that lets each address token be used once.
const TOKEN_LOG: usize = 1024 * 1024;
/// Peers dialed whose address tokens are kept, and tokens of each: a packet's size at most each, so 768 KiB.
const TOKENS_OF: u32 = 256;
const TOKENS_EACH: usize = 2;
/// How long an address token of an earlier connection spares a Retry.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

fn varint(bytes: usize) -> VarInt {
    u32::try_from(bytes).map_or(VarInt::from_u32(u32::MAX), VarInt::from_u32)
}

/// Bytes on all streams of a connection, once its hello is agreed to.
pub(crate) fn receive_window(peer: &LocalPeer) -> VarInt {
    varint(peer.terms.classes.window_total() + peer.terms.limits.window_growth + CONTROL_WINDOW + MESSAGE_WINDOW)
}

/// Settings of one connection.
pub(crate) fn transport(
    config: &QuicConfig,
    peer: &LocalPeer,
    published: &Arc<Published>,
    qlog: Option<quinn::QlogStream>,
) -> Arc<TransportConfig> {
    let classes = &peer.terms.classes;
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(config.max_mtu);
    let idle = IdleTimeout::try_from(peer.terms.limits.idle_timeout + IDLE_SLACK).ok();
    transport
        // One control stream, opened by the dialer; a large message more than agreed is a violation that we want to see.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(varint(classes.lanes_total() + limits::MESSAGE_STREAMS))
        // Credit is the session's: a stream's window is the largest lane's, and all lanes' together fit the connection's,
        // once there is a session: `receive_window`.
        .stream_receive_window(varint(largest_window(classes)))
        .receive_window(varint(STRANGER_WINDOW))
        // Follows the congestion window from the first write on: `budget`.
        .send_window(limits::QUANTUM as u64)
        // Round robin among streams of one priority. Off, one stream can starve the rest.
        .send_fairness(true)
        .max_idle_timeout(idle)
        // Liveness is the session's: quinn's keepalive re-arms only on receipt, and its probes double without bound.
        .keep_alive_interval(None)
        // Before the first sample: RFC 9002, section 6.2.2, has 333 ms, after which 5 s see three attempts of a lost handshake. This gives
        // two more, and a packet or two too many where a round trip takes longer than 300 ms.
        .initial_rtt(Duration::from_millis(100))
        // A packet is lost after 5/4 of a round trip, however many came after it (RFC 9002, section 6.1, permits more than
        // 3): paths reorder, and what is urgent doesn't wait for a repair but has copies.
        .packet_threshold(256)
        .time_threshold(1.25)
        .persistent_congestion_threshold(3)
        // RFC 9000, section 14: every QUIC path carries 1,200 bytes; more is found by probing.
        .initial_mtu(1200)
        .min_mtu(1200)
        .mtu_discovery_config(Some(mtu))
        .pad_to_mtu(false)
        // The receiver acknowledges every second packet, as RFC 9000, section 13.2.2, recommends.
        .ack_frequency_config(None)
        .crypto_buffer_size(16 * 1024)
        .allow_spin(true)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .congestion_controller_factory(Arc::new(Factory {
            inner: config.congestion.factory(config.delay, published),
            published: published.clone(),
        }))
        .enable_segmentation_offload(true)
        .qlog_stream(qlog);
    Arc::new(transport)
}

fn largest_window(classes: &ClassTable) -> usize {
    // A stream's first byte names its lane and isn't counted by the session's credit.
    1 + classes.iter().map(|(_, class)| class.most(false).max(class.most(true))).max().unwrap_or(0)
}

/// The keys of an endpoint, derived from the identity's secret: the same after a restart.
pub(crate) struct EndpointKeys {
    reset: [u8; 32],
    token: [u8; 32],
    connection_id: u64,
}

impl EndpointKeys {
    pub(crate) fn new(tls: &Tls) -> Self {
        let secret = |context: &str| *tls.derive_secret(context);
        let id = secret("peerlane/1 quic connection id");
        Self {
            reset: secret("peerlane/1 quic stateless reset"),
            token: secret("peerlane/1 quic address token"),
            connection_id: id.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)),
        }
    }

    pub(crate) fn endpoint(&self) -> EndpointConfig {
        use aws_lc_rs::hmac;
        let mut endpoint = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.reset)));
        let key = self.connection_id;
        endpoint
            // Keyed: after a restart our own connection IDs of before are recognised, else no reset would be sent for them.
            .cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(key)))
            .supported_versions(vec![quinn_proto::DEFAULT_SUPPORTED_VERSIONS[0]])
            .grease_quic_bit(true)
            // A reset answers a packet; 20 ms keeps two endpoints from answering each other for ever.
            .min_reset_interval(Duration::from_millis(20));
        endpoint
    }

    fn token(&self) -> aws_lc_rs::hkdf::Prk {
        aws_lc_rs::hkdf::Salt::new(aws_lc_rs::hkdf::HKDF_SHA256, &[]).extract(&self.token)
    }
}

/// What a listener accepts with.
pub(crate) fn server(peer: &LocalPeer, config: &QuicConfig, keys: &EndpointKeys) -> Result<quinn::ServerConfig, ListenError> {
    let tls = peer.tls.server_config(&tls_options(config)).map_err(|error| ListenError::Config(error.to_string()))?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| ListenError::Config(error.to_string()))?;
    let mut server = quinn::ServerConfig::new(Arc::new(crypto), Arc::new(keys.token()));
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(TOKENS_EACH as u32).lifetime(TOKEN_LIFETIME).log(Arc::new(quinn::BloomTokenLog::new_expected_items(TOKEN_LOG, 100_000)));
    server
        .migration(true)
        .retry_token_lifetime(Duration::from_secs(15))
        .validation_token_config(tokens)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    Ok(server)
}

/// Where a dialer keeps the address tokens that listeners gave it: each spares a later dial the round trip of a Retry.
pub(crate) fn tokens() -> Arc<dyn quinn::TokenStore> {
    Arc::new(quinn::TokenMemoryCache::new(TOKENS_OF, TOKENS_EACH))
}

/// What a dialer dials with.
pub(crate) fn client(peer: &LocalPeer, config: &QuicConfig) -> Result<Arc<QuicClientConfig>, ConnectError> {
    let tls = peer.tls.client_config(&tls_options(config))?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| ConnectError::Config(error.to_string()))?;
    Ok(Arc::new(crypto))
}

fn tls_options(config: &QuicConfig) -> TlsOptions {
    let mut options = TlsOptions::default();
    options.key_log = config.key_log;
    options
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use peerlane_transport::identity::Identity;

    use super::*;

    /// What a version of quinn lets be set, as its `Debug` names it, outermost fields only.
    fn fields(debug: &str) -> BTreeSet<String> {
        let (mut depth, mut fields, mut word) = (0, BTreeSet::new(), String::new());
        for c in debug.chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                ':' if depth == 1 => {
                    fields.insert(word.clone());
                }
                _ => {}
            }
            if c.is_alphanumeric() || c == '_' { word.push(c) } else { word.clear() }
        }
        fields
    }

    fn named(names: &str) -> BTreeSet<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// quinn's defaults let one peer hold 250 MB. A version with a setting more must not bring a default unseen: who adds
    /// it to these lists sets it above, or says here why its default is right.
    #[test]
    fn every_setting_of_quinn_is_set_on_purpose() {
        let peer = LocalPeer::open(&Identity::generate().unwrap(), "n").unwrap();
        let (config, keys) = (QuicConfig::default(), EndpointKeys::new(&peer.tls));
        let transport = transport(&config, &peer, &Published::new(), None);
        let set = "max_concurrent_bidi_streams max_concurrent_uni_streams max_idle_timeout stream_receive_window receive_window \
            send_window send_fairness packet_threshold time_threshold initial_rtt initial_mtu min_mtu mtu_discovery_config pad_to_mtu \
            ack_frequency_config persistent_congestion_threshold keep_alive_interval crypto_buffer_size allow_spin \
            datagram_receive_buffer_size datagram_send_buffer_size enable_segmentation_offload qlog_stream";
        assert_eq!(fields(&format!("{transport:?}")), named(set));
        // Of these two are left: a packet may have what Ethernet carries (max_udp_payload_size, 1,472), and the generator's
        // seed is the system's (rng_seed).
        let set = "max_udp_payload_size supported_versions grease_quic_bit rng_seed";
        assert_eq!(fields(&format!("{:?}", keys.endpoint())), named(set));
        // `transport` is of no use: each connection is accepted with a configuration of its own. There's no preferred address.
        let set = "transport retry_token_lifetime validation_token migration preferred_address_v4 preferred_address_v6 max_incoming \
            incoming_buffer_size incoming_buffer_size_total";
        assert_eq!(fields(&format!("{:?}", server(&peer, &config, &keys).unwrap())), named(set));
    }

    #[test]
    fn all_lanes_windows_fit_the_connections_with_growth_and_control() {
        let peer = LocalPeer::open(&Identity::generate().unwrap(), "n").unwrap();
        let transport = transport(&QuicConfig::default(), &peer, &Published::new(), None);
        let told = |name: &str| -> usize {
            let debug = format!("{transport:?}");
            let rest = debug.split(&format!(" {name}: ")).nth(1).unwrap();
            rest.split(',').next().unwrap().parse().unwrap()
        };
        let classes = &peer.terms.classes;
        let all = usize::try_from(receive_window(&peer).into_inner()).unwrap();
        assert!(all >= classes.window_total() + peer.terms.limits.window_growth + CONTROL_WINDOW);
        assert!(told("receive_window") < all / 16, "strangers have as much");
        assert!(told("stream_receive_window") > classes.iter().map(|(_, class)| class.most(false)).max().unwrap());
    }
}
