//! What all transports of one peer share.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::{Gate, GateConfig, Lists, Terms};
use crate::{
    CloseCode, Closed, ConnectError,
    identity::{Identity, IdentityError, PeerId, Remote, Tls},
};

/// This peer, as its transports see it: one per process, shared by TCP and QUIC, so that both have the same
/// certificate, the same verifier, the same lists and the same budget of handshakes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalPeer {
    /// Certificate, verifier and provider.
    pub tls: Arc<Tls>,
    /// Whom it trusts, admits and blocks.
    pub lists: Arc<Lists>,
    /// The budget of handshakes.
    pub gate: Arc<Gate>,
    /// Network, classes and limits.
    pub terms: Terms,
}

impl LocalPeer {
    /// A peer that admits whom `lists` admit, with the gate's default budgets.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub fn new(identity: &Identity, lists: Arc<Lists>, terms: Terms) -> Result<Self, IdentityError> {
        let tls = Arc::new(Tls::new(identity, lists.clone())?);
        Ok(Self { tls, lists, gate: Gate::new(GateConfig::default()), terms })
    }

    /// A peer that admits everybody.
    ///
    /// # Errors
    /// [`ConnectError::Config`] for a network's name that isn't 1 to 64 bytes long; else as [`Tls::new`].
    pub fn open(identity: &Identity, network: &str) -> Result<Self, ConnectError> {
        Ok(Self::new(identity, Arc::new(Lists::everybody()), Terms::new(network)?)?)
    }

    /// Its key.
    pub fn peer_id(&self) -> PeerId {
        self.tls.peer_id()
    }

    /// To be asked after every handshake, resumed or not, on both sides: the other side's key, the one expected if
    /// one is, admitted, and not our own. The error's [`Closed`] is what to tell the other side.
    ///
    /// # Errors
    /// An [`IdentityError`] that names both keys, and what to close with.
    pub fn judge(
        &self,
        expected: Option<&PeerId>,
        certificates: &[CertificateDer<'_>],
    ) -> Result<(PeerId, Remote), (IdentityError, Closed)> {
        let judged = self.tls.check_peer(expected, certificates);
        match judged.and_then(|peer| if peer == self.peer_id() { Err(IdentityError::Ourselves) } else { Ok(peer) }) {
            Ok(peer) => Ok((peer, Remote::authenticated(peer))),
            Err(error) => {
                let code = match &error {
                    IdentityError::WrongKey { .. } => CloseCode::WrongKey,
                    _ => CloseCode::NotAdmitted,
                };
                let closed = Closed::local(code, error.to_string());
                Err((error, closed))
            }
        }
    }
}
