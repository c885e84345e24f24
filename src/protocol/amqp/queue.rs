//! Class `queue`, 50 (standard §1.7).

use super::{ShortString, Table, method::methods};

methods! {
    /// The methods of class `queue`.
    class 50 "queue" Queue<'a>;

    /// Creates a queue, or checks that there is such a one.
    10 "declare" Declare<'a> {
        _ u16;
        /// Empty: the server gives a name.
        queue: ShortString<'a>;
        [
            /// Only check that it exists.
            passive,
            durable,
            /// For this connection only, and goes with it.
            exclusive,
            /// Goes with its last consumer.
            auto_delete,
            /// No answer wanted.
            no_wait
        ];
        arguments: Table<'a>;
    }
    /// The queue is there.
    11 "declare-ok" DeclareOk<'a> {
        queue: ShortString<'a>;
        /// Messages that are ready.
        message_count: u32;
        consumer_count: u32;
    }
    /// Binds a queue to an exchange.
    20 "bind" Bind<'a> {
        _ u16;
        /// Empty: the queue that the channel declared last.
        queue: ShortString<'a>;
        exchange: ShortString<'a>;
        routing_key: ShortString<'a>;
        [no_wait];
        arguments: Table<'a>;
    }
    /// The binding is made.
    21 "bind-ok" BindOk {}
    /// Drops the queue's ready messages.
    30 "purge" Purge<'a> {
        _ u16;
        queue: ShortString<'a>;
        [no_wait];
    }
    /// The queue is empty.
    31 "purge-ok" PurgeOk {
        /// Messages dropped.
        message_count: u32;
    }
    /// Deletes a queue.
    40 "delete" Delete<'a> {
        _ u16;
        queue: ShortString<'a>;
        [if_unused, if_empty, no_wait];
    }
    /// The queue is gone.
    41 "delete-ok" DeleteOk {
        /// Messages dropped.
        message_count: u32;
    }
    /// Removes a binding.
    50 "unbind" Unbind<'a> {
        _ u16;
        queue: ShortString<'a>;
        exchange: ShortString<'a>;
        routing_key: ShortString<'a>;
        arguments: Table<'a>;
    }
    /// The binding is gone.
    51 "unbind-ok" UnbindOk {}
}
