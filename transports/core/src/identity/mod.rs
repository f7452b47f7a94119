//! Who a peer is, and how it's known: the peer's key is its certificate.
//!
//! A peer *is* an Ed25519 public key ([`PeerId`]). It shows one self-signed certificate that contains this key
//! ([`Credentials`]), and the TLS 1.3 handshake proves that it has the secret half ([`PeerVerifier`]). There is no
//! authority, no name and no date to check: who dials says which key it expects.
//!
//! Provided:
//! - keys are made, kept in files and loaded ([`Identity`]), and addresses that name a key ([`PeerAddr`]);
//! - TLS configurations for any transport, both roles ([`Tls`]);
//! - the check after every handshake ([`check_peer`]): TLS resumption skips the verifier on both sides, so what it
//!   has seen on the first connection says nothing about the second;
//! - proof of a key at the application's level ([`Challenge`]).
//!
//! Not provided: revocation (block the key instead), key rotation (a new key is a new peer), anonymity of the dialer.

mod certificate;
mod challenge;
mod error;
mod key;
mod key_file;
mod peer_addr;
mod peer_id;
mod pem;
mod remote;
mod sessions;
mod tls;
mod verifier;

pub use certificate::Credentials;
pub use challenge::{Challenge, Role};
pub use error::{IdentityError, Refusal};
pub use key::Identity;
pub use key_file::{KEY_FILE_MAX, KeyFileError};
pub use peer_addr::{Host, PeerAddr, PeerAddrError, RESOLVED_MAX, ResolveError};
pub use peer_id::{BadSignature, PeerId, PeerIdError};
pub use remote::{Proof, REMOTE_ID_MAX, Remote, RemoteId, RemoteIdError, Scheme};
pub use sessions::{SESSION_SERVERS_MAX, SESSION_TICKETS_MAX};
pub(crate) use tls::Flaw;
pub use tls::{ALPN, Tls, TlsOptions, check_alpn, server_name};
pub use verifier::{Admission, CERTIFICATE_MAX, PeerVerifier, check_peer, peer_key};
