//! What is short, and by how much, in words.

use std::fmt;
use std::sync::Arc;

/// What an alarm is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The memory of the process.
    Memory,
    /// The disk that this back end writes to.
    Disk(Arc<str>),
    /// What is known of MQTT sessions that are kept.
    Sessions,
}

impl Subject {
    /// All kinds.
    pub const KINDS: [&str; 3] = ["memory", "disk", "sessions"];

    /// For metrics and status.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk(_) => "disk",
            Self::Sessions => "sessions",
        }
    }
}

/// A limit that is passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortage {
    /// More memory is used than allowed.
    Memory {
        /// Bytes used.
        used: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Less of a disk is free than wanted.
    Disk {
        /// The back end that writes to it.
        backend: Arc<str>,
        /// Free bytes.
        free: u64,
        /// Bytes that have to be free.
        limit: u64,
    },
    /// The ledger, which knows of the sessions that are kept, was not read since the start: what were published would not
    /// reach them.
    Sessions,
}

impl Shortage {
    /// What its alarm is about.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Memory { .. } => Subject::Memory,
            Self::Disk { backend, .. } => Subject::Disk(Arc::clone(backend)),
            Self::Sessions => Subject::Sessions,
        }
    }
}

/// The reason as clients are told it. That of memory or disk begins as RabbitMQ's does and fits into AMQP's 255 bytes unless names are long.
impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { used, limit } => write!(
                f,
                "low on memory: {} used, {} above memory.limit ({})",
                Size(*used),
                Size(used.saturating_sub(*limit)),
                Size(*limit)
            ),
            Self::Disk { backend, free, limit } => write!(
                f,
                "low on disk: {} free for back end `{backend}`, {} below disk.free-limit ({})",
                Size(*free),
                Size(limit.saturating_sub(*free)),
                Size(*limit)
            ),
            Self::Sessions => f.write_str(
                "the ledger cannot be read: which MQTT sessions are kept is not known yet, and they would miss what is published",
            ),
        }
    }
}

/// Bytes as people read them: three digits or so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.into_iter().find(|(_, shift)| self.0 >> shift > 0) {
            Some((unit, shift)) if self.0 >> shift < 10 => {
                write!(f, "{:.1} {unit}", self.0 as f64 / (1u64 << shift) as f64)
            }
            Some((unit, shift)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_the_limit_and_by_how_much_it_is_passed() {
        let memory = Shortage::Memory { used: 812 << 20, limit: 600 << 20 };
        assert_eq!(memory.to_string(), "low on memory: 812 MiB used, 212 MiB above memory.limit (600 MiB)");
        let disk = Shortage::Disk { backend: "local".into(), free: 300 << 20, limit: 3 << 29 };
        assert_eq!(
            disk.to_string(),
            "low on disk: 300 MiB free for back end `local`, 1.2 GiB below disk.free-limit (1.5 GiB)"
        );
    }

    #[test]
    fn sessions_that_were_not_read_have_a_reason_of_their_own() {
        assert_eq!(Shortage::Sessions.subject().kind(), "sessions");
        assert!(Shortage::Sessions.to_string().len() < 255, "AMQP's reason is a short string");
    }

    #[test]
    fn sizes_have_about_three_digits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (10 << 20, "10 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), shown);
        }
    }
}
