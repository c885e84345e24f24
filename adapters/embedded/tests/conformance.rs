//! The embedded back end does what every back end has to.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linkspan_contract::Backend;
use linkspan_contract::conformance::Fixture;
use linkspan_contract::conformance::clocks::PausedClock;
use linkspan_embedded::{Embedded, EmbeddedOptions};

struct Fresh;

#[async_trait]
impl Fixture for Fresh {
    async fn backend(&self) -> Arc<dyn Backend> {
        let clock = Arc::new(PausedClock::new());
        Embedded::open("local", EmbeddedOptions::default(), clock)
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(100)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(10)
    }
}

linkspan_contract::conformance!(
    #[tokio::test(start_paused = true)]
    Fresh
);

/// One with a directory, in the machine's own time: its writer is a thread.
mod on_disk {
    use linkspan_contract::neutral::NEUTRAL;
    use linkspan_contract::{
        BackendError, Capabilities, Client, Connection, DeliverySink, Health, SystemClock,
    };
    use linkspan_embedded::SyncMode;
    use tempfile::TempDir;

    use super::*;

    struct OnDisk;

    /// A back end whose directory goes with it.
    struct Housed {
        inner: Arc<Embedded>,
        _directory: TempDir,
    }

    #[async_trait]
    impl Backend for Housed {
        fn capabilities(&self) -> &Capabilities {
            self.inner.capabilities()
        }

        async fn connect(
            &self,
            client: &Client,
            sink: Arc<dyn DeliverySink>,
        ) -> Result<Box<dyn Connection>, BackendError> {
            self.inner.connect(client, sink).await
        }

        async fn health(&self) -> Health {
            self.inner.health().await
        }

        async fn close(&self) {
            self.inner.close().await;
        }
    }

    #[async_trait]
    impl Fixture for OnDisk {
        async fn backend(&self) -> Arc<dyn Backend> {
            let directory = tempfile::tempdir().expect("a directory for the test");
            let on_disk = linkspan_embedded::OnDisk {
                directory: directory.path().to_owned(),
                sync: SyncMode::Group,
                segment_size: 1 << 20,
                forms: vec![&NEUTRAL],
                budget: Arc::default(),
            };
            let options = EmbeddedOptions::default();
            let inner =
                Embedded::durable("local", options, Arc::new(SystemClock), &on_disk).expect("it opens");
            Arc::new(Housed { inner, _directory: directory })
        }

        fn patience(&self) -> Duration {
            Duration::from_secs(5)
        }
    }

    linkspan_contract::conformance!(
        #[tokio::test]
        OnDisk
    );
}
