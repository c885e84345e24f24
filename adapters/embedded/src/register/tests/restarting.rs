//! What is there after a start, in a real directory.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::conformance::clocks::PausedClock;
use linkspan_contract::topology::BindingEnd;
use linkspan_contract::{ExchangeKind, Refused, Value};
use redb::{Database, TableDefinition};

use super::super::{QueueName, Register, RegisterError, queue_names};
use super::life::{CLIENT, Life, STEPS, exchange, queue};
use crate::house::House;
use crate::options::EmbeddedOptions;
use crate::vhost::Vhost;

fn file(directory: &Path) -> std::path::PathBuf {
    directory.join("topology.redb")
}

#[tokio::test]
async fn after_each_kind_of_change_a_restart_finds_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut life = Life::at(directory.path());
    assert!(life.known.is_empty() && life.whole, "nothing was declared");
    for step in 0..STEPS {
        life.step(step).await.unwrap();
        let (rows, number) = (life.rows(), life.number("q"));
        drop(life);
        life = Life::at(directory.path());
        assert_eq!(life.known, rows, "what is kept after step {step}");
        assert_eq!(life.rows(), rows, "what is seen after step {step}");
        assert_eq!(life.number("q"), number, "the queue's number after step {step}");
        assert!(life.whole);
    }
}

#[tokio::test]
async fn a_number_is_never_given_twice_whatever_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..5 {
        let life = Life::at(directory.path());
        for _ in 0..3 {
            life.queue("q", &[]).await.unwrap();
            let number = life.number("q").unwrap();
            assert!(number > last, "{number} comes after {last}");
            last = number;
            life.vhost.delete_queue("q", false, false, CLIENT).await.unwrap();
        }
    }
}

#[tokio::test]
async fn arguments_of_every_type_are_the_same_after_a_restart() {
    let arguments = || {
        let nested = Value::Table(vec![
            ("list".into(), Value::Array(vec![Value::I64(i64::MIN), Value::Void, Value::Bool(false)])),
            ("table".into(), Value::Table(vec![])),
        ]);
        vec![
            ("void", Value::Void),
            ("bool", Value::Bool(true)),
            ("i8", Value::I8(-1)),
            ("u8", Value::U8(255)),
            ("i16", Value::I16(-2)),
            ("u16", Value::U16(65_535)),
            ("i32", Value::I32(-3)),
            ("u32", Value::U32(u32::MAX)),
            ("i64", Value::I64(-4)),
            ("f32", Value::F32(-0.0)),
            ("f64", Value::F64(f64::MIN_POSITIVE)),
            ("decimal", Value::Decimal { scale: 2, value: 314 }),
            ("text", Value::Text("ü".into())),
            ("long", Value::LongString(b"\xff"[..].into())),
            ("bytes", Value::Bytes(b"\0\xfe"[..].into())),
            ("timestamp", Value::Timestamp(u64::MAX)),
            ("nested", nested),
            ("twice", Value::I32(1)),
            ("twice", Value::I64(1)),
            ("x-max-length", Value::I16(5)),
            ("x-dead-letter-exchange", Value::Text("".into())),
        ]
    };
    let directory = tempfile::tempdir().unwrap();
    let life = Life::at(directory.path());
    life.queue("q", &arguments()).await.unwrap();
    let declared = life.vhost.look().queue("q").unwrap().traits().declared.clone();
    drop(life);
    let life = Life::at(directory.path());
    let restored = life.vhost.look().queue("q").unwrap().traits().declared.clone();
    assert_eq!(restored, declared);
    assert_eq!(format!("{restored:?}"), format!("{declared:?}"), "signs of zero included");
    assert!(life.queue("q", &arguments()).await.unwrap().1.is_none(), "the same again is the same queue");
    let refused = life.queue("q", &[]).await.unwrap_err();
    let is_inequivalent = matches!(&refused, Refused::Inequivalent { argument, current, .. }
        if argument == "x-dead-letter-exchange" && current == "the value '' of type 'longstr'");
    assert!(is_inequivalent, "{refused}");
}

#[tokio::test]
async fn exchanges_that_were_restored_are_compared_with_a_second_declaration() {
    let directory = tempfile::tempdir().unwrap();
    Life::at(directory.path()).exchange("x", ExchangeKind::Topic).await.unwrap();
    let life = Life::at(directory.path());
    life.exchange("x", ExchangeKind::Topic).await.unwrap();
    let refused = life.exchange("x", ExchangeKind::Direct).await.unwrap_err();
    assert!(matches!(&refused, Refused::Inequivalent { argument, .. } if argument == "type"), "{refused}");
}

#[tokio::test]
async fn what_is_transient_or_exclusive_is_gone_after_a_restart_and_so_are_bindings_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::at(directory.path());
    let mut transient = exchange("z", ExchangeKind::Fanout);
    transient.durable = false;
    life.vhost.declare_exchange(&transient).await.unwrap();
    let mut passing = queue("passing", &[]);
    passing.durable = false;
    life.vhost.declare_queue(&passing, CLIENT).await.unwrap();
    let mut own = queue("own", &[]);
    own.exclusive = true;
    life.vhost.declare_queue(&own, CLIENT).await.unwrap();
    assert_eq!(life.number("own"), None, "nobody would own it after a restart");
    life.queue("q", &[]).await.unwrap();
    for (source, to) in [("z", "q"), ("amq.topic", "passing"), ("amq.topic", "own"), ("amq.fanout", "q")] {
        life.bind(source, BindingEnd::Queue(to), "k").await.unwrap();
    }
    drop(life);
    let life = Life::at(directory.path());
    assert!(life.whole, "nothing leads nowhere");
    assert_eq!(life.known.len(), 2, "the queue and its binding to amq.fanout: {:?}", life.known);
    assert!(!life.sees_queue("own") && !life.sees_queue("passing"));
}

#[tokio::test]
async fn vhosts_are_kept_apart() {
    let directory = tempfile::tempdir().unwrap();
    let (register, _) = Register::open(directory.path()).unwrap();
    let register = Arc::new(register);
    let house = Arc::new(House::new(
        "local",
        EmbeddedOptions::default(),
        Arc::new(linkspan_contract::SystemClock),
        None,
    ));
    for name in ["a", "b"] {
        let vhost = Arc::new(Vhost::kept(name.into(), Arc::clone(&house), None, Arc::clone(&register)));
        vhost.declare_queue(&queue("q", &[]), CLIENT).await.unwrap();
        vhost.bind(&super::life::binding("amq.topic", BindingEnd::Queue("q"), name), CLIENT).await.unwrap();
        if name == "b" {
            vhost.delete_queue("q", false, false, CLIENT).await.unwrap();
        }
    }
    register.close();
    let (register, known) = Register::open(directory.path()).unwrap();
    let restored = known.restore(&house, None, &Arc::new(register));
    let [vhost] = &restored.vhosts[..] else { panic!("one vhost holds something") };
    assert_eq!(&*vhost.name, "a");
    let mut bindings = 0;
    vhost.look().exchange("amq.topic").unwrap().each_binding(|_| bindings += 1);
    assert_eq!(bindings, 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_expires_is_kept_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let (register, _) = Register::open(directory.path()).unwrap();
    let register = Arc::new(register);
    let clock = Arc::new(PausedClock::new());
    let house = Arc::new(House::new("local", EmbeddedOptions::default(), clock, None));
    let vhost = Arc::new(Vhost::kept("/".into(), house, None, Arc::clone(&register)));
    let arguments = [("x-expires", Value::I32(20))];
    vhost.declare_queue(&queue("q", &arguments), CLIENT).await.unwrap();
    assert_eq!(queue_names(directory.path()).unwrap().len(), 1);
    while vhost.look().queue("q").is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    register.settled().await.unwrap();
    assert_eq!(queue_names(directory.path()).unwrap().len(), 0);
}

#[tokio::test]
async fn people_read_names_beside_a_running_server_and_after_it() {
    let directory = tempfile::tempdir().unwrap();
    assert!(queue_names(directory.path()).unwrap().is_empty(), "there is no file yet");
    let life = Life::at(directory.path());
    life.queue("q", &[]).await.unwrap();
    let q = QueueName { vhost: "/".into(), name: "q".into() };
    let expected = [(life.number("q").unwrap(), q)].into();
    assert_eq!(queue_names(directory.path()).unwrap(), expected);
    drop(life);
    assert_eq!(queue_names(directory.path()).unwrap(), expected);
}

#[tokio::test]
async fn names_are_read_while_the_file_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::at(directory.path());
    life.queue("always", &[]).await.unwrap();
    let path = directory.path().to_owned();
    let reader = std::thread::spawn(move || {
        for _ in 0..20 {
            let names = queue_names(&path).expect("what is caught half-written is read again");
            assert!(names.values().any(|queue| &*queue.name == "always"));
        }
    });
    while !reader.is_finished() {
        life.queue("q", &[]).await.unwrap();
        life.vhost.delete_queue("q", false, false, CLIENT).await.unwrap();
    }
    reader.join().unwrap();
}

#[tokio::test]
async fn a_second_server_is_refused_and_the_first_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::at(directory.path());
    let error = Register::open(directory.path()).unwrap_err();
    assert!(matches!(error, RegisterError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("topology.redb is in use by another process"), "{error}");
    life.queue("q", &[]).await.unwrap();
    drop(life);
    assert!(Life::at(directory.path()).sees_queue("q"));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_left_out_and_takes_nothing_else_with_it() {
    const EXCHANGES: TableDefinition<'_, (&str, &str), (&str, u8, &[u8])> = TableDefinition::new("exchanges");
    const QUEUES: TableDefinition<'_, (&str, &str), (u64, u8, &[u8])> = TableDefinition::new("queues");
    let directory = tempfile::tempdir().unwrap();
    let life = Life::at(directory.path());
    life.queue("q", &[]).await.unwrap();
    life.exchange("x", ExchangeKind::Direct).await.unwrap();
    life.bind("x", BindingEnd::Queue("q"), "k").await.unwrap();
    let mut rows = life.rows();
    drop(life);
    let database = Database::open(file(directory.path())).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(EXCHANGES).unwrap().insert(("/", "x"), ("x-new-kind", 0, &[][..])).unwrap();
    transaction.open_table(QUEUES).unwrap().insert(("/", "odd"), (900, 0, &[99][..])).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        let life = Life::at(directory.path());
        assert!(!life.whole, "what is in the log for a queue that nobody knows may be that row's");
        assert!(life.sees_queue("q") && !life.sees_queue("odd"));
        rows.retain(|row| row.starts_with("QueueRow"));
        assert_eq!(life.rows(), rows);
        assert!(life.register.number() > 900, "the number of a row that cannot be read is not given again");
    }
    let life = Life::at(directory.path());
    life.queue("odd", &[]).await.unwrap();
    life.exchange("x", ExchangeKind::Direct).await.unwrap();
    drop(life);
    let life = Life::at(directory.path());
    assert!(
        life.whole && life.sees_queue("odd"),
        "what was declared anew is in the place of the damaged row"
    );
}

#[tokio::test]
async fn a_file_of_another_format_is_refused_by_its_number() {
    const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
    let directory = tempfile::tempdir().unwrap();
    drop(Life::at(directory.path()));
    let database = Database::open(file(directory.path())).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(NUMBERS).unwrap().insert("format", 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Register::open(directory.path()).unwrap_err();
    assert!(matches!(error, RegisterError::Version { found: 2, known: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_taken_for_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::at(directory.path());
    for number in 0..40 {
        life.queue(&format!("q{number}"), &[("x", Value::Text("y".repeat(100).into()))]).await.unwrap();
    }
    let rows = life.rows();
    drop(life);
    let file = file(directory.path());
    let whole = fs::read(&file).unwrap();
    let mut damaged = 0;
    for at in (0..whole.len()).step_by(1021) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&file, &bytes).unwrap();
        match Register::open(directory.path()) {
            Ok((register, known)) => {
                let words = known.vhosts.values().flatten().map(super::life::in_words).collect();
                assert_eq!(rows, words, "byte {at} is of no page in use");
                register.close();
            }
            Err(RegisterError::Damaged { .. }) => damaged += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(damaged > 5, "{damaged} pages of the file are in use");
    for len in [0, 1, 100, 4096, whole.len() / 2] {
        fs::write(&file, &whole[..len]).unwrap();
        let error = Register::open(directory.path()).unwrap_err();
        assert!(matches!(error, RegisterError::Damaged { .. }), "the first {len} bytes: {error}");
    }
}

#[test]
fn a_file_that_an_earlier_version_wrote_can_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture/topology-1.redb");
    fs::copy(fixture, file(directory.path())).unwrap();
    let life = Life::at(directory.path());
    assert!(life.whole);
    assert_eq!(life.rows(), life.known);
    assert_eq!(life.known.len(), 9, "{:#?}", life.known);
    assert_eq!((life.number("q"), life.number("w")), (Some(1), Some(2)));
    assert_eq!(life.register.number(), 3);
}
