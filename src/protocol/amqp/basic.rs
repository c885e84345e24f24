//! Class `basic`, 60: messages (standard §1.8), with RabbitMQ's `nack`.
//!
//! Messages in bulk come through [`publish`](super::publish) and leave through [`delivery`](super::delivery); the
//! methods with content here are the same frames one by one.

use super::{ShortBytes, ShortString, Table, method::methods};

methods! {
    /// The methods of class `basic`.
    class 60 "basic" Basic<'a>;

    /// Bounds the unsettled deliveries.
    10 "qos" Qos {
        /// Bytes; only 0, no bound, is implemented anywhere.
        prefetch_size: u32;
        /// Messages; 0 is no bound.
        prefetch_count: u16;
        [
            /// In RabbitMQ: the whole channel's bound rather than each new consumer's.
            global
        ];
    }
    /// The bound holds.
    11 "qos-ok" QosOk {}
    /// Starts a consumer.
    20 "consume" Consume<'a> {
        _ u16;
        /// Empty: the queue that the channel declared last.
        queue: ShortString<'a>;
        /// Empty: the server gives one.
        consumer_tag: ShortString<'a>;
        [
            no_local,
            /// Deliveries are settled as they are sent.
            no_ack,
            exclusive,
            /// No answer wanted.
            no_wait
        ];
        arguments: Table<'a>;
    }
    /// The consumer is there.
    21 "consume-ok" ConsumeOk<'a> {
        consumer_tag: ShortString<'a>;
    }
    /// Ends a consumer; from the server, to clients with the capability `consumer_cancel_notify`, says that it ended.
    30 "cancel" Cancel<'a> {
        consumer_tag: ShortString<'a>;
        [no_wait];
    }
    /// The consumer is gone.
    31 "cancel-ok" CancelOk<'a> {
        consumer_tag: ShortString<'a>;
    }
    /// A message for an exchange.
    40 "publish" Publish<'a> with content {
        _ u16;
        exchange: ShortBytes<'a>;
        routing_key: ShortBytes<'a>;
        [
            /// Return it if it reaches no queue.
            mandatory,
            /// Return it if it reaches no consumer at once; RabbitMQ answers 540.
            immediate
        ];
    }
    /// A message that reached nobody.
    50 "return" Return<'a> with content {
        /// A [`ReplyCode`](super::ReplyCode).
        reply_code: u16;
        reply_text: ShortString<'a>;
        exchange: ShortBytes<'a>;
        routing_key: ShortBytes<'a>;
    }
    /// A message for a consumer.
    60 "deliver" Deliver<'a> with content {
        consumer_tag: ShortBytes<'a>;
        /// Counts up from 1 in the channel.
        delivery_tag: u64;
        [redelivered];
        exchange: ShortBytes<'a>;
        routing_key: ShortBytes<'a>;
    }
    /// Asks for one message.
    70 "get" Get<'a> {
        _ u16;
        queue: ShortString<'a>;
        [no_ack];
    }
    /// The message asked for.
    71 "get-ok" GetOk<'a> with content {
        /// Counts up from 1 in the channel.
        delivery_tag: u64;
        [redelivered];
        exchange: ShortBytes<'a>;
        routing_key: ShortBytes<'a>;
        /// Messages that are still ready.
        message_count: u32;
    }
    /// The queue is empty.
    72 "get-empty" GetEmpty {
        _ ShortString;
    }
    /// From a client: settles a delivery. From the server: confirms a publish.
    80 "ack" Ack {
        delivery_tag: u64;
        [
            /// All up to this tag; tag 0: all.
            multiple
        ];
    }
    /// Refuses a delivery.
    90 "reject" Reject {
        delivery_tag: u64;
        [
            /// Back into the queue rather than dropped or dead-lettered.
            requeue
        ];
    }
    /// Like `recover`, without an answer.
    100 "recover-async" RecoverAsync {
        [requeue];
    }
    /// Asks for all that is unsettled again.
    110 "recover" Recover {
        [
            /// To any consumer rather than to the same.
            requeue
        ];
    }
    /// What was unsettled comes again.
    111 "recover-ok" RecoverOk {}
    /// From a client: refuses deliveries. From the server: could not take publishes.
    120 "nack" Nack {
        delivery_tag: u64;
        [
            /// All up to this tag; tag 0: all.
            multiple,
            /// Back into the queue rather than dropped or dead-lettered.
            requeue
        ];
    }
}
