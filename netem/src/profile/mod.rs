//! Profiles: what a network does to packets, each in a file of its own, understood and judged before anything starts.

mod builtin;
mod error;
mod file;
mod impairment;
mod read;
mod schedule;
#[cfg(test)]
mod tests;
mod units;

use std::path::Path;
use std::time::Duration;

pub use error::ProfileError;
pub use impairment::{Distribution, FRAME, Impairment, Jitter, JitterOrder, Loss, MTU};
pub use schedule::{Change, Direction, Event, State};

/// A network's two directions, and what happens to them when.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    name: String,
    about: String,
    text: String,
    forward: Impairment,
    backward: Impairment,
    events: Vec<Event>,
}

impl Profile {
    /// The names of the built-in profiles (`netem/profiles/*.toml`).
    pub fn names() -> impl Iterator<Item = &'static str> {
        builtin::PROFILES.iter().map(|(name, _)| *name)
    }

    /// A built-in profile by its name, or a file by its path (with a `/` or ending in `.toml`).
    pub fn load(name: &str) -> Result<Self, ProfileError> {
        if name.contains('/') || name.ends_with(".toml") {
            let path = Path::new(name);
            let text = std::fs::read_to_string(path).map_err(|source| ProfileError::File { path: path.to_owned(), source })?;
            return Self::parse(name, &text);
        }
        match builtin::PROFILES.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Self::parse(&format!("{name}.toml"), text),
            None => Err(ProfileError::Unknown { name: name.to_owned(), known: Self::names().collect::<Vec<_>>().join(" ") }),
        }
    }

    /// A profile's text; its file's name stands in the errors, and without `.toml` it is the profile's name.
    pub fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        read::read(file, text)
    }

    /// Its name: `wan`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it's for, in a sentence.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The text that it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A direction as it is at the beginning.
    pub fn direction(&self, direction: Direction) -> &Impairment {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        }
    }

    /// A direction as it is a time after the schedule's start.
    pub fn state(&self, direction: Direction, time: Duration) -> State {
        schedule::state(self.direction(direction), &self.events, direction, time)
    }

    /// What happens when.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The times at which something changes, in order.
    pub fn times(&self) -> Vec<Duration> {
        schedule::times(&self.events)
    }

    /// The round-trip time without queues and jitter.
    pub fn rtt(&self) -> Duration {
        self.forward.delay + self.backward.delay
    }

    /// Whether both directions are alike.
    pub fn is_symmetric(&self) -> bool {
        self.forward == self.backward && self.events.iter().all(|event| event.direction.is_none())
    }

    /// Whether a direction's packets may overtake each other by jitter.
    pub fn has_delay_stage(&self) -> bool {
        self.forward.has_delay_stage() || self.backward.has_delay_stage()
    }
}
