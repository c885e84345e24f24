//! Class `confirm`, 85: RabbitMQ's publisher confirms.

use super::method::methods;

methods! {
    /// The methods of class `confirm`.
    class 85 "confirm" Confirm;

    /// Puts the channel into confirm mode.
    10 "select" Select {
        [no_wait];
    }
    /// Publishes are counted and confirmed from now on.
    11 "select-ok" SelectOk {}
}
