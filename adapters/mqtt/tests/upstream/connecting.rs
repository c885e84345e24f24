//! Brokers that are not there, do not let us in, or are none.

use std::time::{Duration, Instant};

use linkspan_contract::{Backend, Health};
use linkspan_integration_tests::upstreams::Port;
use linkspan_integration_tests::{Certificates, Mosquitto};
use linkspan_mqtt::{Failure, MqttOptions, ProbeError, probe};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::stage::{open, options};

async fn failure(options: &MqttOptions) -> Failure {
    match probe(options).await {
        Err(ProbeError::Failed { why, .. }) => why,
        other => panic!("a failure was due: {other:?}"),
    }
}

/// The user `link` and the hash of its password `right`, as `mosquitto_passwd` writes them.
const PASSWORDS: &str = "link:$7$101$BvJrpvYDD2pu9Q/t$9AQYgjRAKdZmQ0FP214lYPc8+YsNAn8Xw29ACBoUJ3s36/chtABgzxYoSDrTW4oGbuKK2Q2JcFpTTIwJjW+79w==\n";

#[tokio::test]
async fn a_wrong_password_is_told_by_the_probe_and_by_health() {
    let configuration = "allow_anonymous false\npassword_file passwords";
    let broker = Mosquitto::own_with(configuration, &[("passwords", PASSWORDS)]).await;
    let with =
        |password: &str| options(&broker.url().replace("mqtt://", &format!("mqtt://link:{password}@")));
    assert!(probe(&with("right")).await.is_ok());
    let why = failure(&with("wrong")).await;
    assert!(matches!(why, Failure::Denied(_)), "{why:?}");
    assert!(why.to_string().contains("not authorized") || why.to_string().contains("password"), "{why}");
    let backend = open(with("wrong"));
    for _ in 0..200 {
        if let Health::Away(why) = backend.health().await
            && why.contains("refuses the connection")
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("health was to say why: {:?}", backend.health().await);
}

#[tokio::test]
async fn a_port_that_nobody_listens_at_is_unreachable() {
    let port = Port::reserve();
    let why = failure(&options(&format!("mqtt://{}", port.address()))).await;
    assert!(matches!(&why, Failure::Unreachable(text) if text.contains("refused")), "{why:?}");
}

#[tokio::test]
async fn a_port_that_says_nothing_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    for millis in [250, 1250] {
        let connect_timeout = Duration::from_millis(millis);
        let options = MqttOptions { connect_timeout, ..options(&url) };
        let began = Instant::now();
        assert_eq!(failure(&options).await, Failure::Silent(connect_timeout));
        let took = began.elapsed();
        assert!(took >= connect_timeout && took < connect_timeout * 4, "{took:?}");
    }
}

#[tokio::test]
async fn a_port_that_speaks_something_else_is_foreign() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let why = failure(&options(&url)).await;
    assert!(matches!(&why, Failure::Foreign { asked: "MQTT 5", .. }), "{why:?}");
}

#[tokio::test]
async fn tls_is_spoken_with_the_right_certificates_and_told_with_the_wrong_ones() {
    let certificates = Certificates::new();
    let file = |name: &str| certificates.path(name);
    let broker = Mosquitto::own_over_tls(&certificates).await;
    let secure = broker.secure();
    let mut options = options(&format!("mqtts://localhost:{}", secure.port()));
    options.tls.ca = Some(file("ca.pem"));
    options.tls.client = Some((file("client.pem"), file("client.key")));
    let probed = probe(&options).await;
    assert!(probed.is_ok(), "{probed:?}");
    let mut wrong = options.clone();
    wrong.tls.ca = Some(file("other.pem"));
    let why = failure(&wrong).await;
    assert!(matches!(&why, Failure::Tls(text) if text.contains("UnknownIssuer")), "{why:?}");
    let plain = MqttOptions { url: format!("mqtt://{secure}"), ..options.clone() };
    let why = failure(&plain).await;
    assert!(matches!(why, Failure::Foreign { .. } | Failure::Unreachable(_)), "{why:?}");
    let mut missing = options.clone();
    missing.tls.ca = Some(file("none.pem"));
    assert!(matches!(probe(&missing).await, Err(ProbeError::Options(_))));
}

#[tokio::test]
async fn tls_to_a_port_without_it_is_told() {
    let broker = Mosquitto::shared().await;
    let certificates = Certificates::new();
    let mut options = options(&format!("mqtts://localhost:{}", broker.address().port()));
    options.tls.ca = Some(certificates.path("ca.pem"));
    let why = failure(&options).await;
    assert!(matches!(why, Failure::Tls(_)), "{why:?}");
}
