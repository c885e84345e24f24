//! The HTTP door: publish with a POST, work with leases, watch with Server-Sent Events, and see how the server is.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/messages/{address}` | 204 when the message is where it has to be; 503 while an alarm is raised |
//! | `POST /v1/queues/{name}/leases` | a message of a queue on [lease], or 204 when none comes |
//! | `DELETE /v1/leases/{id}`; `POST …/reject`, `…/release`, `…/extend` | 204 when what became of it is safe; 410 when the lease is over |
//! | `GET /v1/subscriptions/{filter}` | an event stream of what is published |
//! | `/v1/queues…`, `/v1/routes` | what [operators](queues) ask of queues, and of their [dead letters](dead_letters) |
//! | `GET /healthz`, `/readyz`, `/metrics` | whether it lives, whether its ledger and back ends do and which alarms are raised, and figures |

mod admin;
mod connection;
mod dead_letters;
mod ear;
mod lease;
mod payload;
mod publish;
mod publisher;
mod query;
mod queues;
mod subscribe;
#[cfg(test)]
mod tests;
mod translate;
mod way;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{delete, get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use metrics_exporter_prometheus::PrometheusHandle;

use super::{Stop, login};
use crate::alarms::Alarms;
use crate::hub::Hub;
use crate::identity::{Credentials, Denied, Identity, Users};
pub use lease::LeaseLimits;
use lease::Register;
pub(crate) use payload::Payload;
use publisher::Publishers;
use translate::Problem;
pub(crate) use translate::leased::headers;
pub(crate) use way::{Came, Way};

/// What a watcher may have waiting before messages are dropped for it, in bytes.
const WATCHER_MARK: u64 = 1024 * 1024;

/// What the HTTP door is made with.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The vhost whose addresses it shows.
    pub vhost: Arc<str>,
    /// Bytes of a request body; above it is 413.
    pub max_body: usize,
    /// How long a client may take to send a request's head, and may pause while it sends a body.
    pub header_timeout: Duration,
    /// How many leases there may be, and how long.
    pub leases: LeaseLimits,
}

/// The HTTP door.
pub struct HttpDoor {
    router: Router,
    header_timeout: Duration,
}

/// What all requests share.
pub(crate) struct Shared {
    hub: Arc<Hub>,
    users: Arc<Users>,
    alarms: Arc<Alarms>,
    vhost: Arc<str>,
    max_body: usize,
    patience: Duration,
    publishers: Publishers,
    leases: Arc<Register>,
    figures: PrometheusHandle,
    stop: Stop,
}

impl HttpDoor {
    /// A door to `hub`; `figures` renders `/metrics`. Nobody publishes while `alarms` say so. Event streams end with `stop`.
    pub fn new(
        hub: Arc<Hub>,
        users: Arc<Users>,
        alarms: Arc<Alarms>,
        options: HttpOptions,
        figures: PrometheusHandle,
        stop: Stop,
    ) -> Self {
        let HttpOptions { vhost, max_body, header_timeout, leases } = options;
        let publishers = Publishers::new(Arc::clone(&hub), Arc::clone(&vhost));
        let patience = header_timeout;
        let leases = Register::new(leases);
        let shared = Arc::new(Shared {
            hub,
            users,
            alarms,
            vhost,
            max_body,
            patience,
            publishers,
            leases,
            figures,
            stop,
        });
        let router = Router::new()
            .route("/v1/messages/{*address}", post(publish::publish))
            .route("/v1/queues/{name}/leases", post(lease::take))
            .route("/v1/leases/{id}", delete(lease::accept))
            .route("/v1/leases/{id}/reject", post(lease::reject))
            .route("/v1/leases/{id}/release", post(lease::release))
            .route("/v1/leases/{id}/extend", post(lease::extend))
            .route("/v1/subscriptions/{*filter}", get(subscribe::subscribe))
            .route("/v1/routes", get(queues::routes))
            .route("/v1/queues", get(queues::list))
            .route("/v1/queues/{name}", get(queues::show))
            .route("/v1/queues/{name}/purge", post(queues::purge))
            .route("/v1/queues/{name}/pause", post(queues::pause))
            .route("/v1/queues/{name}/resume", post(queues::resume))
            .route("/v1/queues/{name}/replay", post(dead_letters::replay))
            .route("/v1/queues/{name}/dead-letters", get(dead_letters::list))
            .route("/v1/queues/{name}/dead-letters/purge", post(dead_letters::purge))
            .route("/v1/queues/{name}/dead-letters/{number}", get(dead_letters::show))
            .route("/metrics", get(admin::metrics))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), admit))
            .route("/healthz", get(admin::healthz))
            .route("/readyz", get(admin::readyz))
            .fallback(translate::no_such_resource)
            .with_state(shared);
        Self { router, header_timeout }
    }
}

/// Who a request comes from.
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self(address.ip())
    }
}

/// Lets a request in when its `Authorization: Basic …` is right, or none is needed, and no web page of somebody else made
/// a browser send it.
async fn admit(
    axum::extract::State(shared): axum::extract::State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else {
        return Err(Problem::denied(Denied::NotLocal));
    };
    translate::sent_from_here(request.headers(), shared.users.is_open())?;
    let basic = request.headers().get(AUTHORIZATION).map(|value| basic(value.as_bytes()));
    let given = match basic {
        Some(Some(given)) => Some(given),
        Some(None) => return Err(Problem::denied(Denied::BadCredentials)),
        None => None,
    };
    let judged = login::judge(&shared.users, credentials(given.as_ref()), peer).await;
    let identity = judged.map_err(Problem::denied)?;
    if !identity.may_enter(&shared.vhost) {
        return Err(Problem::no_vhost(&identity.user, &shared.vhost));
    }
    request.extensions_mut().insert(identity);
    Ok(next.run(request).await)
}

fn credentials(given: Option<&(String, String)>) -> Credentials<'_> {
    match given {
        Some((user, password)) => Credentials::Password { user, password: password.as_bytes() },
        None => Credentials::Anonymous,
    }
}

/// Reads `Basic base64(user:password)` (RFC 7617).
fn basic(value: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.into(), password.into()))
}

/// The user of a request that was let in.
struct User(Identity);

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let identity = parts.extensions.get::<Identity>().cloned();
        identity.map(User).ok_or_else(|| Problem::denied(Denied::NoCredentials))
    }
}
