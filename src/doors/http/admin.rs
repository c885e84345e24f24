//! How the server is: for load balancers, orchestrators and Prometheus.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use linkspan_contract::Health;
use serde_json::json;

use super::Shared;
use crate::alarms::Subject;

/// 200 while the process serves requests at all.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 when the ledger and every back end can be used and the server is not going down, else 503; says which cannot and why.
/// An alarm is told of and does not count: consumers have to find the way here to drain.
pub(super) async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let stopping = shared.stop.is_wanted();
    let mut ready = !stopping;
    let mut backends = serde_json::Map::new();
    let mut state_of = |health| match health {
        Health::Up => json!({ "state": "up" }),
        Health::Away(why) => {
            ready = false;
            json!({ "state": "away", "why": why })
        }
    };
    for (name, health) in shared.hub.healths().await {
        backends.insert(name.to_string(), state_of(health));
    }
    let ledger = state_of(shared.hub.ledger_health());
    let alarms: Vec<_> = shared.alarms.raised().iter().map(|(subject, why)| alarm(subject, why)).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let state = json!({
        "ready": ready, "stopping": stopping, "backends": backends, "ledger": ledger, "alarms": alarms
    });
    (status, Json(state)).into_response()
}

fn alarm(subject: &Subject, why: &str) -> serde_json::Value {
    match subject {
        Subject::Memory | Subject::Sessions => json!({ "kind": subject.kind(), "why": why }),
        Subject::Disk(backend) => json!({ "kind": subject.kind(), "backend": &**backend, "why": why }),
    }
}

/// All figures in Prometheus' text form.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    shared.hub.publish_gauges();
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content_type, shared.figures.render()).into_response()
}
