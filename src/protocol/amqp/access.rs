//! Class `access`, 30: tickets, which 0-9-1 dropped and RabbitMQ still answers.

use super::{ShortString, method::methods};

methods! {
    /// The methods of class `access`.
    class 30 "access" Access<'a>;

    /// Asks for a ticket.
    10 "request" Request<'a> {
        realm: ShortString<'a>;
        [exclusive, passive, active, write, read];
    }
    /// A ticket, which nobody looks at.
    11 "request-ok" RequestOk {
        ticket: u16;
    }
}
