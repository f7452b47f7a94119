//! Records that were written before: what a plot takes of them.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use serde::Deserialize;

use super::{BenchError, Outcome};

/// The longest line of a file of records, in bytes: a record with the series of ten minutes has about a megabyte.
const MAX_LINE: usize = 16 << 20;

/// QUERY's p99 in one run under a full flood, alone on its path.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The transport's name.
    pub transport: String,
    /// Where.
    pub lab: String,
    /// The path's impairment.
    pub profile: String,
    /// In milliseconds.
    pub p99_ms: f64,
}

/// A record's fields, as far as they're needed. Of files with other records (`connect`, `cost`) some are absent.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    transport: String,
    #[serde(default)]
    lab: String,
    #[serde(default)]
    profile: String,
    #[serde(default)]
    class: String,
    #[serde(default)]
    flood: String,
    #[serde(default)]
    rival: String,
    #[serde(default)]
    complete: bool,
    p99_us: Option<f64>,
}

impl Line {
    fn saved(self) -> Option<Saved> {
        let is_it = self.complete && self.class == "query" && self.flood == "full" && self.rival == "none";
        let p99 = self.p99_us.filter(|p99| is_it && p99.is_finite() && *p99 > 0.0)?;
        Some(Saved { transport: self.transport, lab: self.lab, profile: self.profile, p99_ms: p99 / 1e3 })
    }
}

impl Saved {
    /// Those of a file of records, one JSON object on a line: what's complete and about QUERY under a full flood without a rival.
    ///
    /// # Errors
    /// [`BenchError::Plan`] naming file and line of what is no record, or the file and why it can't be read.
    pub fn read(path: &Path) -> Result<Vec<Self>, BenchError> {
        let wrong = |what: String| BenchError::Plan { what: format!("{}: {what}", path.display()) };
        let mut lines = BufReader::new(File::open(path).map_err(|error| wrong(error.to_string()))?);
        let (mut all, mut line) = (Vec::new(), Vec::new());
        for number in 1.. {
            line.clear();
            let read = std::io::Read::take(&mut lines, MAX_LINE as u64).read_until(b'\n', &mut line);
            if read.map_err(|error| wrong(error.to_string()))? == 0 {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let parsed: Line = serde_json::from_slice(&line).map_err(|error| wrong(format!("line {number} is no record: {error}")))?;
            all.extend(parsed.saved());
        }
        Ok(all)
    }

    /// That of a measurement that was just made.
    pub fn of(outcome: &Outcome) -> Option<Self> {
        let record = &outcome.record;
        let line = Line {
            transport: record.transport.to_owned(),
            lab: record.lab.to_owned(),
            profile: record.profile.clone(),
            class: record.class.to_owned(),
            flood: record.flood.clone(),
            rival: record.rival.to_owned(),
            complete: record.complete,
            p99_us: record.p99_us,
        };
        line.saved()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_complete_and_alone_under_a_full_flood_is_taken_and_what_is_no_record_is_named() {
        let record = |flood: &str, rival: &str, complete: bool| {
            format!(
                r#"{{"transport":"quic","lab":"virtual","profile":"wan","class":"query","flood":"{flood}","rival":"{rival}","complete":{complete},"p99_us":54000.0,"more":[1]}}"#
            )
        };
        let lines = [
            record("full", "none", true),
            String::new(),
            record("none", "none", true),
            record("full", "bbr", true),
            record("full", "none", false),
            r#"{"transport":"quic","workload":"connect","p99_us":null}"#.to_owned(),
        ];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        let found = Saved::read(&path).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].profile == "wan" && (found[0].p99_ms - 54.0).abs() < 1e-9);
        std::fs::write(&path, format!("{}\n{{\"flood\":7}}\n", lines[0])).unwrap();
        let error = Saved::read(&path).unwrap_err().to_string();
        assert!(error.contains("records.jsonl: line 2"), "{error}");
        assert!(Saved::read(&directory.path().join("absent")).is_err());
    }
}
