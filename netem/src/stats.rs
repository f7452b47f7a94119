//! What the qdiscs counted, or the emulator in their place: read in the lab's own root namespace, with `tc -s -j` or from
//! the emulator.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lab::{LabKind, emulated};
use crate::plan::{Egress, Plan, Stage};

/// What one impaired way out counted since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// The router's namespace: `peerlane-r`. In the tun lab the emulator stands for the router.
    pub namespace: String,
    /// The device: `to-b`.
    pub device: String,
    /// `forward` or `backward`.
    pub direction: String,
    /// Whether it is the bottleneck; if not, it only delays.
    pub bottleneck: bool,
    /// Bytes that left, with Ethernet headers.
    pub bytes: u64,
    /// Packets that left.
    pub packets: u64,
    /// Packets dropped: the profile's losses *and* those of the full queue, which netem counts together.
    pub drops: u64,
    /// Bytes inside now, waiting or on the way.
    pub backlog_bytes: u64,
    /// Packets inside now, waiting or on the way.
    pub backlog_packets: u64,
}

/// Why the counters couldn't be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StatsError {
    /// `tc` can't be started.
    #[error("tc can't be started: {0}")]
    Start(std::io::Error),
    /// `tc` refuses.
    #[error("tc: {0}")]
    Refused(String),
    /// The emulator of the tun lab doesn't answer.
    #[error("the emulator doesn't answer: {0}")]
    Emulator(std::io::Error),
    /// There's no netem where there should be one.
    #[error("{namespace} {device}: no netem there")]
    Missing {
        /// The router's namespace.
        namespace: String,
        /// The device.
        device: String,
    },
}

/// The part of tc's JSON that's used.
#[derive(Deserialize)]
struct Qdisc {
    kind: String,
    #[serde(default)]
    root: bool,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    packets: u64,
    #[serde(default)]
    drops: u64,
    #[serde(default)]
    backlog: u64,
    #[serde(default)]
    qlen: u64,
}

/// Reads every impaired way out of a plan, in the plan's order, within a lab of that kind. One `tc` for each, or a
/// question to the emulator.
pub fn read_stats(lab: LabKind, plan: &Plan) -> Result<Vec<QueueStats>, StatsError> {
    match lab {
        LabKind::Tun => emulated::Remote::connect().and_then(|mut remote| remote.queues()).map_err(StatsError::Emulator),
        _ => plan.egresses().iter().map(read_one).collect(),
    }
}

fn read_one(egress: &Egress) -> Result<QueueStats, StatsError> {
    let output = Command::new("tc")
        .args(["-n", &egress.namespace, "-s", "-j", "qdisc", "show", "dev", &egress.device])
        .stdin(Stdio::null())
        .output()
        .map_err(StatsError::Start)?;
    if !output.status.success() {
        return Err(StatsError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    parse(egress, &output.stdout)
}

fn parse(egress: &Egress, json: &[u8]) -> Result<QueueStats, StatsError> {
    let qdiscs: Vec<Qdisc> = serde_json::from_slice(json).map_err(|error| StatsError::Refused(error.to_string()))?;
    let found = qdiscs.into_iter().find(|qdisc| qdisc.kind == "netem" && qdisc.root);
    let Some(qdisc) = found else {
        return Err(StatsError::Missing { namespace: egress.namespace.clone(), device: egress.device.clone() });
    };
    Ok(QueueStats {
        namespace: egress.namespace.clone(),
        device: egress.device.clone(),
        direction: egress.direction.name().to_owned(),
        bottleneck: egress.stage == Stage::Bottleneck,
        bytes: qdisc.bytes,
        packets: qdisc.packets,
        drops: qdisc.drops,
        backlog_bytes: qdisc.backlog,
        backlog_packets: qdisc.qlen,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::profile::Direction;

    fn egress() -> Egress {
        Egress { namespace: "peerlane-r".into(), device: "to-b".into(), direction: Direction::Forward, stage: Stage::Bottleneck }
    }

    #[test]
    fn what_tc_says_is_understood() {
        let json = br#"[{"kind":"netem","handle":"8001:","root":true,"refcnt":2,"options":{"limit":314},"bytes":3028,"packets":2,
            "drops":5,"overlimits":0,"requeues":0,"backlog":1514,"qlen":1}]"#;
        let stats = parse(&egress(), json).unwrap();
        assert_eq!((stats.bytes, stats.packets, stats.drops, stats.backlog_bytes, stats.backlog_packets), (3028, 2, 5, 1514, 1));
        assert_eq!((stats.direction.as_str(), stats.bottleneck), ("forward", true));
    }

    #[test]
    fn a_device_without_netem_is_an_error() {
        let error = parse(&egress(), br#"[{"kind":"noqueue","root":true}]"#).unwrap_err();
        assert_eq!(error.to_string(), "peerlane-r to-b: no netem there");
        assert!(matches!(parse(&egress(), b"no JSON"), Err(StatsError::Refused(_))));
    }
}
