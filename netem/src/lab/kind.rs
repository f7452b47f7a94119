//! The three labs.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A way to put a profile under a program. A result names its lab, and no table mixes two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LabKind {
    /// User-Mode Linux with time travel: real netem and real kernel TCP on a virtual clock. Processing costs no time.
    Virtual,
    /// Network namespaces and the kernel's netem, in real time.
    Netem,
    /// A userspace emulator between TUN devices (`peerlane-tun`), in real time, for kernels without netem.
    Tun,
}

impl LabKind {
    /// Best first.
    pub const ALL: [Self; 3] = [Self::Virtual, Self::Netem, Self::Tun];

    /// Whether its clock is the host's: then whatever else the machine does disturbs it.
    pub fn is_real_time(self) -> bool {
        self != Self::Virtual
    }

    /// `virtual`, `netem` or `tun`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Virtual => "virtual",
            Self::Netem => "netem",
            Self::Tun => "tun",
        }
    }
}

impl fmt::Display for LabKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No such lab.
#[derive(Debug, Error)]
#[error("`{0}` is no lab; there are virtual, netem and tun")]
pub struct UnknownLab(String);

impl FromStr for LabKind {
    type Err = UnknownLab;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnknownLab(text.to_owned()))
    }
}
