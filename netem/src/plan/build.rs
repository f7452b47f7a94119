//! The commands of each topology.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::tc::{self, Stage};
use super::topology::{Host, Topology, namespace};
use super::{Plan, Step};
use crate::profile::{Direction, Profile, State};

/// A router's way out that impairs: one qdisc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// The router's namespace.
    pub namespace: String,
    /// The device in it, named after the neighbour: `to-b`.
    pub device: String,
    /// Which of the profile's directions.
    pub direction: Direction,
    /// Which part of it.
    pub stage: Stage,
}

impl Egress {
    pub(super) fn command(&self, verb: &str, state: &State) -> Step {
        let arguments = tc::arguments(state, self.stage).join(" ");
        Step::new(&format!("tc -n {} qdisc {verb} dev {} root netem {arguments}", self.namespace, self.device))
    }

    /// `change` and not del and add: the packets that wait must stay. All arguments are given, so nothing lingers.
    pub(super) fn change(&self, profile: &Profile, time: Duration) -> Step {
        self.command("change", &profile.state(self.direction, time))
    }
}

/// One end of a link.
#[derive(Clone, Copy)]
struct End<'a> {
    node: &'a str,
    last: u8,
}

pub(super) fn build(profile: &Profile, topology: Topology) -> Plan {
    let names = topology.hosts();
    let two_routers = topology == Topology::Shared || (topology == Topology::Pair && profile.has_delay_stage());
    let routers: &[&str] = if two_routers { &["r", "s"] } else { &["r"] };
    // b and d are behind the second router, if there is one.
    let far = |index: usize| two_routers && index % 2 == 1;

    let nodes = names.iter().map(String::as_str).chain(routers.iter().copied());
    let mut builder = Builder { steps: nodes.flat_map(node_steps).collect() };
    builder.steps.extend(routers.iter().map(|router| sysctl(router, "net.ipv4.ip_forward=1")));

    let mut hosts = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let subnet = index as u8 + 1;
        let router = if far(index) { "s" } else { "r" };
        builder.link(subnet, End { node: name, last: 2 }, End { node: router, last: 1 });
        builder.add(&format!("ip -n {} route add default via {}", namespace(name), address(subnet, 1)));
        hosts.push(Host { name: name.clone(), namespace: namespace(name), address: address(subnet, 2) });
    }
    if two_routers {
        builder.link(BETWEEN, End { node: "r", last: 1 }, End { node: "s", last: 2 });
        for index in 0..names.len() {
            let (from, via) = if far(index) { ("r", 2) } else { ("s", 1) };
            let network = Ipv4Addr::new(10, 77, index as u8 + 1, 0);
            builder.add(&format!("ip -n {} route add {network}/24 via {}", namespace(from), address(BETWEEN, via)));
        }
    }

    let egresses = egresses(profile, topology, &names, two_routers, far);
    for egress in &egresses {
        // Never `replace`: an old qdisc's reorder and seed linger in it.
        let mut delete = Step::new(&format!("tc -n {} qdisc del dev {} root", egress.namespace, egress.device));
        delete.may_fail = true;
        builder.steps.push(delete);
        builder.steps.push(egress.command("add", &profile.state(egress.direction, Duration::ZERO)));
    }
    let routers = routers.iter().map(|router| namespace(router)).collect();
    Plan { profile: profile.clone(), topology, hosts, routers, egresses, steps: builder.steps }
}

fn egresses(profile: &Profile, topology: Topology, names: &[String], two_routers: bool, far: impl Fn(usize) -> bool) -> Vec<Egress> {
    let egress = |router: &str, neighbour: &str, direction, stage| Egress {
        namespace: namespace(router),
        device: device(neighbour),
        direction,
        stage,
    };
    if !two_routers {
        let direction = |index| match topology {
            Topology::Pair if index == 0 => Direction::Backward,
            _ => Direction::Forward,
        };
        return names.iter().enumerate().map(|(index, name)| egress("r", name, direction(index), Stage::Bottleneck)).collect();
    }
    let mut egresses =
        vec![egress("r", "s", Direction::Forward, Stage::Bottleneck), egress("s", "r", Direction::Backward, Stage::Bottleneck)];
    for (index, name) in names.iter().enumerate() {
        let (router, direction) = if far(index) { ("s", Direction::Forward) } else { ("r", Direction::Backward) };
        if profile.direction(direction).has_delay_stage() {
            egresses.push(egress(router, name, direction, Stage::Delay));
        }
    }
    egresses
}

/// The namespace of a host or router.
pub(super) fn node_steps(node: &str) -> Vec<Step> {
    vec![
        Step::new(&format!("ip netns add {}", namespace(node))),
        // Neighbour discovery and router solicitation would cross netem and be counted.
        sysctl(node, "net.ipv6.conf.all.disable_ipv6=1"),
        sysctl(node, "net.ipv6.conf.default.disable_ipv6=1"),
        // What one connection learnt must not speed up the next.
        sysctl(node, "net.ipv4.tcp_no_metrics_save=1"),
        Step::new(&format!("ip -n {} link set lo up", namespace(node))),
    ]
}

/// The subnet between two routers.
const BETWEEN: u8 = 200;

fn address(subnet: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, subnet, last)
}

/// A locally administered address, so that neighbours can be written down beforehand.
fn hardware(subnet: u8, last: u8) -> String {
    format!("02:70:6c:00:{subnet:02x}:{last:02x}")
}

fn device(neighbour: &str) -> String {
    format!("to-{neighbour}")
}

fn sysctl(node: &str, setting: &str) -> Step {
    Step::new(&format!("ip netns exec {} sysctl -qw {setting}", namespace(node)))
}

struct Builder {
    steps: Vec<Step>,
}

impl Builder {
    fn add(&mut self, line: &str) {
        self.steps.push(Step::new(line));
    }

    /// A veth pair with addresses, no offloads, and static neighbours: the first ARP would cross netem.
    fn link(&mut self, subnet: u8, near: End<'_>, far: End<'_>) {
        let create = |end: End<'_>, other: End<'_>| {
            format!("{} netns {} address {}", device(other.node), namespace(end.node), hardware(subnet, end.last))
        };
        self.add(&format!("ip link add {} type veth peer name {}", create(near, far), create(far, near)));
        for (end, other) in [(near, far), (far, near)] {
            let (namespace, device) = (namespace(end.node), device(other.node));
            // One segment at most: TCP and UDP segmentation offload end here, or a loss would hit 64 KiB at once. veth
            // has no GRO unless it's asked for. Unlike `ethtool -K` it needs no further program.
            self.add(&format!("ip -n {namespace} link set {device} gso_max_segs 1 up"));
            self.add(&format!("ip -n {namespace} address add {}/24 dev {device}", address(subnet, end.last)));
            self.add(&format!(
                "ip -n {namespace} neigh replace {} lladdr {} dev {device} nud permanent",
                address(subnet, other.last),
                hardware(subnet, other.last)
            ));
        }
    }
}
