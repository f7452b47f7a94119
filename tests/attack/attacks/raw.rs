//! Attacks with QUIC itself, by a client of the attacker's own.

use std::sync::Arc;

use peerlane_transport::identity::{TlsOptions, server_name};
use quinn::{ClientConfig, Connection, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::pki_types::ServerName;

use super::{Bound, Tally};
use crate::target::{Target, stranger};

/// A QUIC connection, and nothing said on it.
async fn connect(target: &Target) -> Option<(Endpoint, Connection)> {
    let tls = stranger().tls.client_config(&TlsOptions::default()).unwrap();
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let ServerName::DnsName(name) = server_name(&target.addr.id).unwrap() else { return None };
    let connection = endpoint.connect_with(config, target.socket(), name.as_ref()).unwrap().await.ok()?;
    Some((endpoint, connection))
}

/// Does something on a connection, and on a new one once the victim has ended it.
async fn again(target: Target, mut bound: Bound, each: impl AsyncFn(&Connection) -> bool) -> Tally {
    let mut tally = Tally::default();
    let mut connected: Option<(Endpoint, Connection)> = None;
    while bound.more() {
        let Some((_, connection)) = &connected else {
            connected = connect(&target).await;
            tally.refused += u64::from(connected.is_none());
            continue;
        };
        match each(connection).await {
            true => tally.done += 1,
            false => connected = None,
        }
    }
    tally
}

pub async fn streams(target: Target, bound: Bound) -> Tally {
    again(target, bound, async |connection| {
        let opened = tokio::time::timeout(std::time::Duration::from_millis(100), connection.open_uni()).await;
        let Ok(Ok(mut stream)) = opened else { return connection.close_reason().is_none() };
        let _ = stream.write(&[0x41]).await;
        stream.reset(1u32.into()).is_ok()
    })
    .await
}

pub async fn key_updates(target: Target, bound: Bound) -> Tally {
    let hello = async |connection: &Connection| {
        connection.force_key_update();
        // A datagram makes a packet with the new key leave; the victim takes none before a hello, and drops it.
        let sent = connection.send_datagram(bytes::Bytes::from_static(&[0])).is_ok();
        tokio::time::sleep(std::time::Duration::from_micros(200)).await;
        sent && connection.close_reason().is_none()
    };
    again(target, bound, hello).await
}
