//! TLS by hand: a dialer and a listener, and the bytes between them in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::sync::Mutex;

use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    AlertDescription, ClientConnection, Error as TlsError, HandshakeKind, NamedGroup, ServerConnection, SignatureAlgorithm, SignatureScheme,
};

mod tries;

use super::*;
use crate::identity::{CERTIFICATE_MAX, PeerIdError, Refusal, peer_key};

/// Lists that can change during a test.
#[derive(Debug, Default)]
struct Blocked(Mutex<Vec<PeerId>>);

impl Admission for Blocked {
    fn admits(&self, peer: &PeerId) -> Result<(), Refusal> {
        match self.0.lock().unwrap().contains(peer) {
            true => Err(Refusal::Blocked),
            false => Ok(()),
        }
    }
}

/// A process: its TLS and one transport's configurations.
struct Node {
    identity: Identity,
    blocked: Arc<Blocked>,
    tls: Tls,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Node {
    fn new(seed: u8) -> Self {
        let identity = Identity::from_seed(&[seed; 32]).unwrap();
        let blocked = Arc::new(Blocked::default());
        let tls = Tls::new(&identity, blocked.clone()).unwrap();
        let options = TlsOptions::default();
        Self {
            client: Arc::new(tls.client_config(&options).unwrap()),
            server: Arc::new(tls.server_config(&options).unwrap()),
            identity,
            blocked,
            tls,
        }
    }

    fn id(&self) -> PeerId {
        self.tls.peer_id()
    }

    /// The dialer's configuration, changed.
    fn client_with(&self, change: impl FnOnce(&mut ClientConfig)) -> Arc<ClientConfig> {
        let mut config = (*self.client).clone();
        change(&mut config);
        Arc::new(config)
    }

    /// The listener's configuration, changed.
    fn server_with(&self, change: impl FnOnce(&mut ServerConfig)) -> Arc<ServerConfig> {
        let mut config = (*self.server).clone();
        change(&mut config);
        Arc::new(config)
    }
}

struct Pair {
    dialer: ClientConnection,
    listener: ServerConnection,
}

/// What each side said of the handshake: the first error of each.
#[derive(Debug, Default)]
struct Outcome {
    dialer: Option<TlsError>,
    listener: Option<TlsError>,
}

impl Pair {
    fn new(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, dialed: &PeerId) -> Self {
        let name = server_name(dialed).unwrap();
        Self { dialer: ClientConnection::new(client.clone(), name).unwrap(), listener: ServerConnection::new(server.clone()).unwrap() }
    }

    /// Carries bytes both ways until neither side has any left.
    fn run(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let mut moved = 0;
            let mut wire = Vec::new();
            while self.dialer.wants_write() {
                moved += self.dialer.write_tls(&mut wire).unwrap();
            }
            let mut rest = wire.as_slice();
            while !rest.is_empty() && self.listener.read_tls(&mut rest).unwrap() > 0 {
                if let Err(error) = self.listener.process_new_packets() {
                    outcome.listener.get_or_insert(error);
                    break;
                }
            }
            let mut wire = Vec::new();
            while self.listener.wants_write() {
                moved += self.listener.write_tls(&mut wire).unwrap();
            }
            let mut rest = wire.as_slice();
            while !rest.is_empty() && self.dialer.read_tls(&mut rest).unwrap() > 0 {
                if let Err(error) = self.dialer.process_new_packets() {
                    outcome.dialer.get_or_insert(error);
                    break;
                }
            }
            if moved == 0 {
                return outcome;
            }
        }
    }

    fn kind(&self) -> Option<HandshakeKind> {
        let kind = self.dialer.handshake_kind();
        assert_eq!(kind, self.listener.handshake_kind());
        kind
    }
}

/// A handshake that must end without an error on both sides.
fn connect(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, dialed: &PeerId) -> Pair {
    let mut pair = Pair::new(client, server, dialed);
    let outcome = pair.run();
    assert!(outcome.dialer.is_none() && outcome.listener.is_none(), "{outcome:?}");
    assert!(!pair.dialer.is_handshaking() && !pair.listener.is_handshaking());
    pair
}

/// A handshake that must fail, and what each side said.
fn fail(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, dialed: &PeerId) -> Outcome {
    let outcome = Pair::new(client, server, dialed).run();
    assert!(outcome.dialer.is_some() || outcome.listener.is_some(), "the handshake went through");
    outcome
}

/// Our own words in an error of one side.
fn ours(error: &Option<TlsError>) -> IdentityError {
    let error = error.as_ref().expect("this side has no error");
    IdentityError::from_tls(error).unwrap_or_else(|| panic!("not an identity error: {error}"))
}

fn refused_by_alert(error: &Option<TlsError>, alert: AlertDescription) -> bool {
    matches!(ours(error), IdentityError::RefusedByRemote(found) if found == alert)
}

#[test]
fn both_sides_learn_the_others_key() {
    let (a, b) = (Node::new(1), Node::new(2));
    let mut pair = connect(&a.client, &b.server, &b.id());
    assert_eq!(pair.kind(), Some(HandshakeKind::Full));
    assert_eq!(pair.dialer.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(pair.dialer.negotiated_key_exchange_group().map(|group| group.name()), Some(NamedGroup::X25519MLKEM768));
    assert_eq!(pair.listener.server_name(), None, "no name was sent");
    check_alpn(ALPN, pair.dialer.alpn_protocol()).unwrap();
    check_alpn(ALPN, pair.listener.alpn_protocol()).unwrap();

    let certificates = pair.dialer.peer_certificates().unwrap();
    assert_eq!(a.tls.check_peer(Some(&b.id()), certificates).unwrap(), b.id());
    let certificates = pair.listener.peer_certificates().unwrap();
    assert_eq!(b.tls.check_peer(None, certificates).unwrap(), a.id());

    pair.dialer.writer().write_all(b"hello").unwrap();
    pair.run();
    let mut heard = [0; 5];
    pair.listener.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

#[test]
fn server_names_contain_the_key_and_nothing_else_is_a_name() {
    let id = Node::new(1).id();
    let name = server_name(&id).unwrap();
    assert_eq!(expected_key(&name).unwrap(), id);
    for foreign in ["example.org", "127.0.0.1", "abc.peerlane.invalid"] {
        let name = ServerName::try_from(foreign).unwrap();
        assert!(matches!(expected_key(&name), Err(IdentityError::ServerName)));
    }
}

#[test]
fn the_wrong_key_is_refused_with_both_keys_named() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    let outcome = fail(&a.client, &b.server, &c.id());
    let IdentityError::WrongKey { expected, found } = ours(&outcome.dialer) else {
        panic!("{outcome:?}");
    };
    assert_eq!((expected, found), (c.id(), b.id()));
    assert!(refused_by_alert(&outcome.listener, AlertDescription::CertificateUnknown));
    let text = ours(&outcome.dialer).to_string();
    assert!(text.contains(&b.id().to_string()) && text.contains(&c.id().to_string()));
}

#[test]
fn resumption_happens_and_both_sides_still_have_the_certificates() {
    let (a, b) = (Node::new(1), Node::new(2));
    connect(&a.client, &b.server, &b.id());
    for _ in 0..3 {
        let pair = connect(&a.client, &b.server, &b.id());
        assert_eq!(pair.kind(), Some(HandshakeKind::Resumed));
        let certificates = pair.dialer.peer_certificates().unwrap();
        assert_eq!(a.tls.check_peer(Some(&b.id()), certificates).unwrap(), b.id());
        let certificates = pair.listener.peer_certificates().unwrap();
        assert_eq!(b.tls.check_peer(None, certificates).unwrap(), a.id());
        check_alpn(ALPN, pair.listener.alpn_protocol()).unwrap();
    }
}

#[test]
fn a_session_of_one_transport_is_not_resumed_on_another() {
    let (a, b) = (Node::new(1), Node::new(2));
    let options = TlsOptions::default();
    connect(&a.client, &b.server, &b.id());
    // Another store at the dialer: it has no ticket. Another key at the listener: it can't read the ticket.
    let client = Arc::new(a.tls.client_config(&options).unwrap());
    let server = Arc::new(b.tls.server_config(&options).unwrap());
    let pair = connect(&client, &b.server, &b.id());
    assert_eq!(pair.kind(), Some(HandshakeKind::Full));
    let pair = connect(&a.client, &server, &b.id());
    assert_eq!(pair.kind(), Some(HandshakeKind::Full));
}

#[test]
fn a_session_of_one_host_is_not_resumed_at_another() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    connect(&a.client, &b.server, &b.id());
    // B answers where C was dialed. There's no ticket under C's name, so the handshake is full and the verifier asked.
    let outcome = fail(&a.client, &b.server, &c.id());
    assert!(matches!(ours(&outcome.dialer), IdentityError::WrongKey { .. }));
    // C answers where B was dialed. It can't read B's ticket, so again the handshake is full.
    let outcome = fail(&a.client, &c.server, &b.id());
    assert!(matches!(ours(&outcome.dialer), IdentityError::WrongKey { .. }));
}

#[test]
fn resumption_skips_the_verifier_and_the_check_afterwards_does_not() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    connect(&a.client, &b.server, &b.id());
    connect(&b.client, &a.server, &a.id());

    // Whoever dials with a session stored under the wrong name is stopped by the check.
    let pair = connect(&a.client, &b.server, &b.id());
    assert_eq!(pair.kind(), Some(HandshakeKind::Resumed));
    let certificates = pair.dialer.peer_certificates().unwrap();
    assert!(matches!(
        a.tls.check_peer(Some(&c.id()), certificates),
        Err(IdentityError::WrongKey { expected, found }) if expected == c.id() && found == b.id()
    ));

    // Blocked since the first connection: the handshake still goes through, on the side of either role.
    b.blocked.0.lock().unwrap().push(a.id());
    let pair = connect(&a.client, &b.server, &b.id());
    assert_eq!(pair.kind(), Some(HandshakeKind::Resumed));
    let certificates = pair.listener.peer_certificates().unwrap();
    let refused = b.tls.check_peer(None, certificates);
    assert!(matches!(
        refused,
        Err(IdentityError::Refused { peer, why: Refusal::Blocked }) if peer == a.id()
    ));
    let pair = connect(&b.client, &a.server, &a.id());
    assert_eq!(pair.kind(), Some(HandshakeKind::Resumed));
    let certificates = pair.dialer.peer_certificates().unwrap();
    assert!(matches!(b.tls.check_peer(Some(&a.id()), certificates), Err(IdentityError::Refused { .. })));
}

#[test]
fn the_lists_refuse_in_the_handshake_and_say_so_on_both_sides() {
    let (a, b) = (Node::new(1), Node::new(2));
    b.blocked.0.lock().unwrap().push(a.id());
    // As listener.
    let outcome = fail(&a.client, &b.server, &b.id());
    assert!(matches!(ours(&outcome.listener), IdentityError::RefusedInHandshake));
    assert!(refused_by_alert(&outcome.dialer, AlertDescription::AccessDenied));
    // As dialer.
    let outcome = fail(&b.client, &a.server, &a.id());
    assert!(matches!(ours(&outcome.dialer), IdentityError::RefusedInHandshake));
    assert!(refused_by_alert(&outcome.listener, AlertDescription::AccessDenied));
}

#[test]
fn the_lists_cannot_be_probed_with_a_certificate_of_somebody_else() {
    let (a, b, c) = (Node::new(1), Node::new(2), Node::new(3));
    // C shows A's certificate and signs with its own key.
    let key = load_key(&c.identity.to_pkcs8().unwrap());
    let stolen = a.tls.credentials().certificate().clone();
    let client = c.client_with(|config| {
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![stolen], key)));
    });
    let before = fail(&client, &b.server, &b.id());
    b.blocked.0.lock().unwrap().push(a.id());
    let after = fail(&client, &b.server, &b.id());
    for outcome in [before, after] {
        assert_eq!(outcome.dialer, Some(TlsError::AlertReceived(AlertDescription::DecryptError)));
    }
}

/// A session store that claims every ticket permits early data.
#[derive(Debug)]
struct Eager(Sessions);

impl ClientSessionStore for Eager {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(name, group);
    }
    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(name)
    }
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, name: ServerName<'static>, mut ticket: Tls13ClientSessionValue) {
        ticket._private_set_max_early_data_size(1000);
        self.0.insert_tls13_ticket(name, ticket);
    }
    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(name)
    }
}

#[test]
fn early_data_is_refused() {
    let (a, b) = (Node::new(1), Node::new(2));
    // Our dialer sends none, even to a listener whose tickets permit it.
    let mut inviting = ServerConfig::builder_with_provider(b.tls.provider().clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(b.tls.verifier.clone())
        .with_cert_resolver(b.tls.resolver.clone());
    inviting.alpn_protocols = vec![ALPN.to_vec()];
    inviting.max_early_data_size = 1000;
    let inviting = Arc::new(inviting);
    connect(&a.client, &inviting, &b.id());
    let mut pair = Pair::new(&a.client, &inviting, &b.id());
    assert!(pair.dialer.early_data().is_none());
    pair.run();
    assert_eq!(pair.kind(), Some(HandshakeKind::Resumed));

    // Our tickets don't permit it: a dialer that would like to has nothing to write to.
    let willing = a.client_with(|config| {
        config.enable_early_data = true;
        config.resumption = Resumption::store(Arc::new(Sessions::default()));
    });
    connect(&willing, &b.server, &b.id());
    assert!(Pair::new(&willing, &b.server, &b.id()).dialer.early_data().is_none());

    // A hostile one sends it all the same: our listener never reads it. It has two reasons not to, of which either
    // would do: the size, and that rustls accepts early data only for sessions that it stores.
    assert_eq!(b.server.max_early_data_size, 0);
    assert!(b.server.ticketer.enabled() && !b.server.session_storage.can_cache());
    let hostile = a.client_with(|config| {
        config.enable_early_data = true;
        config.resumption = Resumption::store(Arc::new(Eager(Sessions::default())));
    });
    connect(&hostile, &b.server, &b.id());
    let mut pair = Pair::new(&hostile, &b.server, &b.id());
    let mut early = pair.dialer.early_data().expect("early data is offered");
    early.write_all(b"early").unwrap();
    pair.run();
    assert!(!pair.dialer.is_early_data_accepted());
    assert!(pair.listener.early_data().is_none());
    let mut heard = Vec::new();
    let _ = pair.listener.reader().read_to_end(&mut heard);
    assert!(heard.is_empty(), "{heard:?}");
}

fn load_key(pkcs8: &ed25519_dalek::pkcs8::SecretDocument) -> Arc<dyn SigningKey> {
    let key = PrivateKeyDer::Pkcs8(pkcs8.as_bytes().to_vec().into());
    aws_lc_rs::sign::any_supported_type(&key).unwrap()
}

/// Fails the handshake with foreign credentials, as dialer and as listener; gives what our side said each time.
fn fail_with(resolver: SingleCertAndKey) -> [IdentityError; 2] {
    let (a, b) = (Node::new(1), Node::new(2));
    let resolver = Arc::new(resolver);
    let dialing = a.client_with(|config| config.client_auth_cert_resolver = resolver.clone());
    let listening = a.server_with(|config| config.cert_resolver = resolver);
    let dialed = fail(&dialing, &b.server, &b.id());
    let listened = fail(&b.client, &listening, &a.id());
    [ours(&dialed.listener), ours(&listened.dialer)]
}

#[test]
fn no_certificate_is_refused() {
    let (a, b) = (Node::new(1), Node::new(2));
    let anonymous = ClientConfig::builder_with_provider(a.tls.provider().clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(a.tls.verifier.clone())
        .with_no_client_auth();
    let anonymous = Arc::new({
        let mut config = anonymous;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    });
    let outcome = fail(&anonymous, &b.server, &b.id());
    assert!(matches!(ours(&outcome.listener), IdentityError::NoCertificate));
    assert!(refused_by_alert(&outcome.dialer, AlertDescription::CertificateRequired));
    assert!(matches!(peer_key(&[]), Err(IdentityError::NoCertificate)));
}

#[test]
fn two_certificates_are_refused() {
    let a = Node::new(1);
    let own = a.tls.credentials().certificate().clone();
    let other = Node::new(3).tls.credentials().certificate().clone();
    let key = load_key(&a.identity.to_pkcs8().unwrap());
    for error in fail_with(CertifiedKey::new(vec![own.clone(), other.clone()], key).into()) {
        assert!(matches!(error, IdentityError::CertificateCount(2)), "{error}");
    }
    assert!(matches!(peer_key(&[own, other]), Err(IdentityError::CertificateCount(2))));
}

#[test]
fn a_certificate_with_another_kind_of_key_is_refused() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
        assert!(matches!(peer_key(&[certificate.der().clone()]), Err(IdentityError::NotEd25519)));
        let key = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        // rustls as dialer leaves out a certificate that it can't sign with (we ask for Ed25519 alone), and as listener
        // finds none to use. So the verifier is met with a key that pretends to sign in the right scheme.
        let pretender = CertifiedKey::new(vec![certificate.der().clone()], Arc::new(Pretender(key)));
        for error in fail_with(pretender.into()) {
            assert!(matches!(error, IdentityError::NotEd25519), "{error}");
        }
    }
}

/// Signs whatever it signs, and calls it Ed25519.
#[derive(Debug)]
struct Pretender(Arc<dyn SigningKey>);

impl SigningKey for Pretender {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Forged))
    }
    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }
    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

/// The signature that every message has under the identity point as key: R = the identity, s = 0.
#[derive(Debug)]
struct Forged;

impl Signer for Forged {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, TlsError> {
        let mut signature = vec![0; 64];
        signature[0] = 1;
        Ok(signature)
    }
    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// An Ed25519 key for rcgen that can be any 32 bytes.
struct AnyKey([u8; 32]);

impl rcgen::PublicKeyData for AnyKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for AnyKey {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(vec![0; 64])
    }
}

#[test]
fn a_small_order_key_is_refused_although_its_signature_would_verify() {
    let mut identity_point = [0; 32];
    identity_point[0] = 1;
    let key = AnyKey(identity_point);
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    // The provider accepts the forged signature: the key itself must be refused.
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let verifies = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == SignatureScheme::ED25519)
        .map(|(_, found)| found[0].verify_signature(&identity_point, b"any", &Forged.sign(&[]).unwrap()));
    assert!(matches!(verifies, Some(Ok(()))), "{verifies:?} {spki:?}");

    let own = Node::new(1).identity.to_pkcs8().unwrap();
    let pretender = Pretender(load_key(&own));
    let forged = CertifiedKey::new(vec![certificate.der().clone()], Arc::new(pretender));
    for error in fail_with(forged.into()) {
        assert!(matches!(error, IdentityError::Key(PeerIdError::SmallOrder)), "{error}");
    }
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let (a, b) = (Node::new(1), Node::new(2));
    let stolen = a.tls.credentials().certificate().clone();
    let key = load_key(&Node::new(3).identity.to_pkcs8().unwrap());
    let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![stolen], key)));
    let impostor = a.server_with(|config| config.cert_resolver = resolver);
    let outcome = fail(&b.client, &impostor, &a.id());
    assert!(matches!(outcome.dialer, Some(TlsError::InvalidCertificate(rustls::CertificateError::BadSignature))));
}

#[test]
fn an_expired_certificate_with_the_right_key_is_accepted() {
    let (a, b) = (Node::new(1), Node::new(2));
    let pkcs8 = a.identity.to_pkcs8().unwrap();
    let pair = rcgen::KeyPair::try_from(pkcs8.as_bytes()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["example.org".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(1990, 1, 1);
    params.not_after = rcgen::date_time_ymd(1991, 1, 1);
    let expired = params.self_signed(&pair).unwrap().der().clone();
    let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![expired], load_key(&pkcs8))));
    let dialing = a.client_with(|config| config.client_auth_cert_resolver = resolver.clone());
    let listening = a.server_with(|config| config.cert_resolver = resolver);
    connect(&dialing, &b.server, &b.id());
    connect(&b.client, &listening, &a.id());
}

#[test]
fn what_is_no_certificate_is_refused() {
    for bytes in [vec![], vec![0x30], vec![0xff; 300]] {
        assert!(matches!(peer_key(&[bytes.into()]), Err(IdentityError::CertificateEncoding(_))));
    }
    assert!(matches!(peer_key(&[vec![0x30; CERTIFICATE_MAX + 1].into()]), Err(IdentityError::CertificateSize(_))));
    let mut cut = Node::new(1).tls.credentials().certificate().to_vec();
    for length in 0..cut.len() {
        assert!(peer_key(&[cut[..length].to_vec().into()]).is_err());
    }
    cut.push(0);
    assert!(peer_key(&[cut.into()]).is_err(), "trailing data");
}

#[test]
fn tls_1_2_is_refused() {
    let (a, b) = (Node::new(1), Node::new(2));
    let old = ClientConfig::builder_with_provider(a.tls.provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(a.tls.verifier.clone())
        .with_client_cert_resolver(a.tls.resolver.clone());
    let outcome = fail(&Arc::new(old), &b.server, &b.id());
    assert!(matches!(outcome.listener, Some(TlsError::PeerIncompatible(_))));
    let old = ServerConfig::builder_with_provider(b.tls.provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_client_cert_verifier(b.tls.verifier.clone())
        .with_cert_resolver(b.tls.resolver.clone());
    let outcome = fail(&a.client, &Arc::new(old), &b.id());
    assert!(outcome.listener.is_some() || outcome.dialer.is_some());
}

#[test]
fn a_foreign_protocol_is_refused() {
    let (a, b) = (Node::new(1), Node::new(2));
    let foreign = a.client_with(|config| config.alpn_protocols = vec![b"peerlane/2".to_vec()]);
    let outcome = fail(&foreign, &b.server, &b.id());
    assert_eq!(outcome.dialer, Some(TlsError::AlertReceived(AlertDescription::NoApplicationProtocol)));
    assert_eq!(outcome.listener, Some(TlsError::NoApplicationProtocol));

    // None at all: TLS lets it pass, the check afterwards doesn't.
    let silent = a.client_with(|config| config.alpn_protocols = Vec::new());
    let pair = connect(&silent, &b.server, &b.id());
    assert!(matches!(check_alpn(ALPN, pair.listener.alpn_protocol()), Err(IdentityError::Protocol { .. })));
    let silent = b.server_with(|config| config.alpn_protocols = Vec::new());
    let pair = connect(&a.client, &silent, &b.id());
    assert!(check_alpn(ALPN, pair.dialer.alpn_protocol()).is_err());
}

#[test]
fn tickets_are_kept_within_bounds() {
    let (a, b) = (Node::new(1), Node::new(2));
    let generous = b.server_with(|config| config.send_tls13_tickets = 20);
    connect(&a.client, &generous, &b.id());
    // The listener now refuses tickets, so that nothing new comes in.
    let mute = b.server_with(|config| {
        config.send_tls13_tickets = 0;
    });
    for expected in [HandshakeKind::Resumed, HandshakeKind::Resumed, HandshakeKind::Full] {
        assert_eq!(connect(&a.client, &mute, &b.id()).kind(), Some(expected));
    }
}
