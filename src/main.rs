//! The `linkspan` binary: arguments, configuration, logging, exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use linkspan::broker::{self, StartError};
use linkspan::cli::operate::{self, OperateError};
use linkspan::cli::store::StoreCommand;
use linkspan::cli::{self, Cli, CliError, Command};
use linkspan::config::{Config, ConfigErrors, Log};
use metrics_exporter_prometheus::PrometheusBuilder;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The configuration or the arguments are wrong: trying again is useless.
const WRONG_USE: u8 = 2;
/// `linkspan store verify` found damage.
const DAMAGED: u8 = 1;

fn main() -> ExitCode {
    match answer(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            let mine = error.is::<ConfigErrors>() || error.is::<CliError>() || error.is::<StartError>();
            // Standard error may be closed; there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "{error:#}");
            if let Some(error) = error.downcast_ref::<OperateError>() {
                return ExitCode::from(error.exit_code());
            }
            ExitCode::from(if mine { WRONG_USE } else { 1 })
        }
    }
}

fn answer(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Some(Command::Check { connect, file }) => {
            let (config, text) = cli::check(file, cli::environment())?;
            let verified = broker::verify(&config);
            if verified.is_ok() {
                say(&format!("{} is correct.\n\n", file.display()))?;
            }
            say(&format!("{text}\n{}", broker::described(&config)))?;
            verified?;
            if *connect {
                let (found, usable) = runtime()?.block_on(broker::connect(&config));
                say(&found)?;
                usable?;
            }
        }
        Some(Command::HashPassword) => say(&format!("{}\n", cli::ask_and_hash()?))?,
        Some(Command::Store(command)) => {
            let answer = cli::store::run(command, broker::queue_names, broker::delete_queue)
                .map_err(CliError::from)?;
            say(&answer.text)?;
            let found_damage = !answer.sound && matches!(command, StoreCommand::Verify(_));
            return Ok(if found_damage { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS });
        }
        Some(Command::Queues(command)) => {
            say(&runtime()?.block_on(operate::queues(command, cli::environment()))?)?;
        }
        Some(Command::Routes(at)) => say(&runtime()?.block_on(operate::routes(at, cli::environment()))?)?,
        Some(Command::DeadLetters(command)) => {
            say(&runtime()?.block_on(operate::dead_letters(command, cli::environment()))?)?;
        }
        None => {
            let read = || Config::load(cli.config.as_deref(), cli::environment());
            let config = read()?;
            start_logging(&config.log);
            let figures = PrometheusBuilder::new().install_recorder().context("metrics")?;
            runtime()?.block_on(broker::run(config, read, figures))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// To standard error, as `[log]` or LINKSPAN_LOG says.
fn start_logging(log: &Log) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(log.level.targets()).init();
}

fn say(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("standard output")
}
