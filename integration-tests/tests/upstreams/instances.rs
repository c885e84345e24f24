//! Two Linkspans in front of one MQTT broker, with one ledger.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_lite::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions};
use lapin::types::{AMQPValue, FieldTable};
use linkspan::ledger::LEASE;
use linkspan_integration_tests::amqp::{Amqp, text};
use linkspan_integration_tests::mqtt5::Mqtt5;
use linkspan_integration_tests::process::{Folder, Process};
use linkspan_integration_tests::upstreams::{Postgres, unique};
use linkspan_integration_tests::{Cable, Mosquitto, soon};
use rumqttc::v5::mqttbytes::v5::PubAckReason;

use crate::back_ends::{mosquitto_at, work};

/// What taking over takes beside the rest of the lease.
const SOON: Duration = Duration::from_secs(5);

/// A Linkspan that can be killed and started again.
struct Instance {
    name: String,
    folder: Folder,
    process: Process,
}

impl Instance {
    fn start(name: &str, ledger: &str, mosquitto: &Mosquitto, jobs: &str) -> Self {
        Self::with_route(name, ledger, mosquitto, &work(jobs, jobs, "mosquitto"))
    }

    fn with_route(name: &str, ledger: &str, mosquitto: &Mosquitto, route: &str) -> Self {
        let (folder, name) = (Folder::new(), unique(name));
        let top = format!("ledger = \"{ledger}\"\ninstance = \"{name}\"\n");
        let all = format!("{top}{}{route}", mosquitto_at(mosquitto.url()));
        folder.write("linkspan.toml", &all);
        let process = Self::process(&folder);
        Self { name, folder, process }
    }

    fn process(folder: &Folder) -> Process {
        Process::start(folder.path(), &["--config", "linkspan.toml"])
    }

    fn again(&mut self) {
        self.process = Self::process(&self.folder);
    }

    fn amqp(&mut self) -> SocketAddr {
        self.process.door("amqp")
    }

    /// Returns when the queue is fed here.
    fn feeds(&mut self) {
        self.process.line_with(&["a work queue is fed by the broker"]);
    }

    /// Returns when it knows that another has the queue.
    fn yields_to(&mut self, other: &Self) {
        self.process.line_with(&[&format!("held by Linkspan instance '{}'", other.name)]);
    }

    /// One job, or why there is none to be had here.
    async fn job(&mut self, jobs: &str) -> Result<Option<String>, String> {
        let client = Amqp::connect(self.amqp()).await;
        let got = client.channel.basic_get(jobs.into(), BasicGetOptions { no_ack: true }).await;
        got.map(|job| job.map(|job| text(&job.delivery.data))).map_err(|error| error.to_string())
    }

    /// The number under which another consumer has the queue alone here; it does one job.
    async fn holds(&mut self, jobs: &str) -> i64 {
        let client = Amqp::connect(self.amqp()).await;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = client.channel.basic_consume(jobs.into(), "".into(), options, arguments).await;
        let mut consumer = consumer.expect("it may stand by");
        let job = soon("a job", consumer.next()).await.expect("the consumer lives").expect("a delivery");
        let headers = job.properties.headers().clone().expect("headers");
        job.ack(BasicAckOptions::default()).await.expect("the channel lives");
        match headers.inner().get("linkspan-fence") {
            Some(AMQPValue::LongLongInt(fence)) => *fence,
            other => panic!("no fence: {other:?}"),
        }
    }

    /// All jobs of these numbers, each at least once.
    async fn works(&mut self, jobs: &str, numbers: std::ops::Range<u32>) {
        let client = Amqp::connect(self.amqp()).await;
        let mut missing: BTreeSet<u32> = numbers.collect();
        let all = async {
            while !missing.is_empty() {
                match client.get(jobs).await {
                    Some(job) => _ = missing.remove(&job.parse().unwrap()),
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        soon("all jobs", all).await;
    }
}

/// Publishes jobs at the broker, as soon as the queue's member has subscribed there.
async fn order(device: &mut Mqtt5, jobs: &str, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let taken = async {
            while device.publish(jobs, &n.to_string()).await == PubAckReason::NoMatchingSubscribers {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon("the broker has somebody to keep it for", taken).await;
    }
}

async fn ledger() -> (&'static Postgres, String) {
    let postgres = Postgres::shared().await;
    let database = unique("ledger").replace('-', "_");
    let (client, connection) =
        tokio_postgres::connect(postgres.url(), tokio_postgres::NoTls).await.expect("it lets us in");
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {database}")).await.expect("a database");
    (postgres, database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_has_a_work_queue_and_when_it_is_killed_another_takes_over_within_the_leases_life() {
    let mosquitto = Mosquitto::shared().await;
    let (postgres, database) = ledger().await;
    let url = postgres.url_of(&database, postgres.address());
    let jobs = unique("jobs");
    let mut device = Mqtt5::connect(mosquitto.address(), &unique("device")).await;
    let mut one = Instance::start("one", &url, mosquitto, &jobs);
    one.feeds();
    let mut two = Instance::start("two", &url, mosquitto, &jobs);
    two.yields_to(&one);
    let refused = two.job(&jobs).await.expect_err("one has it");
    assert!(refused.contains("ACCESS") && refused.contains(&one.name), "{refused}");
    order(&mut device, &jobs, 0..20).await;
    one.works(&jobs, 0..20).await;

    one.process.signal("KILL");
    let killed = Instant::now();
    order(&mut device, &jobs, 20..120).await;
    two.feeds();
    let after = killed.elapsed();
    assert!(after < LEASE + SOON, "taken over after {after:?}");
    two.works(&jobs, 20..120).await;
    one.again();
    one.yields_to(&two);
    assert!(one.job(&jobs).await.is_err(), "two has it now");

    // Who is told to stop gives the queue back, and nobody waits for the lease to run out.
    two.process.signal("TERM");
    let stopped = Instant::now();
    one.feeds();
    let after = stopped.elapsed();
    assert!(after < LEASE / 2, "taken over after {after:?}");
    order(&mut device, &jobs, 120..130).await;
    one.works(&jobs, 120..130).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_of_an_exclusive_queue_have_greater_fences_wherever_it_goes_and_when_it_comes_back() {
    let mosquitto = Mosquitto::shared().await;
    let (postgres, database) = ledger().await;
    let url = postgres.url_of(&database, postgres.address());
    let bids = unique("bids");
    let route = format!(
        "[[route]]\nmatch = \"{bids}\"\npattern = \"exclusive-consumer\"\nqueue = \"{bids}\"\nothers = \"standby\"\n\
         backend = \"mosquitto\"\n"
    );
    let mut device = Mqtt5::connect(mosquitto.address(), &unique("device")).await;
    let mut one = Instance::with_route("one", &url, mosquitto, &route);
    one.feeds();
    let mut two = Instance::with_route("two", &url, mosquitto, &route);
    two.yields_to(&one);
    let mut fences = Vec::new();
    order(&mut device, &bids, 0..2).await;
    for _ in 0..2 {
        fences.push(one.holds(&bids).await);
    }
    one.process.signal("TERM");
    two.feeds();
    order(&mut device, &bids, 2..4).await;
    for _ in 0..2 {
        fences.push(two.holds(&bids).await);
    }
    one.again();
    one.yields_to(&two);
    two.process.signal("KILL");
    one.feeds();
    order(&mut device, &bids, 4..5).await;
    fences.push(one.holds(&bids).await);
    assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stood_still_past_its_lease_lets_go_and_asks_again() {
    let mosquitto = Mosquitto::shared().await;
    let (postgres, database) = ledger().await;
    let url = postgres.url_of(&database, postgres.address());
    let jobs = unique("jobs");
    let mut one = Instance::start("one", &url, mosquitto, &jobs);
    one.feeds();
    let mut two = Instance::start("two", &url, mosquitto, &jobs);
    two.yields_to(&one);
    one.process.signal("STOP");
    two.feeds();
    one.process.signal("CONT");
    one.yields_to(&two);
    assert!(one.job(&jobs).await.is_err(), "two has it now");
    two.works_alone(&jobs, mosquitto).await;
    let fed =
        two.process.listen(Duration::from_secs(1)).iter().filter(|line| line.contains("is fed by")).count();
    assert_eq!(fed, 1, "they do not throw each other out");

    two.process.signal("KILL");
    let killed = Instant::now();
    let back = soon_fed_twice(&mut one, LEASE + SOON);
    assert!(back, "one asks again");
    assert!(killed.elapsed() < LEASE + SOON);
    one.works_alone(&jobs, mosquitto).await;
}

impl Instance {
    /// Ten new jobs come to it.
    async fn works_alone(&mut self, jobs: &str, mosquitto: &Mosquitto) {
        let mut device = Mqtt5::connect(mosquitto.address(), &unique("device")).await;
        order(&mut device, jobs, 0..10).await;
        self.works(jobs, 0..10).await;
    }
}

/// Whether the queue is fed there for the second time, within that time.
fn soon_fed_twice(instance: &mut Instance, within: Duration) -> bool {
    let until = Instant::now() + within;
    while Instant::now() < until {
        let lines = instance.process.listen(Duration::from_millis(100));
        if lines.iter().filter(|line| line.contains("a work queue is fed by the broker")).count() == 2 {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_work_queue_waits_for_a_ledger_that_is_away_at_the_start_and_outlives_one_that_goes_for_a_moment() {
    let mosquitto = Mosquitto::shared().await;
    let (postgres, database) = ledger().await;
    let cable = Cable::to(postgres.address()).await;
    cable.cut().await;
    let url = postgres.url_of(&database, cable.address());
    let jobs = unique("jobs");
    let mut one = Instance::start("one", &url, mosquitto, &jobs);
    let line = one.process.line_with(&["WARN", "a work queue is not fed by this instance"]);
    assert!(line.contains("the ledger is away"), "{line}");
    assert_eq!(one.job(&jobs).await, Ok(None), "who works waits");
    cable.heal().await;
    one.feeds();
    one.works_alone(&jobs, mosquitto).await;
    cable.cut().await;
    // long enough for one renewal to fail
    tokio::time::sleep(LEASE / 3 + Duration::from_secs(2)).await;
    one.works_alone(&jobs, mosquitto).await;
    cable.heal().await;
    tokio::time::sleep(LEASE).await;
    one.works_alone(&jobs, mosquitto).await;
    let lost = |line: &&String| line.contains("is not fed any more");
    let said = one.process.listen(Duration::from_millis(10));
    assert_eq!(said.iter().find(lost), None, "it was renewed in time");
}
