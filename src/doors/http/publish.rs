//! `POST /v1/messages/{address}`.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use linkspan_contract::Body;
use linkspan_contract::neutral::Draft;

use super::publisher::Publisher;
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
    let incoming = connection::Incoming::new(body, shared.max_body, shared.patience)?;
    let (body, publisher) = receive(incoming, &shared, address).await?;
    // The body may have taken its time.
    held(&shared)?;
    properties.user_id = Some(identity.user.as_ref().into());
    let size = body.len();
    let message =
        Draft { exchange: None, topic: address.as_bytes(), properties: &properties, payload: body, head }
            .build();
    let publisher = match publisher {
        Some(publisher) => publisher,
        None => shared.publishers.get().await?,
    };
    let routed = shared.publishers.publish(publisher, address, &message).await?;
    metrics::counter!("linkspan_messages_in_total", "door" => "http").increment(1);
    metrics::counter!("linkspan_bytes_in_total", "door" => "http").increment(size);
    let header = translate::routed(routed);
    Ok((StatusCode::NO_CONTENT, [header]).into_response())
}

/// Bytes of a body that is held in memory whatever follows.
const GATHERED: usize = 256 * 1024;

/// Reads the body into memory, or writes it where it is kept while it comes in: then with whose lane.
async fn receive(
    mut incoming: connection::Incoming,
    shared: &Shared,
    address: &str,
) -> Result<(Body, Option<Publisher>), Problem> {
    let mut whole = Vec::new();
    if incoming.gather(&mut whole, GATHERED).await? {
        return Ok((Body::Shared(whole.into()), None));
    }
    let mut publisher = shared.publishers.get().await?;
    let Some(mut place) = publisher.place(address, incoming.size())? else {
        incoming.gather(&mut whole, usize::MAX).await?;
        return Ok((Body::Shared(whole.into()), Some(publisher)));
    };
    place.write(&whole)?;
    drop(whole);
    let stored = incoming.write_to(&mut *place, || held(shared)).await?;
    Ok((Body::Stored(stored), Some(publisher)))
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
