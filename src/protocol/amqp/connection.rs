//! Class `connection`, 10: opening, tuning and closing a connection (standard §1.4).

use super::{ShortString, Table, field::LongString, method::methods};

methods! {
    /// The methods of class `connection`, all on channel 0.
    class 10 "connection" Connection<'a>;

    /// The server offers versions, mechanisms and locales.
    10 "start" Start<'a> {
        /// 0.
        version_major: u8;
        /// 9.
        version_minor: u8;
        /// Product, version, capabilities.
        server_properties: Table<'a>;
        /// Names of SASL mechanisms, separated by spaces.
        mechanisms: LongString<'a>;
        /// Names of locales, separated by spaces.
        locales: LongString<'a>;
    }
    /// The client chooses a mechanism and sends its first response.
    11 "start-ok" StartOk<'a> {
        /// Product, version, capabilities.
        client_properties: Table<'a>;
        mechanism: ShortString<'a>;
        /// For `PLAIN`: NUL, user, NUL, password.
        response: LongString<'a>;
        locale: ShortString<'a>;
    }
    /// The mechanism's next challenge.
    20 "secure" Secure<'a> {
        challenge: LongString<'a>;
    }
    /// The answer to a challenge.
    21 "secure-ok" SecureOk<'a> {
        response: LongString<'a>;
    }
    /// The server proposes limits; 0 is none.
    30 "tune" Tune {
        /// The highest channel number.
        channel_max: u16;
        /// Bytes of the largest frame, head and end octet included.
        frame_max: u32;
        /// Seconds.
        heartbeat: u16;
    }
    /// The client's limits: what was proposed, or less.
    31 "tune-ok" TuneOk {
        /// The highest channel number.
        channel_max: u16;
        /// Bytes of the largest frame, head and end octet included.
        frame_max: u32;
        /// Seconds.
        heartbeat: u16;
    }
    /// Opens a virtual host.
    40 "open" Open<'a> {
        virtual_host: ShortString<'a>;
        _ ShortString;
        _ u8;
    }
    /// The connection is ready.
    41 "open-ok" OpenOk {
        _ ShortString;
    }
    /// Either side closes the connection.
    50 "close" Close<'a> {
        /// A [`ReplyCode`](super::ReplyCode).
        reply_code: u16;
        reply_text: ShortString<'a>;
        /// The class of the method at fault, or 0.
        class_id: u16;
        /// The method at fault, or 0.
        method_id: u16;
    }
    /// The last frame of a connection.
    51 "close-ok" CloseOk {}
    /// The server takes no more publishes for now; to clients with the capability `connection.blocked`.
    60 "blocked" Blocked<'a> {
        reason: ShortString<'a>;
    }
    /// The server takes publishes again.
    61 "unblocked" Unblocked {}
    /// A new secret for a connection whose old one expires.
    70 "update-secret" UpdateSecret<'a> {
        new_secret: LongString<'a>;
        reason: ShortString<'a>;
    }
    /// The new secret is good.
    71 "update-secret-ok" UpdateSecretOk {}
}
