//! What the answer to a push means for the message, and for the worker.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, StatusCode, header};

/// The longest time that a server is given when it asks for one.
const LONGEST: Duration = Duration::from_secs(3600);

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    Accept,
    /// It will never be taken, however often it is sent.
    Reject,
    /// It may be taken another time.
    Again,
    /// It may be taken later, and so may all others: after so long, if the server says how long.
    Later(Option<Duration>),
}

impl Verdict {
    /// What an answer means that came at `now`.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Self {
        match status.as_u16() {
            200..=299 => Self::Accept,
            // What is wrong with the message itself does not get better.
            400 | 404 | 410 | 413 | 415 | 422 => Self::Reject,
            429 | 503 => Self::Later(retry_after(headers, now)),
            _ => Self::Again,
        }
    }
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(status: u16, retry_after: Option<&str>) -> Verdict {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(text).unwrap());
        }
        // Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's example.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        Verdict::of(StatusCode::from_u16(status).unwrap(), &headers, now)
    }

    #[test]
    fn an_answer_of_the_second_hundred_is_done_and_one_about_the_message_is_for_good() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(of(status, None), Verdict::Accept, "{status}");
        }
        for status in [400, 404, 410, 413, 415, 422] {
            assert_eq!(of(status, Some("5")), Verdict::Reject, "{status}");
        }
        for status in [301, 302, 307, 401, 403, 405, 408, 409, 425, 500, 501, 502, 504] {
            assert_eq!(
                of(status, Some("5")),
                Verdict::Again,
                "{status}: a redirection is not followed either"
            );
        }
    }

    #[test]
    fn who_asks_for_time_is_given_it_within_reason() {
        let seconds = |seconds| Verdict::Later(Some(Duration::from_secs(seconds)));
        for status in [429, 503] {
            assert_eq!(of(status, Some("7")), seconds(7));
            assert_eq!(of(status, Some("Sun, 06 Nov 1994 08:50:07 GMT")), seconds(30));
            assert_eq!(of(status, Some("Sun, 06 Nov 1994 08:49:00 GMT")), seconds(0), "that is past");
            assert_eq!(of(status, Some("999999999")), seconds(3600));
            for nothing in [None, Some("soon"), Some("-1"), Some("")] {
                assert_eq!(of(status, nothing), Verdict::Later(None), "{nothing:?}");
            }
        }
    }
}
