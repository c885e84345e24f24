//! What the ledger knows of a session, so that it is there again after a restart.
//!
//! JSON: an operator who looks into a shared ledger can read it, fields may be added, and it is written at the pace of
//! SUBSCRIBE, where a few hundred bytes more are nothing beside the sync.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use linkspan_contract::ledger::{self, Conditions, Expected, LONGEST_KEY};
use linkspan_contract::{Ledger, LedgerError, Millis};
use serde::{Deserialize, Serialize};

use crate::protocol::mqtt::Version;

/// Of the form in which records are written.
const VERSION: u8 = 1;

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Record {
    version: u8,
    /// The client's identifier.
    pub client: Box<str>,
    /// Whose session it is.
    pub user: Box<str>,
    /// The standard that the client followed last: 4 or 5.
    pub level: u8,
    /// Seconds that it is kept after its connection's end.
    pub keep: u32,
    /// When it ends; none while the client is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Millis>,
    /// The number of its next subscription.
    pub next: u32,
    /// Its subscriptions.
    pub subscriptions: Vec<Line>,
    /// What the client has left behind, or will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub will: Option<Will>,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Line {
    pub filter: Box<str>,
    pub number: u32,
    pub qos: u8,
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_local: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub retain_as_published: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<NonZeroU32>,
}

/// A will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Will {
    /// The PUBLISH packet, in base64.
    pub publish: String,
    /// Seconds between the connection's end and the message.
    pub delay: u32,
    /// When it is due; none while the client is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Millis>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Why a record says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is no record of a session: {0}")]
    Form(#[from] serde_json::Error),
    #[error("it is of form {0}, which a newer Linkspan has written")]
    Newer(u8),
    #[error("it has no standard of that level: {0}")]
    Level(u8),
    #[error("its will is damaged")]
    Will,
}

impl Record {
    /// The session of `client`, of which nothing more is said yet.
    pub(super) fn new(client: &str, user: &str, version: Version) -> Self {
        Self {
            version: VERSION,
            client: client.into(),
            user: user.into(),
            level: version.level(),
            keep: 0,
            ends: None,
            next: 0,
            subscriptions: Vec::new(),
            will: None,
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// Why it is not one that this version writes.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let record: Self = serde_json::from_slice(bytes)?;
        if record.version != VERSION {
            return Err(Unreadable::Newer(record.version));
        }
        record.standard()?;
        record.testament()?;
        Ok(record)
    }

    /// The bytes to keep.
    fn written(&self) -> Result<Vec<u8>, LedgerError> {
        serde_json::to_vec(self).map_err(|error| LedgerError::Unfit(error.to_string()))
    }

    /// The standard that the client followed last.
    ///
    /// # Errors
    /// When it is none that is spoken here.
    pub(super) fn standard(&self) -> Result<Version, Unreadable> {
        match self.level {
            4 => Ok(Version::V311),
            5 => Ok(Version::V5),
            level => Err(Unreadable::Level(level)),
        }
    }

    /// The will's PUBLISH packet.
    ///
    /// # Errors
    /// When it is damaged.
    pub(super) fn testament(&self) -> Result<Option<Vec<u8>>, Unreadable> {
        let decoded = self.will.as_ref().map(|will| STANDARD.decode(&will.publish));
        decoded.transpose().map_err(|_| Unreadable::Will)
    }
}

impl Will {
    /// One that consists of this PUBLISH packet.
    pub(super) fn new(publish: &[u8], delay: u32, due: Option<Millis>) -> Self {
        Self { publish: STANDARD.encode(publish), delay, due }
    }
}

/// Keys of the records that an owner has of a vhost begin with this.
pub(super) fn prefix(owner: &str, vhost: &str) -> String {
    format!("session/{}/{}/", escaped(owner), escaped(vhost))
}

/// So that no owner's or vhost's keys begin with another's.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

/// What tells the list of an owner's sessions in this ledger from every other: made up once, and written there.
///
/// # Errors
/// When the ledger cannot be asked.
pub(super) async fn list(ledger: &Arc<dyn Ledger>, owner: &str) -> Result<String, LedgerError> {
    let key = format!("sessions/{}", escaped(owner));
    let half = || RandomState::new().hash_one(owner);
    let made_up = format!("{:016x}{:016x}", half(), half());
    if let Some(entry) = ledger.get(&key).await? {
        return Ok(String::from_utf8_lossy(&entry.value).into_owned());
    }
    let terms = Conditions { expected: Expected::Nothing, ..Conditions::default() };
    ledger.put(&key, made_up.as_bytes(), terms).await.map(|_| made_up)
}

/// Where a session's record is.
pub(super) struct Place {
    ledger: Arc<dyn Ledger>,
    key: Box<str>,
    /// What was written last, as far as that is known.
    version: Option<ledger::Version>,
}

impl Place {
    /// That of a client; none when its identifier is too long to be written down.
    pub(super) fn of(ledger: &Arc<dyn Ledger>, owner: &str, vhost: &str, client: &str) -> Option<Self> {
        let key = prefix(owner, vhost) + client;
        (key.len() <= LONGEST_KEY).then(|| Self {
            ledger: Arc::clone(ledger),
            key: key.into(),
            version: None,
        })
    }

    /// Writes the record; when it returns it is safe.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn write(&mut self, record: &Record) -> Result<(), LedgerError> {
        self.version = Some(self.ledger.put(&self.key, &record.written()?, Conditions::default()).await?);
        Ok(())
    }

    /// The record is as it was found.
    pub(super) fn found(&mut self, version: ledger::Version) {
        self.version = Some(version);
    }

    /// Removes the record, unless somebody has written another one since; when it returns it is gone for good.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn remove(&mut self) -> Result<(), LedgerError> {
        let Some(version) = self.version else { return Ok(()) };
        let terms = Conditions { expected: Expected::Version(version), ..Conditions::default() };
        match self.ledger.delete(&self.key, terms).await {
            Ok(_) | Err(LedgerError::Stale { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record = Record::new("pump/7", "sensor", Version::V5);
        (record.keep, record.ends, record.next) = (3600, Some(1_800_000_000_000), 3);
        record.subscriptions = vec![
            Line {
                filter: "a/+".into(),
                number: 0,
                qos: 2,
                no_local: false,
                retain_as_published: true,
                identifier: NonZeroU32::new(7),
            },
            Line {
                filter: "$queue/jobs".into(),
                number: 2,
                qos: 1,
                no_local: false,
                retain_as_published: false,
                identifier: None,
            },
        ];
        record.will = Some(Will::new(&[0x30, 3, 0, 1, b'w'], 60, None));
        record
    }

    /// What this version has written, later ones read.
    #[test]
    fn a_record_is_text_that_stays_readable() {
        let text = r#"{"version":1,"client":"pump/7","user":"sensor","level":5,"keep":3600,"ends":1800000000000,"next":3,"subscriptions":[{"filter":"a/+","number":0,"qos":2,"retain-as-published":true,"identifier":7},{"filter":"$queue/jobs","number":2,"qos":1}],"will":{"publish":"MAMAAXc=","delay":60}}"#;
        assert_eq!(String::from_utf8(record().written().unwrap()).unwrap(), text);
        let read = Record::read(text.as_bytes()).unwrap();
        assert_eq!(read, record());
        assert_eq!(read.testament().unwrap().unwrap(), [0x30, 3, 0, 1, b'w']);
    }

    #[test]
    fn what_is_no_record_of_this_form_says_why() {
        let why = |text: &str| Record::read(text.as_bytes()).unwrap_err().to_string();
        let text = String::from_utf8(record().written().unwrap()).unwrap();
        assert!(why("[]").contains("no record of a session"));
        assert!(why(&text.replace(r#""version":1"#, r#""version":2"#)).contains("of form 2"));
        assert!(why(&text.replace(r#""level":5"#, r#""level":6"#)).contains("level: 6"));
        assert!(why(&text.replace("MAMAAXc=", "MAMA#")).contains("will"));
    }

    #[test]
    fn keys_of_one_vhost_never_begin_with_those_of_another() {
        assert_eq!(prefix("own", "/"), "session/own/%2F/");
        assert_eq!(prefix("o/n", "a/b"), "session/o%2Fn/a%2Fb/");
        assert_ne!(prefix("own", "a%2Fb"), prefix("own", "a/b"));
    }
}
