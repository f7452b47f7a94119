//! The suite that every transport passes, over a world.
#![allow(clippy::unwrap_used)]

mod common;

use std::{net::SocketAddr, pin::Pin};

use common::*;
use peerlane_sim::{Link, SimTransport, World};
use peerlane_transport::{
    ConnectError,
    admission::LocalPeer,
    conformance::{self, Capabilities, Factory},
    identity::{PeerAddr, PeerId},
};

struct Sim(World);

impl Factory for Sim {
    type Transport = SimTransport;

    fn transport(&self, peer: &LocalPeer) -> Result<SimTransport, ConnectError> {
        Ok(self.0.transport_for(peer))
    }

    fn local(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }

    fn addr(&self, local: &SocketAddr, peer: PeerId) -> PeerAddr {
        PeerAddr::new(peer, *local)
    }

    fn tls(&self) -> bool {
        false
    }

    fn cut(&self, cut: bool) -> bool {
        if cut {
            self.0.partition_all()
        } else {
            self.0.heal_all()
        }
        true
    }

    fn lose_next(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        Some(Box::pin(self.0.lose_next_of_any()))
    }
}

const CLAIMS: Capabilities = Capabilities { identity: true, loss_isolated: true, datagrams: true, kernel_queue: true };

fn passes(link: Link, groups: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        for group in groups {
            let world = World::new(1);
            world.set_default_link(link);
            let report = conformance::run_only(Sim(world), CLAIMS, group).await;
            println!("{report}");
            report.assert_passed();
        }
    });
}

/// With a rate: without one nothing is scarce, and no class can have a share of it.
#[test]
fn over_a_good_link() {
    passes(Link { latency: ms(5), rate: Some(50_000_000), ..Link::default() }, &[""]);
}

/// Without the isolation group: at this rate a lane's window lasts for less than a repair takes, so a loss holds credit up,
/// and a class without credit can't have its share. That's so on any transport.
#[test]
fn over_a_bad_link() {
    let link = Link { latency: ms(5), jitter: ms(3), loss: 0.005, rate: Some(50_000_000), ..Link::default() };
    passes(link, &["integrity::", "cancel::", "identity::", "lifecycle::"]);
}

/// Slow enough that windows outlast repairs: here isolation holds under loss too.
#[test]
fn over_a_bad_link_that_windows_cover() {
    let link = Link { latency: ms(5), jitter: ms(3), loss: 0.005, rate: Some(2_000_000), ..Link::default() };
    passes(link, &["isolation::"]);
}
