//! Measurements as one self-contained HTML page: tables, plots, environment, and the command that repeats it.

mod headline;
mod plot;

use std::fmt::Write;

pub use headline::headline;
use plot::{Axis, Line, Marks, plot};

use super::{
    BenchError, Flood, Lab, Plan, Ran, Rival, Variant,
    report::{self, Pooled},
};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
    pre{overflow-x:auto;background:#f5f5f5;padding:.8rem;font-size:13px}svg{max-width:100%;height:auto}\
    .bar{display:flex;height:1.4rem;background:#eee;margin:.2rem 0}.bar span{color:#fff;padding:0 .4rem;white-space:nowrap;overflow:hidden}\
    .ours{background:#2266aa}.rival{background:#aa4422}";

/// What was measured in each lab, as a page. `command` repeats it.
///
/// # Errors
/// [`BenchError::Page`] if a plot can't be drawn.
pub fn page(plan: &Plan, ran: &[(&dyn Lab, &Ran)], command: &str) -> Result<String, BenchError> {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>peerlane bench</title>\n");
    let _ = write!(out, "<style>{STYLE}</style>\n<h1>peerlane bench</h1>\n<pre>{}</pre>\n", text(command));
    if let Some(record) = ran.iter().find_map(|(_, ran)| ran.outcomes.first()).map(|outcome| &outcome.record) {
        let here = &record.environment;
        let _ = writeln!(
            out,
            "<p>peerlane {} ({} build, {}; {}), kernel {}, {}, {} processors, load {}; {}.</p>",
            text(here.peerlane),
            here.build,
            text(here.rustc.unwrap_or("compiler unknown")),
            text(here.dependencies.unwrap_or("dependencies unknown")),
            text(here.kernel.as_deref().unwrap_or("unknown")),
            text(&here.platform),
            here.cpus,
            here.load.map_or_else(|| "unknown".to_owned(), |load| load.to_string()),
            text(&record.threads),
        );
    }
    let all: Vec<(&dyn Lab, Vec<Pooled>)> = ran.iter().map(|(lab, ran)| (*lab, report::complete(plan, ran))).collect();
    out += &against_loss(&all)?;
    for ((lab, pooled), (_, ran)) in all.iter().zip(ran) {
        let _ = write!(out, "<h2>{}</h2>\n<pre>{}</pre>\n", text(lab.profile()), text(&report::table(plan, *lab, ran)));
        out += &tails(pooled)?;
        out += &against_goodput(pooled)?;
        out += &series(ran)?;
        out += &shares(*lab, pooled);
    }
    Ok(out)
}

/// A plot with its caption, or nothing if there's nothing to plot.
fn figure(title: &str, x: Axis, y: Axis, marks: Marks, lines: &[Line]) -> Result<String, BenchError> {
    if lines.iter().all(|line| line.points.is_empty()) {
        return Ok(String::new());
    }
    let svg = plot(x, y, marks, lines).map_err(|what| BenchError::Page { what })?;
    Ok(format!("<h3>{}</h3>\n{svg}\n", text(title)))
}

fn name((variant, flood, rival): &(Variant, Flood, Rival)) -> String {
    match rival {
        Rival::None => format!("{variant}, flood {flood}"),
        rival => format!("{variant}, flood {flood}, beside {rival}"),
    }
}

/// The distribution of each row's latencies, from its slow end.
fn tails(pooled: &[Pooled]) -> Result<String, BenchError> {
    let lines: Vec<_> = pooled.iter().map(|(key, row)| Line { name: name(key), points: row.times.slower() }).collect();
    let (x, y) = (Axis::log("latency, ms"), Axis::log("share that took longer"));
    figure("Latency: the distribution's complement, in which the tail can be seen", x, y, Marks::Line, &lines)
}

fn against_goodput(pooled: &[Pooled]) -> Result<String, BenchError> {
    let flooded = pooled.iter().filter(|((_, flood, _), _)| *flood != Flood::None);
    let lines: Vec<_> = flooded
        .map(|(key, row)| Line {
            name: name(key),
            points: row.times.quantile(0.99).map(|p99| (row.goodput[0], p99 / 1e3)).into_iter().collect(),
        })
        .collect();
    let (x, y) = (Axis::linear("BELIEF goodput, Mbit/s"), Axis::log("p99, ms"));
    figure("p99 against goodput", x, y, Marks::Points, &lines)
}

/// Over all profiles that lose packets by chance or not at all, if there are several.
fn against_loss(all: &[(&dyn Lab, Vec<Pooled>)]) -> Result<String, BenchError> {
    let mut lines: Vec<Line> = Vec::new();
    for (key, row) in all.iter().flat_map(|(_, pooled)| pooled).filter(|((_, flood, _), _)| *flood != Flood::None) {
        let Some((loss, p99)) = row.loss_set.zip(row.times.quantile(0.99)) else { continue };
        let (name, point) = (name(key), (loss * 100.0, p99 / 1e3));
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name, points: vec![point] }),
        }
    }
    lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    let several = lines.iter().any(|line| line.points.windows(2).any(|pair| pair[0].0 < pair[1].0));
    let lines = if several { lines } else { Vec::new() };
    figure("p99 against loss", Axis::linear("packets lost each way, %"), Axis::log("p99, ms"), Marks::Line, &lines)
}

/// What happened around the path's scheduled events, of each first run.
fn series(ran: &Ran) -> Result<String, BenchError> {
    let firsts = ran.outcomes.iter().filter(|outcome| outcome.record.complete && outcome.case.run == 1);
    let (mut goodput, mut latency) = (Vec::new(), Vec::new());
    for outcome in firsts {
        let Some(series) = &outcome.measurement.series else { continue };
        let name = name(&(outcome.case.variant, outcome.case.flood, outcome.case.rival));
        goodput.push(Line { name: name.clone(), points: series.slots.iter().map(|slot| (slot.at_s, slot.belief_mbps)).collect() });
        let slowest = series.slots.iter().filter_map(|slot| Some((slot.at_s, slot.latency_max_ms?)));
        latency.push(Line { name, points: slowest.collect() });
    }
    let time = Axis::linear("seconds from the lab's start");
    let mut out = figure("BELIEF over time, first run", time, Axis::linear("Mbit/s"), Marks::Line, &goodput)?;
    out += &figure("Slowest answer to what was due in each tenth of a second, first run", time, Axis::log("ms"), Marks::Line, &latency)?;
    Ok(out)
}

fn shares(lab: &dyn Lab, pooled: &[Pooled]) -> String {
    let Some([rate, _]) = lab.rates_mbps() else { return String::new() };
    let mut out = String::new();
    for (key, row) in pooled.iter().filter(|((_, flood, rival), _)| *rival != Rival::None && *flood != Flood::None) {
        if out.is_empty() {
            out += "<h3>Shares of the bottleneck</h3>\n";
        }
        let [ours, rival] = [row.goodput[0], row.goodput[2]].map(|goodput| (goodput / rate * 100.0).clamp(0.0, 100.0));
        let _ = writeln!(
            out,
            "<div>{}</div><div class=\"bar\"><span class=\"ours\" style=\"width:{ours:.1}%\">{ours:.1}%</span>\
             <span class=\"rival\" style=\"width:{rival:.1}%\">{rival:.1}%</span></div>",
            text(&name(key)),
        );
    }
    out
}

/// Text that HTML doesn't take for its own.
fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_never_markup() {
        assert_eq!(text("<script>\"a\" & b"), "&lt;script&gt;&quot;a&quot; &amp; b");
    }
}
