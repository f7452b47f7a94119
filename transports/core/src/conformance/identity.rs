//! Who is at the other end: proven on both sides, before a byte goes up; and why not, on both sides.
//!
//! The dialer's error names what the user must know (both keys, or who refused). The listener's may come as an alert of
//! the handshake, so less is asked of it: it's an error, and not a timeout.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{
    Factory,
    kit::{AddrOf, Kit, ListenerOf, Peer, meet, round_trips, standard, terms, terms_of},
    report::{Stop, Verdict, ensure, fail},
    streams::{message, noise, number, whole},
};
use crate::{
    ClassTable, CloseCode, ClosedBy, ConnectError, Order, SendError, TrafficClass, Urgency,
    admission::{ListSets, Lists, LocalPeer},
    identity::{Flaw, Identity, IdentityError, PeerId, Proof, Tls},
};

pub(super) async fn both_sides_know_each_other<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    kit.needs(kit.claims.identity, "identity")?;
    let (dialer, listener) = (kit.peer(&terms())?, kit.peer(&terms())?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let (a, b) = meet(&dialer, &addr, &mut port).await.both()?;
    for (at, expected) in [(&a, listener.id()), (&b, dialer.id())] {
        let remote = at.remote();
        ensure!(remote.peer_id() == Some(expected) && remote.proof == Proof::Transport, "{expected} is known as {remote:?}");
    }
    ensure!(a.dialed() && !b.dialed(), "who dialed is told wrongly");
    if kit.factory.tls() {
        ensure!(a.exporter() == b.exporter() && a.exporter() != [0; 32], "the two sides export different keying material, or none");
        let (c, d) = meet(&dialer, &addr, &mut port).await.both()?;
        ensure!(c.exporter() == d.exporter() && c.exporter() != a.exporter(), "two connections export the same keying material");
    }
    Ok(())
}

/// The listener's side of a refusal: an error, told by the other side and not by the clock.
fn told(listener: Option<&ConnectError>) -> Verdict {
    match listener {
        Some(ConnectError::Timeout { .. }) => fail!("the listener isn't told of the refusal: its handshake runs into the timeout"),
        _ => Ok(()),
    }
}

fn wrong_key(error: &ConnectError, expected: PeerId, found: PeerId) -> Verdict {
    match error {
        ConnectError::Identity(IdentityError::WrongKey { expected: e, found: f }) if *e == expected && *f == found => {
            let text = error.to_string();
            ensure!(text.contains(&expected.to_string()) && text.contains(&found.to_string()), "the error doesn't name both keys: {text}");
            ensure!(!error.may_retry(), "a wrong key is said to be worth another try");
            Ok(())
        }
        other => fail!("the dialer should say WrongKey with both keys, not {other:?}"),
    }
}

pub(super) async fn a_wrong_key_is_refused_and_both_keys_are_named<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    kit.needs(kit.claims.identity, "identity")?;
    let (dialer, listener) = (kit.peer(&terms())?, kit.peer(&terms())?);
    let (mut port, _) = kit.listen(&listener).await?;
    let other = Identity::generate()?.peer_id();
    let (a, b) = meet(&dialer, &addr_of(&kit, &port, other), &mut port).await.neither()?;
    wrong_key(&a, other, listener.id())?;
    told(b.as_ref())
}

fn addr_of<F: Factory>(kit: &Kit<F>, port: &ListenerOf<F>, id: PeerId) -> AddrOf<F> {
    kit.factory.addr(&crate::Listener::local(port), id)
}

/// A host that was dialed as A, with sessions to resume, is dialed as B.
pub(super) async fn a_known_host_with_another_key_is_refused<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    kit.needs(kit.claims.identity, "identity")?;
    let (dialer, listener) = (kit.peer(&terms())?, kit.peer(&terms())?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let query = standard(ClassTable::QUERY)?;
    for round in 0..3 {
        kit.step(format!("a first session, and one resumed: {round}"));
        let (a, b) = meet(&dialer, &addr, &mut port).await.both()?;
        // Tickets come behind the handshake: a round trip takes them along.
        round_trips(&a, &b, query, 2, 100).await?;
        ensure!(b.remote().peer_id() == Some(dialer.id()), "the dialer of a resumed session is known as {:?}", b.remote());
        kit.step("the same host under another key");
        let other = Identity::generate()?.peer_id();
        let (a, b) = meet(&dialer, &addr_of(&kit, &port, other), &mut port).await.neither()?;
        wrong_key(&a, other, listener.id())?;
        told(b.as_ref())?;
    }
    Ok(())
}

pub(super) async fn dialing_oneself_is_refused<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    kit.needs(kit.claims.identity, "identity")?;
    let oneself = kit.peer(&terms())?;
    let (mut port, addr) = kit.listen(&oneself).await?;
    let (a, b) = meet(&oneself, &addr, &mut port).await.neither()?;
    let says = |error: &ConnectError| matches!(error, ConnectError::Identity(IdentityError::Ourselves));
    ensure!(says(&a) || b.as_ref().is_some_and(says), "neither side says that it dialed itself: {a:?}, {b:?}");
    ensure!(!a.may_retry(), "dialing oneself is said to be worth another try: {a:?}");
    told(b.as_ref())
}

/// Whose lists refuse the other.
#[derive(Clone, Copy, Debug)]
enum Refuser {
    Dialer,
    Listener,
}

pub(super) async fn the_lists_are_asked_on_both_sides<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    kit.needs(kit.claims.identity, "identity")?;
    for refuser in [Refuser::Dialer, Refuser::Listener] {
        for (what, admitted) in [("blocked", false), ("not on the allow list", false), ("on the allow list", true)] {
            kit.step(format!("the other side is {what} at the {refuser:?}"));
            let (strict, other) = (kit.peer(&terms())?, kit.peer(&terms())?);
            strict.local.lists.replace(match what {
                "blocked" => blocking(other.id()),
                "on the allow list" => ListSets { allow: Some(HashSet::from([other.id()])), ..ListSets::default() },
                _ => ListSets { allow: Some(HashSet::new()), ..ListSets::default() },
            });
            let (dialer, listener) = match refuser {
                Refuser::Dialer => (&strict, &other),
                Refuser::Listener => (&other, &strict),
            };
            let (mut port, addr) = kit.listen(listener).await?;
            let meeting = meet(dialer, &addr, &mut port).await;
            if admitted {
                let (a, b) = meeting.both()?;
                round_trips(&a, &b, standard(ClassTable::QUERY)?, 1, 100).await?;
            } else {
                let (a, b) = meeting.neither()?;
                ensure!(!a.may_retry(), "the dialer isn't told that it's for good: {a:?}");
                told(b.as_ref())?;
            }
        }
    }
    Ok(())
}

fn blocking(peer: PeerId) -> ListSets {
    ListSets { block: HashSet::from([peer]), ..ListSets::default() }
}

pub(super) async fn a_peer_that_is_blocked_later_is_closed<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    kit.needs(kit.claims.identity, "identity")?;
    let (dialer, listener) = (kit.peer(&terms())?, kit.peer(&terms())?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let (a, b) = meet(&dialer, &addr, &mut port).await.both()?;
    round_trips(&a, &b, standard(ClassTable::QUERY)?, 2, 100).await?;
    listener.local.lists.replace(blocking(dialer.id()));
    for (at, by) in [(&a, ClosedBy::Remote), (&b, ClosedBy::Local)] {
        let closed = at.closed().await;
        ensure!(closed.code == CloseCode::NotAdmitted && closed.by == by, "should be closed as not admitted, by {by:?}: {closed:?}");
    }
    kit.step("it dials again, with a session to resume");
    let (a, b) = meet(&dialer, &addr, &mut port).await.neither()?;
    ensure!(!a.may_retry(), "the dialer isn't told that it's for good: {a:?}");
    told(b.as_ref())
}

pub(super) async fn another_network_is_refused_on_both_sides<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let (here, mut there) = (terms(), terms());
    there.network = "another".into();
    let (dialer, listener) = (kit.peer(&here)?, kit.peer(&there)?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let (a, b) = meet(&dialer, &addr, &mut port).await.neither()?;
    for error in [Some(&a), b.as_ref()] {
        match error {
            Some(ConnectError::Refused(closed)) if closed.code == CloseCode::WrongNetwork => {}
            other => fail!("both sides should say WrongNetwork: {other:?}"),
        }
    }
    ensure!(!a.may_retry(), "another network is said to be worth another try");
    Ok(())
}

/// Classes match by name, and the smaller limit holds.
pub(super) async fn classes_and_limits_are_agreed<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    let class = |name, max_message| TrafficClass { max_message, ..TrafficClass::new(name, 10, Urgency::Bulk, Order::Any) };
    let here = ClassTable::new(vec![class("common", 200_000), class("here", 1000), class("last", 1000)])?;
    let there = ClassTable::new(vec![class("last", 1000), class("there", 1000), class("common", 100_000)])?;
    let (dialer, listener) = (kit.peer(&terms_of(here.clone()))?, kit.peer(&terms_of(there.clone()))?);
    let (mut port, addr) = kit.listen(&listener).await?;
    let (a, b) = meet(&dialer, &addr, &mut port).await.both()?;
    let id = |table: &ClassTable, name| table.by_name(name).ok_or_else(|| Stop::Failed(format!("no class {name:?}")));
    for name in ["common", "last"] {
        let (at_a, at_b) = (id(&here, name)?, id(&there, name)?);
        a.send(at_a, message(1, 800)).await?;
        ensure!(number(&whole(&b, at_b).await?)? == 1, "{name} leads elsewhere");
        b.send(at_b, message(2, 900)).await?;
        ensure!(number(&whole(&a, at_a).await?)? == 2, "{name} leads elsewhere on the way back");
    }
    let common = id(&here, "common")?;
    a.send(common, message(3, 100_000)).await?;
    ensure!(number(&whole(&b, id(&there, "common")?).await?)? == 3, "another message arrives");
    let over = a.send(common, noise(1, 100_001)).await;
    ensure!(matches!(over, Err(SendError::TooLarge { limit: 100_000, .. })), "the other side's limit isn't kept: {over:?}");
    let alone = a.send(id(&here, "here")?, noise(1, 1)).await;
    ensure!(matches!(alone, Err(SendError::NoSuchClass(_))), "a class that the other side hasn't takes messages: {alone:?}");
    ensure!(!a.has_class(id(&here, "here")?) && a.has_class(common), "has_class is wrong");
    Ok(())
}

pub(super) async fn no_certificate_is_refused<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    flawed(kit, Flaw::NoCertificate, &[Refuser::Listener]).await
}

pub(super) async fn two_certificates_are_refused<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    flawed(kit, Flaw::TwoCertificates, &[Refuser::Dialer, Refuser::Listener]).await
}

pub(super) async fn a_foreign_application_protocol_is_refused<F: Factory>(kit: Arc<Kit<F>>) -> Verdict {
    flawed(kit, Flaw::ForeignProtocol, &[Refuser::Dialer, Refuser::Listener]).await
}

/// A peer whose TLS has a flaw meets one that looks.
async fn flawed<F: Factory>(kit: Arc<Kit<F>>, flaw: Flaw, refusers: &[Refuser]) -> Verdict {
    kit.needs(kit.claims.identity, "identity")?;
    kit.needs(kit.factory.tls(), "TLS")?;
    for refuser in refusers {
        kit.step(format!("{flaw:?}, looked at by the {refuser:?}"));
        let mut here = terms();
        here.limits.handshake_timeout = Duration::from_secs(3);
        let good = kit.peer(&here)?;
        let identity = Identity::generate()?;
        let lists = Arc::new(Lists::everybody());
        let mut local = LocalPeer::new(&identity, lists.clone(), here)?;
        local.tls = Arc::new(Tls::flawed(&identity, lists, flaw)?);
        let bad: Peer<F> = kit.peer_with(local)?;
        let (dialer, listener) = match refuser {
            Refuser::Dialer => (&good, &bad),
            Refuser::Listener => (&bad, &good),
        };
        let (mut port, addr) = kit.listen(listener).await?;
        let (a, b) = meet(dialer, &addr, &mut port).await.neither()?;
        told(b.as_ref())?;
        ensure!(!matches!(a, ConnectError::Timeout { .. }), "the dialer isn't told of the refusal: {a:?}");
        kit.step("the one that looked goes on");
        let another = kit.peer(&terms())?;
        let (mut port, addr) = kit.listen(&good).await?;
        let (a, b) = meet(&another, &addr, &mut port).await.both()?;
        round_trips(&a, &b, standard(ClassTable::QUERY)?, 1, 100).await?;
    }
    Ok(())
}
