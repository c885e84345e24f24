//! The server is killed at random moments, over and over, while clients of all kinds work. What it has acknowledged is
//! there, what was settled is gone, and what comes again says so.
//!
//! `LINKSPAN_KILL_ROUNDS` says how often it is killed, 60 times unless set; `LINKSPAN_TEST_SEED` takes the moments and
//! dice of an earlier run.

mod brokers;
mod declarations;
mod dice;
mod life;
mod members;
mod notes;
mod publishers;
mod retained;
mod taker;
mod transactions;
mod wills;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::soon;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use brokers::Brokers;
use declarations::Declared;
use dice::Dice;
use life::{Life, Work};
use members::Member;
use notes::Notes;
use publishers::Publishing;
use retained::States;
use taker::Taking;
use wills::WILLS;

/// The queue `jobs` is a work route's. Files of the log are small, so that room is made in it all the time.
const CONFIG: &str = r#"
[backends.local]
kind = "embedded"
segment-size = "1 MiB"

[vhosts."/"]
backend = "local"

[[route]]
match = "jobs/#"
pattern = "competing-consumers"
queue = "jobs"
"#;

/// A start that takes longer is waited for no longer before it is killed.
const LONG_START: Duration = Duration::from_secs(2);

/// How long the last life may take to give everything out, and how much longer for each life before it: the slower
/// clients fall behind a little in every life.
const DRAINING: (Duration, Duration) = (Duration::from_secs(240), Duration::from_secs(1));

/// Some 500 of these are a queue's window in memory.
const LARGE: usize = 32 << 10;

const PUBLISHINGS: [Publishing; 5] = [
    Publishing::singles("single"),
    Publishing { at_once: 50, priorities: 6, pause: 20, ..Publishing::singles("batches") },
    Publishing { at_once: 50, bytes: LARGE, transient: 30, pause: 5, ..Publishing::singles("backlog") },
    Publishing { at_once: 5, expiry: Some(200), pause: 10, ..Publishing::singles("expiring") },
    Publishing { at_once: 10, pause: 60, ..Publishing::singles("moving") },
];

const TAKINGS: [Taking; 13] = [
    Taking { requeued: 8, rejected: 12, ..Taking::all("single") },
    Taking { prefetch: 60, at_once: 20, ..Taking::all("batches") },
    Taking { prefetch: 40, at_once: 10, pause: 60, ..Taking::all("backlog") },
    Taking::all("pairs-a"),
    Taking { prefetch: 7, at_once: 3, ..Taking::all("pairs-b") },
    Taking::all("moved"),
    Taking::all("graves"),
    Taking::all("expired"),
    Taking { requeued: 5, ..Taking::all("plant") },
    Taking::all("jobs"),
    Taking::all("posted"),
    Taking { prefetch: 50, at_once: 10, ..Taking::all("news") },
    Taking::all(WILLS),
];

const NEWS: [&str; 2] = ["news/a", "news/b"];

/// Clients with kept sessions: one that takes little at a time, one that begins anew at times, and one whose session is
/// kept so shortly that it may be over when it comes again.
const MEMBERS: [Member; 3] = [
    Member { name: "steady", lines: &NEWS, window: 3, keep: 3600, fresh: 0 },
    Member { name: "fickle", lines: &NEWS, window: 50, keep: 3600, fresh: 15 },
    Member { name: "forgotten", lines: &NEWS, window: 10, keep: 1, fresh: 0 },
];

/// What others fill: these are taken last.
const BEHIND: [&str; 4] = ["moved", "graves", "expired", WILLS];

/// How long a will may take in the last life.
const WAITING: Duration = Duration::from_secs(20);

/// Declares what the clients work with; in later lives it is there already.
async fn declare(channel: &Channel) -> Work {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let dead_letters = |queue: &str| {
        let mut arguments = FieldTable::default();
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(queue));
        arguments
    };
    let mut priorities = FieldTable::default();
    priorities.insert("x-max-priority".into(), AMQPValue::LongInt(5));
    let mut graves = FieldTable::default();
    graves.insert("x-dead-letter-exchange".into(), text("graves"));
    let queues = [
        ("single", graves),
        ("batches", priorities),
        ("backlog", FieldTable::default()),
        ("pairs-a", FieldTable::default()),
        ("pairs-b", FieldTable::default()),
        ("moving", FieldTable::default()),
        ("moved", FieldTable::default()),
        ("graves", FieldTable::default()),
        ("expiring", dead_letters("expired")),
        ("expired", FieldTable::default()),
        ("plant", FieldTable::default()),
        ("posted", FieldTable::default()),
        ("news", FieldTable::default()),
        (WILLS, FieldTable::default()),
    ];
    for (queue, arguments) in queues {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), durable, arguments).await?;
    }
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare("graves".into(), ExchangeKind::Fanout, durable, FieldTable::default()).await?;
    for (queue, exchange, key) in [
        ("graves", "graves", ""),
        ("plant", "amq.topic", "plant.#"),
        ("posted", "amq.topic", "posted"),
        ("news", "amq.topic", "news.*"),
        (WILLS, "amq.topic", WILLS),
    ] {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(queue.into(), exchange.into(), key.into(), options, none).await?;
    }
    Ok(())
}

/// Returns when every message that expires has.
async fn await_expiry(channel: &Channel) {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let left = async || {
        let queue = channel.queue_declare("expiring".into(), passive, FieldTable::default()).await;
        queue.expect("the queue is there").message_count()
    };
    while left().await > 0 {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Takes what was left behind, until nothing is missing.
async fn take_wills(life: Life) -> Work {
    let until = Instant::now() + WAITING;
    loop {
        taker::take(life.clone(), Taking::all(WILLS)).await?;
        if life.notes().missing(WILLS) == 0 || Instant::now() > until {
            return Ok(());
        }
    }
}

/// Sends all clients to work.
fn start(life: &Life, declared: &Declared, states: &States, brokers: &Brokers) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let mut start = |name, work: std::pin::Pin<Box<dyn Future<Output = Work> + Send>>| {
        life.start(&mut clients, name, work);
    };
    for taking in TAKINGS.iter().copied().filter(|it| !(life.is_last && BEHIND.contains(&it.queue))) {
        start(taking.queue, Box::pin(taker::take(life.clone(), taking)));
    }
    start("mover", Box::pin(transactions::mover(life.clone(), "moving", "moved", "moved")));
    for member in MEMBERS {
        start(member.name, Box::pin(members::attend(life.clone(), member)));
    }
    if life.is_last {
        start(WILLS, Box::pin(take_wills(life.clone())));
        return clients;
    }
    for publishing in PUBLISHINGS {
        start(publishing.queue, Box::pin(publishers::by_amqp(life.clone(), publishing)));
    }
    start("pairs", Box::pin(transactions::pairs(life.clone(), "pairs", ["pairs-a", "pairs-b"])));
    let mut by_mqtt = |line, topic, speed| {
        start(line, Box::pin(publishers::by_mqtt(life.clone(), line, topic, speed)));
    };
    by_mqtt("plant", "plant/line/1", (20, 0));
    by_mqtt("jobs", "jobs/press", (20, 0));
    for line in NEWS {
        by_mqtt(line, line, (3, 10));
    }
    for (at, line) in brokers::LINES.into_iter().enumerate() {
        by_mqtt(line, brokers.topic(at), (10, 10));
    }
    start(WILLS, Box::pin(wills::leave(life.clone())));
    start("states", Box::pin(states.clone().change(life.clone())));
    start("posted", Box::pin(publishers::by_http(life.clone(), "posted", "posted")));
    start("declarations", Box::pin(declared.clone().change(life.clone())));
    clients
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Notes what the server complains about.
fn complain(notes: &Mutex<Notes>, said: &str) {
    for line in said.lines().filter(|line| line.contains("ERROR") || line.contains("panicked")) {
        notes.lock().unwrap().wrong(format!("the server says: {line}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_being_killed_at_any_moment() {
    let rounds = usize::try_from(number("LINKSPAN_KILL_ROUNDS", 60)).expect("a number of rounds");
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_micros() as u64;
    let seed = number("LINKSPAN_TEST_SEED", now);
    eprintln!("LINKSPAN_TEST_SEED={seed}");
    let folder = Folder::new();
    let (notes, declared) = (Arc::new(Mutex::new(Notes::default())), Declared::default());
    let states = States::default();
    let brokers = Brokers::watched(&notes).await;
    let file = folder.write("linkspan.toml", &format!("{CONFIG}{}", brokers.configuration));
    for queue in ["graves", "expired", WILLS] {
        notes.lock().unwrap().letters(queue);
    }
    // A will is nobody's publish: it may be written later.
    notes.lock().unwrap().elsewhere(WILLS);
    let (mut start_took, mut slowest, mut early) = (Duration::ZERO, Duration::ZERO, 0);
    for round in 0..=rounds {
        let is_last = round == rounds;
        let dice = Arc::new(Dice::new(seed.wrapping_add(round as u64)));
        while !is_last && dice.below(6) == 0 {
            // Killed while it starts, and reads what there is.
            let process = Process::start(folder.path(), &["--config", &file]);
            sleep(start_took.mul_f64(dice.below(100) as f64 / 80.0)).await;
            complain(&notes, &process.kill());
            brokers.killed();
            early += 1;
        }
        let begun = Instant::now();
        let mut process = Process::start(folder.path(), &["--config", &file]);
        let doors = ["amqp", "mqtt", "http"].map(|door| process.door(door));
        start_took = begun.elapsed().min(LONG_START);
        slowest = slowest.max(begun.elapsed());
        notes.lock().unwrap().begin(round);
        let life = Life::new(doors, &notes, is_last, &dice);
        let (_connection, channel) = soon("lapin connects", life.connect()).await.expect("lapin connects");
        soon("declarations", declare(&channel)).await.expect("everything can be declared");
        soon("what was declared", declared.check(&life)).await.expect("answers");
        soon("what is retained", states.check(&life)).await.expect("answers");
        let mut clients = start(&life, &declared, &states, &brokers);
        if is_last {
            let draining = DRAINING.0 + DRAINING.1 * u32::try_from(rounds).expect("a number of rounds");
            let done = timeout(draining, async {
                while clients.join_next().await.is_some() {}
                for queue in BEHIND {
                    await_expiry(&channel).await;
                    life.start(&mut clients, queue, taker::take(life.clone(), Taking::all(queue)));
                }
                while clients.join_next().await.is_some() {}
                brokers.await_all().await;
            })
            .await;
            let verdict = notes.lock().unwrap().verdict();
            assert!(done.is_ok(), "not everything was given out within {draining:?}; {verdict:?}");
            life.end();
            process.signal("TERM");
            let (status, said) = process.exit();
            assert!(status.success(), "{status}: {said}");
            let what = format!("{rounds} kills and {early} at the start, start {slowest:?} at most");
            judge(&notes, (&declared, &states), verdict, seed, &what);
            return;
        }
        let how_long = 150 + life.below(if life.below(4) == 0 { 1850 } else { 850 });
        // Where everything takes long, clients need longer to come to something.
        let how_long = Duration::from_millis(how_long) + start_took / 2;
        tokio::select! {
            () = sleep(how_long) => {}
            () = brokers.trouble(&life) => {}
        }
        life.end();
        if life.below(6) == 0 {
            // Killed while it goes down.
            process.signal("TERM");
            sleep(Duration::from_millis(life.below(60))).await;
        }
        let (lived, said) = (begun.elapsed(), process.kill());
        brokers.killed();
        eprintln!("life {round}: {how_long:?} of {lived:?}");
        complain(&notes, &said);
        while clients.join_next().await.is_some() {}
    }
}

/// The verdict; and that there was something to judge.
fn judge(
    notes: &Mutex<Notes>,
    (declared, states): (&Declared, &States),
    verdict: Result<(), String>,
    seed: u64,
    what: &str,
) {
    let notes = notes.lock().unwrap();
    let (summary, (found, expired)) = (notes.summary(), notes.sessions());
    let retained = states.acknowledged();
    eprintln!(
        "{what}; {} declared; {retained} retained; sessions found {found} times, over {expired} times; {} came twice at \
         brokers; {summary}",
        declared.len(),
        notes.twice()
    );
    if let Err(wrong) = verdict {
        panic!("LINKSPAN_TEST_SEED={seed}: {what}; {summary}\n{wrong}");
    }
    let lines =
        ["single", "batches", "backlog", "expiring", "pairs", "moving", "moved", "plant", "jobs", "posted"];
    for line in lines.into_iter().chain(NEWS).chain(brokers::LINES).chain([WILLS]) {
        assert!(notes.acknowledgements(line) > 0, "nothing was acknowledged of {line}: {summary}");
    }
    assert!(
        notes.again > 0 && declared.len() > 0,
        "no kill took anything out of somebody's hands: {summary}"
    );
    assert!(found > 0 && expired > 0, "no session was found again, or none was over");
}
