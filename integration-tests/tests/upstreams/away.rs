//! A back end that cannot be reached: what people and clients are told, and what the broker is spared.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use linkspan_integration_tests::amqp_wire::AmqpWire;
use linkspan_integration_tests::http::get;
use linkspan_integration_tests::mqtt_wire::{V3, V5, connect, text};
use linkspan_integration_tests::process::Folder;
use linkspan_integration_tests::upstreams::Port;
use linkspan_integration_tests::wire::Wire;
use linkspan_integration_tests::{Cable, Mosquitto, Process, RabbitMq, soon};

/// How long a back end is watched being away.
const WATCHED: Duration = Duration::from_secs(4);

/// Attempts to connect in that time, and until it is looked, at most: each of four connections waits for 100 ms, 200 ms,
/// 400 ms and then for 250 to 500 ms.
const ATTEMPTS: usize = 100;

/// A server that is no broker: it counts who connects, says the same to everybody and hangs up, or says nothing at all.
struct Stranger {
    address: SocketAddr,
    connects: Arc<AtomicUsize>,
}

impl Stranger {
    fn who(says: Option<&'static [u8]>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connects = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connects);
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                match says {
                    // what is not read would reset the connection, and with it what is said
                    Some(words) => drop(stream.read(&mut [0; 1024]).and_then(|_| stream.write_all(words))),
                    None => silent.push(stream),
                }
            }
        });
        Self { address, connects }
    }
}

/// One thing that is wrong.
pub struct Case {
    what: &'static str,
    kind: &'static str,
    url: String,
    /// Further keys.
    keys: String,
    timeout: &'static str,
    /// What people are told.
    why: String,
    connects: Option<Arc<AtomicUsize>>,
}

impl Case {
    pub fn new(what: &'static str, url: String, why: impl Into<String>) -> Self {
        let kind = if url.starts_with("amqp") { "amqp" } else { "mqtt" };
        Self { what, kind, url, keys: String::new(), timeout: "10s", why: why.into(), connects: None }
    }

    /// The same with further keys of the back end.
    pub fn with(self, keys: String) -> Self {
        Self { keys, ..self }
    }

    /// The same for who answers nothing.
    fn within_a_second(self) -> Self {
        Self { timeout: "1s", ..self }
    }

    fn at(what: &'static str, scheme: &str, stranger: &Stranger, why: &str) -> Self {
        let case = Self::new(what, format!("{scheme}://{}", stranger.address), why);
        Self { connects: Some(Arc::clone(&stranger.connects)), ..case }
    }

    pub fn configuration(&self) -> String {
        let Self { kind, url, keys, timeout, .. } = self;
        format!(
            "[backends.plant]\nkind = \"{kind}\"\nurl = \"{url}\"\nconnect-timeout = \"{timeout}\"\n{keys}"
        )
    }

    async fn holds(&self) {
        let name = format!("{} of kind {}", self.what, self.kind);
        let folder = Folder::new();
        let file = folder.write("linkspan.toml", &self.configuration());
        let mut process = Process::start(folder.path(), &["--config", &file]);
        let [mqtt, amqp, http] = ["mqtt", "amqp", "http"].map(|door| process.door(door));

        // people
        let troubles: Vec<&String> = process.listen(WATCHED).iter().filter(|line| is_trouble(line)).collect();
        assert_eq!(troubles.len(), 1, "{name}: one line says it, once: {troubles:#?}");
        let line = troubles[0];
        assert!(line.contains("plant") && line.contains(&self.why), "{name}: `{}` in {line}", self.why);
        let ready = get(http, "/readyz", &[]).await;
        assert_eq!(ready.status, 503, "{name}: {}", ready.body);
        let state: serde_json::Value = serde_json::from_str(&ready.body).unwrap();
        let state = &state["backends"]["plant"];
        assert_eq!(state["state"], "away", "{name}: {}", ready.body);
        assert!(state["why"].as_str().unwrap().contains(&self.why), "{name}: `{}` in {state}", self.why);
        let figures = get(http, "/metrics", &[]).await.body;
        assert!(figures.contains("linkspan_backend_up{backend=\"plant\"} 0"), "{name}: {figures}");

        // clients
        let mut client = AmqpWire::entering(amqp, "guest", "guest", "/").await;
        let (channel, code, text) = client.closed().await;
        assert_eq!((channel, code), (0, 320), "{name}: {text}");
        assert!(text.contains("plant"), "{name}: {text}");
        for (level, code) in [(V3, 3), (V5, 0x88)] {
            assert_eq!(connack(mqtt, level).await, code, "{name}: CONNACK of protocol level {level}");
        }

        // the broker, or whoever it is
        if let Some(connects) = &self.connects {
            let connects = connects.load(Ordering::SeqCst);
            assert!((4..ATTEMPTS).contains(&connects), "{name}: {connects} attempts in {WATCHED:?}");
        }
    }
}

fn is_trouble(line: &str) -> bool {
    line.contains("WARN") || line.contains("ERROR")
}

/// The code in the CONNACK for a client of this protocol level.
async fn connack(door: SocketAddr, level: u8) -> u8 {
    let mut wire = Wire::to(door).await;
    let properties: &[u8] = if level == V5 { &[0] } else { &[] };
    wire.send(&connect(level, 2, 60, &[properties, &text("client")].concat())).await;
    assert_eq!(wire.read(1).await, [0x20], "a CONNACK");
    // a long reason makes its length two bytes
    while wire.read(1).await[0] >= 0x80 {}
    wire.read(2).await[1]
}

/// A password file with `linkspan` and the password `secret`.
const PASSWORDS: &str = "linkspan:$7$101$AlR52Tj6SSKhwQyd$eTr4KIw7wvvnrU8BFliLqjd1RqFsONw/\
                         ACiF+FKsLp+s88qXbRM2oTDjoh7aCg8QnzVzxEafRHhREN4lDWrH5Q==\n";

#[tokio::test]
async fn a_broker_that_cannot_be_used_is_told_of_once_and_asked_again_with_patience() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    let strict = "allow_anonymous false\npassword_file passwords";
    let strict = Mosquitto::own_with(strict, &[("passwords", PASSWORDS)]).await;
    let nobody = Port::reserve();
    let web = || Stranger::who(Some(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"));
    let [web_for_amqp, web_for_mqtt] = [web(), web()];
    let [silent_for_amqp, silent_for_mqtt] = [Stranger::who(None), Stranger::who(None)];
    let cases = [
        Case::new(
            "a wrong port",
            format!("amqp://{}", nobody.address()),
            format!("nothing listens at {}", nobody.address()),
        ),
        Case::new("a wrong port", format!("mqtt://{}", nobody.address()), "Connection refused"),
        Case::new(
            "a wrong password",
            rabbitmq.url().replace("guest:guest", "guest:wrong"),
            "refuses the password of user `guest`",
        ),
        Case::new(
            "a wrong password",
            format!("mqtt://linkspan:wrong@{}", strict.address()),
            "it refuses the connection: ",
        ),
        Case::new(
            "TLS against a plain port",
            format!("amqps://{}", rabbitmq.address()),
            format!("no TLS connection to {}", rabbitmq.address()),
        ),
        Case::new("TLS against a plain port", format!("mqtts://{}", mosquitto.address()), "TLS: "),
        Case::at("a web server", "amqp", &web_for_amqp, "something that is not AMQP 0-9-1"),
        Case::at("a web server", "mqtt", &web_for_mqtt, "it does not speak MQTT"),
        Case::at("a silent server", "amqp", &silent_for_amqp, "has not answered within 1000 ms")
            .within_a_second(),
        Case::at("a silent server", "mqtt", &silent_for_mqtt, "no CONNACK within 1 s").within_a_second(),
    ];
    all_hold(&cases);
}

/// Whether what people, clients and brokers see is right in all cases, which are looked at at once.
pub fn all_hold(cases: &[Case]) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(case.holds());
            });
        }
    });
}

#[tokio::test]
async fn a_right_password_is_let_in() {
    let strict = "allow_anonymous false\npassword_file passwords";
    let strict = Mosquitto::own_with(strict, &[("passwords", PASSWORDS)]).await;
    let folder = Folder::new();
    let url = format!("mqtt://linkspan:secret@{}", strict.address());
    let case = Case::new("", url, "");
    let file = folder.write("linkspan.toml", &case.configuration());
    let mut process = Process::start(folder.path(), &["--config", &file]);
    let line = process.line_with(&["plant"]);
    assert!(line.contains("INFO") && line.contains("reached"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_of_a_back_end_is_one_line() {
    let (rabbitmq, mosquitto) = (RabbitMq::shared().await, Mosquitto::shared().await);
    for kind in ["amqp", "mqtt"] {
        let at = if kind == "amqp" { rabbitmq.address() } else { mosquitto.address() };
        let cable = Cable::to(at).await;
        cable.cut().await;
        let url = match kind {
            "amqp" => rabbitmq.url_by(cable.address()),
            _ => format!("mqtt://{}", cable.address()),
        };
        let folder = Folder::new();
        let file = folder.write("linkspan.toml", &Case::new("", url, "").configuration());
        let mut process = Process::start(folder.path(), &["--config", &file]);
        let http = process.door("http");
        let state = async |status: u16, up: u8| {
            let reached = async {
                while get(http, "/readyz", &[]).await.status != status {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            soon("/readyz knows of the change", reached).await;
            let figure = format!("linkspan_backend_up{{backend=\"plant\"}} {up}");
            let told = async {
                while !get(http, "/metrics", &[]).await.body.contains(&figure) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            soon(&format!("{kind}: /metrics has `{figure}`"), told).await;
        };
        state(503, 0).await;
        for _ in 0..2 {
            cable.heal().await;
            state(200, 1).await;
            cable.cut().await;
            state(503, 0).await;
            // long enough for a few attempts
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let lines = process.listen(Duration::from_millis(100));
        let of_plant = |line: &&String| line.contains("plant") && !line.contains("publish-subscribe");
        let told: Vec<&String> = lines.iter().filter(of_plant).collect();
        let troubles: Vec<bool> = told.iter().map(|line| is_trouble(line)).collect();
        assert_eq!(troubles, [true, false, true, false, true], "{kind}: {told:#?}");
        let others: Vec<&String> =
            lines.iter().filter(|line| is_trouble(line) && !line.contains("plant")).collect();
        assert!(others.is_empty(), "{kind}: {others:#?}");
    }
}

#[test]
fn a_route_that_requires_its_back_end_keeps_linkspan_from_starting() {
    let nobody = Port::reserve();
    let began = Instant::now();
    for (scheme, why) in [("amqp", "nothing listens at"), ("mqtt", "Connection refused")] {
        let folder = Folder::new();
        let plant = Case::new("", format!("{scheme}://{}", nobody.address()), "").configuration();
        let text = format!(
            "[backends.local]\nkind = \"embedded\"\n{plant}[vhosts.\"/\"]\nbackend = \"local\"\n\
             [[route]]\nmatch = \"orders/placed\"\npattern = \"competing-consumers\"\nqueue = \"orders\"\n\
             backend = \"plant\"\nrequired = true\n"
        );
        let file = folder.write("linkspan.toml", &text);
        let (status, said) = Process::start(folder.path(), &["--config", &file]).exit();
        assert_eq!(status.code(), Some(2), "{scheme}: {said}");
        let last = said.lines().last().unwrap_or_default();
        for word in ["linkspan.toml:14: route[0].required: ", "orders/placed", "plant", why] {
            assert!(last.contains(word), "{scheme}: `{word}` in {last}");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(30), "two times about ten seconds: {:?}", began.elapsed());
}
