//! What the broker refuses, in the contract's words.

use lapin::protocol::AMQPErrorKind;
use lapin::{Error, ErrorKind};
use linkspan_contract::{Refused, What};

/// The broker's code and text, when it was the broker that closed a channel or connection; true when it was the whole
/// connection.
pub(crate) fn closed(error: &Error) -> Option<(u16, String, bool)> {
    let ErrorKind::ProtocolError(error) = error.kind() else { return None };
    let hard = matches!(error.kind(), AMQPErrorKind::Hard(_));
    Some((error.get_id(), error.get_message().to_string(), hard))
}

/// True when a queue is there no more. RabbitMQ says 404, too, of one whose node is down.
pub(crate) fn is_deleted(error: &Error) -> bool {
    closed(error).is_some_and(|(code, text, _)| code == 404 && text.contains("no queue"))
}

/// Why a request to the back end of that name failed.
pub(crate) fn refused(error: &Error, backend: &str) -> Refused {
    match closed(error) {
        Some((320 | 541, ..)) | None => match error.kind() {
            ErrorKind::ChannelsLimitReached => Refused::Full(format!(
                "back end '{backend}' has no channel left: all that its connections may have are open"
            )),
            _ => Refused::Away(backend.into()),
        },
        Some((code, text, _)) => worded(code, &text),
    }
}

/// RabbitMQ's texts name what is wrong; another broker's are passed on as they are.
fn worded(code: u16, text: &str) -> Refused {
    let (_, plain) = text.split_once(" - ").unwrap_or(("", text));
    let known = match code {
        404 => not_found(plain),
        405 => quoted(plain, "cannot obtain exclusive access to locked queue '").map(Refused::Locked),
        403 => Some(match quoted(plain, "queue '").filter(|_| plain.ends_with(" in exclusive use")) {
            Some(queue) => Refused::ExclusiveUse(queue),
            None => Refused::AccessRefused(plain.into()),
        }),
        406 => Some(
            inequivalent(plain)
                .or_else(|| in_use(plain))
                .or_else(|| {
                    quoted(plain, "queue '").filter(|_| plain.ends_with(" not empty")).map(Refused::NotEmpty)
                })
                .unwrap_or_else(|| Refused::Precondition(plain.into())),
        ),
        _ => None,
    };
    known.unwrap_or_else(|| Refused::Upstream { code, text: text.into() })
}

/// The name that follows `before`, up to the quote that ends it. A name may hold quotes: it ends before the vhost.
fn quoted(text: &str, before: &str) -> Option<String> {
    let rest = text.strip_prefix(before)?;
    let end = rest.find("' in vhost '").or_else(|| rest.find('\''))?;
    rest.get(..end).map(Into::into)
}

fn not_found(text: &str) -> Option<Refused> {
    [("no queue '", What::Queue), ("no exchange '", What::Exchange)]
        .into_iter()
        .find_map(|(before, what)| quoted(text, before).map(|name| Refused::NotFound { what, name }))
}

fn in_use(text: &str) -> Option<Refused> {
    [("queue '", What::Queue), ("exchange '", What::Exchange)]
        .into_iter()
        .filter(|_| text.ends_with(" in use"))
        .find_map(|(before, what)| quoted(text, before).map(|name| Refused::InUse { what, name }))
}

/// `inequivalent arg 'a' for queue 'q' in vhost '/': received R but current is C`.
fn inequivalent(text: &str) -> Option<Refused> {
    let (argument, rest) = text.strip_prefix("inequivalent arg '")?.split_once("' for ")?;
    let (what, rest) = match rest.strip_prefix("queue ") {
        Some(rest) => (What::Queue, rest),
        None => (What::Exchange, rest.strip_prefix("exchange ")?),
    };
    let (head, values) = rest.split_once(": received ")?;
    let (received, current) = values.split_once(" but current is ")?;
    Some(Refused::Inequivalent {
        what,
        name: quoted(head, "'")?,
        argument: argument.into(),
        received: received.into(),
        current: current.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rabbitmqs_words_are_understood() {
        let (what, name) = (What::Queue, "q".to_owned());
        for (code, text, refused) in [
            (404, "NOT_FOUND - no queue 'q' in vhost '/'", Refused::NotFound { what, name: name.clone() }),
            (
                404,
                "NOT_FOUND - no exchange 'it's' in vhost '/'",
                Refused::NotFound { what: What::Exchange, name: "it's".into() },
            ),
            (
                405,
                "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be",
                Refused::Locked("q".into()),
            ),
            (
                403,
                "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use",
                Refused::ExclusiveUse("q".into()),
            ),
            (
                403,
                "ACCESS_REFUSED - operation not permitted",
                Refused::AccessRefused("operation not permitted".into()),
            ),
            (
                406,
                "PRECONDITION_FAILED - queue 'q' in vhost '/' in use",
                Refused::InUse { what, name: name.clone() },
            ),
            (406, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty", Refused::NotEmpty("q".into())),
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but \
                 current is 'false'",
                Refused::Inequivalent {
                    what,
                    name,
                    argument: "durable".into(),
                    received: "'true'".into(),
                    current: "'false'".into(),
                },
            ),
            (406, "PRECONDITION_FAILED - invalid arg", Refused::Precondition("invalid arg".into())),
            (540, "NOT_IMPLEMENTED - x", Refused::Upstream { code: 540, text: "NOT_IMPLEMENTED - x".into() }),
        ] {
            assert_eq!(worded(code, text), refused, "{text}");
        }
    }
}
