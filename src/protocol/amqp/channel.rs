//! Class `channel`, 20: opening and closing channels (standard §1.5).

use super::{ShortString, field::LongString, method::methods};

methods! {
    /// The methods of class `channel`.
    class 20 "channel" Channel<'a>;

    /// Opens the channel that it is sent on.
    10 "open" Open {
        _ ShortString;
    }
    /// The channel is ready.
    11 "open-ok" OpenOk {
        _ LongString;
    }
    /// Stops or starts the peer's messages.
    20 "flow" Flow {
        [active];
    }
    /// The flow is as demanded.
    21 "flow-ok" FlowOk {
        [active];
    }
    /// Either side closes the channel.
    40 "close" Close<'a> {
        /// A [`ReplyCode`](super::ReplyCode).
        reply_code: u16;
        reply_text: ShortString<'a>;
        /// The class of the method at fault, or 0.
        class_id: u16;
        /// The method at fault, or 0.
        method_id: u16;
    }
    /// The channel's number may be used again.
    41 "close-ok" CloseOk {}
}
