//! Class `exchange`, 40 (standard §1.6), with RabbitMQ's bindings between exchanges.

use super::{ShortString, Table, method::methods};

methods! {
    /// The methods of class `exchange`.
    class 40 "exchange" Exchange<'a>;

    /// Creates an exchange, or checks that there is such a one.
    10 "declare" Declare<'a> {
        _ u16;
        exchange: ShortString<'a>;
        /// `direct`, `fanout`, `topic`, `headers`.
        kind: ShortString<'a>;
        [
            /// Only check that it exists.
            passive,
            durable,
            /// Goes with its last binding.
            auto_delete,
            /// Only other exchanges publish to it.
            internal,
            /// No answer wanted.
            no_wait
        ];
        arguments: Table<'a>;
    }
    /// The exchange is there.
    11 "declare-ok" DeclareOk {}
    /// Deletes an exchange.
    20 "delete" Delete<'a> {
        _ u16;
        exchange: ShortString<'a>;
        [if_unused, no_wait];
    }
    /// The exchange is gone.
    21 "delete-ok" DeleteOk {}
    /// Binds an exchange to another.
    30 "bind" Bind<'a> {
        _ u16;
        /// The exchange that gets messages.
        destination: ShortString<'a>;
        /// The exchange that they come from.
        source: ShortString<'a>;
        routing_key: ShortString<'a>;
        [no_wait];
        arguments: Table<'a>;
    }
    /// The binding is made.
    31 "bind-ok" BindOk {}
    /// Removes a binding between exchanges.
    40 "unbind" Unbind<'a> {
        _ u16;
        destination: ShortString<'a>;
        source: ShortString<'a>;
        routing_key: ShortString<'a>;
        [no_wait];
        arguments: Table<'a>;
    }
    /// The binding is gone.
    51 "unbind-ok" UnbindOk {}
}
