//! Why a broker could not be connected to, in words that say what to do.

use std::io;

use lapin::{Error, ErrorKind};

use crate::options::{AmqpOptions, Node};
use crate::translate::closed;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What went wrong, where, and what may help.
    pub(crate) text: String,
    /// The peer went without a word: it may have said more to somebody else, or the next time. What a broken
    /// connection had still to say is lost at times.
    pub(crate) is_vague: bool,
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self { text, is_vague: false }
    }
}

/// What went wrong, where, and what may help.
pub(crate) fn explain(node: &Node, options: &AmqpOptions, error: &Error) -> Trouble {
    let is_vague = matches!(error.kind(), ErrorKind::IOError(error) if is_break(error));
    Trouble { text: told(node, options, error), is_vague }
}

fn is_break(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::BrokenPipe | E::UnexpectedEof)
}

fn told(node: &Node, options: &AmqpOptions, error: &Error) -> String {
    let (user, vhost) = (&options.user, &options.vhost);
    match (closed(error), error.kind()) {
        (Some((403, ..)), _) => {
            format!("{node} refuses the password of user `{user}`, or does not know that user")
        }
        (Some((530, text, _)), _) if text.contains("not found") => {
            format!("{node} has no vhost `{vhost}`")
        }
        (Some((530, text, _)), _) if text.contains("refused") => {
            format!("user `{user}` has no right to use the vhost `{vhost}` of {node}")
        }
        (Some((code, text, _)), _) => format!("{node} refuses the connection: {code} {text}"),
        (None, ErrorKind::IOError(error)) => of_socket(node, options, error),
        (None, ErrorKind::InvalidProtocolVersion(version)) => {
            format!("{node} does not speak AMQP 0-9-1 but {version}")
        }
        (None, ErrorKind::ParsingError(_)) => foreign(node),
        (None, _) => format!("{node} ended the connection before it was open: {error}"),
    }
}

/// Who is greeted in the wrong protocol says so and hangs up, and what it said is lost with that at times.
fn foreign(node: &Node) -> String {
    format!(
        "{node} hangs up, or answers with something that is not AMQP 0-9-1: it is another kind of server, or speaks TLS only"
    )
}

fn of_socket(node: &Node, options: &AmqpOptions, error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (error.kind(), inner) {
        (io::ErrorKind::ConnectionRefused, _) => format!("nothing listens at {node}"),
        (_, Some(error)) => of_tls(node, error),
        _ if is_break(error) && options.tls.is_some() => {
            format!(
                "no TLS connection to {node}, which broke it off: it may speak no TLS, or want a `certificate` ({error})"
            )
        }
        _ if is_break(error) => foreign(node),
        _ if options.tls.is_some() => format!("no TLS connection to {node}: {error}"),
        _ => format!("{node} cannot be reached: {error}"),
    }
}

fn of_tls(node: &Node, error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Wrong, Error as E};
    let hint = match error {
        E::InvalidCertificate(Wrong::UnknownIssuer) => {
            "who signed its certificate is not trusted here: name that authority in `ca`"
        }
        E::InvalidCertificate(Wrong::NotValidForName | Wrong::NotValidForNameContext { .. }) => {
            "its certificate is for another host: write that name in `url`"
        }
        E::AlertReceived(Alert::CertificateRequired) => {
            "it wants a certificate: give `certificate` and `key`"
        }
        E::AlertReceived(_) => "it does not accept Linkspan's `certificate`, or the lack of one",
        E::InvalidMessage(_) => "it speaks no TLS there",
        _ => "its certificate is not accepted here",
    };
    format!("no TLS connection to {node}: {hint} ({error})")
}
