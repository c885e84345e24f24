//! The key `ledger`: what the server does with it, and says of it.

use std::time::Duration;

use linkspan_integration_tests::http::get;
use linkspan_integration_tests::process::{Folder, Process, command, run};
use linkspan_integration_tests::upstreams::Postgres;
use linkspan_integration_tests::{Cable, soon};

use crate::postgres::made_at;

/// What a `linkspan` with that file that refuses to start says.
fn refused(folder: &Folder, toml: &str) -> String {
    let file = folder.write("linkspan.toml", toml);
    let (status, said) = Process::start(folder.path(), &["--config", &file]).exit();
    assert_eq!(status.code(), Some(2), "{said}");
    said
}

async fn ready(process: &mut Process, status: u16) -> serde_json::Value {
    let http = process.door("http");
    let reached = async {
        loop {
            let ready = get(http, "/readyz", &[]).await;
            if ready.status == status {
                return serde_json::from_str(&ready.body).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(&format!("/readyz answers {status}"), reached).await
}

#[tokio::test]
async fn without_the_key_it_is_a_file_in_linkspan_data_which_a_second_process_cannot_have() {
    let folder = Folder::new();
    let mut first = Process::start(folder.path(), &[]);
    let state = ready(&mut first, 200).await;
    assert_eq!(state["ledger"]["state"], "up", "{state}");
    assert!(folder.path().join("linkspan-data/ledger.redb").is_file());
    let figures = get(first.door("http"), "/metrics", &[]).await.body;
    assert!(figures.contains("linkspan_ledger_up 1"), "{figures}");
    assert!(figures.contains("linkspan_ledger_writes_due 0"), "{figures}");

    let by = format!("in use by process {}", first.id());
    let said = refused(&folder, "");
    let expected = format!("linkspan.toml: ledger: linkspan-data/ledger.redb: {by}");
    assert!(said.lines().any(|line| line.starts_with(&expected)), "`{expected}` is not in:\n{said}");
    let (status, said) = Process::start(folder.path(), &[]).exit();
    assert!(
        status.code() == Some(2)
            && said.contains(&format!("default: ledger: linkspan-data/ledger.redb: {by}")),
        "{said}"
    );
    let checked = run(folder.path(), &["check", "--connect", "linkspan.toml"]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && text.contains(&by), "a running server is no fault: {text}");

    first.signal("KILL");
    first.exit();
    let mut again = Process::start(folder.path(), &[]);
    ready(&mut again, 200).await;
}

#[test]
fn a_file_that_cannot_be_it_is_told_with_file_line_and_key_and_what_to_do() {
    let folder = Folder::new();
    let other = folder.write("other", &"no ledger\n".repeat(1000));
    for (ledger, told, advice) in [
        (other.clone(), "other: no ledger of Linkspan's, or damaged", "name another file"),
        (format!("{other}/ledger.redb"), "other: the folder cannot be made: ", "or make the folder"),
        (
            "/proc/nowhere/ledger.redb".into(),
            "/proc/nowhere: the folder cannot be made: ",
            "or make the folder",
        ),
        (".".into(), ".: ", "name a file that this user may read and write"),
    ] {
        let said = refused(&folder, &format!("# x\nledger = \"{ledger}\"\n"));
        let expected = format!("linkspan.toml:2: ledger: {told}");
        let line = said.lines().find(|line| line.starts_with(&expected));
        let line = line.unwrap_or_else(|| panic!("`{expected}` is not in:\n{said}"));
        assert!(line.contains(advice), "{line}");
    }
    let checked = run(folder.path(), &["check", "--connect", "linkspan.toml"]);
    assert_eq!(checked.status.code(), Some(2));
    assert_eq!(
        std::fs::read_to_string(folder.path().join("other")).unwrap().len(),
        10_000,
        "it is left alone"
    );
    let made = folder.write("made.toml", "ledger = \"a/b/c.redb\"\n");
    let checked = run(folder.path(), &["check", "--connect", &made]);
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(text.contains("ledger: a/b/c.redb is made at the start"), "{text}");
    assert!(!folder.path().join("a").exists(), "a look makes nothing");
}

#[test]
fn a_url_that_cannot_be_it_is_told_by_check_without_its_password() {
    let folder = Folder::new();
    for (url, told) in [
        ("postgres://u:secret@h/d?sslmod=require", "unknown option `sslmod`"),
        ("postgres://u:secret@h:99999/d", "has the port `99999`"),
        ("mysql://u:secret@h/d", "has the scheme `mysql`"),
    ] {
        let file = folder.write("linkspan.toml", &format!("ledger = \"{url}\"\n"));
        let checked = run(folder.path(), &["check", &file]);
        let said = String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap();
        assert_eq!(checked.status.code(), Some(2), "{said}");
        assert!(
            said.contains("linkspan.toml:1: ledger: ") && said.contains(told),
            "`{told}` is not in {said}"
        );
        assert!(!said.contains("secret"), "{said}");
        assert_eq!(refused(&folder, &format!("ledger = \"{url}\"\n")).lines().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_is_away_keeps_nobody_from_starting_and_is_told_of_until_it_is_there() {
    let postgres = Postgres::shared().await;
    let database = made_at(postgres).await;
    let cable = Cable::to(postgres.address()).await;
    cable.cut().await;
    let url = postgres.url_of(&database, cable.address()).replace("linkspan@", "linkspan:secret@");
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", "");
    let mut command = command(folder.path());
    command.args(["--config", &file]).env("LINKSPAN_LEDGER", &url);
    let mut process = Process::spawn(command);

    let state = ready(&mut process, 503).await;
    assert_eq!(state["ledger"]["state"], "away", "{state}");
    assert_eq!(state["backends"]["local"]["state"], "up", "{state}");
    let line = process.line_with(&["WARN", "the ledger cannot be used"]);
    assert!(line.contains(&cable.address().to_string()), "{line}");
    let http = process.door("http");
    assert!(get(http, "/metrics", &[]).await.body.contains("linkspan_ledger_up 0"));
    let connect = || {
        let file = folder.write("shared.toml", &format!("ledger = \"{url}\"\n"));
        let checked = run(folder.path(), &["check", "--connect", &file]);
        let said = String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap();
        (checked.status.code(), said)
    };
    let (code, said) = connect();
    assert!(code == Some(2) && said.contains("shared.toml:1: ledger: the ledger is away: "), "{said}");

    cable.heal().await;
    let state = ready(&mut process, 200).await;
    assert_eq!(state["ledger"]["state"], "up", "{state}");
    process.line_with(&["INFO", "the ledger is reached"]);
    assert!(get(http, "/metrics", &[]).await.body.contains("linkspan_ledger_up 1"));
    let (code, said) = connect();
    assert!(
        code == Some(0) && said.contains("ledger: PostgreSQL ") && said.contains("tables of format 1"),
        "{said}"
    );
    cable.cut().await;
    ready(&mut process, 503).await;
    let all = process.listen(Duration::from_millis(10)).join("\n");
    assert!(!all.contains("secret") && !said.contains("secret"), "{all}\n{said}");
    assert!(!folder.path().join("linkspan-data/ledger.redb").exists(), "there is one ledger");
}

#[tokio::test]
async fn a_reload_that_names_another_one_is_refused() {
    let folder = Folder::new();
    let file = folder.write("linkspan.toml", "ledger = \"one.redb\"\n");
    let mut process = Process::start(folder.path(), &["--config", &file]);
    process.door("http");
    folder.write("linkspan.toml", "ledger = \"two.redb\"\n");
    process.signal("HUP");
    let line = process.line_with(&["not reloaded"]);
    assert!(line.contains("linkspan.toml:1: ledger: was changed, and that needs a restart"), "{line}");
    assert!(!folder.path().join("two.redb").exists());
}
