//! Dead letters of a queue, for who has to deal with them.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/queues/{name}/dead-letters?limit=100&reason=rejected` | the first of them; they stay where they are |
//! | `GET /v1/queues/{name}/dead-letters/{n}` | one with its properties and payload, numbered from 1 |
//! | `POST /v1/queues/{name}/replay?limit=10&reason=expired` | moves them back into the queue, or with `to=` to an address; how many |
//! | `POST /v1/queues/{name}/dead-letters/purge?reason=expired` | removes them; how many |

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::Query;
use super::translate::{self, Problem};
use super::{Shared, subscribe};
use crate::hub::{Letters, Meant, Replayed};

/// How many are shown when nothing is said.
const SHOWN: usize = 100;

/// How many are shown at most.
const MOST: usize = 1000;

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    limit: Option<usize>,
    reason: Option<String>,
}

/// The query of one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Picked {
    reason: Option<String>,
}

/// The query of a replay.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    limit: Option<u64>,
    reason: Option<String>,
    to: Option<String>,
}

fn meant<'a>(queue: &'a str, reason: &'a Option<String>) -> Meant<'a> {
    Meant { queue, reason: reason.as_deref() }
}

/// The first of them.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(queue): Path<String>,
    Query(Listed { limit, reason }): Query<Listed>,
) -> Result<Json<Letters>, Problem> {
    let limit = limit.unwrap_or(SHOWN);
    if !(1..=MOST).contains(&limit) {
        return Err(Problem::bad(format!("limit: expected a number from 1 to {MOST}")));
    }
    Ok(Json(shared.hub.dead_letters(&shared.vhost, meant(&queue, &reason), limit).await?))
}

/// One of them, whole.
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path((queue, number)): Path<(String, String)>,
    Query(Picked { reason }): Query<Picked>,
) -> Result<Json<Value>, Problem> {
    let number = number.parse().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| Problem::bad("the number of a dead letter: expected one from 1 on"))?;
    let meant = meant(&queue, &reason);
    let (letter, message) = shared.hub.dead_letter(&shared.vhost, meant, number).await?;
    let message = Value::Object(subscribe::object(&message).await);
    Ok(Json(json!({ "letter": letter, "message": message })))
}

/// Moves them back, or elsewhere.
pub(super) async fn replay(
    State(shared): State<Arc<Shared>>,
    Path(queue): Path<String>,
    Query(Wanted { limit, reason, to }): Query<Wanted>,
) -> Result<Json<Replayed>, Problem> {
    let to = to.as_deref().map(translate::address).transpose()?;
    Ok(Json(shared.hub.replay(&shared.vhost, meant(&queue, &reason), to, limit).await?))
}

/// Removes them.
pub(super) async fn purge(
    State(shared): State<Arc<Shared>>,
    Path(queue): Path<String>,
    Query(Picked { reason }): Query<Picked>,
) -> Result<Json<Value>, Problem> {
    let purged = shared.hub.purge_dead_letters(&shared.vhost, meant(&queue, &reason)).await?;
    Ok(Json(json!({ "queue": queue, "purged": purged })))
}
