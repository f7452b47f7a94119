//! The table, and the records.

use std::{io::Write, path::Path};

use serde_json::json;

use crate::{
    Phase,
    attacks::{Attack, Tally},
    options::Options,
};

/// Lines that the victim's log may have in one second, whatever an attacker does: one for each kind of thing that is said.
const LINES: usize = 4;

pub struct Row {
    attack: &'static Attack,
    phase_s: f64,
    pairs: usize,
    pub off: Phase,
    pub on: Phase,
    pub tally: Tally,
    pub memory_before: u64,
    pub memory_most: u64,
    pub memory_after: u64,
    pub log_lines: usize,
    pub disconnects: usize,
    pub alive: bool,
}

impl Row {
    pub fn new(attack: &'static Attack, options: &Options) -> Self {
        Self {
            attack,
            phase_s: options.phase.as_secs_f64(),
            pairs: options.pairs,
            off: Phase::default(),
            on: Phase::default(),
            tally: Tally::default(),
            memory_before: 0,
            memory_most: 0,
            memory_after: 0,
            log_lines: 0,
            disconnects: 0,
            alive: false,
        }
    }

    /// Promises that don't depend on speed, and weren't kept.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let name = self.attack.name;
        if !self.alive {
            broken.push(format!("{name}: the victim is gone"));
        }
        if self.disconnects > 0 {
            broken.push(format!("{name}: the honest peer lost its connection {} times", self.disconnects));
        }
        if let Some(first) = self.on.lost.first() {
            broken.push(format!("{name}: {} honest queries were lost: {first}", self.on.lost.len()));
        }
        if self.log_lines > LINES {
            broken.push(format!("{name}: {} lines in the log within a second", self.log_lines));
        }
        if self.tally.done == 0 {
            broken.push(format!("{name}: the attack did nothing: {}", self.tally.trouble.as_deref().unwrap_or("no reason known")));
        }
        broken
    }

    pub fn print(&self) {
        let ms = |us: u64| us as f64 / 1000.0;
        let (off, on) = (self.off.quantile(0.99), self.on.quantile(0.99));
        let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
        println!(
            "{:<24} {:>9} {:>8.2} {:>8.2} {:>6.1}x {:>5} {:>7.1} {:>+7.1} {:>+7.1} {:>4}",
            self.attack.name,
            self.tally.done,
            ms(off),
            ms(on),
            on as f64 / off.max(1) as f64,
            self.on.lost.len(),
            mib(self.memory_before),
            mib(self.memory_most) - mib(self.memory_before),
            mib(self.memory_after) - mib(self.memory_before),
            self.log_lines,
        );
    }

    fn json(&self) -> serde_json::Value {
        let phase = |phase: &Phase| json!({ "p50_us": phase.quantile(0.5), "p99_us": phase.quantile(0.99), "answered": phase.latencies.len(), "lost": phase.lost.len() });
        json!({
            "attack": self.attack.name, "what": self.attack.what, "pairs": self.pairs, "phase_s": self.phase_s,
            "done": self.tally.done, "refused": self.tally.refused, "off": phase(&self.off), "on": phase(&self.on),
            "memory_before": self.memory_before, "memory_most": self.memory_most, "memory_after": self.memory_after,
            "log_lines_a_second": self.log_lines, "disconnects": self.disconnects, "alive": self.alive,
        })
    }
}

pub fn head(options: &Options) {
    println!(
        "honest QUERYs 100 a second, attack off and on in turn, {} x {:?} each; victim's resident memory in MiB; victim and attacker {}",
        options.pairs,
        options.phase,
        if options.pin { "on a core each" } else { "on any core" },
    );
    println!(
        "{:<24} {:>9} {:>8} {:>8} {:>7} {:>5} {:>7} {:>7} {:>7} {:>4}",
        "attack", "done", "p99 off", "p99 on", "", "lost", "before", "most", "after", "log"
    );
}

pub fn write(file: &Path, rows: &[Row]) -> std::io::Result<()> {
    let mut out = std::fs::File::create(file)?;
    rows.iter().try_for_each(|row| writeln!(out, "{}", row.json()))
}
