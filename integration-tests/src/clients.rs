//! Third-party clients that tests run as programs: what a user has, unmodified.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

const INSTALL: &str = "run integration-tests/clients/install";

/// One of Mosquitto's command-line clients: `mosquitto_pub`, `mosquitto_sub` or `mosquitto_rr`.
///
/// # Errors
/// It is not in `PATH`; the error says how to install it.
pub fn mosquitto(name: &str) -> Result<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    match env::split_paths(&path).map(|p| p.join(name)).find(|p| p.is_file()) {
        Some(program) => Ok(command(&program)),
        None => bail!("{name} is not in PATH: {INSTALL}"),
    }
}

/// Python with `paho-mqtt` and `pika`, running `script`.
///
/// # Errors
/// They are not installed; the error says how to.
pub fn python(script: &str) -> Result<Command> {
    let mut c = command(&installed("python/bin/python")?);
    c.args(["-u", "-c", script]);
    Ok(c)
}

/// Node with `mqtt` and `amqplib`, running `script` (CommonJS: `require("mqtt")`).
///
/// # Errors
/// They are not installed; the error says how to.
pub fn node(script: &str) -> Result<Command> {
    let mut c = command(Path::new("node"));
    c.env("NODE_PATH", installed("node/node_modules")?).args(["-e", script]);
    Ok(c)
}

/// A script of `integration-tests/clients`: Python's when its name ends in `.py`, Node's otherwise.
///
/// # Errors
/// The clients are not installed; the error says how to.
pub fn script(name: &str) -> Result<Command> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name);
    let mut c = if name.ends_with(".py") {
        command(&installed("python/bin/python")?)
    } else {
        let mut node = command(Path::new("node"));
        node.env("NODE_PATH", installed("node/node_modules")?);
        node
    };
    c.arg(file);
    Ok(c)
}

/// Ends with the test that started it, whatever the test's end.
fn command(program: &Path) -> Command {
    let mut c = Command::new(program);
    c.kill_on_drop(true);
    c
}

/// What `clients/install` put into the target directory, above which every test runs.
fn installed(part: &str) -> Result<PathBuf> {
    let test = env::current_exe().context("where does this test run?")?;
    match test.ancestors().map(|a| a.join("clients").join(part)).find(|p| p.exists()) {
        Some(found) => Ok(found),
        None => bail!("no clients/{part} in the target directory: {INSTALL}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_client_says_how_to_get_it() {
        for missing in [mosquitto("mosquitto_none").err(), installed("none").err()] {
            let text = missing.unwrap().to_string();
            assert!(text.contains("none") && text.contains(INSTALL), "{text}");
        }
    }

    #[tokio::test]
    async fn the_installed_clients_start() {
        let python = python("import paho.mqtt.client, pika").unwrap().status().await.unwrap();
        assert!(python.success(), "python: {python}: {INSTALL}");
        let node = node("require('mqtt'); require('amqplib')").unwrap().status().await.unwrap();
        assert!(node.success(), "node: {node}: {INSTALL}");
    }
}
