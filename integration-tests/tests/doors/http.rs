//! HTTP: publish, watch, look.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use linkspan_integration_tests::Server;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::http::{self, Events};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::run;
use linkspan_integration_tests::wire::Wire;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::alarms::Machine;

#[tokio::test]
async fn a_post_reaches_mqtt_and_amqp_with_its_properties() {
    let server = Server::start("").await;
    let mut mqtt = Mqtt5::connect(server.mqtt(), "watcher").await;
    mqtt.subscribe("orders/+").await;
    let amqp = Amqp::connect(server.amqp()).await;
    let queue = amqp.bound("amq.topic", "orders.*").await;
    let headers = [
        ("content-type", "application/json"),
        ("linkspan-property-site", "north"),
        ("linkspan-priority", "7"),
        ("linkspan-message-id", "m-1"),
        ("linkspan-expiry", "10m"),
    ];
    let answer = http::post(server.http(), "/v1/messages/orders/placed", &headers, b"{}".to_vec()).await;
    assert_eq!((answer.status, answer.header("linkspan-routed")), (204, Some("true")), "{answer:?}");
    let got = mqtt.next().await;
    let properties = got.properties.unwrap();
    assert_eq!((&got.topic[..], &got.payload[..]), (&b"orders/placed"[..], &b"{}"[..]));
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert!(properties.user_properties.contains(&("site".into(), "north".into())), "{properties:?}");
    assert!(properties.message_expiry_interval.is_some_and(|seconds| (599..=600).contains(&seconds)));
    let got = amqp.channel.basic_get(queue.as_str().into(), Default::default()).await.unwrap().unwrap();
    let properties = &got.delivery.properties;
    assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("m-1"));
    assert_eq!((*properties.priority(), *properties.delivery_mode()), (Some(7), Some(2)));

    let answer = http::post(server.http(), "/v1/messages/nobody/listens", &[], Vec::new()).await;
    assert_eq!((answer.status, answer.header("linkspan-routed")), (204, Some("false")));
}

#[tokio::test]
async fn a_watcher_sees_what_amqp_and_mqtt_publish() {
    let server = Server::start("").await;
    let mut mqtt = Mqtt5::connect(server.mqtt(), "publisher").await;
    mqtt.retain("plant/pump", "kept").await;
    let mut events = Events::watch(server.http(), "plant/%23").await;
    let (name, event) = events.next().await;
    assert_eq!(name, "message");
    assert_eq!(event, serde_json::json!({ "address": "plant/pump", "payload": "kept", "retained": true }));
    let amqp = Amqp::confirming(server.amqp()).await;
    let mut headers = FieldTable::default();
    headers.insert("site".into(), AMQPValue::LongString("north".into()));
    let properties = BasicProperties::default().with_content_type("text/plain".into()).with_headers(headers);
    amqp.publish_as("amq.topic", "plant.valve", "open", properties).await;
    let (_, event) = events.next().await;
    let expected = serde_json::json!({
        "address": "plant/valve", "payload": "open", "content_type": "text/plain", "properties": { "site": "north" },
    });
    assert_eq!(event, expected);
    mqtt.publish_as("plant/fan", "on", false, PublishProperties::default()).await;
    assert_eq!(events.next().await.1["address"], "plant/fan");
    server.stop().await;
    events.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let server = Server::start("[doors.http]\nmax-body-size = \"4 KiB\"\n").await;
    let post = async |path: &str, headers: &[(&str, &str)], size: usize| {
        http::post(server.http(), path, headers, vec![b'x'; size]).await
    };
    let problem = post("/v1/messages/a", &[("linkspan-prority", "1")], 1).await;
    assert_eq!(problem.status, 400);
    assert_eq!(problem.header("content-type"), Some("application/problem+json"));
    assert!(problem.body.contains("linkspan-prority"), "{problem:?}");
    assert_eq!(post("/v1/messages/a/%23", &[], 1).await.status, 400, "no wildcards in an address");
    assert_eq!(post("/v1/messages/$SYS/a", &[], 1).await.status, 403);
    assert_eq!(post("/v1/messages/a", &[], 4096).await.status, 204);
    assert_eq!(post("/v1/messages/a", &[], 4097).await.status, 413);
    assert_eq!(post("/v2/messages/a", &[], 1).await.status, 404);
    assert_eq!(http::get(server.http(), "/v1/messages/a", &[]).await.status, 405);
}

#[tokio::test]
async fn probes_and_figures_are_there() {
    let server = Server::start("").await;
    let healthy = http::get(server.http(), "/healthz", &[]).await;
    assert_eq!((healthy.status, healthy.body.as_str()), (200, "ok\n"));
    let ready = http::get(server.http(), "/readyz", &[]).await;
    let state: serde_json::Value = serde_json::from_str(&ready.body).unwrap();
    assert_eq!(ready.status, 200);
    assert_eq!(state["ready"], true);
    assert_eq!(state["backends"]["local"]["state"], "up");
    let figures = http::get(server.http(), "/metrics", &[]).await;
    assert_eq!(figures.status, 200);
    assert!(figures.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
}

#[tokio::test]
async fn a_length_above_the_limit_is_refused_before_anything_is_read_or_written() {
    let mut machine = Machine::start("[doors.http]\nmax-body-size = \"2 MiB\"\n");
    let door = machine.door("http");
    let inspected = |machine: &Machine| {
        run(machine.folder.path(), &["store", "inspect", "--json", "linkspan-data"]).stdout
    };
    let before = inspected(&machine);
    // The first does not wait, and sends most of it.
    for (expects, sent) in [("", 3 << 19), ("Expect: 100-continue\r\n", 0)] {
        let size = (2 << 20) + 1;
        let head = format!(
            "POST /v1/messages/images/resize HTTP/1.1\r\nHost: localhost\r\n{expects}Content-Length: {size}\r\n\r\n"
        );
        let mut client = Wire::to(door).await;
        client.send(head.as_bytes()).await;
        client.send(&vec![b'x'; sent]).await;
        let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 413"), "and no 100 before: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains("2097152"), "{answer}");
    }
    assert_eq!(inspected(&machine), before, "nothing was written");
    // One that fits is asked for.
    let mut client = Wire::to(door).await;
    let head = "POST /v1/messages/images/resize HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                Connection: close\r\nContent-Length: 4\r\n\r\n";
    client.send(head.as_bytes()).await;
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(client.read(go_on.len()).await, go_on.as_bytes());
    client.send(b"fits").await;
    let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let amqp = Amqp::connect(machine.door("amqp")).await;
    assert_eq!(amqp.drain("image-resize").await, ["fits"], "and nothing else");
}
