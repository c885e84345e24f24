//! `linkspan queues`, `routes` and `dead-letters` against a running server.

use std::process::{Command, Stdio};

use lapin::options::{BasicGetOptions, BasicNackOptions};
use linkspan::identity::hash_password;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::process::{Folder, Process, command};
use linkspan_integration_tests::soon;
use serde_json::Value;

const ROUTES: &str = "[[route]]\nmatch = \"images/resize\"\npattern = \"competing-consumers\"\nqueue = \"resize\"\n\
    dead-letter = { address = \"images/failed\", queue = \"images-failed\" }\n";

/// A running server, and commands that are told where it is.
struct Running {
    folder: Folder,
    server: Process,
    url: String,
}

impl Running {
    fn start(toml: &str) -> Self {
        let folder = Folder::new();
        let file = folder.write("linkspan.toml", toml);
        let mut server = Process::start(folder.path(), &["--config", &file]);
        let url = format!("http://{}", server.door("http"));
        Self { folder, server, url }
    }

    /// Output, complaint and exit code.
    async fn said(&self, arguments: &[&str]) -> (String, String, Option<i32>) {
        let mut command = command(self.folder.path());
        command.args(arguments).args(["--url", &self.url]);
        said(command).await
    }

    async fn ok(&self, arguments: &[&str]) -> String {
        let (out, err, code) = self.said(arguments).await;
        assert_eq!((err.as_str(), code), ("", Some(0)), "{arguments:?}: {out}");
        out
    }
}

async fn said(mut command: Command) -> (String, String, Option<i32>) {
    command.stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output().expect("linkspan runs"));
    let output = soon("the command ends", running).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

async fn dead_letter(amqp: &Amqp, payload: &str) {
    amqp.publish("amq.topic", "images.resize", payload).await;
    let message = amqp.channel.basic_get("resize".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    message.delivery.nack(BasicNackOptions { requeue: false, multiple: false }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_pauses_and_purges_queues() {
    let mut running = Running::start(ROUTES);
    let amqp = Amqp::confirming(running.server.door("amqp")).await;
    for job in ["one", "two"] {
        amqp.publish("amq.topic", "images.resize", job).await;
    }
    let list = running.ok(&["queues", "list"]).await;
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..4], ["QUEUE", "READY", "UNSETTLED", "CONSUMERS"], "{list}");
    let resize = lines.iter().find(|line| line[0] == "resize").unwrap();
    let expected =
        ["resize", "2", "0", "0", "open", "competing-consumers", "images/resize", "local", "images/failed"];
    assert_eq!(resize[..], expected, "{list}");
    let found: Value = serde_json::from_str(&running.ok(&["queues", "list", "--json"]).await).unwrap();
    assert!(found.as_array().unwrap().iter().any(|it| it["name"] == "resize" && it["ready"] == 2), "{found}");
    let show = running.ok(&["queues", "show", "resize"]).await;
    assert!(show.contains("kept in       images-failed\n"), "{show}");
    assert!(
        running.ok(&["routes"]).await.contains("images/resize  competing-consumers  on local, queue resize")
    );

    let paused = running.ok(&["queues", "pause", "resize"]).await;
    assert_eq!(paused, "resize is paused: nothing is given out until `linkspan queues resume resize`.\n");
    assert!(amqp.get("resize").await.is_none());
    assert!(running.ok(&["queues", "show", "resize"]).await.contains("paused"));
    assert_eq!(running.ok(&["queues", "resume", "resize"]).await, "resize goes on.\n");
    assert_eq!(amqp.get("resize").await.as_deref(), Some("one"));
    assert_eq!(running.ok(&["queues", "purge", "resize"]).await, "1 message of resize removed.\n");

    let (out, err, code) = running.said(&["queues", "show", "resise"]).await;
    assert_eq!((out.as_str(), code), ("", Some(1)));
    assert_eq!(err, "no queue 'resise' in vhost '/'; did you mean 'resize'?\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_looks_at_dead_letters_and_moves_them_back() {
    let mut running = Running::start(ROUTES);
    let amqp = Amqp::confirming(running.server.door("amqp")).await;
    for job in ["cat", "dog"] {
        dead_letter(&amqp, job).await;
    }
    let both_are_there = async {
        loop {
            let list = running.ok(&["dead-letters", "list", "resize"]).await;
            if list.lines().count() == 3 {
                return list;
            }
        }
    };
    let list = soon("both are there", both_are_there).await;
    assert!(list.starts_with("N  REASON    COUNT  TIME"), "{list}");
    assert!(list.contains("resize (images/resize)"), "{list}");
    let show = running.ok(&["dead-letters", "show", "resize", "2"]).await;
    assert!(show.contains("linkspan-dead-first-queue: resize\n") && show.ends_with("\ndog\n"), "{show}");
    let replayed = running.ok(&["dead-letters", "replay", "resize", "--limit", "1"]).await;
    assert_eq!(replayed, "1 dead letter replayed.\n");
    assert_eq!(amqp.get("resize").await.as_deref(), Some("cat"));
    let none = running.ok(&["dead-letters", "purge", "resize", "--reason", "expired"]).await;
    assert_eq!(none, "0 dead letters of resize removed.\n");
    let elsewhere = ["dead-letters", "replay", "resize", "--to", "images/again"];
    let (_, err, code) = running.said(&elsewhere).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("nobody takes what is published to 'images/again'"), "{err}");
    let again = amqp.bound("amq.topic", "images.again").await;
    assert_eq!(running.ok(&elsewhere).await, "1 dead letter replayed.\n");
    assert_eq!(amqp.get(&again).await.as_deref(), Some("dog"));
    assert_eq!(running.ok(&["dead-letters", "purge", "resize"]).await, "0 dead letters of resize removed.\n");
    let (_, err, code) = running.said(&["dead-letters", "list", "images-failed"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("keeps dead letters of 'resize': ask for those"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_and_who_finds_no_server_is_told_what_to_do() {
    let hash = hash_password(b"s3cret").unwrap();
    let running = Running::start(&format!("[users.ann]\npassword = \"{hash}\"\n{ROUTES}"));
    let (_, err, code) = running.said(&["queues", "list"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("give --user NAME, and the password in LINKSPAN_PASSWORD"), "{err}");
    for (password, expected) in [("s3cret", Some(0)), ("wrong", Some(1))] {
        let mut command = command(running.folder.path());
        command.args(["queues", "list", "--user", "ann", "--url", &running.url]);
        let (_, err, code) = said({
            command.env("LINKSPAN_PASSWORD", password);
            command
        })
        .await;
        assert_eq!(code, expected, "{err}");
        assert_eq!(err.is_empty(), expected == Some(0), "{err}");
    }
    let Running { folder, server, url } = running;
    server.kill();
    let mut gone = command(folder.path());
    gone.args(["queues", "list", "--url", &url]);
    let (_, err, code) = said(gone).await;
    assert_eq!(code, Some(3));
    assert!(err.starts_with(&format!("no server answers at {url}: ")), "{err}");
    assert!(err.contains("start it with `linkspan --config FILE`"), "{err}");
    let mut wrong = command(folder.path());
    wrong.args(["queues", "list", "--url", "https://127.0.0.1"]);
    assert_eq!(said(wrong).await.2, Some(2));
}
