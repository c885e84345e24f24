//! What a route's features cost a message that uses none: the instructions of a plain publish-subscribe message through
//! door, hub and embedded back end, counted by callgrind, with no other route configured and with a thousand that use
//! every feature. Both ends of the connections are in the process that is measured, and one thread does all of it; what the
//! kernel does for their loopback is not counted. Fails when the thousand routes cost more than 2 %.
//!
//! Needs `valgrind`. Run it with `cargo bench -p linkspan-integration-tests --bench route_cost`.

#![allow(clippy::print_stdout, reason = "what was counted is what it has to say")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use linkspan::config::Config;
use linkspan::doors::listener::Listener;
use linkspan::doors::mqtt::{Limits, MqttDoor};
use linkspan::doors::{self, Stop, Stopper};
use linkspan::hub::{Hub, Memory, SpoolStore, SpoolStores};
use linkspan::ledger::{EmbeddedLedger, Watched};
use linkspan_contract::{Backend, Clock, SystemClock};
use linkspan_embedded::{Embedded, EmbeddedOptions};
use linkspan_integration_tests::mqtt_wire::{self, MqttWire};
use linkspan_integration_tests::process::Folder;
use tokio::runtime::{Builder, Runtime};

/// Messages that are measured.
const MESSAGES: usize = 100_000;

/// Messages that are under way at a time.
const BATCH: usize = 100;

/// Addresses that the messages go to, one after the other.
const ADDRESSES: usize = 50;

/// The routes that messages do not use.
const OTHERS: usize = 1_000;

/// What they may cost: hundredths.
const BOUND: f64 = 2.0;

/// By this the process that is measured knows how many other routes there are.
const MEASURED: &str = "LINKSPAN_ROUTE_COST_OTHERS";

fn main() -> ExitCode {
    let done = match std::env::var(MEASURED) {
        Ok(others) => others.parse().context("how many routes").and_then(run),
        Err(_) => compare(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Measures both, each in a process of its own.
fn compare() -> Result<()> {
    let (alone, beside) = (instructions(0)?, instructions(OTHERS)?);
    let more = (beside / alone - 1.0) * 100.0;
    println!("instructions a message, {MESSAGES} messages at QoS 0, one subscriber");
    println!("  no other route          {alone:9.1}");
    println!("  {OTHERS} other routes      {beside:9.1}");
    println!("  difference              {more:+8.2} %   ({BOUND} % allowed)");
    ensure!(more <= BOUND, "routes that a message does not use cost it more than {BOUND} %");
    Ok(())
}

/// Instructions of a message beside so many other routes.
fn instructions(others: usize) -> Result<f64> {
    let itself = std::env::current_exe()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=route_cost::measured")
        .arg(itself)
        .env(MEASURED, others.to_string())
        .output()
        .context("valgrind does not run; is it installed?")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the measured process failed:\n{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let Some((_, collected)) = collected else { bail!("callgrind does not say what it counted:\n{said}") };
    let collected: f64 = collected.trim().parse().context("what callgrind counted")?;
    ensure!(collected > 0.0, "callgrind did not find `route_cost::measured`, and counted nothing");
    Ok(collected / MESSAGES as f64)
}

/// The process that is measured.
fn run(others: usize) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let folder = Folder::new();
    let (_stopper, mut publisher, mut subscriber) = runtime.block_on(async {
        let (address, stopper) = serve(&folder, &configuration(others)).await?;
        let mut subscriber = MqttWire::connect(address, mqtt_wire::V5, "subscriber").await;
        subscriber.subscribe(mqtt_wire::V5, "plain/#").await;
        let publisher = MqttWire::connect(address, mqtt_wire::V5, "publisher").await;
        Ok::<_, anyhow::Error>((stopper, publisher, subscriber))
    })?;
    let batch: Vec<u8> = (0..BATCH).flat_map(message).collect();
    // Whatever is made at first use is there.
    pass(&runtime, &mut publisher, &mut subscriber, &batch);
    measured(&runtime, &mut publisher, &mut subscriber, &batch);
    Ok(())
}

/// Door, hub and back end of such a configuration.
async fn serve(folder: &Folder, toml: &str) -> Result<(SocketAddr, Stopper)> {
    let config = Config::parse(Some(("bench.toml", toml)), [])?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let embedded = Embedded::open("local", EmbeddedOptions::default(), Arc::clone(&clock));
    let backends = HashMap::from([("local".into(), embedded as Arc<dyn Backend>)]);
    let ledger = EmbeddedLedger::open(&folder.path().join("ledger.redb"), "bench", Arc::clone(&clock))?;
    let ledger = Arc::new(Watched::new(Arc::new(ledger), "bench"));
    ledger.look().await;
    let memory = Memory::new(ledger, "bench");
    let hub = Hub::open(backends, config.routes()?, 1000, clock, memory, Arc::new(NoSpools)).await?;
    let retained = hub.retained("/").context("the vhost")?;
    let (users, alarms) = (Arc::new(config.accounts()), Arc::default());
    let door = MqttDoor::new(hub, retained, users, alarms, "/".into(), Limits::default());
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.address()?;
    let (stopper, stop) = Stop::new();
    tokio::spawn(doors::serve(listener, Arc::new(door), 10, stop));
    Ok((address, stopper))
}

/// No route here has a spool.
struct NoSpools;

impl SpoolStores for NoSpools {
    fn open(&self, backend: &str) -> Result<Arc<dyn SpoolStore>, String> {
        Err(format!("back end {backend} has none"))
    }

    fn left(&self) -> Vec<Arc<str>> {
        Vec::new()
    }
}

/// All that is counted.
#[inline(never)]
fn measured(runtime: &Runtime, publisher: &mut MqttWire, subscriber: &mut MqttWire, batch: &[u8]) {
    for _ in 0..MESSAGES / BATCH {
        pass(runtime, publisher, subscriber, batch);
    }
}

fn pass(runtime: &Runtime, publisher: &mut MqttWire, subscriber: &mut MqttWire, batch: &[u8]) {
    runtime.block_on(async {
        publisher.send(batch).await;
        subscriber.wire.read(batch.len()).await;
    });
}

/// A message, as it comes in and goes out: both are MQTT 5, at QoS 0, without properties.
fn message(number: usize) -> Vec<u8> {
    mqtt_wire::publish(0, &format!("plain/{:02}", number % ADDRESSES), b"\0sixteen bytes it is")
}

/// A server with so many routes that messages do not use.
fn configuration(others: usize) -> String {
    let mut toml = String::from("[[route]]\nmatch = \"plain/#\"\npattern = \"publish-subscribe\"\n");
    for n in 0..others {
        let (pattern, own) = match n % 4 {
            0 => ("competing-consumers", "ordering-key = \"property:customer\"\n"),
            1 => ("priority-queue", "levels = 10\norder = \"weighted\"\n"),
            2 => ("exclusive-consumer", "others = \"standby\"\nholder-timeout = \"10s\"\n"),
            _ => ("competing-consumers", "delay = \"0s\"\n"),
        };
        let _ = write!(
            toml,
            "[[route]]\nmatch = \"work/{n}/+\"\npattern = \"{pattern}\"\nqueue = \"work-{n}\"\n{own}\
             ack-timeout = \"30s\"\nmax-deliveries = 5\nretry = {{ delay = \"1s\" }}\nexpiry = \"1h\"\n\
             max-length = 100000\noverflow = \"dead-letter\"\ndead-letter = \"dead/{n}\"\n\
             deduplicate = {{ by = \"message-id\", window = \"10m\" }}\n"
        );
    }
    toml
}
