//! Another route, whose messages are timed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use linkspan_integration_tests::{Consumer, Dialect, Outgoing, Publisher, Taking};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How often one is published.
const EVERY: Duration = Duration::from_millis(10);

/// Minutes of them.
const ROOM: usize = 1 << 16;

/// A publisher and a consumer of another route.
pub struct Probe {
    latencies: mpsc::Receiver<Duration>,
    tasks: [JoinHandle<()>; 2],
}

impl Probe {
    /// Begins.
    pub async fn start(dialect: Dialect, door: SocketAddr, address: &str, taking: Taking<'_>) -> Self {
        let began = Instant::now();
        let mut consumer = Consumer::connect(dialect, door, "probe-consumer", taking).await;
        let mut publisher = Publisher::connect(dialect, door, "probe-publisher").await;
        let (tells, latencies) = mpsc::channel(ROOM);
        let address = address.to_owned();
        let publishing = tokio::spawn(async move {
            let mut turns = tokio::time::interval(EVERY);
            turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                turns.tick().await;
                publisher.publish(&address, [Outgoing::text(began.elapsed().as_nanos())]).await;
            }
        });
        let consuming = tokio::spawn(async move {
            loop {
                let received = consumer.next().await;
                let published = Duration::from_nanos(received.text().parse().expect("a time"));
                if tells.try_send(began.elapsed().saturating_sub(published)).is_err() {
                    return;
                }
                received.settle().await;
            }
        });
        Self { latencies, tasks: [publishing, consuming] }
    }

    /// What 99 of 100 of those took at most that came since it was asked last.
    pub async fn p99(&mut self) -> Duration {
        let mut all = vec![self.latencies.recv().await.expect("the probe lives")];
        while let Ok(latency) = self.latencies.try_recv() {
            all.push(latency);
        }
        all.sort();
        all[(all.len() * 99).div_ceil(100) - 1]
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
