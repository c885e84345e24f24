//! Why a broker could not be connected to, in words that say what to do.

use std::io;

use lapin::{Error, ErrorKind};

use crate::options::{AmqpOptions, Node};
use crate::translate::closed;

/// What went wrong, where, and what may help.
pub(crate) fn explain(node: &Node, options: &AmqpOptions, error: &Error) -> String {
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
        (None, ErrorKind::ParsingError(_)) => {
            format!(
                "{node} answers with something that is not AMQP 0-9-1: it is another kind of server, or speaks TLS only"
            )
        }
        (None, _) => format!("{node} ended the connection before it was open: {error}"),
    }
}

fn of_socket(node: &Node, options: &AmqpOptions, error: &io::Error) -> String {
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("nothing listens at {node}"),
        _ if options.tls.is_some() => {
            format!(
                "no TLS connection to {node}: {text}; it may speak no TLS, or have a certificate that is not trusted here"
            )
        }
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            format!(
                "{node} closed the connection at once: it may be no AMQP broker, or speak TLS only ({text})"
            )
        }
        _ => format!("{node} cannot be reached: {text}"),
    }
}
