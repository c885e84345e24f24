//! Clients that are passed through, as a broker sees them.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::conformance::heard::Heard;
use linkspan_contract::conformance::recorder::Recorder;
use linkspan_contract::{
    Backend, Client, Connection, Credit, Lane, LaneEvent, SessionState, SessionTerms, Settle, Settled,
    Settlement, Source, Subscribe,
};
use linkspan_mqtt::{MqttBackend, VersionChoice};

use crate::scripted::{Line, Packet, Scripted};
use crate::stage::{PATIENCE, key, number, open, options, wait_for};

const PUBACK: u8 = 4;
const PUBCOMP: u8 = 7;
const DISCONNECT: u8 = 14;

/// A client whose session is the broker's.
struct Guest {
    recorder: Arc<Recorder>,
    heard: Arc<Heard>,
    lane: Box<dyn Lane>,
    connection: Box<dyn Connection>,
}

impl Guest {
    async fn of(backend: &MqttBackend, window: u32, terms: SessionTerms) -> Self {
        let client = Client {
            number: number(),
            identifier: "device".into(),
            user: "guest".into(),
            vhost: "/".into(),
            session: Some(Arc::new(terms)),
        };
        let (recorder, heard) = (Arc::new(Recorder::default()), Arc::new(Heard::default()));
        let mut connection = backend.connect(&client, recorder.clone()).await.expect("a client connects");
        let mut lane = connection.lane(heard.clone(), heard.clone()).await.expect("a lane opens");
        let credit = Some(Arc::new(Credit::new(window)));
        let how = Subscribe::new(Settle::AsPublished);
        lane.subscribe(&Source::Session, key(0), &how, credit).await.expect("the session is taken");
        lane.start(key(0));
        Self { recorder, heard, lane, connection }
    }

    async fn next(&self) -> (String, u64) {
        let given = self.recorder.expect(1, PATIENCE).await;
        (given[0].payload.clone(), given[0].tag)
    }

    fn accept(&mut self, tag: u64) {
        let outcome = Settlement::Accept;
        self.lane.settle(&[Settled { key: key(0), first: tag, count: 1, outcome, word: None }]);
    }

    async fn hears(&self, wanted: impl Fn(&LaneEvent) -> bool) {
        for _ in 0..2000 {
            if self.heard.events.lock().iter().any(&wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("an event was due: {:?}", self.heard.events.lock());
    }
}

/// A broker whose shared sessions of Linkspan's are welcome, and a client's session there.
async fn start(resumed: bool, window: u32) -> (Scripted, Arc<MqttBackend>, Vec<Line>, Line, Packet, Guest) {
    let broker = Scripted::new().await;
    let mut wanted = options(&broker.url());
    wanted.publishers = 1;
    let backend = open(wanted);
    let mut shared = Vec::new();
    for _ in 0..2 {
        let (mut line, _) = broker.accept().await;
        line.welcome(false, &[]).await;
        shared.push(line);
    }
    wait_for(&backend, true).await;
    let script = async {
        let (mut line, connect) = broker.accept().await;
        line.welcome(resumed, &[]).await;
        (line, connect)
    };
    let ((line, connect), guest) = tokio::join!(script, Guest::of(&backend, window, LASTING));
    (broker, backend, shared, line, connect, guest)
}

/// A session that is found and kept for a minute, and one that begins and ends with its connection.
const LASTING: SessionTerms =
    SessionTerms { at_broker: true, fresh: false, keep: 60, window: 10, will: None };
const CLEAN: SessionTerms = SessionTerms { at_broker: true, fresh: true, keep: 0, window: 10, will: None };

/// Session expiry intervals (MQTT 5 §3.1.2.11.2).
const FIVE_MINUTES: [u8; 5] = [0x11, 0, 0, 1, 44];
const NONE: [u8; 5] = [0x11, 0, 0, 0, 0];

/// A PUBLISH of QoS 1 or 2 to topic `t`.
fn publish(first: u8, packet_id: u8, payload: u8) -> [u8; 9] {
    [first, 7, 0, 1, b't', 0, packet_id, 0, payload]
}

#[tokio::test]
async fn the_broker_sees_the_clients_own_identifier_terms_and_good_bye() {
    let (broker, _backend, _shared, mut line, connect, guest) = start(true, 10).await;
    assert_eq!(connect.identifier(), "device");
    assert!(!connect.is_clean());
    // Session expiry interval 300, for the link's sake; receive maximum 10 (§3.1.2.11)
    assert!(connect.has(&FIVE_MINUTES) && connect.has(&[0x21, 0, 10]), "{connect:?}");
    let granted = SessionState { resumed: true, keep: 60, will: false };
    assert_eq!(guest.connection.session(), Some(granted));
    let Guest { lane, connection, .. } = guest;
    drop(lane);
    let closing = connection.close();
    let hearing = async {
        let packet = line.expect(DISCONNECT).await;
        assert_eq!(packet.body.first().copied().unwrap_or(0), 0, "a normal one");
        drop(line);
        // The time that the client wanted is said by taking the session up once more.
        let (mut line, connect) = broker.accept().await;
        assert!(!connect.is_clean() && connect.has(&[0x11, 0, 0, 0, 60]), "{connect:?}");
        line.welcome(true, &[]).await;
        line.expect(DISCONNECT).await;
    };
    tokio::join!(closing, hearing);
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_socket_with_it() {
    let (_broker, _backend, _shared, mut line, _, guest) = start(false, 10).await;
    drop(guest);
    let end = tokio::time::timeout(PATIENCE, line.read()).await.expect("an end was due");
    assert_eq!(end, None, "no DISCONNECT: the broker has to publish the will");
}

#[tokio::test]
async fn a_clean_session_outlives_its_link_and_is_ended_when_its_client_has_left() {
    let broker = Scripted::new().await;
    let mut wanted = options(&broker.url());
    wanted.publishers = 1;
    let backend = open(wanted);
    let mut shared = Vec::new();
    for _ in 0..2 {
        let (mut line, _) = broker.accept().await;
        line.welcome(false, &[]).await;
        shared.push(line);
    }
    wait_for(&backend, true).await;
    let script = async {
        let (mut line, connect) = broker.accept().await;
        assert!(connect.is_clean() && connect.has(&FIVE_MINUTES), "{connect:?}");
        line.welcome(false, &[]).await;
        line
    };
    let (line, guest) = tokio::join!(script, Guest::of(&backend, 10, CLEAN));
    assert_eq!(guest.connection.session().unwrap().keep, 0, "what the client is told");
    // The whole link breaks.
    drop(line);
    shared.clear();
    let mut line = loop {
        let (mut line, connect) = broker.accept().await;
        line.welcome(connect.identifier() == "device", &[]).await;
        if connect.identifier() == "device" {
            assert!(!connect.is_clean() && connect.has(&FIVE_MINUTES), "it is found again: {connect:?}");
            break line;
        }
        shared.push(line);
    };
    drop(guest);
    assert_eq!(line.read().await, None, "no DISCONNECT: the broker has to publish the will");
    let (mut line, connect) = loop {
        let (mut line, connect) = broker.accept().await;
        line.welcome(false, &[]).await;
        if connect.identifier() == "device" {
            break (line, connect);
        }
        shared.push(line);
    };
    assert!(connect.is_clean() && connect.has(&NONE), "{connect:?}");
    line.expect(DISCONNECT).await;
}

#[tokio::test]
async fn also_over_3_1_1_which_has_one_flag_for_what_is_found_and_what_is_left() {
    let broker = Scripted::new().await;
    let mut wanted = options(&broker.url());
    wanted.publishers = 1;
    wanted.version = VersionChoice::V311;
    let backend = open(wanted);
    let mut shared = Vec::new();
    // The subscribing session begins with a clean one.
    while shared.len() < 2 {
        let (mut line, connect) = broker.accept().await;
        line.welcome_older(false).await;
        if connect.identifier().ends_with(".sub") && connect.is_clean() {
            line.expect(DISCONNECT).await;
        } else {
            shared.push(line);
        }
    }
    wait_for(&backend, true).await;
    let script = async {
        let (mut line, connect) = broker.accept().await;
        assert!(connect.identifier() == "device" && connect.is_clean(), "{connect:?}");
        line.welcome_older(false).await;
        line.expect(DISCONNECT).await;
        drop(line);
        let (mut line, connect) = broker.accept().await;
        assert!(connect.identifier() == "device" && !connect.is_clean(), "{connect:?}");
        line.welcome_older(false).await;
        line
    };
    let (mut line, guest) = tokio::join!(script, Guest::of(&backend, 10, CLEAN));
    let Guest { lane, connection, .. } = guest;
    drop(lane);
    let hearing = async {
        line.expect(DISCONNECT).await;
        drop(line);
        let (mut line, connect) = broker.accept().await;
        assert!(connect.identifier() == "device" && connect.is_clean(), "{connect:?}");
        line.welcome_older(false).await;
        line.expect(DISCONNECT).await;
    };
    tokio::join!(connection.close(), hearing);
}

#[tokio::test]
async fn a_session_that_another_client_has_taken_over_is_not_taken_back() {
    let (broker, _backend, _shared, mut line, _, guest) = start(false, 10).await;
    // DISCONNECT, session taken over (§3.14.2.1)
    line.write(&[0xE0, 2, 0x8E, 0]).await;
    guest.hears(|event| matches!(event, LaneEvent::TakenOver)).await;
    let again = tokio::time::timeout(Duration::from_secs(1), broker.accept()).await;
    assert!(again.is_err(), "nobody comes again");
}

#[tokio::test]
async fn nor_when_the_broker_says_so_in_the_fewest_bytes() {
    let (broker, _backend, _shared, mut line, _, guest) = start(false, 10).await;
    // The property length may be left out (§3.14.2.2.1).
    line.write(&[0xE0, 1, 0x8E]).await;
    drop(line);
    guest.hears(|event| matches!(event, LaneEvent::TakenOver | LaneEvent::Closed { .. })).await;
    let again = tokio::time::timeout(Duration::from_secs(1), broker.accept()).await;
    assert!(again.is_err(), "nobody comes again");
}

#[tokio::test]
async fn one_that_is_closed_alone_and_without_a_word_is_not_taken_back_either() {
    let (broker, _backend, _shared, line, _, guest) = start(false, 10).await;
    drop(line);
    guest.hears(|event| matches!(event, LaneEvent::Closed { .. })).await;
    let again = tokio::time::timeout(Duration::from_secs(1), broker.accept()).await;
    assert!(again.is_err(), "nobody comes again");
}

#[tokio::test]
async fn one_that_is_closed_as_soon_as_it_is_back_comes_again_for_it_may_be_its_own_attempt_before_it() {
    let (broker, _backend, mut shared, line, _, guest) = start(true, 10).await;
    // The whole link breaks.
    drop(line);
    shared.clear();
    for taken_over in [true, false] {
        let mut line = loop {
            let (mut line, connect) = broker.accept().await;
            line.welcome(connect.identifier() == "device", &[]).await;
            match connect.identifier().as_str() {
                "device" => break line,
                _ => shared.push(line),
            }
        };
        if taken_over {
            line.write(&[0xE0, 2, 0x8E, 0]).await;
            while line.read().await.is_some() {}
        } else {
            line.write(&publish(0x32, 1, b'1')).await;
            assert_eq!(guest.next().await.0, "1");
        }
    }
    assert!(guest.heard.events.lock().is_empty(), "the client hears nothing of it");
}

#[tokio::test]
async fn the_broker_is_acknowledged_what_the_client_has_and_no_more_comes_than_it_has_room_for() {
    let (_broker, _backend, _shared, mut line, _, mut guest) = start(true, 2).await;
    for number in 1..=3 {
        line.write(&publish(0x32, number, b'0' + number)).await;
    }
    let (first, second) = (guest.next().await, guest.next().await);
    assert_eq!((&*first.0, &*second.0), ("1", "2"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(guest.recorder.take_all().is_empty(), "its window is full");
    guest.accept(second.1);
    assert_eq!(line.expect(PUBACK).await.id(), 2);
    let early = tokio::time::timeout(Duration::from_millis(200), line.read()).await;
    assert!(early.is_err(), "an acknowledgement that the client did not give: {early:?}");
    guest.accept(first.1);
    assert_eq!(line.expect(PUBACK).await.id(), 1);
}

#[tokio::test]
async fn what_a_session_is_sent_again_after_a_cut_is_not_given_again_and_acknowledged_once() {
    let (broker, _backend, mut shared, mut line, _, mut guest) = start(true, 10).await;
    for number in 1..=3 {
        line.write(&publish(0x32, number, b'0' + number)).await;
    }
    let tags = [guest.next().await.1, guest.next().await.1, guest.next().await.1];
    // The whole link breaks.
    drop(line);
    shared.clear();
    guest.accept(tags[0]);
    let mut line = loop {
        let (mut line, connect) = broker.accept().await;
        line.welcome(connect.identifier() == "device", &[]).await;
        match connect.identifier().as_str() {
            "device" => break line,
            _ => shared.push(line),
        }
    };
    // DUP is set (§4.4).
    for number in 1..=3 {
        line.write(&publish(0x3A, number, b'0' + number)).await;
    }
    line.write(&publish(0x32, 4, b'4')).await;
    assert_eq!(line.expect(PUBACK).await.id(), 1, "the client had acknowledged it");
    assert_eq!(guest.next().await.0, "4", "and nothing before it came again");
    guest.accept(tags[1]);
    assert_eq!(line.expect(PUBACK).await.id(), 2);
}

#[tokio::test]
async fn a_message_of_qos_2_that_began_on_another_connection_is_ended() {
    let (broker, _backend, _shared, mut line, _, _guest) = start(true, 10).await;
    // PUBREL of packet identifier 7 (§3.6)
    line.write(&[0x62, 2, 0, 7]).await;
    while line.read().await.is_some() {}
    let (mut line, connect) = broker.accept().await;
    assert_eq!(connect.identifier(), "device");
    line.welcome(true, &[]).await;
    line.write(&[0x62, 2, 0, 7]).await;
    assert_eq!(line.expect(PUBCOMP).await.id(), 7);
}
