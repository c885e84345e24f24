//! A message that is to be published.

/// A message, as far as publishers of every protocol can say it.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its message id. MQTT 3.1.1 has no place for one.
    pub message_id: Option<String>,
    /// Its priority. MQTT 3.1.1 has no place for one.
    pub priority: Option<u8>,
    /// Its properties. MQTT 3.1.1 has none.
    pub properties: Vec<(String, String)>,
}

impl Outgoing {
    /// A message of that text alone.
    pub fn text(text: impl ToString) -> Self {
        Self { payload: text.to_string().into_bytes(), ..Self::default() }
    }

    /// It is a payload and nothing else.
    pub fn is_plain(&self) -> bool {
        self.message_id.is_none() && self.priority.is_none() && self.properties.is_empty()
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(payload: Vec<u8>) -> Self {
        Self { payload, ..Self::default() }
    }
}
