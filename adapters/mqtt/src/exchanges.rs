//! Which exchanges there are: the address space, and the default exchange.

use linkspan_contract::topology::BindingEnd;
use linkspan_contract::{Binding, Refused, What};

/// The topic exchange that is the address space.
pub(crate) const ADDRESS_SPACE: &str = "amq.topic";

/// Why there are no others, for people.
pub(crate) const WHY: &str =
    "an MQTT broker has topics only: the topic exchange and the default exchange are all there is";

/// What every AMQP broker has besides.
const STANDARD: [&str; 4] = ["amq.direct", "amq.fanout", "amq.headers", "amq.match"];

/// Nothing may be published to an exchange of that name.
pub(crate) fn closed(name: &str) -> Refused {
    if STANDARD.contains(&name) { absent(name) } else { missing(name) }
}

/// Whether an exchange of that name may be asked of the engine: it answers for the address space, the default exchange
/// and reserved names.
pub(crate) fn declared(name: &str, passive: bool) -> Result<(), Refused> {
    if name == ADDRESS_SPACE || name.is_empty() {
        return Ok(());
    }
    if STANDARD.contains(&name) {
        return Err(absent(name));
    }
    if passive || name.starts_with("amq.") { Ok(()) } else { Err(absent(name)) }
}

/// Whether a binding may be asked of the engine.
pub(crate) fn bound(binding: &Binding<'_>) -> Result<(), Refused> {
    if STANDARD.contains(&binding.source) {
        return Err(absent(binding.source));
    }
    match binding.to {
        BindingEnd::Exchange(name) => Err(absent(name)),
        BindingEnd::Queue(_) => Ok(()),
    }
}

fn absent(name: &str) -> Refused {
    Refused::NotImplemented(format!("exchange '{name}' cannot be used: {WHY}"))
}

fn missing(name: &str) -> Refused {
    Refused::NotFound { what: What::Exchange, name: name.into() }
}
