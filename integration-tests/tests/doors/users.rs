//! Who comes in.

use linkspan::identity::hash_password;
use linkspan_integration_tests::amqp_wire::{AmqpWire, start_ok};
use linkspan_integration_tests::http;
use linkspan_integration_tests::mqtt_wire::{MqttWire, V3, V5, connect, text};
use linkspan_integration_tests::process::{Folder, command};
use linkspan_integration_tests::wire::Wire;
use linkspan_integration_tests::{Server, mqtt5::Mqtt5};

/// A configuration with two users, one of whom may enter another vhost only.
fn users() -> String {
    let hash = hash_password(b"s3cret").unwrap();
    format!(
        "[vhosts.\"/\"]\nbackend = \"local\"\n[vhosts.lab]\nbackend = \"local\"\n\
         [users.sensor]\npassword = \"{hash}\"\n\
         [users.lab]\npassword = \"{hash}\"\nvhosts = [\"lab\"]\n"
    )
}

/// The code of the CONNACK.
async fn connack(server: &Server, level: u8, login: Option<(&str, &str)>) -> u8 {
    let mut rest = if level == V5 { vec![0] } else { Vec::new() };
    rest.extend(text("client"));
    let mut flags = 2;
    if let Some((user, password)) = login {
        flags |= 0xc0;
        rest.extend(text(user));
        rest.extend(text(password));
    }
    let mut client = MqttWire { wire: Wire::to(server.mqtt()).await };
    client.send(&connect(level, flags, 0, &rest)).await;
    let (first, body) = client.next().await;
    assert_eq!(first, 0x20);
    if body[1] != 0 {
        assert_eq!(client.wire.rest().await, b"", "and the socket is closed [MQTT-3.2.2-7]");
    }
    body[1]
}

#[tokio::test]
async fn mqtt_clients_come_in_with_the_right_password_only() {
    let server = Server::start(&users()).await;
    for (login, three, five) in [
        (Some(("sensor", "s3cret")), 0, 0),
        (Some(("sensor", "wrong")), 4, 0x86),
        (Some(("nobody", "s3cret")), 4, 0x86),
        (Some(("guest", "guest")), 4, 0x86),
        (Some(("lab", "s3cret")), 5, 0x87),
        (None, 5, 0x87),
    ] {
        assert_eq!(connack(&server, V3, login).await, three, "MQTT 3.1.1, {login:?}");
        assert_eq!(connack(&server, V5, login).await, five, "MQTT 5, {login:?}");
    }
}

#[tokio::test]
async fn amqp_clients_come_in_with_the_right_password_only() {
    let server = Server::start(&users()).await;
    let mut sensor = AmqpWire::entering(server.amqp(), "sensor", "s3cret", "/").await;
    sensor.expect(10, 41).await;
    for (user, password) in [("sensor", "wrong"), ("nobody", "s3cret"), ("guest", "guest")] {
        let mut client = AmqpWire::greeted(server.amqp()).await;
        client.send(&start_ok("PLAIN", format!("\0{user}\0{password}").as_bytes())).await;
        let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the \
                    broker logfile.";
        assert_eq!(client.closed().await, (0, 403, text.to_owned()), "{user}/{password}");
    }
    let mut lab = AmqpWire::entering(server.amqp(), "lab", "s3cret", "/").await;
    let text = "NOT_ALLOWED - access to vhost '/' refused for user 'lab'";
    assert_eq!(lab.closed().await, (0, 530, text.to_owned()));
    AmqpWire::entering(server.amqp(), "lab", "s3cret", "lab").await.expect(10, 41).await;
}

#[tokio::test]
async fn http_requests_need_basic_credentials_and_probes_do_not() {
    let server = Server::start(&users()).await;
    let answer = http::post(server.http(), "/v1/messages/a", &[], b"x".to_vec()).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Basic ")), "{answer:?}");
    for (encoded, status) in [
        ("c2Vuc29yOnMzY3JldA==", 204), // sensor:s3cret
        ("c2Vuc29yOndyb25n", 401),     // sensor:wrong
        ("bGFiOnMzY3JldA==", 403),     // lab:s3cret
        ("!", 401),
    ] {
        let header = [("authorization", &*format!("Basic {encoded}"))];
        let answer = http::post(server.http(), "/v1/messages/a", &header, b"x".to_vec()).await;
        assert_eq!(answer.status, status, "{encoded}: {answer:?}");
    }
    assert_eq!(http::get(server.http(), "/metrics", &[]).await.status, 401);
    assert_eq!(http::get(server.http(), "/healthz", &[]).await.status, 200);
    assert_eq!(http::get(server.http(), "/readyz", &[]).await.status, 200);
}

#[tokio::test]
async fn vhosts_are_separate_address_spaces() {
    let server = Server::start(&users()).await;
    let mut options = Mqtt5::options(server.mqtt(), "watcher");
    options.set_credentials("sensor", "s3cret");
    let mut watcher = Mqtt5::connect_with(options).await.unwrap();
    watcher.subscribe("#").await;
    let uri = format!("amqp://lab:s3cret@{}/lab", server.amqp());
    let lab = lapin::Connection::connect(&uri, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = lab.create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    let (options, properties) = (Default::default(), Default::default());
    let publish = channel.basic_publish("amq.topic".into(), "a".into(), options, b"x", properties);
    publish.await.unwrap().await.unwrap();
    assert!(watcher.next_within(crate::LULL).await.is_none(), "it was published in another vhost");
}

#[test]
fn a_door_that_others_can_reach_does_not_open_without_users() {
    let folder = Folder::new();
    for door in ["MQTT", "AMQP", "HTTP"] {
        let variable = format!("LINKSPAN_DOORS__{door}__LISTEN");
        let output = command(folder.path()).env(&variable, "0.0.0.0:0").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(&variable) && text.contains("linkspan hash-password"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn a_password_is_hashed_by_the_binary_and_never_taken_from_the_command_line() {
    use std::io::Write;
    use std::process::Stdio;
    let folder = Folder::new();
    let mut child = command(folder.path())
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"s3cret\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let hash = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && hash.starts_with("argon2id$") && hash.lines().count() == 1, "{hash}");
    let file = folder.write("users.toml", &format!("[users.a]\npassword = \"{}\"\n", hash.trim()));
    let checked = command(folder.path()).arg("check").arg(file).output().unwrap();
    assert!(checked.status.success());
    let refused = command(folder.path()).args(["hash-password", "s3cret"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
