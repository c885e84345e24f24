//! `POST /v1/messages/{address}`.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use linkspan_contract::Body;
use linkspan_contract::neutral::Draft;

use super::translate::{self, Problem};
use super::{Shared, User, connection};

/// Publishes the body. 204 when it is where it has to be; `Linkspan-Routed: false` when nobody took it.
pub(super) async fn publish(
    State(shared): State<Arc<Shared>>,
    User(identity): User,
    Path(path): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let address = translate::address(&path)?;
    held(&shared)?;
    let (parts, body) = request.into_parts();
    let (mut properties, head) = translate::message(&parts.headers)?;
    let body = connection::body(body, shared.max_body, shared.patience).await?;
    // The body may have taken its time.
    held(&shared)?;
    properties.user_id = Some(identity.user.as_ref().into());
    let size = body.len();
    let message = Draft {
        exchange: None,
        topic: address.as_bytes(),
        properties: &properties,
        payload: Body::Shared(body),
        head,
    }
    .build();
    let routed = shared.publishers.publish(address, &message).await?;
    metrics::counter!("linkspan_messages_in_total", "door" => "http").increment(1);
    metrics::counter!("linkspan_bytes_in_total", "door" => "http").increment(size as u64);
    let header = translate::routed(routed);
    Ok((StatusCode::NO_CONTENT, [header]).into_response())
}

/// Nobody publishes while an alarm is raised.
fn held(shared: &Shared) -> Result<(), Problem> {
    match shared.alarms.is_on().then(|| shared.alarms.reason()).flatten() {
        Some(reason) => {
            metrics::counter!("linkspan_messages_refused_total", "reason" => "alarm").increment(1);
            Err(Problem::alarm(&reason))
        }
        None => Ok(()),
    }
}
