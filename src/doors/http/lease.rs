//! Work by HTTP: a message of a queue on lease, and what its client says became of it.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/queues/{name}/leases?wait=20s&lease=1m` | 200 with a message, its properties as headers and `Location`; 204 when nothing came |
//! | `DELETE /v1/leases/{id}` | accepts it |
//! | `POST /v1/leases/{id}/reject?reason=…` | rejects it: a dead letter |
//! | `POST /v1/leases/{id}/release?delay=5s` | gives it back, to be given out again |
//! | `POST /v1/leases/{id}/extend?by=30s` | the lease lasts so long from now on |
//!
//! The last four answer 204 when the back end has it safe, and 410 when the lease is over: the message is another's by now,
//! or settled. 404 is for what never was a lease, 403 for another user's.

mod ask;
mod coordinator;
mod desk;
mod id;
mod register;
mod request;
mod shelf;
mod telling;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use linkspan_contract::Settlement;
use serde::Deserialize;

use self::ask::Leased;
pub use self::register::LeaseLimits;
pub(super) use self::register::Register;
use super::payload::Payload;
use super::translate::{self, Problem, leased};
use super::way::millis;
use super::{Shared, User};

/// The query of a request for a message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// How long to wait for one.
    wait: Option<String>,
    /// How long the lease is to last.
    lease: Option<String>,
}

/// The queries of what becomes of a lease.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rejected {
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Released {
    delay: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Extended {
    by: String,
}

/// The next message of a queue.
pub(super) async fn take(
    State(shared): State<Arc<Shared>>,
    User(identity): User,
    Path(queue): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Problem> {
    let limits = &shared.leases.limits;
    let wait = wanted.wait.as_deref().map(|text| within("wait", text, limits.longest_wait)).transpose()?;
    let lasts = wanted.lease.as_deref().map(|text| lasting("lease", text, limits.longest)).transpose()?;
    let wait = wait.unwrap_or_default();
    let leased = coordinator::take(&shared, &identity.user, &queue, wait, lasts).await?;
    Ok(match leased {
        Some(leased) => answer(leased).unwrap_or_else(|| StatusCode::NO_CONTENT.into_response()),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// It is done.
pub(super) async fn accept(
    State(shared): State<Arc<Shared>>,
    User(identity): User,
    Path(lease): Path<String>,
) -> Result<StatusCode, Problem> {
    settle(&shared, &identity.user, &lease, Settlement::Accept).await
}

/// Nobody can work it.
pub(super) async fn reject(
    State(shared): State<Arc<Shared>>,
    User(identity): User,
    Path(lease): Path<String>,
    Query(rejected): Query<Rejected>,
) -> Result<StatusCode, Problem> {
    let reason = rejected.reason.map(Arc::from);
    settle(&shared, &identity.user, &lease, Settlement::Reject(reason)).await
}

/// Somebody else may have it.
pub(super) async fn release(
    State(shared): State<Arc<Shared>>,
    User(identity): User,
    Path(lease): Path<String>,
    Query(released): Query<Released>,
) -> Result<StatusCode, Problem> {
    let delay = released.delay.as_deref().map(|text| within("delay", text, Duration::MAX)).transpose()?;
    let delay = millis(delay.unwrap_or_default());
    settle(&shared, &identity.user, &lease, Settlement::Release { delay }).await
}

/// It takes longer.
pub(super) async fn extend(
    State(shared): State<Arc<Shared>>,
    User(identity): User,
    Path(lease): Path<String>,
    Query(extended): Query<Extended>,
) -> Result<Response, Problem> {
    let by = lasting("by", &extended.by, shared.leases.limits.longest)?;
    let status = settle(&shared, &identity.user, &lease, Settlement::Extend(millis(by))).await?;
    Ok((status, [leased::lasts(by)]).into_response())
}

async fn settle(shared: &Shared, user: &str, lease: &str, how: Settlement) -> Result<StatusCode, Problem> {
    request::settle(shared, user, lease, how).await.map(|()| StatusCode::NO_CONTENT)
}

/// A duration of the query.
fn within(name: &str, text: &str, most: Duration) -> Result<Duration, Problem> {
    let duration = translate::duration(text).map(Duration::from_millis).ok_or_else(|| {
        Problem::bad(format!("{name}: expected a duration such as 500ms, 30s or 10m, not '{text}'"))
    })?;
    if duration > most {
        return Err(Problem::bad(format!("{name}: {} at most", leased::written(most))));
    }
    Ok(duration)
}

/// The same, which has to last some time.
fn lasting(name: &str, text: &str, most: Duration) -> Result<Duration, Problem> {
    match within(name, text, most)? {
        Duration::ZERO => Err(Problem::bad(format!("{name}: takes no time at all"))),
        duration => Ok(duration),
    }
}

fn answer(leased: Leased) -> Option<Response> {
    let Leased { name, age, attempt, lasts, mut grip } = leased;
    let message = grip.begin()?;
    let mut headers = leased::headers(&message, age, attempt);
    let location = HeaderValue::try_from(format!("/v1/leases/{name}"));
    headers.extend(location.ok().map(|location| (header::LOCATION, location)));
    headers.extend([leased::lasts(lasts)]);
    // Held until the client has all of it: who hangs up before gives the message back.
    let body = Payload::new(message, move || grip.open());
    Some((headers, Body::from_stream(body)).into_response())
}
