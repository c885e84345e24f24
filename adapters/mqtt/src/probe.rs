//! Whether a broker is there and lets us in.

use std::fmt;

use crate::house::{Dial, introduction, random};
use crate::options::{MqttOptions, OptionsError};
use crate::upstream::failure::Failure;
use crate::upstream::packet::{Version, Welcome};

/// What a broker said when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where it is.
    pub at: String,
    /// Which MQTT it speaks.
    pub version: Version,
    /// Messages without acknowledgement that it allows.
    pub receive_maximum: u16,
    /// Bytes of the largest packet that it takes, when it said so.
    pub max_packet_size: Option<u32>,
    /// It keeps retained messages.
    pub retains: bool,
    /// Work queues can be fed: its subscriptions can be shared.
    pub shares: bool,
}

/// Why a broker cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// It was not even asked.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// It does not answer as it should.
    #[error("{at}: {why}")]
    Failed {
        /// Where it was to be.
        at: String,
        /// What happened.
        why: Failure,
    },
}

/// Whether a broker can be asked at all: the URL, the numbers, the certificates.
///
/// # Errors
/// Which option is wrong.
pub fn verify(options: &MqttOptions) -> Result<(), OptionsError> {
    Dial::of(options).map(|_| ())
}

/// Connects once, and leaves.
///
/// # Errors
/// Why the broker cannot be used.
pub async fn probe(options: &MqttOptions) -> Result<Probe, ProbeError> {
    let dial = Dial::of(options)?;
    let at = dial.place.to_string();
    let how = introduction(&dial, options, format!("linkspan.probe.{:016x}", random()));
    let (mut connection, sender, welcome) =
        dial.open(&how).await.map_err(|why| ProbeError::Failed { at: at.clone(), why })?;
    if sender.disconnect().is_ok() {
        // What it says to that does not matter.
        let _ = connection.poll(&mut Vec::new()).await;
    }
    let Welcome { version, receive_maximum, max_packet_size, retains, shares, .. } = welcome;
    Ok(Probe { at, version, receive_maximum, max_packet_size, retains, shares })
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.version)?;
        if self.version == Version::V5 {
            write!(f, ", {} messages without acknowledgement", self.receive_maximum)?;
        }
        if let Some(bytes) = self.max_packet_size {
            write!(f, ", packets of up to {bytes} bytes")?;
        }
        if !self.retains {
            f.write_str(", keeps no retained messages")?;
        }
        if !self.shares {
            f.write_str(", no shared subscriptions: work queues cannot be fed")?;
        }
        Ok(())
    }
}
