//! `lab calibrate`: the tun lab beside the virtual one, in numbers, and the page that publishes them.

use std::fmt::Write;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use peerlane_netem::check::{Measured, measure};
use peerlane_netem::profile::{Direction, Profile};
use peerlane_netem::{LabError, LabKind, Run};
use serde::Deserialize;

use super::Machine;
use super::commands::{Failure, failed, interrupts, load};

/// The labs beside each other: the one that's believed comes first.
const LABS: [LabKind; 2] = [LabKind::Virtual, LabKind::Tun];
/// How often a late run is repeated before it stands as rejected.
const TRIES: u32 = 3;
/// Above this rate a program's own speed is what's measured in real time, and a virtual second takes minutes.
const FASTEST: u64 = 300_000_000;
/// How late queries may leave in real time (99th percentile, in microseconds): else it's the machine that is measured.
const ASKING_LATE: f64 = 3_000.0;
/// In real time the benchmark's ends have a processor before all but the emulator, whose priority is 10.
const HURRY: [&str; 3] = ["chrt", "--fifo", "5"];
const TRANSPORTS: &str = "tcp,quic";

/// What's asked for.
pub(super) struct Request {
    pub(super) profiles: Vec<String>,
    pub(super) bench: Option<String>,
    pub(super) duration: u32,
    pub(super) out: String,
    pub(super) machine: Machine,
}

/// One profile's, each for both labs.
struct Row {
    profile: Profile,
    networks: [Result<Measured, String>; 2],
    benches: [Result<Vec<Record>, String>; 2],
    rejected: u32,
}

/// The part of the benchmark's record that's used.
#[derive(Debug, Clone, Deserialize)]
struct Record {
    transport: String,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    belief_goodput_share: Option<f64>,
    complete: bool,
    rejected: Option<String>,
    lateness_p99_us: Option<f64>,
    build: Option<String>,
}

impl Record {
    /// Whether the emulator was late, or, in real time, whoever asks.
    fn late(&self, lab: LabKind) -> Option<String> {
        let asking = self.lateness_p99_us.filter(|micros| lab.is_real_time() && *micros > ASKING_LATE);
        let asking = asking.map(|micros| format!("1% of queries left more than {:.1} ms late", micros / 1e3));
        self.rejected.clone().or(asking)
    }
}

pub(super) fn run(request: &Request) -> Result<u8, Failure> {
    let names: Vec<String> = match request.profiles.as_slice() {
        [all] if all == "all" => Profile::names().map(str::to_owned).collect(),
        names => names.to_vec(),
    };
    let profiles = names.iter().map(|name| load(name)).collect::<Result<Vec<_>, _>>()?;
    let interrupt = interrupts()?;
    let head = head();
    let mut rows: Vec<Row> = Vec::new();
    for profile in profiles {
        let mut rejected = 0;
        let mut network = |lab| in_time(&mut rejected, || self::network(lab, &profile, request, &interrupt), |it| it.rejected.clone());
        let networks = [network(LABS[0]), network(LABS[1])];
        let mut bench = |lab| {
            let late = |it: &Vec<Record>| it.iter().find_map(|record| record.late(lab));
            in_time(&mut rejected, || self::bench(lab, &profile, request), late)
        };
        let benches = [bench(LABS[0]), bench(LABS[1])];
        if interrupt.load(Ordering::Relaxed) {
            return Err(LabError::Interrupted.into());
        }
        println!("{}: measured, {rejected} late runs rejected", profile.name());
        rows.push(Row { profile, networks, benches, rejected });
        fs::write(&request.out, page(&head, &rows)).map_err(|error| failed(format!("{}: {error}", request.out)))?;
    }
    Ok(0)
}

/// Repeats what was late.
fn in_time<T>(rejected: &mut u32, work: impl Fn() -> Result<T, String>, late: impl Fn(&T) -> Option<String>) -> Result<T, String> {
    let mut why = String::new();
    for _ in 0..TRIES {
        let done = work()?;
        match late(&done) {
            None => return Ok(done),
            Some(reason) => why = reason,
        }
        *rejected += 1;
    }
    Err(format!("rejected {TRIES} times: {why}"))
}

fn network(lab: LabKind, profile: &Profile, request: &Request, interrupt: &Arc<AtomicBool>) -> Result<Measured, String> {
    let prepare = |run: Run| run.memory(request.machine.memory).limit(request.machine.limit()).interrupt(interrupt.clone());
    measure(lab, profile, prepare).map_err(|error| error.to_string())
}

fn bench(lab: LabKind, profile: &Profile, request: &Request) -> Result<Vec<Record>, String> {
    let Some(program) = &request.bench else { return Ok(Vec::new()) };
    if profile.direction(Direction::Forward).rate > FASTEST {
        return Err("not compared: in real time it's the programs' own speed".to_owned());
    }
    let (duration, warm_up) = (format!("{}s", request.duration), format!("{}s", request.duration.div_ceil(2)));
    let may_hurry = || Command::new(HURRY[0]).args(&HURRY[1..]).arg("true").stderr(Stdio::null()).status().is_ok_and(|it| it.success());
    let mut command = if lab.is_real_time() && may_hurry() { Command::new(HURRY[0]) } else { Command::new(program) };
    if command.get_program() == HURRY[0] {
        command.args(&HURRY[1..]).arg(program);
    }
    let output = command
        .args(["bench", "--lab", lab.name(), "--profile", profile.name(), "--transport", TRANSPORTS, "--flood", "full"])
        .args(["--runs", "1", "--duration", &duration, "--warm-up", &warm_up, "--no-check", "--json", "-"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let records: Vec<Record> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if records.is_empty() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(words.lines().last().unwrap_or("no record").to_owned());
    }
    Ok(records)
}

/// Command, date, commit, machine.
fn head() -> String {
    let said = |line: &[&str]| {
        let [program, arguments @ ..] = line else { return String::new() };
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    // Those of `netem/calibrate`, which adds its own behind them.
    let arguments: Vec<_> = std::env::args().skip(2).take_while(|word| word != "--bench").collect();
    let command = ["netem/calibrate".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ");
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let changed = if said(&["git", "status", "--porcelain", "-uno"]).is_empty() { "" } else { ", with changes" };
    format!(
        "`{command}`  \n{}, commit {}{changed}, {processors} processors ({}), Linux {}  \nload at the start:{}\n",
        said(&["date", "-u", "+%Y-%m-%d %H:%M UTC"]),
        said(&["git", "rev-parse", "--short", "HEAD"]),
        processor(),
        said(&["uname", "-r"]),
        said(&["uptime"]).rsplit("load average:").next().unwrap_or_default(),
    )
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, name)| name).to_owned()
}

fn page(head: &str, rows: &[Row]) -> String {
    let mut out = format!(
        "# The tun lab beside the virtual one\n\n{head}\n\
         Written by the command above; not by hand. `virtual / tun` in each cell. The virtual lab is netem in a kernel whose clock \
         jumps: processing costs no time in it. The tun lab's figures hold the machine's own time and noise. A late run (p99 of the \
         emulator's lateness over 1 ms, or more than 0.1% over 5 ms; or 1% of queries more than {:.0} ms after their time) is \
         repeated, up to {TRIES} times in all, and then stands as rejected. In the tun lab the probes and the benchmark run with \
         real-time priority, below the emulator's, where that's permitted.\n\n\
         ## The network\n\n\
         Sparse packets' one-way delay; losses of small packets in the time of full ones, and how many are lost in a row; twice \
         the rate: what gets through and how long it takes; a burst: how many packets get in.\n\n\
         | profile | way | delay p5, ms | p50 | p95 | loss, % | in a row | rate, Mbit/s | delay when full, ms | burst | late p99 / max, ms | rejected |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
        ASKING_LATE / 1e3
    );
    for row in rows {
        network_lines(&mut out, row);
    }
    if rows.iter().any(|row| row.benches.iter().any(|bench| bench.as_ref().is_ok_and(|records| !records.is_empty()))) {
        let build = rows.iter().flat_map(|row| &row.benches).flatten().flatten().find_map(|record| record.build.clone());
        let _ = write!(
            out,
            "\n## QUERY beside a flood of BELIEFs\n\nOne run each (`peerlane bench --flood full`, {} build): few samples, and with \
             losses two runs of one lab differ as well.\n\n\
             | profile | transport | QUERY p50, ms | p99, ms | BELIEF goodput, % of the rate |\n|---|---|---|---|---|\n",
            build.as_deref().unwrap_or("this")
        );
        rows.iter().for_each(|row| bench_lines(&mut out, row));
    }
    out
}

fn network_lines(out: &mut String, row: &Row) {
    let name = row.profile.name();
    let (virtual_, tun) = match &row.networks {
        [Ok(virtual_), Ok(tun)] => (virtual_, tun),
        [Err(why), _] | [_, Err(why)] => {
            let _ = writeln!(out, "| {name} | | {why} | | | | | | | | | {} |", row.rejected);
            return;
        }
    };
    for (one, other) in virtual_.ways.iter().zip(&tun.ways) {
        let both =
            |of: &dyn Fn(&peerlane_netem::check::Way) -> f64, digits: usize| format!("{:.digits$} / {:.digits$}", of(one), of(other));
        let late = tun.lateness.as_ref().map_or_else(String::new, |late| format!("{:.2} / {:.1}", late.p99_us / 1e3, late.max_us / 1e3));
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} / {} | {late} | {} |",
            one.path,
            both(&|way| way.delay_ms[0], 2),
            both(&|way| way.delay_ms[1], 2),
            both(&|way| way.delay_ms[2], 2),
            both(&|way| way.loss * 100.0, 2),
            both(&|way| way.run, 1),
            both(&|way| way.rate_mbps, 2),
            both(&|way| way.full_ms, 1),
            one.burst,
            other.burst,
            row.rejected,
        );
    }
}

fn bench_lines(out: &mut String, row: &Row) {
    let name = row.profile.name();
    if let [Err(why), Err(_)] = &row.benches {
        let _ = writeln!(out, "| {name} | | {why} | | |");
        return;
    }
    for transport in TRANSPORTS.split(',') {
        let cell = |of: fn(&Record) -> Option<f64>, digits: usize| {
            let one = |bench: &Result<Vec<Record>, String>| match bench {
                Err(_) => "-".to_owned(),
                Ok(records) => match records.iter().find(|record| record.transport == transport && record.complete).and_then(of) {
                    Some(value) => format!("{value:.digits$}"),
                    None => "-".to_owned(),
                },
            };
            format!("{} / {}", one(&row.benches[0]), one(&row.benches[1]))
        };
        let _ = writeln!(
            out,
            "| {name} | {transport} | {} | {} | {} |",
            cell(|record| record.p50_us.map(|micros| micros / 1e3), 1),
            cell(|record| record.p99_us.map(|micros| micros / 1e3), 1),
            cell(|record| record.belief_goodput_share.map(|share| share * 100.0), 1),
        );
    }
    for (lab, bench) in LABS.iter().zip(&row.benches) {
        if let Err(why) = bench {
            let _ = writeln!(out, "| {name} | | lab {lab}: {why} | | |");
        }
    }
}
