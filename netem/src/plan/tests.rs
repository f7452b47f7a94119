//! The commands, as golden lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn plan(profile: &str, topology: Topology) -> Plan {
    Plan::new(&Profile::load(profile).unwrap(), topology).unwrap()
}

fn lines(plan: &Plan, program: &str) -> Vec<String> {
    plan.steps().iter().map(ToString::to_string).filter(|line| line.starts_with(program)).collect()
}

#[test]
fn a_pair_is_built_by_these_commands() {
    let plan = plan("wan", Topology::Pair);
    let expected = "\
ip netns add peerlane-a
ip netns exec peerlane-a sysctl -qw net.ipv6.conf.all.disable_ipv6=1
ip netns exec peerlane-a sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip netns exec peerlane-a sysctl -qw net.ipv4.tcp_no_metrics_save=1
ip -n peerlane-a link set lo up
ip netns add peerlane-b
ip netns exec peerlane-b sysctl -qw net.ipv6.conf.all.disable_ipv6=1
ip netns exec peerlane-b sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip netns exec peerlane-b sysctl -qw net.ipv4.tcp_no_metrics_save=1
ip -n peerlane-b link set lo up
ip netns add peerlane-r
ip netns exec peerlane-r sysctl -qw net.ipv6.conf.all.disable_ipv6=1
ip netns exec peerlane-r sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip netns exec peerlane-r sysctl -qw net.ipv4.tcp_no_metrics_save=1
ip -n peerlane-r link set lo up
ip netns exec peerlane-r sysctl -qw net.ipv4.ip_forward=1
ip link add to-r netns peerlane-a address 02:70:6c:00:01:02 type veth peer name to-a netns peerlane-r address 02:70:6c:00:01:01
ip -n peerlane-a link set to-r gso_max_segs 1 up
ip -n peerlane-a address add 10.77.1.2/24 dev to-r
ip -n peerlane-a neigh replace 10.77.1.1 lladdr 02:70:6c:00:01:01 dev to-r nud permanent
ip -n peerlane-r link set to-a gso_max_segs 1 up
ip -n peerlane-r address add 10.77.1.1/24 dev to-a
ip -n peerlane-r neigh replace 10.77.1.2 lladdr 02:70:6c:00:01:02 dev to-a nud permanent
ip -n peerlane-a route add default via 10.77.1.1
ip link add to-r netns peerlane-b address 02:70:6c:00:02:02 type veth peer name to-b netns peerlane-r address 02:70:6c:00:02:01
ip -n peerlane-b link set to-r gso_max_segs 1 up
ip -n peerlane-b address add 10.77.2.2/24 dev to-r
ip -n peerlane-b neigh replace 10.77.2.1 lladdr 02:70:6c:00:02:01 dev to-r nud permanent
ip -n peerlane-r link set to-b gso_max_segs 1 up
ip -n peerlane-r address add 10.77.2.1/24 dev to-b
ip -n peerlane-r neigh replace 10.77.2.2 lladdr 02:70:6c:00:02:02 dev to-b nud permanent
ip -n peerlane-b route add default via 10.77.2.1
tc -n peerlane-r qdisc del dev to-a root
tc -n peerlane-r qdisc add dev to-a root netem limit 314 delay 25ms rate 50mbit
tc -n peerlane-r qdisc del dev to-b root
tc -n peerlane-r qdisc add dev to-b root netem limit 314 delay 25ms rate 50mbit";
    let found: Vec<_> = plan.steps().iter().map(ToString::to_string).collect();
    assert_eq!(found.join("\n"), expected);
    assert!(plan.steps().iter().all(|step| step.may_fail == step.to_string().contains("qdisc del")));
}

#[test]
fn each_impairment_becomes_its_argument() {
    let forward = |profile| {
        let plan = plan(profile, Topology::Pair);
        lines(&plan, "tc").into_iter().find(|line| line.contains("add dev to-b")).unwrap().split_once("netem ").unwrap().1.to_owned()
    };
    assert_eq!(forward("wan-loss1"), "limit 314 delay 25ms loss 1% rate 50mbit");
    assert_eq!(forward("wan-burst"), "limit 314 delay 25ms loss gemodel 0.2% 20% 100% 0% rate 50mbit");
    assert_eq!(forward("wan-jitter"), "limit 314 delay 25ms 5ms rate 50mbit");
    assert_eq!(forward("wan-jitter-correlated"), "limit 314 delay 25ms rate 50mbit", "the lab moves the delay itself");
    assert_eq!(forward("lan"), "limit 209 delay 100us rate 1gbit".replace("1gbit", "1000mbit"));
    assert_eq!(forward("ideal"), "limit 1000 rate 1000mbit");
    assert_eq!(
        forward("wifi-bad"),
        "limit 217 delay 10ms 5ms distribution paretonormal loss gemodel 1% 30% 60% 0% duplicate 0.1% corrupt 0.05% rate 20mbit"
    );
}

#[test]
fn directions_of_their_own_are_on_their_own_egress() {
    let satellite = plan("satellite", Topology::Pair);
    let tc = lines(&satellite, "tc");
    assert_eq!(tc[1], "tc -n peerlane-r qdisc add dev to-a root netem limit 376 delay 300ms loss 0.1% rate 5mbit".replace("376", "375"));
    assert_eq!(tc[3], "tc -n peerlane-r qdisc add dev to-b root netem limit 1500 delay 300ms loss 0.1% rate 20mbit");
}

#[test]
fn jitter_that_mixes_the_order_comes_after_the_bottleneck_on_a_second_router() {
    let plan = plan("wan-reorder", Topology::Pair);
    assert_eq!(plan.routers(), ["peerlane-r", "peerlane-s"]);
    let added: Vec<_> = lines(&plan, "tc").into_iter().filter(|line| line.contains(" add ")).collect();
    assert_eq!(
        added,
        [
            "tc -n peerlane-r qdisc add dev to-s root netem limit 209 rate 50mbit",
            "tc -n peerlane-s qdisc add dev to-r root netem limit 209 rate 50mbit",
            "tc -n peerlane-r qdisc add dev to-a root netem limit 1376 delay 25ms 5ms",
            "tc -n peerlane-s qdisc add dev to-b root netem limit 1376 delay 25ms 5ms",
        ]
    );
    let routes: Vec<_> = lines(&plan, "ip").into_iter().filter(|line| line.contains("route add 10")).collect();
    assert_eq!(
        routes,
        ["ip -n peerlane-s route add 10.77.1.0/24 via 10.77.200.1", "ip -n peerlane-r route add 10.77.2.0/24 via 10.77.200.2",]
    );
}

#[test]
fn two_flows_share_one_bottleneck() {
    let plan = plan("shared", Topology::Shared);
    let names: Vec<_> = plan.hosts().iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    let devices: Vec<_> = plan.egresses().iter().map(|egress| format!("{}/{}", egress.namespace, egress.device)).collect();
    assert_eq!(devices, ["peerlane-r/to-s", "peerlane-s/to-r"]);
    let links: Vec<_> = lines(&plan, "ip link add").iter().map(|line| line.split(' ').nth(3).unwrap().to_owned()).collect();
    assert_eq!(links, ["to-r", "to-s", "to-r", "to-s", "to-s"], "a and c at r, b and d at s, and r at s");
}

#[test]
fn a_star_impairs_the_way_to_each_host() {
    let star = plan("wan", Topology::Star(8));
    assert_eq!(star.hosts().len(), 8);
    assert_eq!(star.egresses().len(), 8);
    assert!(star.egresses().iter().all(|egress| egress.namespace == "peerlane-r" && egress.direction == Direction::Forward));
    let refused = |profile| Plan::new(&Profile::load(profile).unwrap(), Topology::Star(3)).unwrap_err().to_string();
    assert!(refused("satellite").contains("symmetric"));
    assert!(refused("wan-reorder").contains("second router"));
}

#[test]
fn the_schedule_changes_all_arguments_and_keeps_the_packets() {
    let plan = plan("blackhole", Topology::Pair);
    let changes: Vec<_> = plan.changes().into_iter().map(|(time, steps)| (time.as_secs(), steps[1].to_string())).collect();
    assert_eq!(
        changes,
        [
            (20, "tc -n peerlane-r qdisc change dev to-b root netem limit 314 delay 25ms loss 100% rate 50mbit".to_owned()),
            (22, "tc -n peerlane-r qdisc change dev to-b root netem limit 314 delay 25ms rate 50mbit".to_owned()),
        ]
    );
    let halved = self::plan("wan-halved", Topology::Shared).changes();
    assert_eq!(halved[0].1[0].to_string(), "tc -n peerlane-r qdisc change dev to-s root netem limit 262 delay 25ms rate 25mbit");
}

#[test]
fn a_command_finds_the_hosts_in_its_environment() {
    let environment = plan("wan", Topology::Pair).environment();
    for (name, value) in [("PEERLANE_LAB_HOSTS", "a b"), ("PEERLANE_LAB_B", "10.77.2.2"), ("PEERLANE_LAB_NS_A", "peerlane-a")] {
        assert!(environment.contains(&(name.to_owned(), value.to_owned())), "{name}");
    }
}

#[test]
fn topologies_are_read_as_written() {
    for text in ["pair", "star:8", "shared"] {
        assert_eq!(text.parse::<Topology>().unwrap().to_string(), text);
    }
    for text in ["star", "star:1", "star:17", "star:-1", "ring"] {
        assert!(text.parse::<Topology>().unwrap_err().to_string().contains("star:N"), "{text}");
    }
}
