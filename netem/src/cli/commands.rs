//! What each command does.

use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use peerlane_netem::plan::{Plan, Topology};
use peerlane_netem::profile::Profile;
use peerlane_netem::{LabError, LabKind, Outcome, Run, Standing, best, clean_up, doctor};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Machine, Network, Verb, calibrate, check};

/// Why it ends, and with which exit code.
pub(super) struct Failure {
    pub(super) what: String,
    pub(super) code: u8,
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        let code = match error {
            LabError::Profile(_) | LabError::Plan(_) | LabError::Unavailable { .. } | LabError::Path(_) => 2,
            LabError::Interrupted => 130,
            _ => 1,
        };
        Self { what: error.to_string(), code }
    }
}

pub(super) fn wrong_use(what: impl Into<String>) -> Failure {
    Failure { what: what.into(), code: 2 }
}

pub(super) fn failed(what: impl std::fmt::Display) -> Failure {
    Failure { what: what.to_string(), code: 1 }
}

pub(super) fn run(verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Doctor => Ok(diagnose()),
        Verb::Profiles => profiles(),
        Verb::Show { profile, shape } => show(&profile, shape.topology),
        Verb::Run { network, machine, env, out, json, no_schedule, command } => {
            let mut run = make(&network, &machine, command)?.schedule(!no_schedule);
            for variable in env {
                let Some((name, value)) = variable.split_once('=') else {
                    return Err(wrong_use(format!("--env {variable}: write NAME=VALUE")));
                };
                run = run.env(name, value);
            }
            run = out.into_iter().fold(run, Run::write_to);
            let outcome = run.start()?;
            report(&outcome, json.as_deref())?;
            if let Some(why) = outcome.rejection() {
                eprintln!("lab: REJECTED, the emulator was late: {why}");
            }
            Ok(outcome.code)
        }
        Verb::Check { profile, shape, lab, machine, lie, json } => {
            // Within a lab, that one is measured.
            let standing = std::env::var("PEERLANE_LAB").ok().filter(|_| lab.is_none()).and_then(|lab| lab.parse().ok());
            if let Some(lab) = standing {
                return check::here(lab, &profile, shape.topology);
            }
            let lab = lab.map_or_else(best, Ok)?;
            check::run(&check::Request { lab, profiles: profile, topology: shape.topology, lie, json, machine })
        }
        Verb::Calibrate { profile, bench, duration, out, machine } => {
            calibrate::run(&calibrate::Request { profiles: profile, bench, duration, out, machine })
        }
        Verb::Up { network } => up(&network),
        Verb::Exec { host, command } => exec(&host, &command),
        Verb::Status => status(),
        Verb::Down => {
            let removed = clean_up();
            println!("{}", if removed == 0 { "nothing was up" } else { "down" });
            Ok(0)
        }
    }
}

pub(super) fn load(name: &str) -> Result<Profile, Failure> {
    Profile::load(name).map_err(|error| wrong_use(error.to_string()))
}

fn make(network: &Network, machine: &Machine, command: Vec<String>) -> Result<Run, Failure> {
    let profile = load(&network.profile)?;
    // Judged before a lab is looked for.
    Plan::new(&profile, network.shape.topology).map_err(|error| wrong_use(error.to_string()))?;
    let lab = network.lab.map_or_else(best, Ok)?;
    let run = Run::new(lab, &profile, network.shape.topology, command);
    Ok(run.memory(machine.memory).limit(machine.limit()).interrupt(interrupts()?))
}

/// Becomes true at Ctrl-C and kill, so that a lab is ended in order.
pub(super) fn interrupts() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(failed)?;
    }
    Ok(flag)
}

fn report(outcome: &Outcome, json: Option<&str>) -> Result<(), Failure> {
    let Some(path) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(outcome).map_err(failed)?;
    std::fs::write(path, text + "\n").map_err(|error| failed(format!("{path}: {error}")))
}

fn diagnose() -> u8 {
    let mut any = false;
    for diagnosis in doctor() {
        match diagnosis.trouble {
            None => {
                any = true;
                println!("{:<8} yes  {}", diagnosis.lab, diagnosis.with);
            }
            Some((reason, remedy)) => println!("{:<8} no   {reason}\n              {remedy}", diagnosis.lab),
        }
    }
    u8::from(!any)
}

fn profiles() -> Result<u8, Failure> {
    for name in Profile::names() {
        println!("{name:<22} {}", load(name)?.about());
    }
    Ok(0)
}

fn show(name: &str, topology: Topology) -> Result<u8, Failure> {
    let profile = load(name)?;
    let plan = Plan::new(&profile, topology).map_err(|error| wrong_use(error.to_string()))?;
    println!("# {}: {}", profile.name(), profile.about());
    for line in profile.text().lines().skip(1).filter(|line| !line.is_empty()) {
        println!("# {line}");
    }
    println!(
        "# round trip {:?}; hosts: {}",
        profile.rtt(),
        plan.hosts().iter().map(|host| format!("{} {}", host.name, host.address)).collect::<Vec<_>>().join(", ")
    );
    for step in plan.steps() {
        println!("{step}{}", if step.may_fail { " || true" } else { "" });
    }
    for (time, steps) in plan.changes() {
        println!("# {time:?} after the start");
        for step in steps {
            println!("{step}");
        }
    }
    Ok(0)
}

fn up(network: &Network) -> Result<u8, Failure> {
    if network.lab == Some(LabKind::Virtual) {
        return Err(wrong_use("a lab of virtual time can't stand; `lab run` makes it for one command"));
    }
    let profile = load(&network.profile)?;
    Plan::new(&profile, network.shape.topology).map_err(|error| wrong_use(error.to_string()))?;
    let lab = network.lab.map_or_else(best_standing, Ok)?;
    let standing = Standing::up(lab, &profile, network.shape.topology)?;
    println!("up: {}", standing.describe());
    for host in standing.plan()?.hosts() {
        println!("{} {}", host.name, host.address);
    }
    Ok(0)
}

/// The better one of those that can stand.
fn best_standing() -> Result<LabKind, Failure> {
    let sound = doctor().into_iter().find(|diagnosis| diagnosis.lab.is_real_time() && diagnosis.trouble.is_none());
    sound.map(|diagnosis| diagnosis.lab).ok_or_else(|| wrong_use("no lab of real time can be had here; `lab doctor` says why"))
}

fn exec(host: &str, command: &[String]) -> Result<u8, Failure> {
    let standing = Standing::find()?;
    let plan = standing.plan()?;
    let namespace = peerlane_netem::plan::namespace(host);
    // In the tun lab the emulator stands for the routers.
    let routers = if standing.lab() == LabKind::Tun { &[] } else { plan.routers() };
    if plan.host(host).is_none() && !routers.contains(&namespace) {
        let names: Vec<_> = plan.hosts().iter().map(|host| host.name.as_str()).collect();
        let more = if routers.is_empty() { "" } else { " and the routers" };
        return Err(wrong_use(format!("`{host}` is no host; there are {}{more}", names.join(", "))));
    }
    let error = standing.enter()?.args(["ip", "netns", "exec", &namespace]).args(command).exec();
    Err(failed(format!("nsenter: {error}")))
}

fn status() -> Result<u8, Failure> {
    let standing = Standing::find()?;
    println!("up: {}", standing.describe());
    if standing.lab() == LabKind::Tun {
        let error = standing.counts()?.exec();
        return Err(failed(format!("nsenter: {error}")));
    }
    for egress in standing.plan()?.egresses() {
        let shown = standing
            .enter()?
            .args(["tc", "-n", &egress.namespace, "-s", "qdisc", "show", "dev", &egress.device])
            .output()
            .map_err(failed)?;
        println!(
            "{} {} ({})\n{}",
            egress.namespace,
            egress.device,
            egress.direction.name(),
            String::from_utf8_lossy(&shown.stdout).trim_end()
        );
    }
    Ok(0)
}
