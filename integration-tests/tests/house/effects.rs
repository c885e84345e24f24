//! Who touches the world: sockets, tasks, threads and clocks.

use crate::source::Source;

/// Files whose name says that they do.
const NAMES: [&str; 4] = ["connection", "coordinator", "listener", "store"];

/// Files that do without saying so: the machine's clock, assembly, the accept loop, the thread that verifies a password,
/// the side of a connection that any task may write to, the mover, which is a client of its own, and what waits for back
/// ends and the ledger when routes are put in force: those and their queues.
const FILES: [&str; 13] = [
    "adapters/contract/src/clock.rs",
    "src/broker.rs",
    "src/doors/login.rs",
    "src/doors/mod.rs",
    "src/doors/outbound.rs",
    "src/hub/copies.rs",
    "src/hub/estate.rs",
    "src/hub/own_lane.rs",
    "src/hub/recall.rs",
    "src/hub/reroute.rs",
    "src/hub/work_queue.rs",
    "src/main.rs",
    "src/mover.rs",
];

/// What touching the world looks like.
const EFFECTS: [&str; 18] = [
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::thread::Builder",
    "std::thread::sleep",
    "std::thread::spawn",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "tokio::fs",
    "tokio::net",
    "tokio::process",
    "tokio::signal",
    "tokio::spawn",
    "tokio::task::JoinSet",
    "tokio::task::spawn",
    "tokio::task::spawn_blocking",
    "tokio::task::spawn_local",
    "tokio::time",
];

/// What of these is harmless: types and arithmetic.
const HARMLESS: [&str; 2] = ["tokio::time::Duration", "tokio::time::error"];

/// Where a file has an effect that its name does not announce.
pub fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = vec![];
    for s in sources {
        if NAMES.contains(&s.stem()) || FILES.contains(&s.path.as_str()) {
            continue;
        }
        for p in s.paths() {
            let within = |list: &[&str]| list.iter().any(|e| p.within(e));
            // naming the type is not yet asking it for the time
            let only_named = p.to_string() == "tokio::time::Instant";
            if within(&EFFECTS) && !within(&HARMLESS) && !only_named {
                found.push(format!(
                    "{}:{}: `{p}` belongs into a {} file; take time and bytes as arguments instead",
                    s.path,
                    p.line,
                    NAMES.join(", ")
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> bool {
        !violations(&[Source::new(path, text)]).is_empty()
    }

    #[test]
    fn a_pure_file_has_no_socket_no_task_and_no_clock() {
        let path = "src/doors/mqtt/session.rs";
        assert!(broken(path, "use tokio::net::TcpStream;"));
        assert!(broken(path, "fn f() { tokio::spawn(async {}); }"));
        assert!(broken(path, "use tokio::task; fn f() { task::spawn_blocking(|| ()); }"));
        assert!(broken(path, "use std::time::Instant; fn f() { Instant::now(); }"));
        assert!(broken(path, "fn f() { std::time::SystemTime::now(); }"));
        assert!(broken(
            path,
            "use tokio::time::{self, Duration}; async fn f(d: Duration) { time::sleep(d).await }"
        ));
        assert!(broken("adapters/queues/src/ready.rs", "use std::thread; fn f() { thread::spawn(|| ()); }"));
    }

    #[test]
    fn time_as_an_argument_is_welcome() {
        let text = "use std::time::{Duration, Instant}; fn f(now: Instant) -> Instant { now + Duration::from_secs(1) }";
        assert!(!broken("src/doors/mqtt/session.rs", text));
        assert!(!broken("src/doors/mqtt/session.rs", "use tokio::time::Instant; fn f(now: Instant) {}"));
    }

    #[test]
    fn what_says_so_in_its_name_may() {
        for path in
            ["src/doors/mqtt/connection.rs", "src/doors/listener.rs", "src/broker.rs", "src/doors/mod.rs"]
        {
            assert!(!broken(path, "use tokio::net::TcpStream; fn f() { tokio::spawn(async {}); }"), "{path}");
        }
    }
}
