//! From the first byte to an open connection (standard §2.2.4), as a function of what comes.

use crate::protocol::amqp::header::Refusal;
use crate::protocol::amqp::{
    Frame, Greeting, Limits, Method, ReplyCode, ShortString, Table, TableBuf, Value,
    connection::{self, Connection},
    frame,
};

use super::failure::Failure;
use super::limits::AmqpLimits;

/// Frames before `connection.tune-ok` are small: who is not known yet gets little memory.
const FIRST_FRAME_MAX: u32 = 8192;

/// User and password, each behind a NUL.
const PLAIN: &str = "PLAIN";

/// A table of `LOGIN` and `PASSWORD`.
const AMQPLAIN: &str = "AMQPLAIN";

/// Mechanisms that are offered.
const MECHANISMS: &[u8] = b"PLAIN AMQPLAIN";

/// Where a handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Starting,
    Authenticating,
    Tuning,
    Opening,
    Entering,
}

/// One connection's handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    stage: Stage,
    client: ClientSays,
    /// How it logs in.
    mechanism: &'static str,
    tuned: Tuned,
}

/// What a client says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClientSays {
    /// `connection_name`.
    pub(super) name: Option<String>,
    /// `product` and `version`, for logs.
    pub(super) product: String,
    /// Wants `basic.cancel` when a consumer ends.
    pub(super) consumer_cancel_notify: bool,
    /// Wants `connection.blocked`.
    pub(super) connection_blocked: bool,
    /// Wants `connection.close` when it is not let in.
    pub(super) authentication_failure_close: bool,
}

/// What was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tuned {
    /// Channels at a time.
    pub(super) channel_max: u16,
    /// Bytes.
    pub(super) frame_max: u32,
    /// Seconds; 0 is none.
    pub(super) heartbeat: u16,
}

/// What a frame of the handshake leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait for more; an answer may have been appended.
    Wait,
    /// Verify, then say [`Handshake::authenticated`] or [`Handshake::denied`].
    Authenticate {
        /// The user.
        user: String,
        /// The password.
        password: Vec<u8>,
    },
    /// Enter the vhost.
    Enter {
        /// The vhost.
        vhost: String,
    },
    /// The client closes already.
    Closed,
}

impl Handshake {
    /// Before the first byte.
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Greeting,
            client: ClientSays::default(),
            mechanism: PLAIN,
            tuned: Tuned::default(),
        }
    }

    /// Whether the protocol header is still to come.
    pub(super) fn awaits_greeting(&self) -> bool {
        self.stage == Stage::Greeting
    }

    /// What the client said of itself.
    pub(super) fn client(&self) -> &ClientSays {
        &self.client
    }

    /// What was negotiated.
    pub(super) fn tuned(&self) -> Tuned {
        self.tuned
    }

    /// What may be sent now.
    pub(super) fn limits(&self) -> Limits {
        let frame_max = if self.stage == Stage::Opening { self.tuned.frame_max } else { FIRST_FRAME_MAX };
        Limits { frame_max, body_max: 0 }
    }

    /// Judges the first bytes: true when they are AMQP's and eight were used, false when more are needed.
    ///
    /// # Errors
    /// What is spoken instead; our own header was appended.
    pub(super) fn greet(&mut self, received: &[u8], out: &mut Vec<u8>) -> Result<bool, Refusal> {
        match Greeting::decode(received) {
            Greeting::Incomplete => Ok(false),
            Greeting::Welcome => {
                let properties = server_properties();
                connection::Start {
                    version_major: 0,
                    version_minor: 9,
                    server_properties: properties.as_table(),
                    mechanisms: MECHANISMS,
                    locales: b"en_US",
                }
                .encode(0, out);
                self.stage = Stage::Starting;
                Ok(true)
            }
            Greeting::Refused(refusal) => {
                out.extend_from_slice(&crate::protocol::amqp::header::PROTOCOL_HEADER);
                Err(refusal)
            }
        }
    }

    /// Takes a frame that is no heartbeat.
    ///
    /// # Errors
    /// Why the connection is closed.
    pub(super) fn accept(
        &mut self,
        frame: &Frame<'_>,
        limits: &AmqpLimits,
        out: &mut Vec<u8>,
    ) -> Result<Step, Failure> {
        if frame.channel != 0 {
            let kind = frame.kind as u8;
            return Err(crate::protocol::amqp::Error::UnexpectedFrame { kind }.into());
        }
        let method = Method::decode(frame.payload)?;
        let Method::Connection(said) = &method else { return Err(self.unexpected(&method)) };
        match (self.stage, said) {
            (Stage::Starting, Connection::StartOk(start_ok)) => {
                self.client = ClientSays::read(start_ok.client_properties);
                let (user, password) = credentials(start_ok).map_err(|why| why.caused_by(method.id()))?;
                self.mechanism = if start_ok.mechanism.as_str() == AMQPLAIN { AMQPLAIN } else { PLAIN };
                self.stage = Stage::Authenticating;
                Ok(Step::Authenticate { user, password })
            }
            (Stage::Tuning, Connection::TuneOk(tune_ok)) => {
                self.tuned = negotiate(tune_ok, limits)?;
                self.stage = Stage::Opening;
                Ok(Step::Wait)
            }
            (Stage::Opening, Connection::Open(open)) => {
                self.stage = Stage::Entering;
                Ok(Step::Enter { vhost: open.virtual_host.as_str().to_owned() })
            }
            (_, Connection::Close(_)) => {
                connection::CloseOk {}.encode(0, out);
                Ok(Step::Closed)
            }
            _ => Err(self.unexpected(&method)),
        }
    }

    fn unexpected(&self, method: &Method<'_>) -> Failure {
        let state = match self.stage {
            Stage::Greeting | Stage::Starting => "starting",
            Stage::Authenticating => "securing",
            Stage::Tuning => "tuning",
            Stage::Opening | Stage::Entering => "opening",
        };
        let text = format!("unexpected method in connection state {state}");
        Failure::new(ReplyCode::ChannelError, &text).caused_by(method.id())
    }

    /// The client is who it says: appends `connection.tune`.
    pub(super) fn authenticated(&mut self, limits: &AmqpLimits, out: &mut Vec<u8>) {
        self.stage = Stage::Tuning;
        let AmqpLimits { channel_max, frame_max, heartbeat, .. } = *limits;
        connection::Tune { channel_max, frame_max, heartbeat }.encode(0, out);
    }

    /// The client is not let in: what it is told, if it wants to be told.
    pub(super) fn denied(&self) -> Option<Failure> {
        let text =
            "Login was refused using authentication mechanism PLAIN. For details see the broker logfile.";
        let told = self.client.authentication_failure_close;
        told.then(|| Failure::new(ReplyCode::AccessRefused, text))
    }
}

impl ClientSays {
    fn read(properties: Table<'_>) -> Self {
        let text = |name| properties.get(name).and_then(Value::as_str).unwrap_or_default();
        let capabilities = properties.get("capabilities").and_then(Value::as_table).unwrap_or_default();
        let capable = |name| capabilities.get(name).and_then(Value::as_bool).unwrap_or(false);
        Self {
            name: properties.get("connection_name").and_then(Value::as_str).map(str::to_owned),
            product: format!("{} {}", text("product"), text("version")).trim().to_owned(),
            consumer_cancel_notify: capable("consumer_cancel_notify"),
            connection_blocked: capable("connection.blocked"),
            authentication_failure_close: capable("authentication_failure_close"),
        }
    }
}

fn server_properties() -> TableBuf {
    let capabilities = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
    ];
    let mut capable = TableBuf::new();
    for name in capabilities {
        capable.put_bytes(ShortString::truncated(name).into(), true);
    }
    let mut properties = TableBuf::new();
    properties.put_bytes(ShortString::truncated("capabilities").into(), capable.as_table());
    for (name, value) in [
        ("product", "Linkspan"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("platform", "Rust"),
        ("information", "AMQP 0-9-1 with RabbitMQ's extensions"),
    ] {
        properties.put_bytes(ShortString::truncated(name).into(), value);
    }
    properties
}

/// User and password of the first response.
fn credentials(start_ok: &connection::StartOk<'_>) -> Result<(String, Vec<u8>), Failure> {
    let invalid = || Failure::new(ReplyCode::SyntaxError, "response invalid");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| invalid());
    match start_ok.mechanism.as_str() {
        PLAIN => {
            let mut parts = start_ok.response.splitn(3, |byte| *byte == 0);
            let (_, user, password) = (parts.next(), parts.next(), parts.next());
            let (Some(user), Some(password)) = (user, password) else { return Err(invalid()) };
            Ok((text(user)?, password.to_vec()))
        }
        AMQPLAIN => {
            let table = Table::new(start_ok.response).map_err(|_| invalid())?;
            match (table.get("LOGIN"), table.get("PASSWORD")) {
                (Some(Value::LongString(user)), Some(Value::LongString(password))) => {
                    Ok((text(user)?, password.to_vec()))
                }
                _ => Err(invalid()),
            }
        }
        other => {
            let text = format!("unknown authentication mechanism '{other}'");
            Err(Failure::new(ReplyCode::CommandInvalid, &text))
        }
    }
}

fn negotiate(client: &connection::TuneOk, ours: &AmqpLimits) -> Result<Tuned, Failure> {
    let wrong = |field: &str, value: u32, detail: &str, than: &str, limit: u32| {
        let text = format!("negotiated {field} = {value}{detail} is {than} allowed value ({limit})");
        Failure::new(ReplyCode::NotAllowed, &text).caused_by(connection::Tune::ID)
    };
    let judge = |field: &str, value: u32, min: u32, max: u32, detail: &str| {
        if value != 0 && value < min {
            Err(wrong(field, value, "", "lower than the minimum", min))
        } else if max != 0 && (value == 0 || value > max) {
            Err(wrong(field, value, if value == 0 { detail } else { "" }, "higher than the maximum", max))
        } else {
            Ok(())
        }
    };
    judge("frame_max", client.frame_max, frame::MIN_MAX, ours.frame_max, "")?;
    judge("channel_max", client.channel_max.into(), 1, ours.channel_max.into(), " (no limit)")?;
    let connection::TuneOk { channel_max, frame_max, heartbeat } = *client;
    Ok(Tuned { channel_max, frame_max, heartbeat })
}
