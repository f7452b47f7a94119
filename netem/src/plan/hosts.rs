//! A network without routers, for the lab whose emulator stands in their place: hosts, and which links lie between them.

use super::build::node_steps;
use super::{Plan, Step, namespace};

/// A host's device, called as in the other labs.
const DEVICE: &str = "to-r";
/// Packets that wait in a host's device until the emulator reads them: more than it can ever be behind with, or losses
/// would be the device's.
const UNREAD: u32 = 10_000;

impl Plan {
    /// The commands that make the hosts, before and after each gets its device `to-r`.
    pub(crate) fn host_steps(&self) -> (Vec<Step>, Vec<Step>) {
        let before = self.hosts.iter().flat_map(|host| node_steps(&host.name)).collect();
        let after = self.hosts.iter().flat_map(|host| {
            let name = &host.namespace;
            // gso_max_segs 1, as in the other labs: the kernel cuts before the device.
            let up = format!("ip -n {name} link set {DEVICE} txqueuelen {UNREAD} gso_max_segs 1 up");
            let address = format!("ip -n {name} address add {}/24 dev {DEVICE}", host.address);
            let route = format!("ip -n {name} route add default dev {DEVICE}");
            [up, address, route].map(|line| Step::new(&line))
        });
        (before, after.collect())
    }

    /// The impaired ways out between two hosts, in order, by their numbers in [`Plan::egresses`].
    pub(crate) fn route(&self, from: usize, to: usize) -> Vec<usize> {
        if from == to {
            return Vec::new();
        }
        let two_routers = self.routers.len() == 2;
        let router = |host: usize| if two_routers && host % 2 == 1 { "s" } else { "r" };
        let Some(target) = self.hosts.get(to) else { return Vec::new() };
        let mut ways = Vec::new();
        if router(from) != router(to) {
            ways.push((router(from), router(to)));
        }
        ways.push((router(to), target.name.as_str()));
        let number = |(router, neighbour): (&str, &str)| {
            let device = format!("to-{neighbour}");
            self.egresses.iter().position(|egress| egress.namespace == namespace(router) && egress.device == device)
        };
        ways.into_iter().filter_map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Stage, Topology};
    use super::*;
    use crate::profile::{Direction, Profile};

    fn routes(profile: &str, topology: Topology, from: usize, to: usize) -> Vec<String> {
        let plan = Plan::new(&Profile::load(profile).unwrap(), topology).unwrap();
        let name = |egress: &super::super::Egress| {
            assert!(egress.stage == Stage::Bottleneck || egress.direction == Direction::Forward || from % 2 == 1);
            format!("{}/{}", egress.namespace.trim_start_matches("peerlane-"), egress.device)
        };
        plan.route(from, to).into_iter().map(|index| name(&plan.egresses()[index])).collect()
    }

    #[test]
    fn a_packet_crosses_what_it_would_cross_between_routers() {
        assert_eq!(routes("wan", Topology::Pair, 0, 1), ["r/to-b"]);
        assert_eq!(routes("wan", Topology::Pair, 1, 0), ["r/to-a"]);
        assert_eq!(routes("wan-reorder", Topology::Pair, 0, 1), ["r/to-s", "s/to-b"]);
        assert_eq!(routes("wan-reorder", Topology::Pair, 1, 0), ["s/to-r", "r/to-a"]);
        assert_eq!(routes("wan", Topology::Star(8), 7, 2), ["r/to-c"]);
        assert_eq!(routes("shared", Topology::Shared, 2, 3), ["r/to-s"]);
        assert_eq!(routes("shared", Topology::Shared, 3, 0), ["s/to-r"]);
        assert_eq!(routes("shared", Topology::Shared, 0, 2), [""; 0], "neighbours");
    }

    #[test]
    fn a_host_has_its_device_and_no_neighbour() {
        let plan = Plan::new(&Profile::load("wan").unwrap(), Topology::Pair).unwrap();
        let (before, after) = plan.host_steps();
        let lines = |steps: Vec<Step>| steps.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(before.len(), 10);
        assert_eq!(
            lines(after)[..3],
            [
                "ip -n peerlane-a link set to-r txqueuelen 10000 gso_max_segs 1 up",
                "ip -n peerlane-a address add 10.77.1.2/24 dev to-r",
                "ip -n peerlane-a route add default dev to-r",
            ]
        );
        assert!(lines(before).iter().all(|line| !line.contains("peerlane-r")));
    }
}
