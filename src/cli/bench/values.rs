//! Values of options, as they're written.

use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::bench::{Flood, Rival, Variant};

/// The transports' names, each with what it is.
pub(super) fn variants() -> impl TypedValueParser<Value = Variant> {
    let names = Variant::ALL.iter().map(|variant| PossibleValue::new(variant.name()).help(variant.about()));
    PossibleValuesParser::new(names).try_map(|name| Variant::by_name(&name).ok_or("no such transport"))
}

pub(super) fn flood(name: &str) -> Result<Flood, String> {
    name.parse()
}

pub(super) fn rival(name: &str) -> Result<Rival, String> {
    Rival::by_name(name).ok_or_else(|| format!("it's one of {}", names(Rival::ALL.into_iter().map(Rival::name))))
}

fn names(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Seconds, or a number and its unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err("a time is a number of seconds, or one with ms, s or m".into()),
    };
    let number: f64 = number.parse().map_err(|_| "a time is a number of seconds, or one with ms, s or m".to_owned())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|time| *time <= Duration::from_secs(86_400))
        .ok_or_else(|| "a time is 0 to a day".into())
}
