//! Quantities as people write them: `25ms`, `50mbit`, `0.1%`, `1bdp`, `200 packets`.

use std::time::Duration;

use super::error::Fault;

/// The longest time that a profile may name; netem itself goes further, no path does.
const LONGEST: Duration = Duration::from_secs(3600);
/// The lowest and highest rates, in bit/s: below, a packet takes minutes; above, netem's clock is too coarse.
const RATES: std::ops::RangeInclusive<f64> = 1_000.0..=10_000_000_000.0;
/// The longest queue, in packets or in BDPs.
const LONGEST_QUEUE: f64 = 100_000.0;

/// A number and its unit, which may be set off by spaces.
fn split(text: &str) -> Result<(f64, &str), Fault> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| Fault::new(format!("`{text}` has no number"), "write a number and a unit"))?;
    Ok((number, unit.trim()))
}

/// `25ms`, `1.5s`, `200us`. Not negative, an hour at most.
pub(super) fn time(text: &str) -> Result<Duration, Fault> {
    const HOW: &str = "write a time such as 25ms, 1.5s or 200us";
    let (number, unit) = split(text)?;
    let nanos = match unit {
        "s" => 1e9,
        "ms" => 1e6,
        "us" => 1e3,
        "" => return Err(Fault::new(format!("`{text}` has no unit"), HOW)),
        _ => return Err(Fault::new(format!("`{unit}` is no unit of time"), HOW)),
    };
    if number < 0.0 {
        return Err(Fault::new(format!("`{text}` is negative"), "a packet can't arrive before it was sent: 0ms is the least"));
    }
    let time = Duration::from_nanos((number * nanos).round() as u64);
    if time > LONGEST {
        return Err(Fault::new(format!("`{text}` is longer than an hour"), HOW));
    }
    Ok(time)
}

/// `50mbit`, `1gbit`, `500kbit`, in bit/s.
pub(super) fn rate(text: &str) -> Result<u64, Fault> {
    const HOW: &str = "write a rate from 1kbit to 10gbit, such as 50mbit (bits, not bytes, a second)";
    let (number, unit) = split(text)?;
    let factor = match unit {
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        _ => return Err(Fault::new(format!("`{text}` is no rate"), HOW)),
    };
    let bits = (number * factor).round();
    if !RATES.contains(&bits) {
        return Err(Fault::new(format!("`{text}` is out of range"), HOW));
    }
    Ok(bits as u64)
}

/// `0.1%`, as a share from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, Fault> {
    const HOW: &str = "write a share from 0% to 100%";
    let (number, unit) = split(text)?;
    if unit != "%" {
        return Err(Fault::new(format!("`{text}` is no share"), HOW));
    }
    if !(0.0..=100.0).contains(&number) {
        return Err(Fault::new(format!("`{text}` is out of range"), HOW));
    }
    Ok(number / 100.0)
}

/// How long a queue is said to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum QueueLength {
    Packets(u32),
    Bdp(f64),
}

/// `200 packets`, `0.1bdp`.
pub(super) fn queue(text: &str) -> Result<QueueLength, Fault> {
    const HOW: &str = "write a length such as 1bdp, 0.1bdp or 200 packets; more than nothing, at most 100000";
    let (number, unit) = split(text)?;
    if !(number > 0.0 && number <= LONGEST_QUEUE) {
        return Err(Fault::new(format!("`{text}` is out of range"), HOW));
    }
    match unit {
        "packet" | "packets" if number.fract() == 0.0 => Ok(QueueLength::Packets(number as u32)),
        "bdp" => Ok(QueueLength::Bdp(number)),
        _ => Err(Fault::new(format!("`{text}` is no length of a queue"), HOW)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        assert_eq!(time("25ms").unwrap(), Duration::from_millis(25));
        assert_eq!(time("1.5 s").unwrap(), Duration::from_millis(1500));
        assert_eq!(time("200us").unwrap(), Duration::from_micros(200));
        assert_eq!(rate("50mbit").unwrap(), 50_000_000);
        assert_eq!(rate("0.5gbit").unwrap(), 500_000_000);
        assert_eq!(share("0.2%").unwrap(), 0.002);
        assert_eq!(queue("0.1bdp").unwrap(), QueueLength::Bdp(0.1));
        assert_eq!(queue("200 packets").unwrap(), QueueLength::Packets(200));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_remedy() {
        for (text, told) in [("-5ms", "negative"), ("25", "no unit"), ("25 parsecs", "no unit of time"), ("ms", "no number"), ("2000s", "")]
        {
            match time(text) {
                Err(fault) => assert!(fault.what.contains(told) && !fault.remedy.is_empty(), "{text}: {fault:?}"),
                Ok(time) => assert!(told.is_empty(), "{text} was taken for {time:?}"),
            }
        }
        for text in ["0mbit", "-1mbit", "50", "50mbyte", "11gbit", "1e9mbit", "nan", "infmbit", "..mbit"] {
            assert!(rate(text).is_err(), "{text}");
        }
        for text in ["101%", "-1%", "5", "%", "1%%"] {
            assert!(share(text).is_err(), "{text}");
        }
        for text in ["0bdp", "-1bdp", "0.5 packets", "0 packets", "99999999999999 packets", "1 crate"] {
            assert!(queue(text).is_err(), "{text}");
        }
        assert!(time("3601s").is_err());
    }
}
