//! The `peerlane` program, as a user runs it: real processes over loopback, a real file of operations, kill -9.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Whatever is waited for must come within this; nothing is asserted about how fast.
const PATIENCE: Duration = Duration::from_secs(120);

fn peerlane() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerlane"));
    command.stdin(Stdio::null()).env_remove("PEERLANE_LOG");
    command
}

fn run(args: &[&str]) -> Output {
    peerlane().args(args).output().unwrap()
}

/// Runs a command that must succeed; what it printed.
fn good(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Runs a command that must fail with this exit code; what it said.
fn bad(code: i32, args: &[&str]) -> String {
    let output = run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A key file; its path and peer ID.
    fn key(&self, name: &str) -> (String, String) {
        let file = self.path(name);
        let id = good(&["key", "new", "--out", &file]);
        (file, id)
    }

    fn file(&self, name: &str, lines: impl IntoIterator<Item = String>) -> String {
        let file = self.path(name);
        std::fs::write(&file, lines.into_iter().collect::<Vec<_>>().join("\n")).unwrap();
        file
    }
}

/// A peer's process, killed when the test ends, however it does.
struct Peer {
    child: Child,
    at: String,
    args: Vec<String>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    fn start(world: &World, name: &str, transport: &str, peers: &[&str]) -> Self {
        let key = world.path(&format!("{name}.pem"));
        if !Path::new(&key).exists() {
            good(&["key", "new", "--out", &key]);
        }
        let data = world.path(name);
        let mut args = vec!["peer", "--key", &key, "--listen", "127.0.0.1:0", "--transport", transport, "--data", &data];
        peers.iter().for_each(|peer| args.extend(["--peer", peer]));
        Self::spawn(args.into_iter().map(str::to_owned).collect())
    }

    fn spawn(args: Vec<String>) -> Self {
        let mut child = peerlane().args(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let at = line.strip_prefix("ready ").unwrap_or_else(|| panic!("not ready: {line:?}")).split(' ').next().unwrap().to_owned();
        Self { child, at, args }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same peer again, on the same port.
    fn restart(&mut self) {
        let listen = self.args.iter().position(|arg| arg == "--listen").unwrap() + 1;
        self.args[listen] = self.at.split('@').nth(1).unwrap().to_owned();
        *self = Self::spawn(std::mem::take(&mut self.args));
    }

    /// Ends as Ctrl-C ends it; the exit code.
    fn interrupt(mut self) -> Option<i32> {
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    fn status(&self, world: &World) -> Value {
        let (key, _) = world.key(&format!("asks-{}.pem", rand::random::<u64>()));
        serde_json::from_str(&good(&["status", "--key", &key, "--to", &self.at, "--json"])).unwrap()
    }
}

/// Waits until all have the same root and so many operations.
fn converged(world: &World, peers: &[&Peer], operations: u64) {
    let started = Instant::now();
    loop {
        let all: Vec<Value> = peers.iter().map(|peer| peer.status(world)).collect();
        if all.iter().all(|status| status["root"] == all[0]["root"] && status["operations"] == operations) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{all:#?}");
    }
}

/// Operations made from a real file: a package list where there's one.
fn real_lines(most: usize) -> Vec<String> {
    let file = ["/var/lib/dpkg/status", "/etc/services", "/etc/passwd"].iter().map(PathBuf::from).find(|file| file.is_file());
    let text = file.map_or_else(|| "a\nb\nc\n".repeat(100), |file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned());
    let put = |(i, line): (usize, &str)| serde_json::json!({ "op": "put", "key": format!("{i:06}"), "value": line }).to_string();
    text.lines().cycle().take(most).enumerate().map(put).collect()
}

#[test]
fn three_peers_on_mixed_transports_load_a_file_and_survive_a_kill() {
    let world = World::new();
    let a = Peer::start(&world, "a", "auto", &[]);
    let mut b = Peer::start(&world, "b", "quic", &[&a.at]);
    let c = Peer::start(&world, "c", "tcp", &[&a.at]);
    let (account, id) = world.key("account.pem");
    let lines = real_lines(6000);
    let total = lines.len() as u64;
    let file = world.file("OPS.jsonl", lines.clone());
    let args = ["transact", "--key", &account, "--to", &a.at, "--file", &file, "--json"];
    let mut loading = peerlane().args(args).stdout(Stdio::piped()).spawn().unwrap();
    // In the middle of it, as far as one can tell from outside: some operations are there.
    let started = Instant::now();
    while a.status(&world)["operations"].as_u64().unwrap() < total / 10 {
        assert!(started.elapsed() < PATIENCE);
    }
    b.kill();
    assert!(loading.wait().unwrap().success());
    b.restart();
    converged(&world, &[&a, &b, &c], total);
    let (key, _) = world.key("reader.pem");
    for (peer, i) in [(&b, 0), (&c, lines.len() - 1)] {
        let got = good(&["query", "--key", &key, "--to", &peer.at, "--json", "get", &id, &format!("{i:06}")]);
        let (got, loaded): (Value, Value) = (serde_json::from_str(&got).unwrap(), serde_json::from_str(&lines[i]).unwrap());
        assert_eq!(got["value"], loaded["value"]);
    }
    // The whole of it, page by page.
    let all = good(&["query", "--key", &key, "--to", &b.at, "--json", "prefix", &id, ""]);
    assert_eq!(all.lines().count(), lines.len());
    for peer in [a, b, c] {
        assert_eq!(peer.interrupt(), Some(0));
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_peer_that_takes_it_is_killed() {
    let world = World::new();
    let mut peer = Peer::start(&world, "a", "quic", &[]);
    let (account, id) = world.key("account.pem");
    for round in 1..=3u64 {
        good(&["transact", "--key", &account, "--to", &peer.at, "put", "round", &round.to_string()]);
        peer.kill();
        peer.restart();
        let (key, _) = world.key(&format!("reader{round}.pem"));
        assert_eq!(good(&["query", "--key", &key, "--to", &peer.at, "get", &id, "round"]), round.to_string());
    }
}

#[test]
fn a_load_goes_on_where_it_was_interrupted() {
    let world = World::new();
    let peer = Peer::start(&world, "a", "auto", &[]);
    let (account, id) = world.key("account.pem");
    let lines = real_lines(100);
    let half = world.file("half.jsonl", lines[..40].to_vec());
    let whole = world.file("whole.jsonl", lines.clone());
    good(&["transact", "--key", &account, "--to", &peer.at, "--file", &half]);
    let report = good(&["transact", "--key", &account, "--to", &peer.at, "--file", &whole, "--resume", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((report["applied"].as_u64(), report["skipped"].as_u64()), (Some(60), Some(40)));
    assert_eq!(good(&["query", "--key", &account, "--to", &peer.at, "accounts"]), format!("{id}\t100"));
    good(&["transact", "--key", &account, "--to", &peer.at, "del", "000000"]);
    assert!(bad(1, &["query", "--key", &account, "--to", &peer.at, "get", &id, "000000"]).contains("no key"));
}

#[test]
fn each_transport_answers_pings_and_says_which_it_is() {
    let world = World::new();
    let peer = Peer::start(&world, "a", "auto", &[]);
    for transport in ["quic", "tcp"] {
        let (key, _) = world.key(&format!("{transport}.pem"));
        let args = ["ping", "--key", &key, "--to", &peer.at, "--transport", transport, "--count", "3", "--interval", "0.01", "--json"];
        let lines: Vec<Value> = good(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[..3].iter().all(|line| line["transport"] == transport));
    }
}

#[test]
fn a_wrong_key_is_named_with_the_right_one() {
    let world = World::new();
    let peer = Peer::start(&world, "a", "auto", &[]);
    let (key, _) = world.key("me.pem");
    let (_, other) = world.key("other.pem");
    let (id, socket) = peer.at.split_once('@').unwrap();
    for transport in ["quic", "tcp"] {
        let said = bad(1, &["status", "--key", &key, "--to", &format!("{other}@{socket}"), "--transport", transport]);
        assert!(said.contains(&other) && said.contains(id), "{said}");
    }
}

#[test]
fn another_network_is_refused_with_both_names() {
    let world = World::new();
    let peer = Peer::start(&world, "a", "auto", &[]);
    for transport in ["quic", "tcp"] {
        let (key, _) = world.key(&format!("{transport}.pem"));
        let said = bad(1, &["status", "--key", &key, "--to", &peer.at, "--network", "elsewhere", "--transport", transport]);
        assert!(said.contains("elsewhere") && said.contains("\"peerlane\""), "{said}");
    }
}

#[test]
fn a_blocked_peer_is_refused_and_others_are_not() {
    let world = World::new();
    let (blocked, blocked_id) = world.key("blocked.pem");
    let (fine, _) = world.key("fine.pem");
    let list = world.file("block.txt", ["# unwanted".into(), blocked_id]);
    let key = world.key("a.pem").0;
    let args = ["peer", "--key", &key, "--listen", "127.0.0.1:0", "--block", &list];
    let peer = Peer::spawn(args.iter().map(|arg| (*arg).to_owned()).collect());
    for transport in ["quic", "tcp"] {
        bad(1, &["status", "--key", &blocked, "--to", &peer.at, "--transport", transport]);
        good(&["status", "--key", &fine, "--to", &peer.at, "--transport", transport]);
    }
}

#[test]
fn bad_files_are_named_and_nothing_is_half_done() {
    let world = World::new();
    let peer = Peer::start(&world, "a", "quic", &[]);
    let (key, _) = world.key("me.pem");
    let broken = world.file("broken.pem", ["-----BEGIN PRIVATE KEY-----".into(), "AAAA".into()]);
    assert!(bad(2, &["status", "--key", &broken, "--to", &peer.at]).contains("broken.pem"));
    assert!(bad(2, &["key", "show", &world.path("absent.pem")]).contains("absent.pem"));
    // An existing key is never overwritten.
    let before = std::fs::read(&key).unwrap();
    assert!(bad(1, &["key", "new", "--out", &key]).contains("me.pem"));
    assert_eq!(std::fs::read(&key).unwrap(), before);
    let ops = world.file("OPS.jsonl", ["{\"op\":\"del\",\"key\":\"a\"}".into(), "{\"op\":\"frobnicate\"}".into()]);
    assert!(bad(2, &["transact", "--key", &key, "--to", &peer.at, "--file", &ops]).contains("OPS.jsonl:2:"));
    assert_eq!(peer.status(&world)["operations"], 0);
    let list = world.file("list.txt", ["# peers".into(), "not a peer".into()]);
    let said = bad(2, &["peer", "--key", &key, "--listen", "127.0.0.1:0", "--allow", &list]);
    assert!(said.contains("list.txt") && said.contains('2'), "{said}");
}

#[test]
fn a_port_or_a_data_directory_in_use_is_named() {
    let world = World::new();
    let peer = Peer::start(&world, "a", "auto", &[]);
    let (key, _) = world.key("b.pem");
    let socket = peer.at.split('@').nth(1).unwrap();
    for transport in ["quic", "tcp"] {
        let said = bad(1, &["peer", "--key", &key, "--listen", socket, "--transport", transport]);
        assert!(said.contains(socket), "{said}");
    }
    let said = bad(1, &["peer", "--key", &key, "--listen", "127.0.0.1:0", "--data", &world.path("a")]);
    assert!(said.contains("in use"), "{said}");
    drop(peer);
    let said = bad(1, &["peer", "--key", &key, "--listen", "127.0.0.1:0", "--data", &world.path("a"), "--network", "elsewhere"]);
    assert!(said.contains("belongs to network"), "{said}");
}

#[test]
fn wrong_usage_is_exit_code_two() {
    for args in [
        &["frobnicate"][..],
        &["status"],
        &["peer", "--listen", "here"],
        &["query", "--to", "nobody", "root"],
        &["bench", "--transport", "pigeon"],
    ] {
        bad(2, args);
    }
    assert!(good(&["limits"]).contains("total"));
    assert!(good(&["--help"]).contains("Examples"));
}

#[test]
fn a_reader_that_goes_away_is_no_panic_and_costs_no_word() {
    let world = World::new();
    let peer = Peer::start(&world, "a", "quic", &[]);
    let (key, _) = world.key("me.pem");
    let args = ["ping", "--key", &key, "--to", &peer.at, "--json", "--count", "1000", "--interval", "0.001"];
    let mut ping = peerlane().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(ping.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&first).unwrap()["n"], 1);
    let output = ping.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(1), ""));
}

#[test]
fn an_interrupted_ping_says_what_it_has_seen() {
    let world = World::new();
    let peer = Peer::start(&world, "a", "quic", &[]);
    let (key, _) = world.key("me.pem");
    let args = ["ping", "--key", &key, "--to", &peer.at, "--count", "1000", "--interval", "600"];
    let mut ping = peerlane().args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(ping.stdout.take().unwrap()).lines();
    let before: Vec<String> = lines.by_ref().take(2).map(Result::unwrap).collect();
    assert!(Command::new("kill").args(["-INT", &ping.id().to_string()]).status().unwrap().success());
    let summary = lines.next().unwrap().unwrap();
    assert!(before[1].starts_with("1: ") && summary.starts_with("1 answered: "), "{before:?} {summary}");
    assert_eq!(ping.wait().unwrap().code(), Some(1));
}

#[test]
fn a_signal_right_after_the_ready_line_is_a_clean_end() {
    let world = World::new();
    for (n, signal) in ["-TERM", "-INT", "-TERM", "-INT", "-TERM", "-INT"].into_iter().enumerate() {
        let mut peer = Peer::start(&world, &format!("a{n}"), "auto", &[]);
        for signal in ["-HUP", signal] {
            assert!(Command::new("kill").args([signal, &peer.child.id().to_string()]).status().unwrap().success());
        }
        assert_eq!(peer.child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn an_option_that_would_do_nothing_is_refused() {
    let world = World::new();
    let (key, _) = world.key("a.pem");
    let dir = world.path("qlog");
    let said = bad(2, &["peer", "--key", &key, "--listen", "127.0.0.1:0", "--transport", "tcp", "--qlog", &dir]);
    assert!(said.contains("--qlog") && said.contains("--transport tcp"), "{said}");
}

/// The peers that a demo has started, by their process IDs.
#[cfg(target_os = "linux")]
fn children(of: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parent = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    all.filter(|pid| parent(pid) == Some(of)).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_demo_that_ends_badly_leaves_no_peer_behind() {
    let signal = |signal: &str, pid: u32| assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    let world = World::new();
    let source = world.file("source.txt", (0..20).map(|n| format!("line {n}")));
    for signals in [&["-INT", "-INT"][..], &["-KILL"]] {
        let mut demo = peerlane().args(["demo", "--skip-bench", "--from", &source]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        while !lines.next().unwrap().unwrap().contains("three peers run") {}
        let peers = children(demo.id());
        assert_eq!(peers.len(), 3);
        // Stopped, it can't end its peers in an orderly way.
        signal("-STOP", demo.id());
        signals.iter().for_each(|name| signal(name, demo.id()));
        signal("-CONT", demo.id());
        demo.wait().unwrap();
        let started = Instant::now();
        while peers.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            if started.elapsed() > Duration::from_secs(30) {
                peers.iter().for_each(|pid| drop(Command::new("kill").args(["-KILL", &pid.to_string()]).status()));
                panic!("peers live on after {signals:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_key_that_is_missing_or_the_peers_own_is_named_with_the_remedy() {
    let world = World::new();
    let peer = Peer::start(&world, "a", "quic", &[]);
    let said = bad(2, &["transact", "--key", &world.path("account.pem"), "--to", &peer.at, "put", "k", "v"]);
    assert!(said.contains("account.pem: no such key file") && said.contains("peerlane key new --out"), "{said}");
    for command in [&["transact"][..], &["status"], &["query"]] {
        let own = world.path("a.pem");
        let mut args = [command, &["--key", &own, "--to", &peer.at]].concat();
        match command[0] {
            "transact" => args.extend(["put", "k", "v"]),
            "query" => args.push("root"),
            _ => {}
        }
        let said = bad(2, &args);
        assert!(said.contains("key of its own") && said.contains("peerlane key new --out"), "{said}");
    }
    // An account's key is of no other kind than a peer's: any other one will do.
    let (key, _) = world.key("account.pem");
    good(&["transact", "--key", &key, "--to", &peer.at, "put", "k", "v"]);
}

#[test]
fn a_peer_that_does_not_answer_is_named_with_what_was_tried() {
    let world = World::new();
    let (key, id) = (world.key("me.pem").0, world.key("other.pem").1);
    // Somebody has the port, and says nothing. On a busy machine the handshakes' own limits may be met first.
    let (udp, tcp) = loop {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = std::net::UdpSocket::bind(tcp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let to = format!("{id}@{}", tcp.local_addr().unwrap());
    let said = bad(1, &["status", "--key", &key, "--to", &to, "--timeout", "1"]);
    for part in [to.as_str(), "quic: ", "tcp: ", "took longer than", "firewall"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    drop(udp);
}

#[test]
fn the_limits_name_all_that_a_process_holds_and_add_up() {
    let table: Vec<Value> = good(&["limits", "--json", "--peers", "7"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bytes = |row: &Value| row["worst_case_bytes"].as_u64().unwrap();
    let mut totals = Vec::new();
    for per in ["connection", "peer", "node"] {
        let (total, rows): (Vec<_>, Vec<_>) =
            table.iter().filter(|row| row["per"] == per).partition(|row| row["name"] == format!("total per {per}"));
        assert_eq!(rows.iter().map(|row| bytes(row)).sum::<u64>(), bytes(total[0]), "{per}");
        totals.push(bytes(total[0]));
    }
    let all = table.last().unwrap();
    assert_eq!((&all["peers"], bytes(all)), (&Value::from(7), totals[2] + 7 * (totals[0] + totals[1])));
    for (per, name) in [
        ("connection", "query: send budget"),
        ("peer", "requests waiting"),
        ("peer", "data: waiting for a worker"),
        ("node", "query: waiting for a worker"),
        ("node", "belief: with workers"),
        ("node", "pen"),
        ("node", "seen set"),
        ("node", "pages of the store"),
    ] {
        let row = table.iter().find(|row| row["per"] == per && row["name"] == name).unwrap_or_else(|| panic!("no {name} per {per}"));
        assert!(bytes(row) > 0, "{name}");
    }
    // For people as well.
    let text = good(&["limits"]);
    assert!(text.contains("pen") && text.contains("process"), "{text}");
}
