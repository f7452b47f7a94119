//! The plot for a README: QUERY's p99 by profile, transport beside transport. An SVG of its own, by hand, so that it's small; its
//! colours can be read on white and on black, because an image doesn't know what it stands on.

use std::fmt::Write;

use super::text;
use crate::bench::{BenchError, Saved};

/// The transports, in the plot's order, each with its colour and what it's called there.
const TRANSPORTS: [(&str, &str, &str); 5] = [
    ("quic", "#1f7ae0", "QUIC, by default"),
    ("tcp", "#cf6a16", "TCP, by default"),
    ("tcp-per-class-bbr", "#9a6be0", "TCP, a connection per class, BBR"),
    ("tcp-per-class-bbr-copies", "#d0509a", "the same with copies"),
    ("tcp-fifo", "#7d8590", "one TCP connection, in order"),
];
/// Of text and lines.
const INK: &str = "#6e7781";

/// Sizes in pixels.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 52.0;
const ROW: f64 = 13.0;
const GAP: f64 = 12.0;

/// One transport on one profile.
struct Mark {
    /// Of [`TRANSPORTS`].
    transport: usize,
    /// In milliseconds: the runs' median, the least and the greatest.
    median: f64,
    range: [f64; 2],
    runs: usize,
}

/// A plot of the runs' medians, with a line from the least to the greatest. `profiles`: which, in their order; none: all with two
/// transports at least, in the order in which they come.
///
/// # Errors
/// [`BenchError::Plan`] if there's nothing to plot, or records of several labs, which never share a plot.
pub fn headline(saved: &[Saved], profiles: &[String]) -> Result<String, BenchError> {
    let fail = |what: String| Err(BenchError::Plan { what });
    let ours: Vec<&Saved> = saved.iter().filter(|run| TRANSPORTS.iter().any(|(name, ..)| *name == run.transport)).collect();
    if let Some(other) = ours.iter().find(|run| run.lab != ours[0].lab) {
        return fail(format!("records of the labs {} and {} never share a plot", ours[0].lab, other.lab));
    }
    let rows: Vec<_> = match profiles {
        [] => in_order(&ours).into_iter().map(|name| (name, marks(&ours, name))).filter(|(_, marks)| marks.len() > 1).collect(),
        named => named.iter().map(|name| (name.as_str(), marks(&ours, name))).filter(|(_, marks)| !marks.is_empty()).collect(),
    };
    match ours.first() {
        Some(first) if !rows.is_empty() => Ok(draw(&first.lab, &rows)),
        _ => fail("nothing to plot: no complete record of QUERY under a full flood without a rival, by transports to compare".into()),
    }
}

/// Profiles, in the order in which they come.
fn in_order<'a>(runs: &[&'a Saved]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        if !names.contains(&run.profile.as_str()) {
            names.push(&run.profile);
        }
    }
    names
}

fn marks(runs: &[&Saved], profile: &str) -> Vec<Mark> {
    let mark = |(transport, (name, ..)): (usize, &(&str, &str, &str))| {
        let its = runs.iter().filter(|run| run.profile == profile && run.transport == *name);
        let mut times: Vec<f64> = its.map(|run| run.p99_ms).collect();
        times.sort_by(f64::total_cmp);
        let median = (times.get(times.len().checked_sub(1)? / 2)? + times.get(times.len() / 2)?) / 2.0;
        Some(Mark { transport, median, range: [*times.first()?, *times.last()?], runs: times.len() })
    };
    TRANSPORTS.iter().enumerate().filter_map(mark).collect()
}

/// Where a time stands: times differ by factors.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(rows: &[(&str, Vec<Mark>)]) -> Self {
        let ends = rows.iter().flat_map(|(_, marks)| marks).flat_map(|mark| mark.range);
        let (low, high) = ends.fold((f64::INFINITY, 0.0_f64), |(low, high), time| (low.min(time), high.max(time)));
        Self { low: (low / 1.15).log10(), high: (high * 1.15).log10() }
    }

    fn at(&self, ms: f64) -> f64 {
        LEFT + (ms.log10() - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)
    }

    /// 1, 2, 5, 10, ... as far as they're in it.
    fn ticks(&self) -> Vec<f64> {
        let decades = (self.low.floor() as i32)..=(self.high.ceil() as i32);
        let all = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|first| first * 10_f64.powi(decade)));
        all.filter(|tick| (self.low..=self.high).contains(&tick.log10())).collect()
    }
}

fn draw(lab: &str, rows: &[(&str, Vec<Mark>)]) -> String {
    let scale = Scale::of(rows);
    let body: f64 = rows.iter().map(|(_, marks)| marks.len() as f64 * ROW + GAP).sum();
    let height = TOP + body + BOTTOM;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         font-family=\"system-ui,sans-serif\" font-size=\"12\" fill=\"{INK}\">\n<title>QUERY p99 under a full flood, by profile and \
         transport</title>\n<text x=\"0\" y=\"14\" font-size=\"14\" font-weight=\"600\">QUERY p99 under a full flood of BELIEFs, ms \
         ({} lab; shorter is better)</text>\n",
        text(lab),
    );
    legend(&mut out, rows);
    for tick in scale.ticks() {
        let (x, end) = (scale.at(tick), TOP + body);
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {TOP}V{end}\" stroke=\"{INK}\" stroke-opacity=\".3\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            end + 16.0
        );
    }
    let _ = writeln!(out, "<text x=\"0\" y=\"{}\" font-size=\"11\">{}; logarithmic</text>", height - 8.0, runs(rows));
    let mut y = TOP;
    for (profile, marks) in rows {
        let middle = y + (marks.len() as f64 * ROW + GAP) / 2.0;
        let _ = writeln!(out, "<text x=\"0\" y=\"{:.1}\">{}</text>", middle + 4.0, text(profile));
        for (nth, mark) in marks.iter().enumerate() {
            row(&mut out, &scale, y + GAP / 2.0 + (nth as f64 + 0.5) * ROW, mark);
        }
        y += marks.len() as f64 * ROW + GAP;
    }
    out += "</svg>\n";
    out
}

/// What a mark is.
fn runs(rows: &[(&str, Vec<Mark>)]) -> String {
    let counts = || rows.iter().flat_map(|(_, marks)| marks).map(|mark| mark.runs);
    match (counts().min().unwrap_or(0), counts().max().unwrap_or(0)) {
        (1, 1) => "one run each".to_owned(),
        (least, most) if least == most => format!("medians of {most} runs, and a line from the least to the greatest"),
        (least, most) => format!("medians of {least} to {most} runs, and a line from the least to the greatest"),
    }
}

fn legend(out: &mut String, rows: &[(&str, Vec<Mark>)]) {
    let (mut x, mut y) = (4.0, 32.0);
    for (transport, (_, colour, label)) in TRANSPORTS.iter().enumerate() {
        if !rows.iter().flat_map(|(_, marks)| marks).any(|mark| mark.transport == transport) {
            continue;
        }
        // About 6.5 pixels a letter.
        let width = 26.0 + 6.5 * label.len() as f64;
        if x + width > WIDTH {
            (x, y) = (4.0, y + 18.0);
        }
        let _ = writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{label}</text>",
            x + 9.0,
            y + 4.0
        );
        x += width;
    }
}

/// A line from the axis to the median, one from the least to the greatest, and the median's number.
fn row(out: &mut String, scale: &Scale, y: f64, mark: &Mark) {
    let colour = TRANSPORTS[mark.transport].1;
    let (x, [low, high]) = (scale.at(mark.median), mark.range.map(|time| scale.at(time)));
    let digits = usize::from(mark.median < 10.0);
    let _ = writeln!(
        out,
        "<path d=\"M{LEFT} {y:.1}H{x:.1}\" stroke=\"{colour}\" stroke-opacity=\".45\"/><path d=\"M{low:.1} {y:.1}H{high:.1}\" stroke=\"{colour}\" \
         stroke-width=\"3\"/><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" \
         fill=\"{colour}\">{:.digits$}</text>",
        high.max(x) + 8.0,
        y + 4.0,
        mark.median,
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(transport: &str, profile: &str, p99_ms: f64) -> Saved {
        Saved { transport: transport.to_owned(), lab: "virtual".to_owned(), profile: profile.to_owned(), p99_ms }
    }

    #[test]
    fn a_plot_has_the_runs_medians_of_what_is_compared() {
        let mut saved = vec![run("quic", "wan", 54.0), run("quic", "wan", 80.0), run("quic", "wan", 53.0), run("tcp-fifo", "wan", 230.0)];
        saved.extend([run("quic", "lte", 90.0), run("quic-cubic", "wan", 60.0), run("quic", "a<b", 9.0), run("tcp", "a<b", 12.0)]);
        let svg = headline(&saved, &[]).unwrap();
        assert!(svg.contains(">54</text>") && svg.contains(">230</text>") && svg.contains(">9.0</text>"), "{svg}");
        assert!(!svg.contains(">lte<") && !svg.contains(">60</text>") && svg.contains("a&lt;b"), "one transport alone is no comparison");
        assert!(svg.contains("virtual lab") && svg.contains("QUIC") && !svg.contains("with copies"));
        assert!(svg.contains("medians of 1 to 3 runs"));
        assert!(svg.len() < 6_000, "{} bytes", svg.len());
        // Of those that are named, in their order, one with a single transport too.
        let svg = headline(&saved, &["lte".to_owned(), "wan".to_owned(), "absent".to_owned()]).unwrap();
        assert!(svg.find(">lte<").unwrap() < svg.find(">wan<").unwrap() && !svg.contains("a&lt;b") && !svg.contains("absent"));
    }

    #[test]
    fn nothing_and_several_labs_are_no_plot() {
        assert!(headline(&[], &[]).unwrap_err().to_string().contains("nothing to plot"));
        let mut two = vec![run("quic", "wan", 54.0), run("tcp", "wan", 60.0)];
        two[1].lab = "netem".to_owned();
        assert!(headline(&two, &[]).unwrap_err().to_string().contains("netem"));
    }

    /// WCAG's relative luminance.
    fn luminance(colour: &str) -> f64 {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    #[test]
    fn every_colour_can_be_read_on_white_and_on_a_dark_page() {
        for colour in TRANSPORTS.map(|(_, colour, _)| colour).into_iter().chain([INK]) {
            for page in ["#ffffff", "#0d1117"] {
                let (a, b) = (luminance(colour), luminance(page));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= 3.4, "{colour} on {page}: {contrast:.2}");
            }
        }
    }
}
