//! Which message a returned one is.
//!
//! lapin hands a returned message over with whatever confirm comes next, which is the confirm of another one as often as
//! not. But a return says what was returned: the first message under way with the same exchange, key, payload and
//! properties that was not returned yet is it, or one that nobody can tell from it.

use lapin::BasicProperties;
use lapin::message::BasicReturnMessage;
use lapin::types::FieldTable;

/// True when `message`, published with these properties to that exchange and key, is what came back.
pub(super) fn is_it(
    returned: &BasicReturnMessage,
    exchange: &str,
    key: &str,
    payload: &[u8],
    properties: impl FnOnce() -> Option<BasicProperties>,
) -> bool {
    returned.exchange.as_str() == exchange
        && returned.routing_key.as_str() == key
        && returned.data == payload
        && properties().is_some_and(|sent| without_bcc(sent) == returned.properties)
}

/// The broker takes `BCC` off before it does anything else.
fn without_bcc(properties: BasicProperties) -> BasicProperties {
    let Some(headers) = properties.headers().as_ref().filter(|headers| headers.contains_key("BCC")) else {
        return properties;
    };
    let mut rest = FieldTable::default();
    for (name, value) in headers.inner().iter().filter(|(name, _)| name.as_str() != "BCC") {
        rest.insert(name.clone(), value.clone());
    }
    properties.clone().with_headers(rest)
}
