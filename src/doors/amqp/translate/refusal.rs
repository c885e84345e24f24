//! What a back end refuses, in RabbitMQ's codes and words.

use linkspan_contract::{BackendError, Refused};

use crate::protocol::amqp::{ReplyCode, basic};

use super::super::failure::Failure;
use super::TOPIC_EXCHANGE;

/// Why a request of a channel in `vhost` failed.
pub(in super::super) fn refused(refused: &Refused, vhost: &str) -> Failure {
    use ReplyCode::{AccessRefused, NotFound, PreconditionFailed, ResourceLocked};
    let (code, text) = match refused {
        Refused::NotFound { what, name } => (NotFound, format!("no {what} '{name}' in vhost '{vhost}'")),
        Refused::Inequivalent { what, name, argument, received, current } => (
            PreconditionFailed,
            format!(
                "inequivalent arg '{argument}' for {what} '{name}' in vhost '{vhost}': received {received} but \
                 current is {current}"
            ),
        ),
        Refused::Locked(queue) => (
            ResourceLocked,
            format!(
                "cannot obtain exclusive access to locked queue '{queue}' in vhost '{vhost}'. It could be \
                 originally declared on another connection or the exclusive property value does not match that \
                 of the original declaration."
            ),
        ),
        Refused::ExclusiveUse(queue) => {
            (AccessRefused, format!("queue '{queue}' in vhost '{vhost}' in exclusive use"))
        }
        Refused::InUse { what, name } => {
            (PreconditionFailed, format!("{what} '{name}' in vhost '{vhost}' in use"))
        }
        Refused::NotEmpty(queue) => {
            (PreconditionFailed, format!("queue '{queue}' in vhost '{vhost}' not empty"))
        }
        Refused::AccessRefused(why) | Refused::Fenced(why) => (AccessRefused, why.clone()),
        // 540 would close the whole connection: RabbitMQ gives it only for what is no matter of back ends.
        Refused::Precondition(why)
        | Refused::NotImplemented(why)
        | Refused::AddressInvalid(why)
        | Refused::FilterInvalid(why)
        | Refused::Full(why)
        | Refused::TooLarge(why) => (PreconditionFailed, why.clone()),
        Refused::Away(_) | Refused::Late => (PreconditionFailed, refused.to_string()),
        Refused::Upstream { code, text } => return Failure::quoted(*code, text),
    };
    Failure::new(code, &text)
}

/// A publish whose key is an address of the server's own.
pub(in super::super) fn reserved(key: &[u8]) -> Failure {
    let text = format!(
        "nothing can be published to '{TOPIC_EXCHANGE}' with key '{}': addresses that begin with '$' are the server's own",
        String::from_utf8_lossy(key)
    );
    Failure::new(ReplyCode::AccessRefused, &text).caused_by(basic::Publish::ID)
}

/// Whether a confirmed publish that was not taken is answered with `basic.nack`: it may be sent again, or a limit
/// kept it out. Anything else is the publisher's fault and closes its channel, as in RabbitMQ.
pub(in super::super) fn is_nack(refused: &Refused) -> bool {
    matches!(refused, Refused::Full(_) | Refused::Away(_))
}

/// Why a vhost could not be opened.
pub(in super::super) fn unopened(error: &BackendError) -> Failure {
    match error {
        BackendError::UnknownVhost(vhost) => {
            Failure::new(ReplyCode::NotAllowed, &format!("vhost {vhost} not found"))
        }
        BackendError::Denied { .. } | BackendError::BadIdentifier { .. } => {
            Failure::new(ReplyCode::NotAllowed, &error.to_string())
        }
        BackendError::Away { .. } => Failure::new(ReplyCode::ConnectionForced, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use linkspan_contract::What;

    use super::*;

    #[test]
    fn refusals_have_rabbitmqs_codes_and_texts() {
        let (what, name) = (What::Queue, "q".to_owned());
        let rows = [
            (
                Refused::NotFound { what: What::Exchange, name: "nope".into() },
                "NOT_FOUND - no exchange 'nope' in vhost '/'",
            ),
            (
                Refused::Inequivalent {
                    what,
                    name: name.clone(),
                    argument: "durable".into(),
                    received: "'true'".into(),
                    current: "'false'".into(),
                },
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but \
                 current is 'false'",
            ),
            (
                Refused::Locked("q".into()),
                "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be \
                 originally declared on another connection or the exclusive property value does not match that of \
                 the original declaration.",
            ),
            (Refused::ExclusiveUse("q".into()), "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"),
            (Refused::InUse { what, name }, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use"),
            (Refused::NotEmpty("q".into()), "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"),
            (Refused::AccessRefused("no".into()), "ACCESS_REFUSED - no"),
            (Refused::NotImplemented("no".into()), "PRECONDITION_FAILED - no"),
            (Refused::Away("r".into()), "PRECONDITION_FAILED - back end 'r' cannot be reached"),
            (Refused::Upstream { code: 404, text: "NOT_FOUND - x".into() }, "NOT_FOUND - x"),
        ];
        for (refusal, text) in rows {
            let failure = refused(&refusal, "/");
            assert_eq!(failure.text, text);
            assert!(!failure.hard, "{text} closes the channel only");
        }
    }

    #[test]
    fn an_unknown_vhost_is_530_and_an_absent_back_end_320() {
        let unknown = unopened(&BackendError::UnknownVhost("nope".into()));
        assert_eq!((unknown.code, &*unknown.text), (530, "NOT_ALLOWED - vhost nope not found"));
        let away = unopened(&BackendError::Away { name: "rabbit".into(), why: "refused".into() });
        assert_eq!(away.code, 320);
        assert_eq!(away.text, "CONNECTION_FORCED - back end 'rabbit' cannot be reached: refused");
    }

    #[test]
    fn only_what_may_be_sent_again_is_nacked() {
        assert!(is_nack(&Refused::Full(String::new())) && is_nack(&Refused::Away(String::new())));
        assert!(!is_nack(&Refused::AccessRefused(String::new())));
    }
}
