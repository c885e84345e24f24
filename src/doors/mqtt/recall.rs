//! Sessions of the ledger: read at the start, and made again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use linkspan_contract::{
    BackendError, Client, LedgerError, Millis, Refused, SessionTerms, client_number, ledger,
};

use super::MqttDoor;
use super::away::Away;
use super::coordinator::{Keeper, remove};
use super::handshake::TurnedAway;
use super::record::{self, Record};
use super::registry::Claim;
use super::resting::{Resting, Resumed, Tenure};
use super::will::Testament;
use crate::protocol::mqtt::ReasonCode;

/// Records that are read at a time.
const PAGE: usize = 256;

impl MqttDoor {
    /// What a session has that is to be kept for `seconds`; none when it ends with its connection.
    ///
    /// # Errors
    /// When there are too many, or it has no room in the ledger.
    pub(super) fn tenure(
        &self,
        identifier: &str,
        user: &Arc<str>,
        seconds: u32,
    ) -> Result<Option<Box<Tenure>>, TurnedAway> {
        let keep = self.limits.kept_for(seconds);
        if keep == 0 {
            return Ok(None);
        }
        if !self.taken_up.load(Ordering::SeqCst) {
            let text = "the sessions that were written down could not be read yet";
            return Err(TurnedAway::new(ReasonCode::ServerUnavailable, text));
        }
        self.hold(identifier, user, keep).map(Some)
    }

    fn hold(&self, identifier: &str, user: &Arc<str>, keep: u32) -> Result<Box<Tenure>, TurnedAway> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.counters.sessions_refused.increment(1);
            let text = format!("{} sessions are kept already", self.limits.sessions);
            return Err(TurnedAway::new(ReasonCode::QuotaExceeded, text));
        };
        let record = match &self.ledger {
            None => None,
            Some(ledger) => {
                Some(record::Place::of(ledger, &self.owner, &self.vhost, identifier).ok_or_else(|| {
                    let text = "the identifier of a client whose session is kept may have some 900 bytes";
                    TurnedAway::new(ReasonCode::ClientIdentifierNotValid, text)
                })?)
            }
        };
        Ok(Box::new(Tenure { user: Arc::clone(user), keep, _place: place, record, notes: None }))
    }

    /// Takes up the sessions that the ledger knows of.
    ///
    /// # Errors
    /// When it cannot be read; then nothing was taken up.
    pub(super) async fn read_sessions(self: &Arc<Self>) -> Result<(), LedgerError> {
        if let Some(ledger) = &self.ledger {
            let (prefix, mut last, mut all) =
                (record::prefix(&self.owner, &self.vhost), None::<Box<str>>, Vec::new());
            loop {
                let page = ledger.scan(&prefix, last.as_deref(), PAGE).await?;
                let Some((key, _)) = page.last() else { break };
                last = Some(key.clone());
                all.extend(page);
            }
            let (mut count, known) = (0, all.len());
            for (key, entry) in all {
                match Record::read(&entry.value) {
                    Ok(record) => {
                        count += usize::from(self.recall(Written { record, version: entry.version }).await);
                    }
                    Err(why) => tracing::warn!(%key, %why, "a session cannot be taken up; its record stays"),
                }
            }
            if known > 0 {
                tracing::info!(known, taken_up = count, "sessions were taken up");
            }
        }
        self.taken_up.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Takes up one session; false when it is over, or cannot be made now.
    async fn recall(self: &Arc<Self>, written: Written) -> bool {
        let client: Arc<str> = written.record.client.as_ref().into();
        if written.is_over(self.now()) && written.record.will.is_none() {
            self.forget(&written).await;
            return false;
        }
        let Some(claim) = self.registry.take(&client) else {
            // It has come meanwhile, and was told that there is no session.
            self.forget(&written).await;
            return false;
        };
        match restore(self, &claim, &written).await {
            Ok(resting) => {
                let (ends, due) = (written.record.ends, written.record.will.and_then(|will| will.due));
                Keeper::new(self, claim, Box::new(resting), ends, due).start();
                true
            }
            Err(why) if why.is_away() => {
                tracing::warn!(%client, %why, "a session is taken up when its client comes");
                self.unmade.lock().insert(client, written);
                false
            }
            Err(why) => {
                tracing::warn!(%client, %why, "a session is not taken up any more");
                self.forget(&written).await;
                false
            }
        }
    }

    /// Removes a record of which no session is made.
    pub(super) async fn forget(&self, written: &Written) {
        let place = self.ledger.as_ref();
        let mut place =
            place.and_then(|it| record::Place::of(it, &self.owner, &self.vhost, &written.record.client));
        place.iter_mut().for_each(|place| place.found(written.version));
        remove(place).await;
    }

    /// What time it is.
    pub(super) fn now(&self) -> Millis {
        self.clock.now()
    }
}

/// A session of which there is only the record.
pub(super) struct Written {
    record: Record,
    version: ledger::Version,
}

impl Written {
    /// Whether its time is over.
    pub(super) fn is_over(&self, now: Millis) -> bool {
        self.record.ends.is_some_and(|ends| ends <= now)
    }
}

/// Why a session was not made from its record.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unmade {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0}")]
    Turned(String),
    #[error(transparent)]
    Unreadable(#[from] record::Unreadable),
}

impl Unmade {
    /// Whether the same may succeed later.
    pub(super) const fn is_away(&self) -> bool {
        matches!(self, Self::Backend(BackendError::Away { .. }) | Self::Refused(Refused::Away(_)))
    }
}

/// Makes the session that was written down.
///
/// # Errors
/// Why that cannot be done.
pub(super) async fn restore(
    door: &Arc<MqttDoor>,
    claim: &Claim,
    written: &Written,
) -> Result<Resting, Unmade> {
    let Written { record, version } = written;
    let user: Arc<str> = record.user.as_ref().into();
    let keep = door.limits.kept_for(record.keep);
    let mut tenure = door.hold(&record.client, &user, keep).map_err(|away| Unmade::Turned(away.text))?;
    tenure.record.iter_mut().for_each(|place| place.found(*version));
    let terms =
        SessionTerms { at_broker: false, fresh: false, keep: tenure.keep, window: u16::MAX, will: None };
    let client = Client {
        number: client_number(),
        identifier: record.client.as_ref().into(),
        user,
        vhost: Arc::clone(&door.vhost),
        session: Some(Arc::new(terms)),
    };
    let mailbox = claim.mailbox();
    let mut connection = door.backend.connect(&client, Arc::new(Away::new(mailbox))).await?;
    let lane = connection.lane(Arc::clone(mailbox) as _, Arc::clone(mailbox) as _).await?;
    let will = match (record.testament()?, &record.will) {
        (Some(packet), Some(will)) => Some(Box::new(Testament::of_packet(packet, will.delay))),
        _ => None,
    };
    let resumed = Resumed {
        version: record.standard()?,
        tenure,
        will,
        connection,
        lane,
        limits: Arc::clone(&door.limits),
        retained: Arc::clone(&door.retained),
        counters: Arc::clone(&door.counters),
        mailbox: Arc::clone(mailbox),
    };
    Ok(Resting::made(resumed, record).await?)
}
