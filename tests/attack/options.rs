//! What may be asked of this program. `cargo test` hands its own options through, which mean nothing here.

use std::{path::PathBuf, time::Duration};

pub struct Options {
    /// How often the attack is off and on.
    pub pairs: usize,
    /// How long each.
    pub phase: Duration,
    pub json: Option<PathBuf>,
    pub list: bool,
    /// The victim on one core, the attacker on another.
    pub pin: bool,
    names: Vec<String>,
}

impl Options {
    pub fn of(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options = Self { pairs: 1, phase: Duration::from_millis(300), json: None, list: false, pin: cores > 1, names: Vec::new() };
        while let Some(arg) = args.next() {
            let mut value = |what: &str| args.next().ok_or_else(|| format!("{arg} needs {what}"));
            match arg.as_str() {
                "--pairs" => options.pairs = value("a count")?.parse().map_err(|_| "--pairs: a count, 1 to 100".to_owned())?,
                "--seconds" => {
                    let seconds: f64 = value("seconds")?.parse().map_err(|_| "--seconds: a number".to_owned())?;
                    options.phase = Duration::try_from_secs_f64(seconds).map_err(|error| format!("--seconds: {error}"))?;
                }
                "--json" => options.json = Some(value("a file")?.into()),
                "--list" => options.list = true,
                "--no-pin" => options.pin = false,
                "--test-threads" | "--format" | "--color" | "--skip" => drop(value("a value")?),
                other if other.starts_with('-') => {}
                name => options.names.push(name.to_owned()),
            }
        }
        match (1..=100).contains(&options.pairs) && options.phase <= Duration::from_secs(60) && !options.phase.is_zero() {
            true => Ok(options),
            false => Err("at most 100 pairs of at most 60 s".into()),
        }
    }

    /// Whether an attack is asked for.
    pub fn names(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part.as_str()))
    }
}
