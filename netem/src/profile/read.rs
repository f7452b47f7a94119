//! From a file's keys to a profile: units understood, and everything judged.

use std::path::Path;
use std::time::Duration;

use super::error::{Fault, ProfileError};
use super::file::{EventTable, File, GilbertElliottTable, Table};
use super::impairment::{Distribution, Impairment, Jitter, JitterOrder, Loss, packets};
use super::schedule::{Change, Direction, Event};
use super::units::{self, QueueLength};
use super::{Profile, schedule};

/// The shortest correlation time: the lab moves a delay every 5 ms.
const SHORTEST_CORRELATION: Duration = Duration::from_millis(10);
/// The longest limit: a packet takes about 2 KiB of kernel memory, and the virtual lab's machine has 512 MiB.
const LONGEST_LIMIT: u32 = 100_000;

pub(super) fn read(file: &str, text: &str) -> Result<Profile, ProfileError> {
    let raw: File = toml::from_str(text)
        .map_err(|error| ProfileError::Syntax { file: file.to_owned(), what: error.to_string().trim().replace('\n', " ") })?;
    let name = Path::new(file).file_stem().map_or_else(|| file.to_owned(), |stem| stem.to_string_lossy().into_owned());

    let forward = Reader { file, own: ("forward", &raw.forward), both: &raw.both };
    let backward = Reader { file, own: ("backward", &raw.backward), both: &raw.both };
    // The BDP is of the round trip, so both delays come before either queue.
    let rtt = forward.delay()? + backward.delay()?;
    let (forward, backward) = (forward.impairment(rtt)?, backward.impairment(rtt)?);

    let mut events = Vec::with_capacity(raw.schedule.len());
    for (index, table) in raw.schedule.iter().enumerate() {
        events.push(event(table).map_err(|(key, fault)| fault.at(file, format!("schedule[{index}].{key}")))?);
    }
    let profile = Profile { name, about: raw.about, text: text.to_owned(), forward, backward, events };
    for time in profile.times() {
        for direction in [Direction::Forward, Direction::Backward] {
            let state = schedule::state(profile.direction(direction), &profile.events, direction, time);
            limit(&state.impairment).map_err(|fault| fault.at(file, format!("schedule (at {time:?})")))?;
        }
    }
    Ok(profile)
}

/// One direction: its own table, and the one of both.
struct Reader<'a> {
    file: &'a str,
    own: (&'static str, &'a Table),
    both: &'a Table,
}

impl Reader<'_> {
    /// A key's value understood; the direction's own goes before that of both.
    fn value<T>(
        &self,
        key: &str,
        pick: impl Fn(&Table) -> Option<&String>,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Result<Option<T>, ProfileError> {
        let Some(text) = pick(self.own.1).or_else(|| pick(self.both)) else { return Ok(None) };
        parse(text).map(Some).map_err(|fault| self.fault(key, pick(self.own.1).is_some(), fault))
    }

    fn fault(&self, key: &str, own: bool, fault: Fault) -> ProfileError {
        fault.at(self.file, format!("{}.{key}", if own { self.own.0 } else { "both" }))
    }

    fn delay(&self) -> Result<Duration, ProfileError> {
        Ok(self.value("delay", |table| table.delay.as_ref(), units::time)?.unwrap_or_default())
    }

    fn impairment(&self, rtt: Duration) -> Result<Impairment, ProfileError> {
        let delay = self.delay()?;
        let Some(rate) = self.value("rate", |table| table.rate.as_ref(), units::rate)? else {
            let fault =
                Fault::new("is missing", "give one, such as 50mbit: without it a queue has no length, and virtual time no bottleneck");
            return Err(self.fault("rate", false, fault));
        };
        let share = |key, pick: fn(&Table) -> Option<&String>| Ok(self.value(key, pick, units::share)?.unwrap_or_default());
        let impairment = Impairment {
            delay,
            jitter: self.jitter(delay)?,
            loss: self.loss()?,
            reorder: share("reorder", |table| table.reorder.as_ref())?,
            duplicate: share("duplicate", |table| table.duplicate.as_ref())?,
            corrupt: share("corrupt", |table| table.corrupt.as_ref())?,
            rate,
            queue: self.queue(rate, rtt)?,
            limit: self.own.1.limit.or(self.both.limit),
        };
        if impairment.reorder > 0.0 && delay.is_zero() {
            let fault = Fault::new("has nothing to overtake", "give a delay as well");
            return Err(self.fault("reorder", self.own.1.reorder.is_some(), fault));
        }
        let own = if impairment.limit.is_some() { self.own.1.limit.is_some() } else { self.own.1.queue.is_some() };
        let key = if impairment.limit.is_some() { "limit" } else { "queue" };
        limit(&impairment).map_err(|fault| self.fault(key, own, fault))?;
        Ok(impairment)
    }

    fn jitter(&self, delay: Duration) -> Result<Option<Jitter>, ProfileError> {
        let spread = self.value("jitter", |table| table.jitter.as_ref(), units::time)?.unwrap_or_default();
        let distribution = self.value(
            "jitter-distribution",
            |table| table.jitter_distribution.as_ref(),
            |text| match text {
                "uniform" => Ok(Distribution::Uniform),
                "normal" => Ok(Distribution::Normal),
                "pareto" => Ok(Distribution::Pareto),
                "paretonormal" => Ok(Distribution::ParetoNormal),
                _ => Err(Fault::new(format!("`{text}` is no distribution"), "write uniform, normal, pareto or paretonormal")),
            },
        )?;
        let correlation_time = self.value("jitter-correlation-time", |table| table.jitter_correlation_time.as_ref(), units::time)?;
        let order = self.value(
            "jitter-order",
            |table| table.jitter_order.as_ref(),
            |text| match text {
                "kept" => Ok(JitterOrder::Kept),
                "mixed" => Ok(JitterOrder::Mixed),
                _ => Err(Fault::new(format!("`{text}` is no order"), "write kept (packets never overtake) or mixed (they do)")),
            },
        )?;
        let own = self.own.1.jitter.is_some();
        if spread.is_zero() {
            let idle = distribution.is_some() || correlation_time.is_some() || order.is_some();
            let fault = Fault::new("is missing, yet its shape is given", "give jitter, such as 5ms, or leave out the jitter- keys");
            return if idle { Err(self.fault("jitter", own, fault)) } else { Ok(None) };
        }
        if spread > delay {
            let fault = Fault::new(
                format!("{spread:?} is more than the delay of {delay:?}"),
                "a delay can't be negative: lower it, or raise the delay",
            );
            return Err(self.fault("jitter", own, fault));
        }
        if let Some(time) = correlation_time {
            let own = self.own.1.jitter_correlation_time.is_some();
            let fault = if time < SHORTEST_CORRELATION {
                Fault::new(
                    format!("{time:?} is less than the lab can follow"),
                    format!("give {SHORTEST_CORRELATION:?} or more, or leave it out"),
                )
            } else if distribution.is_some_and(|distribution| distribution != Distribution::Uniform) || order == Some(JitterOrder::Mixed) {
                Fault::new(
                    "a delay that wanders has a shape of its own, and keeps the order",
                    "leave out jitter-distribution and jitter-order mixed",
                )
            } else {
                return Ok(Some(Jitter { spread, distribution: Distribution::Uniform, correlation_time, order: JitterOrder::Kept }));
            };
            return Err(self.fault("jitter-correlation-time", own, fault));
        }
        Ok(Some(Jitter {
            spread,
            distribution: distribution.unwrap_or(Distribution::Uniform),
            correlation_time,
            order: order.unwrap_or(JitterOrder::Kept),
        }))
    }

    fn loss(&self) -> Result<Loss, ProfileError> {
        let both_kinds = |table: &Table| table.loss.is_some() && table.gilbert_elliott.is_some();
        if both_kinds(self.own.1) || both_kinds(self.both) {
            let fault = Fault::new("stands beside gilbert-elliott", "netem draws from one of them: leave the other out");
            return Err(self.fault("loss", both_kinds(self.own.1), fault));
        }
        for (own, table) in [(true, self.own.1), (false, self.both)] {
            if let Some(text) = &table.loss {
                let share = units::share(text).map_err(|fault| self.fault("loss", own, fault))?;
                return Ok(if share > 0.0 { Loss::Random(share) } else { Loss::None });
            }
            if let Some(table) = &table.gilbert_elliott {
                return bursts(table).map_err(|(key, fault)| self.fault(&format!("gilbert-elliott.{key}"), own, fault));
            }
        }
        Ok(Loss::None)
    }

    fn queue(&self, rate: u64, rtt: Duration) -> Result<u32, ProfileError> {
        let own = self.own.1.queue.is_some();
        let length = self.value("queue", |table| table.queue.as_ref(), units::queue)?;
        match length {
            Some(QueueLength::Packets(packets)) => Ok(packets),
            Some(QueueLength::Bdp(_)) if rtt.is_zero() => {
                let fault = Fault::new("is in BDPs, and a path without delay has none", "give packets, such as 200 packets");
                Err(self.fault("queue", own, fault))
            }
            Some(QueueLength::Bdp(share)) => Ok(packets(rate, rtt.mul_f64(share)).max(1)),
            None => Err(self.fault("queue", false, Fault::new("is missing", "give one, such as 1bdp or 200 packets"))),
        }
    }
}

fn bursts(table: &GilbertElliottTable) -> Result<Loss, (&'static str, Fault)> {
    let share = |key, text: &str| units::share(text).map_err(|fault| (key, fault));
    let optional = |key, text: &Option<String>, absent| text.as_deref().map_or(Ok(absent), |text| share(key, text));
    let (enter, leave) = (share("enter-bad", &table.enter_bad)?, share("leave-bad", &table.leave_bad)?);
    if leave == 0.0 || enter == 0.0 {
        let key = if leave == 0.0 { "leave-bad" } else { "enter-bad" };
        return Err((key, Fault::new("is 0%: the state would never change", "give a share above 0%, or use loss")));
    }
    Ok(Loss::Bursts {
        enter,
        leave,
        bad: optional("lost-in-bad", &table.lost_in_bad, 1.0)?,
        good: optional("lost-in-good", &table.lost_in_good, 0.0)?,
    })
}

/// Whether netem's limit holds what's on the way and the queue.
fn limit(impairment: &Impairment) -> Result<(), Fault> {
    let needed = Impairment { limit: None, ..impairment.clone() }.limit();
    if needed > LONGEST_LIMIT {
        return Err(Fault::new(
            format!("{needed} packets would be on the way and queued, more than {LONGEST_LIMIT}"),
            "lower the rate, the delay or the queue",
        ));
    }
    if impairment.limit() < needed {
        return Err(Fault::new(
            format!(
                "{} packets can't hold the {} on the way at this rate and delay (BDP) and a queue of {}",
                impairment.limit(),
                needed - impairment.queue.min(needed),
                impairment.queue
            ),
            format!("leave limit out, or set at least {needed}"),
        ));
    }
    Ok(())
}

fn event(table: &EventTable) -> Result<Event, (&'static str, Fault)> {
    let at = units::time(&table.at).map_err(|fault| ("at", fault))?;
    let until = table.until.as_deref().map(units::time).transpose().map_err(|fault| ("until", fault))?;
    if until.is_some_and(|until| until <= at) {
        return Err(("until", Fault::new("isn't after `at`", "an event ends after it begins; leave it out for one that stays")));
    }
    let direction = match table.direction.as_deref() {
        None | Some("both") => None,
        Some("forward") => Some(Direction::Forward),
        Some("backward") => Some(Direction::Backward),
        Some(text) => return Err(("direction", Fault::new(format!("`{text}` is no direction"), "write forward, backward or both"))),
    };
    let change = match (table.blackhole, table.rate.as_deref()) {
        (Some(true), None) => Change::Blackhole,
        (None, Some(rate)) => Change::Rate(units::rate(rate).map_err(|fault| ("rate", fault))?),
        _ => return Err(("blackhole", Fault::new("an event does one thing", "give either blackhole = true or rate"))),
    };
    Ok(Event { at, until, direction, change })
}
