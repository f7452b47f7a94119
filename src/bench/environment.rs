//! Where and with what it was measured.

use serde::Serialize;

/// The build and the machine, as they stand in each record.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Environment {
    /// peerlane's version.
    pub peerlane: &'static str,
    /// The compiler, if the build told it (`PEERLANE_RUSTC`).
    pub rustc: Option<&'static str>,
    /// What the transports stand on, each with its version, if the build told it (`PEERLANE_DEPENDENCIES`).
    pub dependencies: Option<&'static str>,
    /// `release`, or `debug`: figures of a debug build mean little.
    pub build: &'static str,
    /// The release of the kernel under the transports: a lab's own, if it has one.
    pub kernel: Option<String>,
    /// Operating system and architecture.
    pub platform: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Load average over a minute before the first case: what else the machine did.
    pub load: Option<f64>,
}

impl Environment {
    /// The same under another kernel: a lab's.
    pub(super) fn on(&self, kernel: &str) -> Self {
        Self { kernel: Some(kernel.to_owned()), ..self.clone() }
    }

    /// Looks around.
    pub fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).ok();
        Self {
            peerlane: env!("CARGO_PKG_VERSION"),
            rustc: option_env!("PEERLANE_RUSTC"),
            dependencies: option_env!("PEERLANE_DEPENDENCIES"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            kernel: read("/proc/sys/kernel/osrelease").map(|release| release.trim().to_owned()),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load: read("/proc/loadavg").and_then(|load| load.split(' ').next()?.parse().ok()),
        }
    }
}
