//! A profile as it stands in its file: tables and keys, not yet understood.

use serde::Deserialize;

/// The whole file. What `forward` or `backward` says goes before what `both` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) about: String,
    #[serde(default)]
    pub(super) both: Table,
    #[serde(default)]
    pub(super) forward: Table,
    #[serde(default)]
    pub(super) backward: Table,
    #[serde(default)]
    pub(super) schedule: Vec<EventTable>,
}

/// One direction, or both.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Table {
    pub(super) delay: Option<String>,
    pub(super) jitter: Option<String>,
    pub(super) jitter_distribution: Option<String>,
    pub(super) jitter_correlation_time: Option<String>,
    pub(super) jitter_order: Option<String>,
    pub(super) loss: Option<String>,
    pub(super) gilbert_elliott: Option<GilbertElliottTable>,
    pub(super) reorder: Option<String>,
    pub(super) duplicate: Option<String>,
    pub(super) corrupt: Option<String>,
    pub(super) rate: Option<String>,
    pub(super) queue: Option<String>,
    pub(super) limit: Option<u32>,
}

/// netem's four numbers: p, r, 1-h, 1-k.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct GilbertElliottTable {
    pub(super) enter_bad: String,
    pub(super) leave_bad: String,
    pub(super) lost_in_bad: Option<String>,
    pub(super) lost_in_good: Option<String>,
}

/// Something that happens at a time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct EventTable {
    pub(super) at: String,
    pub(super) until: Option<String>,
    pub(super) direction: Option<String>,
    pub(super) blackhole: Option<bool>,
    pub(super) rate: Option<String>,
}
