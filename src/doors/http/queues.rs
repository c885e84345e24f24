//! Queues and routes, for who operates them.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/queues` | all queues of the door's vhost: what they hold, who consumes, whether they are paused |
//! | `GET /v1/queues/{name}` | one of them |
//! | `POST /v1/queues/{name}/purge` | how many messages are gone that were ready |
//! | `POST /v1/queues/{name}/pause`, `…/resume` | whether that is new; while it is paused, nothing is given out |
//! | `GET /v1/routes` | which address goes where; as text with `Accept: text/plain` |

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Shared;
use super::translate::Problem;
use crate::hub::QueueState;

/// All queues.
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Json<Vec<QueueState>> {
    Json(shared.hub.queue_states(&shared.vhost).await)
}

/// One queue.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(queue): Path<String>,
) -> Result<Json<QueueState>, Problem> {
    Ok(Json(shared.hub.queue_state(&shared.vhost, &queue).await?))
}

/// Removes what is ready.
pub(super) async fn purge(
    State(shared): State<Arc<Shared>>,
    Path(queue): Path<String>,
) -> Result<Json<Value>, Problem> {
    let purged = shared.hub.purge(&shared.vhost, &queue).await?;
    Ok(Json(json!({ "queue": queue, "purged": purged })))
}

/// Gives nothing out until [`resume`].
pub(super) async fn pause(
    State(shared): State<Arc<Shared>>,
    Path(queue): Path<String>,
) -> Result<Json<Value>, Problem> {
    let is_new = shared.hub.pause(&shared.vhost, &queue).await?;
    Ok(Json(json!({ "queue": queue, "paused": true, "changed": is_new })))
}

/// Goes on.
pub(super) async fn resume(
    State(shared): State<Arc<Shared>>,
    Path(queue): Path<String>,
) -> Result<Json<Value>, Problem> {
    let is_new = shared.hub.go_on(&shared.vhost, &queue).await?;
    Ok(Json(json!({ "queue": queue, "paused": false, "changed": is_new })))
}

/// The routes in force.
pub(super) async fn routes(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let state = shared.hub.routes_state(&shared.vhost);
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|kinds| kinds.trim_start().starts_with("text/plain")) {
        return ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], state.text).into_response();
    }
    Json(state).into_response()
}
