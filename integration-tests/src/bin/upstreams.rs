//! Runs a command with a RabbitMQ, a Mosquitto and a PostgreSQL in its environment, for all the processes of a test run.
//!
//!     cargo run --bin upstreams -- cargo nextest run
//!
//! Brokers that the environment has already are used as they are.

#![allow(clippy::panic, reason = "without a broker there is nothing to run")]

use std::process::{Command, ExitCode};

use linkspan_integration_tests::upstreams::{Mosquitto, Postgres, RabbitMq, reap};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: upstreams COMMAND [ARGUMENT]...");
        return ExitCode::from(2);
    };
    reap();
    let (rabbitmq, mosquitto, postgres) =
        tokio::join!(RabbitMq::given_or_own(), Mosquitto::given_or_own(), Postgres::given_or_own());
    let mut command = Command::new(&program);
    command.args(arguments);
    command.envs(rabbitmq.variables()).envs(mosquitto.variables()).envs(postgres.variables());
    match command.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1)),
        Err(error) => panic!("{}: {error}", program.display()),
    }
}
