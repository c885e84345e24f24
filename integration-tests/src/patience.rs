//! How long a test waits for what has to happen. A limit that is reached is a failure, never a measurement.

use std::future::Future;
use std::time::Duration;

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The result of `future`; the test fails with `what` when it does not come.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: this did not happen within {PATIENCE:?}"),
    }
}

/// The result of `future` when it comes within `limit`: for what must not happen.
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}
