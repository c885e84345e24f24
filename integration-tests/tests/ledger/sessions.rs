//! MQTT sessions that are kept, and a ledger that is away at the start, or is gone for good.

use std::time::Duration;

use linkspan_integration_tests::http::{get, post};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process, command};
use linkspan_integration_tests::upstreams::Postgres;
use linkspan_integration_tests::{soon, within};
use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnectReturnCode};
use rumqttc::v5::{ConnectionError, MqttOptions};

use crate::postgres::made_at;

/// How long what must not come is waited for.
const LULL: Duration = Duration::from_millis(500);

fn kept(process: &mut Process) -> MqttOptions {
    let mut options = Mqtt5::options(process.door("mqtt"), "device");
    options.set_clean_start(false).set_session_expiry_interval(Some(3600));
    options
}

/// Why a client was not let in.
async fn refusal(options: MqttOptions) -> ConnectReturnCode {
    match Mqtt5::connect_with(options).await {
        Err(ConnectionError::ConnectionRefused(code)) => code,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
}

/// The session of a client that has subscribed to `t`, and has gone.
async fn leave_session(process: &mut Process) {
    let mut client = Mqtt5::connect_with(kept(process)).await.unwrap();
    client.subscribe("t").await;
    client.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_publishes_before_the_sessions_of_a_postgresql_that_comes_late_are_there() {
    let postgres = Postgres::own().await;
    let database = made_at(&postgres).await;
    let folder = Folder::new();
    let start = || {
        let url = postgres.url_of(&database, postgres.address());
        let mut command = command(folder.path());
        command.env("LINKSPAN_LEDGER", url).env("LINKSPAN_INSTANCE", "one");
        Process::spawn(command)
    };
    let mut process = start();
    leave_session(&mut process).await;
    let mut others = Mqtt5::connect(process.door("mqtt"), "publisher").await;
    others.publish("t", "before").await;
    process.kill();
    postgres.kill().await;

    let mut process = start();
    process.line_with(&["WARN", "sessions cannot be taken up now"]);
    // Clients try again and again, and lose nothing by that.
    for _ in 0..3 {
        let options = kept(&mut process);
        assert_eq!(refusal(options).await, ConnectReturnCode::ServerUnavailable);
    }
    let mut others = Mqtt5::connect(process.door("mqtt"), "publisher").await;
    let mut publishing = Box::pin(others.publish("t", "meanwhile"));
    assert!(within(LULL, &mut publishing).await.is_none(), "it would miss the session");
    let http = process.door("http");
    let answer = post(http, "/v1/messages/t", &[], b"x".to_vec()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{}", answer.body);
    let ready = get(http, "/readyz", &[]).await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("\"sessions\""), "{}", ready.body);

    postgres.start().await;
    soon("the publisher goes on", publishing).await;
    process.line_with(&["INFO", "publishers go on"]);
    let mut client = Mqtt5::connect_with(kept(&mut process)).await.unwrap();
    assert!(matches!(client.welcome, ConnAck { session_present: true, .. }));
    assert_eq!(client.next_text().await, "before");
    assert_eq!(client.next_text().await, "meanwhile");
    client.leave().await;

    // Later it may be away, and others go on.
    postgres.kill().await;
    others.publish("t", "later").await;
    process.kill();
}

#[tokio::test]
async fn what_waits_in_sessions_of_a_ledger_that_is_not_there_stays_until_their_clients_begin_anew() {
    let folder = Folder::new();
    let mut process = Process::start(folder.path(), &[]);
    leave_session(&mut process).await;
    let mut others = Mqtt5::connect(process.door("mqtt"), "publisher").await;
    others.publish("t", "for the session").await;
    process.kill();
    let file = folder.path().join("linkspan-data/ledger.redb");
    let aside = folder.path().join("aside.redb");
    std::fs::rename(&file, &aside).unwrap();

    let mut process = Process::start(folder.path(), &[]);
    process.line_with(&["WARN", "begun with another ledger", "sessions=1"]);
    process.kill();
    std::fs::rename(&aside, &file).unwrap();
    let mut process = Process::start(folder.path(), &[]);
    let mut client = Mqtt5::connect_with(kept(&mut process)).await.unwrap();
    assert_eq!(client.next_text().await, "for the session", "the ledger is there again");
    client.leave().await;
    let mut others = Mqtt5::connect(process.door("mqtt"), "publisher").await;
    others.publish("t", "for the session").await;
    process.kill();
    std::fs::remove_file(&file).unwrap();

    let mut process = Process::start(folder.path(), &[]);
    let mut client = Mqtt5::connect_with(kept(&mut process)).await.unwrap();
    assert!(!client.welcome.session_present);
    client.subscribe("t").await;
    assert!(client.next_within(LULL).await.is_none(), "it is not the session of before");
    process.kill();
    let mut process = Process::start(folder.path(), &[]);
    let client = Mqtt5::connect_with(kept(&mut process)).await.unwrap();
    assert!(client.welcome.session_present, "what the ledger knows stays");
    process.kill();
}
