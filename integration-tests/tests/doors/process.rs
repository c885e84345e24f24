//! The real binary: what it says, how it refuses, how it goes.

use std::net::TcpListener;
use std::path::Path;

use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::amqp_wire::AmqpWire;
use linkspan_integration_tests::http;
use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, V5};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process, command, run};

/// What a `linkspan` that refuses to start says, and where that has to stand.
fn refused(folder: &Folder, toml: &str) -> String {
    let file = folder.write("linkspan.toml", toml);
    let output = run(folder.path(), &["--config", &file]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    text.trim_end().to_owned()
}

#[test]
fn without_a_file_it_opens_three_doors_and_says_what_goes_where() {
    let folder = Folder::new();
    let mut process = Process::start(folder.path(), &[]);
    for door in ["mqtt", "amqp", "http"] {
        assert!(process.door(door).ip().is_loopback());
    }
    process.line_with(&["vhost /"]);
    process.line_with(&["(all else)", "publish-subscribe", "on local"]);
}

#[test]
fn a_file_opens_its_doors_and_the_environment_wins() {
    let folder = Folder::new();
    let file = folder.write(
        "linkspan.toml",
        "[doors.http]\nenabled = false\n\n[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\n\
         queue = [\"a\", \"b\"]\n",
    );
    let mut command = command(folder.path());
    command.args(["--config", &file]).env("LINKSPAN_LOG", "warn,linkspan::broker=info");
    let mut process = Process::spawn(command);
    process.line_with(&["jobs", "competing-consumers", "on local", "queues a, b"]);
    process.door("mqtt");
    process.signal("TERM");
    let (_, said) = process.exit();
    assert!(!said.contains("http door"), "{said}");
}

#[test]
fn every_example_is_correct_and_check_starts_nothing() {
    let folder = Folder::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut checked = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let file = entry.unwrap().path();
        let output = run(folder.path(), &["check", file.to_str().unwrap()]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}: {text}", file.display());
        assert!(text.contains("is correct") && text.contains(":1883\n"), "{text}");
        checked += 1;
    }
    assert!(checked >= 4, "only {checked} examples");
}

#[test]
fn a_wrong_file_is_refused_with_file_line_and_key_and_what_would_be_right() {
    let folder = Folder::new();
    for (toml, expected) in [
        (
            "[doors.mqtt]\nlissen = \"127.0.0.1:0\"\n",
            "linkspan.toml:2: doors.mqtt.lissen: unknown key; did you mean `listen`?",
        ),
        ("[doors.mqtt]\nlisten = 1883\n", "linkspan.toml:2: doors.mqtt.listen: expected"),
        (
            "[[route]]\nmatch = \"a\"\npattern = \"competing-consumer\"\nqueue = \"a\"\n",
            "linkspan.toml:3: route[0].pattern: there is no pattern `competing-consumer`; did you mean \
             `competing-consumers`?",
        ),
        (
            "[[route]]\nmatch = \"a/+\"\npattern = \"publish-subscribe\"\n\n[[route]]\nmatch = \"a/+\"\n\
             pattern = \"publish-subscribe\"\n",
            "linkspan.toml:6: route[1].match: `a/+` matches the same addresses as `a/+` of route[0] (line 2); keep \
             one of them",
        ),
        (
            "[[route]]\nmatch = \"a/#/b\"\npattern = \"publish-subscribe\"\n",
            "linkspan.toml:2: route[0].match:",
        ),
        ("listen = \n", "linkspan.toml:1: this is not TOML:"),
    ] {
        let text = refused(&folder, toml);
        assert!(text.starts_with(expected), "{toml}\nsays:     {text}\nexpected: {expected}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let output = run(folder.path(), &["--config", "missing.toml"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && text.starts_with("missing.toml: cannot be read"), "{text}");
}

#[test]
fn a_url_or_a_certificate_that_cannot_be_used_is_told_by_check_and_by_the_start() {
    let folder = Folder::new();
    let nothing = folder.write("nothing.pem", "hello\n");
    for (kind, scheme, after, url) in [
        ("amqp", "amqps", "/%2f?hearbeat=5", "the parameter `hearbeat` is unknown"),
        ("mqtt", "mqtts", "/x", "nothing may follow the port"),
    ] {
        let toml = format!(
            "[backends.plant]\nkind = \"{kind}\"\nurl = \"{scheme}://127.0.0.1:1{after}\"\nca = \"{nothing}\"\n\
             [backends.other]\nkind = \"{kind}\"\nurl = \"{scheme}://127.0.0.1:1\"\n\
             certificate = \"missing.pem\"\nkey = \"{nothing}\"\n[vhosts.\"/\"]\nbackend = \"plant\"\n"
        );
        let text = refused(&folder, &toml);
        let missing = folder.path().join("missing.pem");
        let expected = [
            format!("linkspan.toml:3: backends.plant.url: {url}"),
            "linkspan.toml:4: backends.plant.ca: nothing.pem: there is no certificate in it; expected PEM text".into(),
            format!(
                "linkspan.toml:8: backends.other.certificate: {} cannot be read: there is no such file",
                missing.display()
            ),
        ];
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{text}");
        for (line, expected) in lines.iter().zip(&expected) {
            assert!(line.starts_with(expected.as_str()), "{line}\nis not {expected}");
        }
        let checked = run(folder.path(), &["check", "linkspan.toml"]);
        assert_eq!(String::from_utf8(checked.stderr).unwrap().trim_end(), text, "check says the same");
        assert_eq!(checked.status.code(), Some(2));
        let shown = String::from_utf8(checked.stdout).unwrap();
        assert!(!shown.contains("is correct"), "{shown}");
    }
}

#[test]
fn a_taken_port_is_named_with_its_key() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let toml = format!(
        "[doors.mqtt]\nlisten = \"127.0.0.1:0\"\n[doors.http]\nlisten = \"127.0.0.1:0\"\n[doors.amqp]\nlisten = \"{address}\"\n"
    );
    let text = refused(&folder, &toml);
    assert!(text.contains("doors.amqp.listen") && text.contains(&address.to_string()), "{text}");
    assert!(text.contains("linkspan.toml:6"), "the file and the line: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_wrong_variable_is_named() {
    let folder = Folder::new();
    for (name, value) in [("LINKSPAN_DOORS__MQTT__LISTEN", "everywhere"), ("LINKSPAN_DOORS_MQTT", "x")] {
        let output = command(folder.path()).env(name, value).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.starts_with(name), "{text}");
    }
}

#[tokio::test]
async fn sigterm_and_ctrl_c_say_farewell_in_each_protocol_and_exit_with_0() {
    for signal in ["TERM", "INT"] {
        let folder = Folder::new();
        let mut process = Process::start(folder.path(), &[]);
        let mut five = MqttWire::connect(process.door("mqtt"), V5, "five").await;
        let mut three = MqttWire::connect(process.door("mqtt"), V3, "three").await;
        let mut amqp = AmqpWire::open(process.door("amqp")).await;
        let http = process.door("http");
        assert_eq!(http::get(http, "/readyz", &[]).await.status, 200);
        process.signal(signal);
        let (first, body) = five.next().await;
        assert_eq!((first, body[0]), (0xe0, 0x8b), "server shutting down");
        assert_eq!(three.wire.rest().await, b"");
        let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
        assert_eq!(amqp.closed().await, (0, 320, text.to_owned()));
        amqp.wire.rest().await;
        drop((five, three, amqp));
        let (status, said) = process.exit();
        assert!(status.success(), "{signal}: {status}\n{said}");
    }
}

#[tokio::test]
async fn figures_count_what_passes_each_door_under_the_same_names() {
    let folder = Folder::new();
    let mut process = Process::start(folder.path(), &[]);
    let amqp = Amqp::confirming(process.door("amqp")).await;
    let queue = amqp.bound("amq.topic", "#").await;
    let mut mqtt = Mqtt5::connect(process.door("mqtt"), "client").await;
    mqtt.publish("a", "1").await;
    http::post(process.door("http"), "/v1/messages/a", &[], b"2".to_vec()).await;
    assert_eq!(amqp.drain(&queue).await, ["1", "2"]);
    let figures = http::get(process.door("http"), "/metrics", &[]).await.body;
    for figure in [
        "linkspan_messages_in_total{door=\"mqtt\"} 1",
        "linkspan_messages_in_total{door=\"http\"} 1",
        "linkspan_messages_out_total{door=\"amqp\"} 2",
        "linkspan_connections{door=\"mqtt\"} 1",
        "linkspan_connections{door=\"amqp\"} 1",
    ] {
        assert!(figures.lines().any(|line| line == figure), "{figure} in\n{figures}");
    }
}
