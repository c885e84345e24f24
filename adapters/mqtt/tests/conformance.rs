//! The back end over Mosquitto does what every back end has to.
#![allow(clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use linkspan_contract::conformance::Fixture;
use linkspan_contract::{Backend, Health, SoleInstance, SystemClock};
use linkspan_integration_tests::Mosquitto;
use linkspan_mqtt::{MqttBackend, MqttOptions};
use tokio::sync::OnceCell;

/// A broker of these tests alone: one of them watches everything, and with it nothing of others would be unroutable.
static BROKER: OnceCell<Mosquitto> = OnceCell::const_new();
static INSTANCES: AtomicU32 = AtomicU32::new(0);

struct Real;

#[async_trait]
impl Fixture for Real {
    async fn backend(&self) -> Arc<dyn Backend> {
        let broker = BROKER.get_or_init(Mosquitto::own).await;
        let number = INSTANCES.fetch_add(1, Ordering::Relaxed);
        let instance = format!("conformance-{}-{number}", std::process::id());
        let options = MqttOptions::new(broker.url(), &instance);
        let backend = MqttBackend::open("broker", options, Arc::new(SystemClock), Arc::new(SoleInstance));
        let backend = backend.expect("the options are right");
        for _ in 0..500 {
            if backend.health().await == Health::Up {
                return backend;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the broker at {} is to be reached: {:?}", broker.url(), backend.health().await);
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(300)
    }
}

linkspan_contract::conformance!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    Real
);
