//! Who starts a broker and how that ends: the program that starts the shared ones for a whole run.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use linkspan_integration_tests::RabbitMq;

/// The program of the harness that runs a command with brokers.
fn upstreams() -> Command {
    Command::new(env!("CARGO_BIN_EXE_upstreams"))
}

#[tokio::test]
async fn without_any_broker_it_fails_and_says_how_to_get_one() {
    let mut command = upstreams();
    command.env_remove("LINKSPAN_TEST_RABBITMQ").env_remove("LINKSPAN_TEST_MOSQUITTO");
    command.env("LINKSPAN_TEST_BROKERS", "docker").env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let output = command.arg("true").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    for words in ["Docker does not answer", "docker/stand-ins/build", "apt-get install", "LINKSPAN_TEST_"] {
        assert!(said.contains(words), "`{words}` is not in:\n{said}");
    }
}

#[tokio::test]
async fn the_commands_end_is_its_end_and_the_brokers() {
    let rabbitmq = RabbitMq::shared().await;
    let mut command = upstreams();
    command.envs(rabbitmq.variables()).env_remove("LINKSPAN_TEST_MOSQUITTO");
    let output = command.args(["sh", "-c", "echo $LINKSPAN_TEST_MOSQUITTO; exit 7"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    let url = String::from_utf8(output.stdout).unwrap();
    let address = url.trim().strip_prefix("mqtt://").expect("a URL of Mosquitto");
    assert!(TcpStream::connect(address).is_err(), "nobody listens at {address} any more");
}

#[tokio::test]
async fn when_it_is_killed_its_brokers_end() {
    let rabbitmq = RabbitMq::shared().await;
    let mut command = upstreams();
    command.envs(rabbitmq.variables()).env_remove("LINKSPAN_TEST_MOSQUITTO");
    // the command lives until its input ends, which is when this test ends at the latest
    command.args(["sh", "-c", "echo $LINKSPAN_TEST_MOSQUITTO; cat"]);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let address = url.trim().strip_prefix("mqtt://").expect("a URL of Mosquitto");
    TcpStream::connect(address).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < until, "Mosquitto at {address} outlives who started it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
