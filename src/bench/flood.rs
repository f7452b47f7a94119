//! What else fills the connection, and how it's named.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Units of a rate, each with its bits per second.
const UNITS: [(&str, f64); 8] =
    [("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3), ("bit/s", 1.0), ("GB/s", 8e9), ("MB/s", 8e6), ("kB/s", 8e3), ("B/s", 8.0)];
/// The largest rate, in bits per second: what no machine does.
const MAX_BITS: f64 = 1e12;
/// The largest share of a profile's rate: ten times what there is.
const MAX_SHARE: f64 = 1_000.0;
/// Parts of a percent that are told apart.
const PARTS: f64 = 1_000.0;

/// What else fills the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum Flood {
    /// Nothing.
    None,
    /// BELIEFs from the querying side, as fast as `send` permits; the other side takes them.
    Full,
    /// The same from both sides.
    BothWays,
    /// BELIEFs from the querying side in an open loop: one at each of evenly spaced times, whatever became of those before.
    /// One that finds no room in its class is refused, and counted.
    Rate(FloodRate),
}

/// How much a flood in an open loop offers: bytes of encoded BELIEFs, without any transport's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FloodRate {
    /// So many bits per second.
    Bits(u64),
    /// So many thousandths of a percent of the rate that the path's profile has in this direction.
    Share(u32),
}

impl FloodRate {
    /// In bits per second, on a path with this rate in 10^6 bits per second. `None`: a share, and the path has no rate.
    pub(super) fn bits(self, path: Option<f64>) -> Option<f64> {
        match self {
            Self::Bits(bits) => Some(bits as f64),
            Self::Share(parts) => path.map(|rate| rate * 1e6 * f64::from(parts) / (100.0 * PARTS)),
        }
    }
}

impl Flood {
    /// How each is written.
    pub const NAMES: &'static str = "none, full, both-ways, or a rate: 10Mbit/s, 2MB/s, 50% (of the profile's rate)";
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Full => f.pad("full"),
            Self::BothWays => f.pad("both-ways"),
            Self::Rate(FloodRate::Bits(bits)) => f.pad(&format!("{}Mbit/s", *bits as f64 / 1e6)),
            Self::Rate(FloodRate::Share(parts)) => f.pad(&format!("{}%", f64::from(*parts) / PARTS)),
        }
    }
}

impl FromStr for Flood {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => return Ok(Self::None),
            "full" => return Ok(Self::Full),
            "both-ways" => return Ok(Self::BothWays),
            _ => {}
        }
        let wrong = || format!("it's {}", Self::NAMES);
        let split = text.find(|c: char| c.is_ascii_alphabetic() || c == '%').ok_or_else(wrong)?;
        let (number, unit) = text.split_at(split);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        if unit == "%" {
            let parts = (number * PARTS).round();
            let fits = parts >= 1.0 && number <= MAX_SHARE;
            return if fits {
                Ok(Self::Rate(FloodRate::Share(parts as u32)))
            } else {
                Err(format!("a share is up to {MAX_SHARE}%, and more than none"))
            };
        }
        let (_, per_unit) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let bits = (number * per_unit).round();
        let fits = (1.0..=MAX_BITS).contains(&bits);
        if fits { Ok(Self::Rate(FloodRate::Bits(bits as u64))) } else { Err("a rate is 1 bit/s to 1,000 Gbit/s".to_owned()) }
    }
}

impl TryFrom<String> for Flood {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Flood> for String {
    fn from(flood: Flood) -> Self {
        flood.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_rate_has_a_unit_and_one_name() {
        for (text, name, bits) in [
            ("10Mbit/s", "10Mbit/s", 10e6),
            ("2MB/s", "16Mbit/s", 16e6),
            ("64kB/s", "0.512Mbit/s", 512e3),
            ("1.5Gbit/s", "1500Mbit/s", 1.5e9),
            ("50%", "50%", 25e6),
            ("12.5%", "12.5%", 6.25e6),
        ] {
            let flood: Flood = text.parse().unwrap();
            assert_eq!(flood.to_string(), name);
            assert_eq!(name.parse::<Flood>().unwrap(), flood, "its name is read back");
            let Flood::Rate(rate) = flood else { unreachable!() };
            assert_eq!(rate.bits(Some(50.0)), Some(bits), "{text}");
            assert_eq!(rate.bits(None).is_none(), name.ends_with('%'), "{text}");
        }
        for flood in [Flood::None, Flood::Full, Flood::BothWays] {
            assert_eq!(flood.to_string().parse::<Flood>().unwrap(), flood);
        }
    }

    #[test]
    fn what_is_no_rate_is_told_what_would_be_one() {
        for wrong in ["rain", "10", "10mb", "Mbit/s", "-5Mbit/s", "NaN%", "inf%", "0Mbit/s", "0%", "5000%", "9999Gbit/s", ""] {
            let error = wrong.parse::<Flood>().unwrap_err();
            assert!(error.contains("Mbit/s") || error.contains("bit/s") || error.contains('%'), "{wrong}: {error}");
        }
    }
}
