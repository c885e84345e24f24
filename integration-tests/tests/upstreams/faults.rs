//! What is acknowledged is not lost, and keeps its order, whatever happens to the way to a broker or to the broker.
//!
//! Each run has a control: the same traffic at the broker itself, over the same cable, under the same fault. What the
//! control loses too is the broker's own loss; it is printed apart, and only that is forgiven.

use std::net::SocketAddr;
use std::time::Duration;

use linkspan_integration_tests::upstreams::unique;
use linkspan_integration_tests::{Cable, Mosquitto, RabbitMq, Server};
use tokio::time::{Instant, sleep};

use crate::random::Random;
use crate::traffic::{Line, Sender, Taker, Traffic};

/// After a broker accepts connections again, everything flows within this, beyond what clients need that connect to it
/// themselves, every 50 ms: a busy machine delays both.
const BACK: Duration = Duration::from_secs(2);

/// How long all is well before anything goes wrong.
const CALM: Duration = Duration::from_millis(700);

/// Some traffic through Linkspan and some without.
struct Run {
    through: Traffic,
    control: Traffic,
    server: Server,
    faults: Vec<Instant>,
    /// Since when nothing is wrong any more.
    healed: Instant,
}

/// One publish-subscribe address and one work queue.
struct Lines {
    news: Line,
    work: Line,
    queue: String,
    archive: String,
}

impl Lines {
    fn new() -> Self {
        let [news, work, queue, archive] = ["news/today", "work/today", "work", "archive"].map(unique);
        Self { news: news.as_str().into(), work: work.as_str().into(), queue, archive }
    }

    /// The routes, behind the table of the only back end.
    fn configuration(&self, back_end: &str) -> String {
        let (work, queue) = (self.work.topic(), &self.queue);
        format!(
            "{back_end}[[route]]\nmatch = \"{work}\"\npattern = \"competing-consumers\"\nqueue = \"{queue}\"\n"
        )
    }

    /// Both protocols on both sides of both lines.
    async fn traffic_through(&self, server: &Server) -> Traffic {
        let (mqtt, amqp) = (server.mqtt(), format!("amqp://guest:guest@{}/%2f", server.amqp()));
        let takers = vec![
            // A broker that is their home knows clients by these names, whichever Linkspan they come by.
            Taker::mqtt(&unique("watcher"), mqtt, &self.news).await,
            Taker::bound("archive", &amqp, &self.news, &self.archive).await,
            Taker::worker("worker", &amqp, &self.work, &self.queue).await,
        ];
        let senders = vec![
            Sender::mqtt(&unique("mqtt-news"), mqtt, &self.news),
            Sender::amqp("amqp-news", &amqp, &self.news),
            Sender::mqtt(&unique("mqtt-work"), mqtt, &self.work),
            Sender::amqp("amqp-work", &amqp, &self.work),
        ];
        Traffic::new("through Linkspan", senders, takers)
    }
}

impl Run {
    async fn on_rabbitmq(rabbitmq: &RabbitMq, cable: &Cable) -> Self {
        let lines = Lines::new();
        let url = rabbitmq.url_by(cable.address());
        let table = format!("[backends.rabbit]\nkind = \"amqp\"\nurl = \"{url}\"\n");
        let server = Server::start(&lines.configuration(&table)).await;
        let through = lines.traffic_through(&server).await;
        let control = Lines::new();
        let takers = vec![Taker::bound("direct archive", &url, &control.news, &control.archive).await];
        let senders = vec![Sender::amqp("direct", &url, &control.news)];
        let control = Traffic::new("directly at RabbitMQ", senders, takers);
        Self::begun(through, control, server).await
    }

    async fn on_mosquitto(at: SocketAddr) -> Self {
        let lines = Lines::new();
        let table = format!("[backends.mosquitto]\nkind = \"mqtt\"\nurl = \"mqtt://{at}\"\n");
        let server = Server::start(&lines.configuration(&table)).await;
        let through = lines.traffic_through(&server).await;
        let control = Lines::new();
        let takers = vec![Taker::mqtt(&unique("direct-watcher"), at, &control.news).await];
        let senders = vec![Sender::mqtt(&unique("direct"), at, &control.news)];
        let control = Traffic::new("directly at Mosquitto", senders, takers);
        Self::begun(through, control, server).await
    }

    async fn begun(through: Traffic, control: Traffic, server: Server) -> Self {
        let began = Instant::now();
        through.flows(began).await;
        control.flows(began).await;
        sleep(CALM).await;
        Self { through, control, server, faults: Vec::new(), healed: Instant::now() }
    }

    fn fault(&mut self) {
        self.faults.push(Instant::now());
    }

    fn healed(&mut self) {
        self.healed = Instant::now();
    }

    /// All flows again in time, and nothing is lost.
    async fn end(self) {
        let (through, control) =
            tokio::join!(self.through.flows(self.healed), self.control.flows(self.healed));
        let took = through.saturating_sub(control);
        sleep(CALM).await;
        let (through, control) = tokio::join!(self.through.end(&self.faults), self.control.end(&self.faults));
        through.judge(&control);
        assert!(took <= BACK, "until all flowed again it took {took:?} longer than without Linkspan");
        self.server.stop().await;
    }

    /// The link is cut and healed 20 times at random moments.
    async fn cut_twenty_times(mut self, cable: &Cable) {
        let mut random = Random::seeded();
        for _ in 0..20 {
            self.fault();
            cable.cut().await;
            sleep(random.between(5, 250)).await;
            cable.heal().await;
            self.healed();
            sleep(random.between(5, 700)).await;
        }
        self.end().await;
    }

    /// Nothing passes for ten seconds.
    async fn stalled(mut self, cable: &Cable) {
        self.fault();
        cable.stall();
        sleep(Duration::from_secs(10)).await;
        cable.heal().await;
        self.healed();
        self.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_rabbitmq_is_cut_and_healed_twenty_times() {
    let rabbitmq = RabbitMq::shared().await;
    let cable = Cable::to(rabbitmq.address()).await;
    Run::on_rabbitmq(rabbitmq, &cable).await.cut_twenty_times(&cable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_mosquitto_is_cut_and_healed_twenty_times() {
    let cable = Cable::to(Mosquitto::shared().await.address()).await;
    Run::on_mosquitto(cable.address()).await.cut_twenty_times(&cable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_rabbitmq_is_stalled_for_ten_seconds() {
    let rabbitmq = RabbitMq::shared().await;
    let cable = Cable::to(rabbitmq.address()).await;
    Run::on_rabbitmq(rabbitmq, &cable).await.stalled(&cable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_mosquitto_is_stalled_for_ten_seconds() {
    let cable = Cable::to(Mosquitto::shared().await.address()).await;
    Run::on_mosquitto(cable.address()).await.stalled(&cable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_is_restarted() {
    let rabbitmq = RabbitMq::own().await;
    let cable = Cable::to(rabbitmq.address()).await;
    let mut run = Run::on_rabbitmq(&rabbitmq, &cable).await;
    run.fault();
    rabbitmq.stop().await;
    rabbitmq.start().await;
    run.healed();
    run.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_is_killed() {
    let rabbitmq = RabbitMq::own().await;
    let cable = Cable::to(rabbitmq.address()).await;
    let mut run = Run::on_rabbitmq(&rabbitmq, &cable).await;
    run.fault();
    rabbitmq.kill().await;
    rabbitmq.start().await;
    run.healed();
    run.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_is_restarted() {
    let mosquitto = Mosquitto::own().await;
    let mut run = Run::on_mosquitto(mosquitto.address()).await;
    for _ in 0..3 {
        sleep(CALM).await;
        run.fault();
        mosquitto.stop().await;
        mosquitto.start().await;
        run.healed();
    }
    run.end().await;
}
