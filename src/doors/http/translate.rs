//! HTTP's words and the contract's: headers and properties, addresses, status codes.

pub(crate) mod leased;
mod operated;

use std::borrow::Cow;
use std::net::IpAddr;

use axum::Json;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use linkspan_contract::address::is_topic;
use linkspan_contract::{BackendError, Ended, Flags, Message, Properties, Refused, Value};
use serde_json::json;

use crate::hub::FENCE;
use crate::identity::Denied;

/// A request that was not carried out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    /// Seconds after which to try again, with a status that says so.
    retry_after: HeaderValue,
}

/// When to try again what could not be done for now.
const SOON: HeaderValue = HeaderValue::from_static("1");

/// When to try again while an alarm is raised: consumers need a while to drain.
const LATER: HeaderValue = HeaderValue::from_static("5");

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), retry_after: SOON }
    }

    /// An alarm is raised, for this reason.
    pub(super) fn alarm(reason: &str) -> Self {
        let detail = format!("{reason}; nothing was published, and nothing is until that is over");
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "publishers are held", detail);
        Self { retry_after: LATER, ..problem }
    }

    /// A part of the request that cannot be used.
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad request", detail)
    }

    /// A body beyond the limit.
    pub(super) fn too_large(most: usize) -> Self {
        let detail = format!("a body has {most} bytes at most (doors.http.max-body-size)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too large", detail)
    }

    /// A body that does not come.
    pub(super) fn slow() -> Self {
        let detail = "the body came too slowly; nothing was published";
        Self::new(StatusCode::REQUEST_TIMEOUT, "too slow", detail)
    }

    /// Who is not let in.
    pub(super) fn denied(why: Denied) -> Self {
        let status = match why {
            Denied::NotLocal => StatusCode::FORBIDDEN,
            Denied::BadCredentials | Denied::NoCredentials => StatusCode::UNAUTHORIZED,
            Denied::NotVerified => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, "not let in", why.to_string())
    }

    /// A limit that others, or the user's own requests, have used up for now.
    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too many", detail)
    }

    /// What never was a lease.
    pub(super) fn no_lease() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no such lease", "this server has not given out such a lease")
    }

    /// A lease that ran out or was settled.
    pub(super) fn lease_over() -> Self {
        let detail = "the lease ran out, or was settled";
        Self::new(StatusCode::GONE, "the lease is over", detail)
    }

    /// A lease of somebody else.
    pub(super) fn foreign_lease() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "the lease is another user's")
    }

    /// Nothing more comes of a queue.
    pub(super) fn ended(why: Ended) -> Self {
        let (status, detail) = match why {
            Ended::QueueDeleted => (StatusCode::NOT_FOUND, "the queue was deleted"),
            Ended::Superseded => (StatusCode::CONFLICT, "another consumer holds the queue now"),
            Ended::RouteChanged => (StatusCode::CONFLICT, "routes were changed; ask again"),
            Ended::Away => (StatusCode::SERVICE_UNAVAILABLE, "the back end is away"),
            Ended::LimitExceeded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "too much waited"),
        };
        Self::new(status, "the queue is not to be had", detail)
    }

    /// A user who may not enter the door's vhost.
    pub(super) fn no_vhost(user: &str, vhost: &str) -> Self {
        let detail = format!("user '{user}' may not enter the vhost '{vhost}' of this door");
        Self::new(StatusCode::FORBIDDEN, "not let in", detail)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        use StatusCode as S;
        let (status, title) = match &refused {
            Refused::NotFound { .. } => (S::NOT_FOUND, "not found"),
            Refused::Inequivalent { .. }
            | Refused::InUse { .. }
            | Refused::NotEmpty(_)
            | Refused::Locked(_)
            | Refused::ExclusiveUse(_)
            | Refused::Fenced(_) => (S::CONFLICT, "conflict"),
            Refused::AccessRefused(_) => (S::FORBIDDEN, "forbidden"),
            Refused::Precondition(_) | Refused::AddressInvalid(_) | Refused::FilterInvalid(_) => {
                (S::BAD_REQUEST, "bad request")
            }
            Refused::Late => (S::GONE, "the lease is over"),
            Refused::NotImplemented(_) => (S::NOT_IMPLEMENTED, "not implemented"),
            Refused::TooLarge(_) => (S::PAYLOAD_TOO_LARGE, "too large"),
            Refused::Full(_) | Refused::Away(_) => (S::SERVICE_UNAVAILABLE, "unavailable"),
            Refused::Upstream { .. } => (S::BAD_GATEWAY, "the broker behind refused"),
        };
        Self::new(status, title, refused.to_string())
    }
}

impl From<BackendError> for Problem {
    fn from(error: BackendError) -> Self {
        match &error {
            BackendError::Away { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string())
            }
            BackendError::Denied { .. }
            | BackendError::BadIdentifier { .. }
            | BackendError::UnknownVhost(_) => {
                Self::new(StatusCode::BAD_GATEWAY, "the broker behind refused", error.to_string())
            }
        }
    }
}

impl IntoResponse for Problem {
    /// RFC 9457 problem details.
    fn into_response(self) -> Response {
        let body = json!({ "status": self.status.as_u16(), "title": self.title, "detail": self.detail });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Basic realm=\"linkspan\", charset=\"UTF-8\""),
                );
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, self.retry_after);
            }
            _ => {}
        }
        response
    }
}

/// What any other path is answered.
pub(super) async fn no_such_resource() -> Problem {
    let detail = "there are /v1/messages/{address}, /v1/subscriptions/{filter}, /v1/queues, /v1/queues/{name}/leases, /v1/leases/{id}, /v1/routes, /healthz, /readyz and /metrics";
    Problem::new(StatusCode::NOT_FOUND, "no such resource", detail)
}

/// Refuses what somebody else's web page made a browser send. `open`: everybody on this machine is let in without a
/// password, a browser too; then the name that was asked for has to be this machine's, lest a page's own name leads here.
pub(super) fn sent_from_here(headers: &HeaderMap, open: bool) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let host = text(header::HOST);
    if let Some(origin) = text(header::ORIGIN) {
        let page = origin.split_once("://").map_or(origin, |(_, authority)| authority);
        if !host.is_some_and(|host| host.eq_ignore_ascii_case(page)) {
            let detail = format!("this door does not answer to web pages of '{origin}'");
            return Err(Problem::new(StatusCode::FORBIDDEN, "not let in", detail));
        }
    }
    if open && let Some(host) = host.filter(|host| !is_this_machine(host)) {
        let detail =
            format!("without [users], this door answers to localhost and IP addresses, not to '{host}'");
        return Err(Problem::new(StatusCode::FORBIDDEN, "not let in", detail));
    }
    Ok(())
}

/// True for `localhost` and for addresses, with or without a port.
fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

/// Why there will be no more events.
pub(super) fn ended(why: Ended) -> &'static str {
    match why {
        Ended::QueueDeleted => "queue-deleted",
        Ended::Superseded => "superseded",
        Ended::RouteChanged => "route-changed",
        Ended::Away => "away",
        Ended::LimitExceeded { .. } => "limit-exceeded",
    }
}

/// The address of a request, which has to be one that every client can be given.
pub(super) fn address(path: &str) -> Result<&str, Problem> {
    if is_topic(path.as_bytes()) {
        Ok(path)
    } else {
        Err(Problem::bad("an address is not empty and has no '+', '#' or NUL"))
    }
}

/// What the request's headers say about the message: properties, and the head with flags, priority and expiry.
pub(super) fn message(headers: &HeaderMap) -> Result<(Properties<'_>, Message), Problem> {
    let mut properties = Properties::default();
    let mut head = Message { flags: Flags::RECEIPT | Flags::DURABLE, ..Message::default() };
    for (name, value) in headers {
        let name = name.as_str();
        if let Some(property) = name.strip_prefix("linkspan-property-") {
            let value = Value::Text(text(name, value)?);
            properties.headers.push((Cow::Borrowed(property), value));
            continue;
        }
        match name {
            "content-type" => properties.content_type = Some(text(name, value)?),
            "content-encoding" => properties.content_encoding = Some(text(name, value)?),
            // As the holder of a queue was given it.
            FENCE => properties.headers.push((Cow::Borrowed(FENCE), Value::Text(text(name, value)?))),
            "linkspan-message-id" => properties.message_id = Some(text(name, value)?),
            "linkspan-reply-to" => properties.reply_to = Some(text(name, value)?),
            "linkspan-correlation-id" => properties.correlation = Some(Cow::Borrowed(value.as_bytes())),
            "traceparent" | "tracestate" => {
                let value = Value::Text(text(name, value)?);
                properties.headers.push((Cow::Borrowed(name), value));
            }
            "linkspan-priority" => {
                let priority = text(name, value)?
                    .parse()
                    .map_err(|_| Problem::bad("Linkspan-Priority: expected a number from 0 to 255"))?;
                properties.priority = Some(priority);
                head.priority = priority;
                head.flags |= Flags::PRIORITY;
            }
            "linkspan-expiry" => {
                head.expiry = duration(&text(name, value)?).ok_or_else(|| {
                    Problem::bad("Linkspan-Expiry: expected a duration such as 500ms, 30s, 10m, 2h or 1d")
                })?;
                head.flags |= Flags::EXPIRES;
            }
            "linkspan-retain" => match text(name, value)?.as_ref() {
                "true" => head.flags |= Flags::RETAIN,
                "false" => {}
                _ => return Err(Problem::bad("Linkspan-Retain: expected true or false")),
            },
            "linkspan-durable" => match text(name, value)?.as_ref() {
                "true" => {}
                "false" => head.flags = head.flags.without(Flags::DURABLE),
                _ => return Err(Problem::bad("Linkspan-Durable: expected true or false")),
            },
            other if other.starts_with("linkspan-") => {
                return Err(Problem::bad(format!("unknown header {other}")));
            }
            _ => {}
        }
    }
    Ok((properties, head))
}

fn text<'a>(name: &str, value: &'a HeaderValue) -> Result<Cow<'a, str>, Problem> {
    std::str::from_utf8(value.as_bytes())
        .map(Cow::Borrowed)
        .map_err(|_| Problem::bad(format!("header {name}: not UTF-8")))
}

/// Milliseconds of a text like `30s`.
pub(super) fn duration(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Whether the message found anybody, as a header of the answer.
pub(super) fn routed(yes: bool) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static("linkspan-routed"), HeaderValue::from_static(if yes { "true" } else { "false" }))
}

/// A value as JSON shows it; what JSON has no word for becomes text.
pub(super) fn json_value(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Void => serde_json::Value::Null,
        Value::Bool(yes) => json!(yes),
        Value::F32(number) => json!(number),
        Value::F64(number) => json!(number),
        Value::Decimal { scale, value } => json!(format!("{value}e-{scale}")),
        Value::Text(text) => json!(text),
        Value::LongString(bytes) | Value::Bytes(bytes) => json!(String::from_utf8_lossy(bytes)),
        Value::Timestamp(seconds) => json!(seconds),
        Value::Array(items) => items.iter().map(json_value).collect(),
        Value::Table(fields) => {
            fields.iter().map(|(name, value)| (name.to_string(), json_value(value))).collect()
        }
        number => json!(number.as_i64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn headers_become_properties() {
        let headers = headers(&[
            ("content-type", "text/plain"),
            ("linkspan-property-site", "north"),
            ("linkspan-priority", "7"),
            ("linkspan-expiry", "2m"),
            ("linkspan-message-id", "m1"),
            ("linkspan-retain", "true"),
            ("user-agent", "curl"),
        ]);
        let (properties, head) = message(&headers).unwrap();
        assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
        assert_eq!(properties.header("site").and_then(Value::as_str), Some("north"));
        assert_eq!(properties.headers.len(), 1, "headers of HTTP itself stay outside");
        assert_eq!((head.priority, head.expiry), (7, 120_000));
        assert!(head.flags.has(Flags::RETAIN | Flags::EXPIRES | Flags::PRIORITY | Flags::DURABLE));
    }

    #[test]
    fn a_header_that_cannot_be_honoured_is_a_bad_request() {
        for pair in [
            ("linkspan-priority", "high"),
            ("linkspan-expiry", "soon"),
            ("linkspan-expiry", "99999999999999999999d"),
            ("linkspan-retain", "yes"),
            ("linkspan-prority", "1"),
        ] {
            let problem = message(&headers(&[pair])).unwrap_err();
            assert_eq!(problem.status, StatusCode::BAD_REQUEST, "{pair:?}");
        }
    }

    #[test]
    fn a_web_page_of_somebody_else_is_not_let_in() {
        let sent =
            |pairs: &[(&'static str, &'static str)], open| sent_from_here(&headers(pairs), open).is_ok();
        assert!(sent(&[("host", "localhost:8080")], true));
        assert!(sent(&[("host", "127.0.0.1:8080")], true) && sent(&[("host", "[::1]:8080")], true));
        assert!(sent(&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], true));
        assert!(!sent(&[("host", "localhost:8080"), ("origin", "https://example.com")], true));
        assert!(!sent(&[("host", "localhost:8080"), ("origin", "null")], true));
        assert!(!sent(&[("host", "rebound.example.com:8080")], true), "a page's own name that leads here");
        assert!(
            sent(&[("host", "broker.example.com")], false),
            "who has a password may call it as they like"
        );
    }

    #[test]
    fn an_address_has_no_wildcards() {
        assert!(address("orders/placed").is_ok() && address("/a").is_ok());
        for bad in ["", "a/+", "#", "a\0"] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
    }
}
