//! What an embedded back end with a directory has after it was closed and opened again.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::fs;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linkspan_contract::conformance::Fixture;
use linkspan_contract::conformance::letters::{Letter, Letters};
use linkspan_contract::conformance::recorder::{Given, Recorder};
use linkspan_contract::conformance::stage::{Peer, Stage, key, queue_spec};
use linkspan_contract::neutral::NEUTRAL;
use linkspan_contract::terms::DELAY;
use linkspan_contract::topology::Argument;
use linkspan_contract::{
    Attribute, Backend, Client, Deduplicate, Flags, Overflow, QueueSpec, SessionTerms, Settle, Settlement,
    Source, Subscribe, SystemClock, Terms, Value,
};
use linkspan_embedded::{Budget, Embedded, EmbeddedOptions, OnDisk, OpenError, SyncMode};
use tempfile::TempDir;

/// Opens the same directory each time.
struct Kept(TempDir);

impl Kept {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for the test"))
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// What a crash at this moment leaves.
    fn crashed(&self) -> Self {
        fn copy(from: &Path, to: &Path) {
            fs::create_dir_all(to).expect("a directory");
            for entry in fs::read_dir(from).expect("what is in it") {
                let entry = entry.expect("an entry");
                let to = to.join(entry.file_name());
                if entry.path().is_dir() {
                    copy(&entry.path(), &to);
                } else {
                    fs::copy(entry.path(), to).expect("a copy");
                }
            }
        }
        let left = Self::new();
        copy(&self.directory(), &left.directory());
        left
    }

    fn open(&self) -> Result<Arc<Embedded>, OpenError> {
        self.open_within(Arc::default())
    }

    fn open_within(&self, budget: Arc<Budget>) -> Result<Arc<Embedded>, OpenError> {
        let on_disk = OnDisk {
            directory: self.directory(),
            sync: SyncMode::Group,
            segment_size: 1 << 20,
            forms: vec![&NEUTRAL],
            budget,
        };
        Embedded::durable("local", EmbeddedOptions::default(), Arc::new(SystemClock), &on_disk)
    }
}

#[async_trait]
impl Fixture for Kept {
    async fn backend(&self) -> Arc<dyn Backend> {
        self.open().expect("it opens")
    }
}

/// The same, with little memory.
struct Narrow<'a>(&'a Kept);

#[async_trait]
impl Fixture for Narrow<'_> {
    async fn backend(&self) -> Arc<dyn Backend> {
        let budget = Arc::new(Budget::default());
        budget.set_limit(0);
        self.0.open_within(budget).expect("it opens")
    }
}

fn told(given: &[Given]) -> Vec<(&str, u32)> {
    given.iter().map(|given| (given.payload.as_str(), given.attempt)).collect()
}

#[tokio::test]
async fn durable_messages_come_back_in_their_places_with_their_attempts() {
    let kept = Kept::new();
    let stage = Stage::new(&kept, "before").await;
    let mut client = stage.client().await;
    let arguments: [Argument<'_>; 1] = [("x-max-priority", Value::I32(9))];
    client.queue("q", &arguments).await;
    let target = client.to_queue("q");
    for (number, priority) in [(0, 1), (1, 9), (2, 5), (3, 9), (4, 1)] {
        let letter = Letter::numbered(target, number).confirmed().priority(priority);
        assert!(client.confirm(&Letters::from_iter([letter])).await.is_empty());
    }
    let transient = Letters::from_iter([Letter::numbered(target, 5).flagged(Flags::RECEIPT)]);
    assert!(client.confirm(&transient).await.is_empty());
    client.consume("q", 1, 3).await;
    let given = client.expect_numbers([1, 3, 2]).await;
    client.accept(&given[0]);
    client.settle(1, given[2].tag, 1, Settlement::Release { delay: 0 });
    drop(client);
    stage.close().await;

    let stage = Stage::new(&kept, "after").await;
    let mut client = stage.client().await;
    let counts = client.declare_queue(&queue_spec("q", &arguments)).await.expect("it is there as it was");
    client.consume("q", 1, 10).await;
    let given = client.expect(4).await;
    assert_eq!(told(&given), [("3", 1), ("2", 1), ("0", 0), ("4", 0)], "what was given out counts");
    assert!(counts.messages >= 4, "{counts:?}");
    client.expect_nothing().await;
    given.iter().for_each(|given| client.accept(given));
    drop(client);
    stage.close().await;

    let stage = Stage::new(&kept, "after that").await;
    let mut client = stage.client().await;
    assert_eq!(client.declare_queue(&queue_spec("q", &arguments)).await.unwrap().messages, 0);
    stage.close().await;
}

#[tokio::test]
async fn a_queue_that_is_longer_than_its_window_gives_out_everything_in_order_before_and_after() {
    const MANY: u32 = 150_000;
    let kept = Kept::new();
    let stage = Stage::new(&kept, "long").await;
    let mut client = stage.client().await;
    client.queue("q", &[]).await;
    let target = client.to_queue("q");
    for from in (0..MANY).step_by(1000) {
        assert!(client.confirm(&Letters::confirmed(target, from..from + 1000)).await.is_empty());
    }
    let mut done = 0;
    let credit = client.consume("q", 1, 1000).await;
    for _ in 0..70 {
        let given = client.expect(1000).await;
        for given in &given {
            assert_eq!(given.payload, done.to_string());
            done += 1;
        }
        client.settle(1, given[0].tag, 1000, Settlement::Accept);
        credit.grant(1000);
        client.resume();
    }
    drop(client);
    stage.close().await;

    let stage = Stage::new(&kept, "long again").await;
    let mut client = stage.client().await;
    assert_eq!(client.declare_queue(&queue_spec("q", &[])).await.unwrap().messages, u64::from(MANY - done));
    let credit = client.consume("q", 1, 1000).await;
    while done < MANY {
        let given = client.expect(1000).await;
        for given in &given {
            assert_eq!(given.payload, done.to_string());
            done += 1;
        }
        client.settle(1, given[0].tag, 1000, Settlement::Accept);
        credit.grant(1000);
        client.resume();
    }
    client.expect_nothing().await;
    stage.close().await;
}

#[tokio::test]
async fn what_was_too_much_for_the_memory_and_is_not_durable_is_gone_with_its_process() {
    let kept = Kept::new();
    let stage = Stage::new(&kept, "transient").await;
    let mut client = stage.client().await;
    client.queue("q", &[]).await;
    let target = client.to_queue("q");
    for from in (0..80_000).step_by(1000) {
        let letters: Letters = (from..from + 1000)
            .map(|number| Letter::numbered(target, number).flagged(Flags::RECEIPT))
            .collect();
        assert!(client.confirm(&letters).await.is_empty());
    }
    assert!(client.confirm(&Letters::confirmed(target, [80_000])).await.is_empty());
    drop(client);
    stage.close().await;

    let stage = Stage::new(&kept, "transient again").await;
    let mut client = stage.client().await;
    client.consume("q", 1, 10).await;
    client.expect_numbers([80_000]).await;
    client.expect_nothing().await;
    assert_eq!(client.declare_queue(&queue_spec("q", &[])).await.unwrap().messages, 0);
    stage.close().await;
}

#[tokio::test]
async fn a_session_finds_what_it_was_given_and_what_came_meanwhile_mqtt_4_4_0_1() {
    let kept = Kept::new();
    let how = Subscribe::new(Settle::AsPublished);
    let stage = Stage::new(&kept, "session").await;
    let mut publisher = stage.client().await;
    let mut session = stage.client_of_session("sensor", true).await;
    session.subscribe_how(Source::Filter("a/+"), 1, &how, 2).await;
    session.subscribe_how(Source::Filter("b"), 2, &how, 2).await;
    let (a, b) = (publisher.to_topic("a/x"), publisher.to_topic("b"));
    assert!(publisher.confirm(&Letters::confirmed(a, 0..2)).await.is_empty());
    assert!(publisher.confirm(&Letters::confirmed(b, 2..4)).await.is_empty());
    let before = session.expect_numbers(0..2).await;
    session.accept(&before[0]);
    drop((session, publisher));
    stage.close().await;

    let stage = Stage::new(&kept, "session again").await;
    let mut publisher = stage.client().await;
    let mut session = stage.client_of_session("sensor", false).await;
    session.subscribe_how(Source::Filter("a/+"), 1, &how, 10).await;
    session.subscribe_how(Source::Filter("b"), 2, &how, 10).await;
    let again = session.expect_numbers([1, 2, 3]).await;
    assert_eq!(again[0].tag, before[1].tag, "a delivery has its number for good");
    assert_eq!(told(&again), [("1", 1), ("2", 0), ("3", 0)]);
    assert_eq!([again[0].key, again[1].key, again[2].key], [key(1), key(2), key(2)]);
    again.iter().for_each(|given| session.accept(given));
    session.unsubscribe(key(2)).await.expect("a filter is given up");
    let a = publisher.to_topic("a/y");
    assert!(publisher.confirm(&Letters::confirmed(a, 4..5)).await.is_empty());
    session.expect_numbers([4]).await;
    drop((session, publisher));
    stage.close().await;

    let stage = Stage::new(&kept, "session afresh").await;
    let mut session = stage.client_of_session("sensor", true).await;
    session.subscribe_how(Source::Filter("a/+"), 1, &how, 10).await;
    session.expect_nothing().await;
    stage.close().await;
}

#[tokio::test]
async fn what_came_by_a_subscription_that_ended_is_not_given_later() {
    let kept = Kept::new();
    let how = Subscribe::new(Settle::AsPublished);
    let stage = Stage::new(&kept, "ended").await;
    let mut publisher = stage.client().await;
    let mut session = stage.client_of_session("sensor", true).await;
    session.subscribe_how(Source::Filter("a"), 1, &how, 1).await;
    session.subscribe_how(Source::Filter("b"), 2, &how, 1).await;
    let (a, b) = (publisher.to_topic("a"), publisher.to_topic("b"));
    assert!(publisher.confirm(&Letters::confirmed(a, 0..3)).await.is_empty());
    assert!(publisher.confirm(&Letters::confirmed(b, 3..5)).await.is_empty());
    session.expect_numbers([0]).await;
    session.unsubscribe(key(1)).await.expect("a filter is given up");
    drop((session, publisher));
    stage.close().await;

    let stage = Stage::new(&kept, "ended before").await;
    let mut session = stage.client_of_session("sensor", false).await;
    session.subscribe_how(Source::Filter("b"), 2, &how, 10).await;
    // The first one the client may have: it is completed [MQTT-3.10.4-3].
    session.expect_numbers([0, 3, 4]).await;
    session.expect_nothing().await;
    stage.close().await;
}

#[tokio::test]
async fn a_second_one_in_the_same_directory_is_refused_and_told_by_whom() {
    let kept = Kept::new();
    let first = kept.open().unwrap();
    let refused = kept.open().unwrap_err().to_string();
    assert!(refused.contains(&format!("in use by process {}", std::process::id())), "{refused}");
    first.close().await;
    kept.open().expect("the first has gone");
}

#[tokio::test]
async fn review_unsubscribed_in_the_log_and_still_in_the_head() {
    let kept = Kept::new();
    let how = Subscribe::new(Settle::AsPublished);
    let stage = Stage::new(&kept, "r1").await;
    let mut publisher = stage.client().await;
    let mut session = stage.client_of_session("sensor", true).await;
    session.subscribe_how(Source::Filter("a"), 1, &how, 1).await;
    let a = publisher.to_topic("a");
    assert!(publisher.confirm(&Letters::confirmed(a, 0..3)).await.is_empty());
    session.expect_numbers([0]).await;
    session.unsubscribe(key(1)).await.expect("a filter is given up");
    // kill -9 before the head was written: the head still has subscription 1.
    drop((session, publisher));
    stage.close().await;

    let stage = Stage::new(&kept, "r1 again").await;
    let mut publisher = stage.client().await;
    let mut session = stage.client_of_session("sensor", false).await;
    session.subscribe_how(Source::Filter("a"), 1, &how, 10).await;
    let a = publisher.to_topic("a");
    assert!(publisher.confirm(&Letters::confirmed(a, 10..12)).await.is_empty());
    session.expect_numbers([0, 1, 2, 10, 11]).await;
    stage.close().await;
}

#[tokio::test]
async fn review_in_flight_of_an_ended_subscription_after_restart() {
    let kept = Kept::new();
    let how = Subscribe::new(Settle::AsPublished);
    let stage = Stage::new(&kept, "r2").await;
    let mut publisher = stage.client().await;
    let mut session = stage.client_of_session("sensor", true).await;
    session.subscribe_how(Source::Filter("a"), 1, &how, 10).await;
    session.subscribe_how(Source::Filter("b"), 2, &how, 10).await;
    let a = publisher.to_topic("a");
    assert!(publisher.confirm(&Letters::confirmed(a, 0..1)).await.is_empty());
    session.expect_numbers([0]).await;
    session.unsubscribe(key(1)).await.expect("a filter is given up");
    drop((session, publisher));
    stage.close().await;

    let stage = Stage::new(&kept, "r2 again").await;
    let mut session = stage.client_of_session("sensor", false).await;
    session.subscribe_how(Source::Filter("b"), 2, &how, 10).await;
    let given = session.expect_numbers([0]).await;
    session.settle(1, given[0].tag, 1, Settlement::Release { delay: 0 });
    session.expect_nothing().await;
    stage.close().await;
}

#[tokio::test]
async fn review_register_lost() {
    let kept = Kept::new();
    let stage = Stage::new(&kept, "r3").await;
    let mut client = stage.client().await;
    client.queue("q", &[]).await;
    let target = client.to_queue("q");
    assert!(client.confirm(&Letters::confirmed(target, 0..3)).await.is_empty());
    drop(client);
    stage.close().await;
    let saved = kept.directory().join("topology.redb");
    let aside = kept.directory().join("aside");
    fs::rename(&saved, &aside).unwrap();
    for _ in 0..2 {
        let refused = kept.open().expect_err("nothing says what the messages in the log are");
        assert!(refused.to_string().contains("topology.redb"), "{refused}");
    }
    fs::rename(&aside, &saved).unwrap();
    let stage = Stage::new(&kept, "r3 again").await;
    let mut client = stage.client().await;
    assert_eq!(client.declare_queue(&queue_spec("q", &[])).await.unwrap().messages, 3);
    stage.close().await;
}

#[tokio::test]
async fn what_is_left_of_a_session_is_removed_only_when_who_keeps_the_list_says_that_it_is_over() {
    let kept = Kept::new();
    // Begun under the owner, each; and who of them goes on.
    type Clients = &'static [&'static str];
    let lives: [(&str, Clients, Clients, Clients); 5] = [
        ("one", &["a", "b"], &[], &["$session/a", "$session/b"]),
        ("another", &["c"], &[], &["$session/a", "$session/b", "$session/c"]),
        ("another", &[], &[], &["$session/a", "$session/b", "$session/c"]),
        ("another", &[], &["a"], &["$session/a", "$session/b"]),
        ("one", &[], &["b"], &["$session/b"]),
    ];
    for (owner, begun, goes_on, left) in lives {
        let backend = kept.open().expect("it opens");
        backend.recall_sessions("/", owner, &|client| goes_on.contains(&client)).await;
        for client in begun {
            let terms = SessionTerms { at_broker: false, fresh: true, keep: 3600, window: 100, will: None };
            let client = Client {
                number: 1,
                identifier: (*client).into(),
                user: "guest".into(),
                vhost: "/".into(),
                session: Some(Arc::new(terms)),
            };
            drop(backend.connect(&client, Arc::new(Recorder::default())).await.expect("it connects"));
        }
        let mut names: Vec<String> = backend.queues().iter().map(|queue| queue.name.to_string()).collect();
        names.sort_unstable();
        assert_eq!(names, left, "after {owner} said that {goes_on:?} go on");
        backend.close().await;
    }
}

/// Declares a queue as a route does.
async fn declare(client: &mut Peer<'_>, queue: &str, arguments: &[Argument<'_>], terms: Terms) -> u64 {
    let terms = Arc::new(terms);
    let spec = QueueSpec { terms: Some(&terms), ..queue_spec(queue, arguments) };
    client.declare_queue(&spec).await.expect("a queue is declared").messages
}

#[tokio::test]
async fn a_message_is_given_out_as_often_as_its_route_says_over_crashes() {
    let mut kept = Kept::new();
    let dead = [
        ("x-dead-letter-exchange", Value::Text("".into())),
        ("x-dead-letter-routing-key", Value::Text("dead".into())),
    ];
    let terms = || Terms { max_deliveries: NonZeroU32::new(2), ..Terms::default() };
    for attempt in 0..2 {
        let stage = Stage::new(&kept, "life").await;
        let mut client = stage.client().await;
        client.queue("dead", &[]).await;
        client.queue("other", &[]).await;
        declare(&mut client, "q", &dead, terms()).await;
        if attempt == 0 {
            let target = client.to_queue("q");
            assert!(client.confirm(&Letters::confirmed(target, [7])).await.is_empty());
        }
        client.consume("q", 1, 1).await;
        let given = client.expect_numbers([7]).await;
        assert_eq!(given[0].attempt, attempt);
        // What is confirmed later is safe later.
        let other = client.to_queue("other");
        assert!(client.confirm(&Letters::confirmed(other, [8])).await.is_empty());
        let left = kept.crashed();
        drop(client);
        stage.close().await;
        kept = left;
    }
    let stage = Stage::new(&kept, "last life").await;
    let mut client = stage.client().await;
    declare(&mut client, "q", &dead, terms()).await;
    client.consume("q", 1, 1).await;
    client.consume("dead", 2, 1).await;
    let given = client.expect_numbers([7]).await;
    assert_eq!(given[0].key.subscription, 2, "it is a dead letter");
    client.expect_nothing().await;
    stage.close().await;
}

#[tokio::test]
async fn a_message_that_is_held_back_waits_for_what_remains_after_a_restart() {
    const MANY: u32 = 5000;
    let kept = Kept::new();
    let terms = || Terms { delay: Some(0), ..Terms::default() };
    let stage = Stage::new(&kept, "held back").await;
    let mut client = stage.client().await;
    declare(&mut client, "q", &[], terms()).await;
    let target = client.to_queue("q");
    let delayed =
        |number, delay| Letter::numbered(target, number).confirmed().header(DELAY, Value::I32(delay));
    // More than are kept in memory.
    let begun = std::time::Instant::now();
    let letters: Letters = (0..MANY).map(|number| delayed(number, 6000)).collect();
    assert!(client.confirm(&letters).await.is_empty());
    let soon = [delayed(MANY, 1500), Letter::numbered(target, MANY + 1).confirmed()];
    assert!(client.confirm(&soon.into_iter().collect()).await.is_empty());
    assert_eq!(declare(&mut client, "q", &[], terms()).await, 1);
    drop(client);
    stage.close().await;

    let stage = Stage::new(&kept, "held back still").await;
    let mut client = stage.client().await;
    assert_eq!(declare(&mut client, "q", &[], terms()).await, 1, "what is held back is not ready");
    client.consume("q", 1, 0).await;
    client.expect_numbers([MANY + 1]).await;
    client.expect_numbers([MANY]).await;
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    client.expect_numbers(0..MANY).await;
    assert!(begun.elapsed() >= Duration::from_millis(6000));
    client.expect_nothing().await;
    stage.close().await;
}

#[tokio::test]
async fn what_is_ready_is_given_out_although_very_much_that_waits_stands_before_it_in_the_log() {
    const MANY: u32 = 10_000;
    let kept = Kept::new();
    let terms = || Terms { delay: Some(0), ..Terms::default() };
    let stage = Stage::new(&kept, "very much waits").await;
    let mut client = stage.client().await;
    declare(&mut client, "q", &[], terms()).await;
    let target = client.to_queue("q");
    let delayed = |number| Letter::numbered(target, number).confirmed().header(DELAY, Value::I32(600_000));
    assert!(client.confirm(&(0..MANY).map(delayed).collect()).await.is_empty());
    assert!(client.confirm(&Letters::confirmed(target, [MANY])).await.is_empty());
    drop(client);
    stage.close().await;

    let narrow = Narrow(&kept);
    let stage = Stage::new(&narrow, "and is looked through").await;
    let mut client = stage.client().await;
    declare(&mut client, "q", &[], terms()).await;
    client.consume("q", 1, 0).await;
    client.expect_numbers([MANY]).await;
    client.expect_nothing().await;
    stage.close().await;
}

#[tokio::test]
async fn a_full_queue_drops_its_oldest_also_while_they_wait_for_others_of_their_key_in_the_log_alone() {
    const MANY: u32 = 5000;
    const MOST: u32 = 2000;
    let kept = Kept::new();
    let stage = Stage::new(&kept, "full of one key").await;
    let mut client = stage.client().await;
    client.queue("dead", &[]).await;
    let dead = [
        ("x-dead-letter-exchange", Value::Text("".into())),
        ("x-dead-letter-routing-key", Value::Text("dead".into())),
    ];
    let terms = Terms {
        ordering_key: Some(Attribute::Property("key".into())),
        max_length: NonZeroU64::new(MOST.into()),
        overflow: Overflow::DropHead,
        ..Terms::default()
    };
    declare(&mut client, "q", &dead, terms).await;
    let target = client.to_queue("q");
    let letter = |number| Letter::numbered(target, number).confirmed().header("key", Value::I64(1));
    client.consume("q", 1, 1).await;
    assert!(client.confirm(&Letters::from_iter([letter(0)])).await.is_empty());
    let first = client.expect_numbers([0]).await;
    let mut other = stage.client().await;
    other.consume("q", 1, 0).await;
    for from in (1..=MANY).step_by(500) {
        assert!(client.confirm(&(from..from + 500).map(letter).collect()).await.is_empty());
    }
    let passive = QueueSpec { passive: true, ..queue_spec("q", &[]) };
    let counts = client.declare_queue(&passive).await.expect("it is there");
    assert_eq!(counts.messages, u64::from(MOST));
    client.consume("dead", 2, 0).await;
    client.expect_numbers(1..=MANY - MOST).await;
    other.expect_nothing().await;
    client.unsubscribe(key(1)).await.expect("a consumer is cancelled");
    first.iter().for_each(|first| client.accept(first));
    other.expect_numbers(MANY - MOST + 1..=MANY).await;
    drop((client, other));
    stage.close().await;
}

#[tokio::test]
async fn what_was_published_before_a_restart_is_dropped_when_it_comes_again() {
    const MANY: u32 = 3000;
    let kept = Kept::new();
    let terms = || {
        let by = Attribute::Property("id".into());
        Terms { deduplicate: Some(Deduplicate { by, window: 600_000 }), ..Terms::default() }
    };
    let letter = |target, number: u32| {
        Letter::numbered(target, number).confirmed().header("id", Value::I64((number % MANY).into()))
    };
    for life in 0..3 {
        let stage = Stage::new(&kept, "life").await;
        let mut client = stage.client().await;
        declare(&mut client, "q", &[], terms()).await;
        let target = client.to_queue("q");
        // Each life publishes some again, and some that are new.
        let numbers = life * 1000..life * 1000 + 2000;
        let letters: Letters = numbers.clone().map(|number| letter(target, number)).collect();
        assert!(client.confirm(&letters).await.is_empty());
        client.consume("q", 1, 0).await;
        let new = if life == 0 { 0..2000 } else { life * 1000 + 1000..(life * 1000 + 2000).min(MANY) };
        let given = client.expect_numbers(new).await;
        client.expect_nothing().await;
        given.iter().for_each(|given| client.accept(given));
        drop(client);
        stage.close().await;
    }
}

#[tokio::test]
async fn what_is_gone_with_its_process_does_not_count_for_the_length_that_a_route_gives() {
    let kept = Kept::new();
    let terms = || Terms { max_length: NonZeroU64::new(100_000), ..Terms::default() };
    let stage = Stage::new(&kept, "long").await;
    let mut client = stage.client().await;
    declare(&mut client, "q", &[], terms()).await;
    let target = client.to_queue("q");
    for from in (0..80_000).step_by(1000) {
        let letters: Letters = (from..from + 1000)
            .map(|number| Letter::numbered(target, number).flagged(Flags::RECEIPT))
            .collect();
        assert!(client.confirm(&letters).await.is_empty());
    }
    assert!(client.confirm(&Letters::confirmed(target, 0..2)).await.is_empty());
    drop(client);
    stage.close().await;

    let stage = Stage::new(&kept, "counted").await;
    let mut client = stage.client().await;
    assert_eq!(declare(&mut client, "q", &[], terms()).await, 2);
    stage.close().await;
}
