use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use linkspan::ledger::PostgresLedger;
use linkspan_contract::conformance::ledger::LedgerFixture;
use linkspan_contract::ledger::{Conditions, Ledger, LedgerError};
use linkspan_contract::{Leases, NotGranted, ledger_conformance};
use linkspan_integration_tests::cable::Cable;
use linkspan_integration_tests::upstreams::{Postgres, unique};
use tokio_postgres::{Client, NoTls};

/// A database of a test's own.
struct Fixture {
    server: &'static Postgres,
    database: String,
}

async fn fixture() -> Fixture {
    let server = Postgres::shared().await;
    Fixture { server, database: made_at(server).await }
}

/// A database of a test's own there.
pub async fn made_at(server: &Postgres) -> String {
    let database = unique("ledger").replace('-', "_");
    client(server.url())
        .await
        .batch_execute(&format!("CREATE DATABASE {database}"))
        .await
        .expect("a database");
    database
}

async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the server lets us in");
    tokio::spawn(connection);
    client
}

impl Fixture {
    fn url(&self) -> String {
        self.server.url_of(&self.database, self.server.address())
    }
}

#[async_trait]
impl LedgerFixture for Fixture {
    async fn ledger(&self, instance: &str) -> Arc<dyn Ledger> {
        Arc::new(PostgresLedger::open(&self.url(), instance).expect("a URL"))
    }

    /// Its clock is the server's, so what it has noted is put back instead.
    async fn pass(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let shift = format!(
            "UPDATE linkspan.entries SET expires = expires - make_interval(secs => {seconds});
             UPDATE linkspan.leases SET until = until - make_interval(secs => {seconds})"
        );
        client(&self.url()).await.batch_execute(&shift).await.expect("the tables are there");
    }
}

ledger_conformance!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    fixture().await
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_started_again_takes_its_lease_over_at_once_under_another_number() {
    let fixture = fixture().await;
    let before = fixture.ledger("one").await.take("queue").await.unwrap();
    let again = fixture.ledger("one").await;
    let after = again.take("queue").await.expect("it is the same instance");
    assert!(after.fence > before.fence, "{} after {}", after.fence, before.fence);
    assert_eq!(fixture.ledger("two").await.take("queue").await, Err(NotGranted::Held("one".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_a_lost_connection_and_what_was_done_then_is_known_by_asking_again() {
    let fixture = fixture().await;
    let cable = Cable::to(fixture.server.address()).await;
    let url = fixture.server.url_of(&fixture.database, cable.address());
    let (one, two) = (PostgresLedger::open(&url, "one").unwrap(), fixture.ledger("two").await);
    let lease = one.take("queue").await.unwrap();
    cable.cut().await;
    let lost = one.put("a", b"1", Conditions::default()).await;
    assert!(matches!(lost, Err(LedgerError::Away(_))), "{lost:?}");
    assert!(matches!(one.take("queue").await, Err(NotGranted::Away(_))));
    assert_eq!(two.take("queue").await, Err(NotGranted::Held("one".into())), "it has not run out");
    cable.heal().await;
    assert_eq!(
        one.take("queue").await.map(|lease| lease.fence),
        Ok(lease.fence),
        "renewed as if nothing had been"
    );
    assert_eq!(one.get("a").await, Ok(None));

    // cut in the middle: it is asked, and nobody hears the answer
    cable.cut().await;
    fixture.pass(lease.lasts + Duration::from_secs(1)).await;
    let taken = two.take("queue").await.expect("it ran out meanwhile");
    cable.heal().await;
    let guard = Conditions { guard: Some(("queue", lease.fence)), ..Conditions::default() };
    assert_eq!(one.put("a", b"late", guard).await, Err(LedgerError::Fenced { lease: "queue".into() }));
    assert_eq!(one.take("queue").await, Err(NotGranted::Held("two".into())));
    assert!(taken.fence > lease.fence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_is_given_up_in_time_and_asked_again() {
    let fixture = fixture().await;
    let cable = Cable::to(fixture.server.address()).await;
    let ledger =
        PostgresLedger::open(&fixture.server.url_of(&fixture.database, cable.address()), "one").unwrap();
    ledger.put("a", b"1", Conditions::default()).await.unwrap();
    cable.stall();
    let began = Instant::now();
    let silent = ledger.put("a", b"2", Conditions::default()).await;
    assert!(matches!(silent, Err(LedgerError::Away(_))), "{silent:?}");
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    cable.heal().await;
    let until = Instant::now() + Duration::from_secs(30);
    while let Err(error) = ledger.put("a", b"3", Conditions::default()).await {
        assert!(Instant::now() < until, "{error}");
    }
    assert_eq!(&ledger.get("a").await.unwrap().unwrap().value[..], b"3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_said_is_there_after_the_server_was_killed() {
    let server = Postgres::own().await;
    let database = made_at(&server).await;
    let ledger = PostgresLedger::open(&server.url_of(&database, server.address()), "one").unwrap();
    let version = ledger.put("a", b"1", Conditions::default()).await.unwrap();
    let lease = ledger.take("queue").await.unwrap();
    server.kill().await;
    assert!(matches!(ledger.get("a").await, Err(LedgerError::Away(_))));
    server.start().await;
    let entry = ledger.get("a").await.expect("it connects again").expect("and it is there");
    assert_eq!((&entry.value[..], entry.version), (&b"1"[..], version));
    assert_eq!(ledger.take("queue").await.map(|lease| lease.fence), Ok(lease.fence));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_for_people() {
    let server = Postgres::shared().await;
    let Err(unfit) = PostgresLedger::open("postgres://one:port:too/many", "one") else { panic!("no URL") };
    assert!(unfit.to_string().contains("`port`"), "{unfit}");
    let missing = server.url_of("no_such_database", server.address());
    let nobody = "postgres://linkspan@127.0.0.1:1/postgres".to_owned();
    let encrypted = format!("{}?sslmode=require", server.url());
    for (url, why) in [(missing, "no_such_database"), (nobody, "refused"), (encrypted, "TLS")] {
        let away = PostgresLedger::open(&url, "one").unwrap().get("a").await.unwrap_err();
        assert!(matches!(&away, LedgerError::Away(text) if text.contains(why)), "`{why}` in {away}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_a_later_version_are_left_alone() {
    let fixture = fixture().await;
    fixture.ledger("one").await.put("a", b"1", Conditions::default()).await.unwrap();
    client(&fixture.url()).await.batch_execute("UPDATE linkspan.format SET number = 2").await.unwrap();
    let refused = fixture.ledger("one").await.get("a").await.unwrap_err();
    assert!(refused.to_string().contains("format 2"), "{refused}");
}
