//! From a profile and a topology to the commands that build the network: no I/O, the same commands in every lab.

mod build;
mod hosts;
mod tc;
#[cfg(test)]
mod tests;
mod topology;
mod wander;

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::profile::{Direction, Profile};

pub use build::Egress;
pub use tc::Stage;
pub use topology::{Host, LARGEST_STAR, Topology, UnknownTopology, namespace};
pub(crate) use wander::{TICK, Wander};

/// A command, ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Whether it may fail: a deletion of what isn't there.
    pub may_fail: bool,
}

impl Step {
    fn new(line: &str) -> Self {
        Self { argv: line.split_whitespace().map(str::to_owned).collect(), may_fail: false }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.argv.join(" "))
    }
}

/// A profile and a topology that don't go together.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A star's impairment is on the way to each host: there's only one direction.
    #[error("profile {0}: its directions differ, and a star has one impairment, towards each host; use a symmetric profile, or the pair")]
    Asymmetric(String),
    /// A star has no place for the stage that reorders.
    #[error("profile {0}: jitter-order mixed needs a second router, which a star hasn't; use jitter-order kept, or the pair")]
    Mixed(String),
}

/// What's built: hosts, and the commands that connect them.
#[derive(Debug, Clone)]
pub struct Plan {
    profile: Profile,
    topology: Topology,
    hosts: Vec<Host>,
    routers: Vec<String>,
    egresses: Vec<Egress>,
    steps: Vec<Step>,
}

impl Plan {
    /// Plans; starts nothing.
    pub fn new(profile: &Profile, topology: Topology) -> Result<Self, PlanError> {
        if let Topology::Star(_) = topology {
            if !profile.is_symmetric() {
                return Err(PlanError::Asymmetric(profile.name().to_owned()));
            }
            if profile.has_delay_stage() {
                return Err(PlanError::Mixed(profile.name().to_owned()));
            }
        }
        Ok(build::build(profile, topology))
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The topology.
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// Where programs run, in order: a, b, ...
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The namespaces of the routers.
    pub fn routers(&self) -> &[String] {
        &self.routers
    }

    /// The routers' impaired ways out.
    pub fn egresses(&self) -> &[Egress] {
        &self.egresses
    }

    /// The commands that build it, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The schedule's commands, each with its time from the schedule's start.
    pub fn changes(&self) -> Vec<(Duration, Vec<Step>)> {
        self.profile.times().into_iter().map(|time| (time, self.change(time))).collect()
    }

    /// Those of one time.
    pub(crate) fn change(&self, time: Duration) -> Vec<Step> {
        let bottlenecks = self.egresses.iter().filter(|egress| egress.stage == Stage::Bottleneck);
        bottlenecks.map(|egress| egress.change(&self.profile, time)).collect()
    }

    /// The ways out whose delay the lab moves while it stands.
    pub(crate) fn wanders(&self) -> Vec<(&Egress, Wander)> {
        let bottlenecks = self.egresses.iter().filter(|egress| egress.stage == Stage::Bottleneck);
        bottlenecks.filter_map(|egress| Some((egress, Wander::new(&self.profile, egress)?))).collect()
    }

    /// The command that moves one's delay, whatever else holds at a time of the schedule.
    pub(crate) fn moved(&self, egress: &Egress, time: Duration, delay: Duration) -> Step {
        let mut state = self.profile.state(egress.direction, time);
        state.delay = Some(delay);
        egress.command("change", &state)
    }

    /// The paths that carry traffic from one host to another: (from, to, direction).
    pub fn paths(&self) -> Vec<(&Host, &Host, Direction)> {
        let pairs: &[(usize, usize)] = match self.topology {
            Topology::Pair => &[(0, 1)],
            Topology::Shared => &[(0, 1), (2, 3)],
            Topology::Star(_) => &[(0, 1)],
        };
        let mut paths = Vec::new();
        for (from, to) in pairs.iter().filter_map(|&(from, to)| Some((self.hosts.get(from)?, self.hosts.get(to)?))) {
            paths.push((from, to, Direction::Forward));
            paths.push((to, from, if matches!(self.topology, Topology::Star(_)) { Direction::Forward } else { Direction::Backward }));
        }
        // A star's last host too: its link was made last.
        if let (Topology::Star(3..), [first, .., last]) = (self.topology, self.hosts.as_slice()) {
            paths.push((first, last, Direction::Forward));
        }
        paths
    }

    /// What a command in the lab finds in its environment: `PEERLANE_LAB_HOSTS` (`a b`), and for each host its address
    /// (`PEERLANE_LAB_A`) and namespace (`PEERLANE_LAB_NS_A`).
    pub fn environment(&self) -> Vec<(String, String)> {
        let names: Vec<_> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        let mut variables = vec![
            ("PEERLANE_LAB_PROFILE".to_owned(), self.profile.name().to_owned()),
            ("PEERLANE_LAB_TOPOLOGY".to_owned(), self.topology.to_string()),
            ("PEERLANE_LAB_HOSTS".to_owned(), names.join(" ")),
        ];
        for host in &self.hosts {
            let name = host.name.to_uppercase();
            variables.push((format!("PEERLANE_LAB_{name}"), host.address.to_string()));
            variables.push((format!("PEERLANE_LAB_NS_{name}"), host.namespace.clone()));
        }
        variables
    }
}
