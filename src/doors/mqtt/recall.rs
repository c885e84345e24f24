//! Sessions of the ledger: read at the start, and made again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use linkspan_contract::{
    BackendError, Client, LedgerError, Millis, Refused, SessionTerms, client_number, ledger,
};

use super::MqttDoor;
use super::away::Away;
use super::coordinator::{Keeper, end, remove};
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
        self.hold(identifier, user, keep).map(Some)
    }

    /// Turns a client away that wants a session that is kept, or the one that it has, before it is known which there are: a
    /// back end that sees it begin would throw away what it keeps for the one that was not read yet.
    ///
    /// # Errors
    /// When it is.
    pub(super) fn await_sessions(&self, fresh: bool, seconds: u32) -> Result<(), TurnedAway> {
        if self.taken_up.load(Ordering::SeqCst) || fresh && seconds == 0 {
            return Ok(());
        }
        let text = "the sessions that were written down could not be read yet";
        Err(TurnedAway::new(ReasonCode::ServerUnavailable, text))
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
            let list = record::list(ledger, &self.owner).await?;
            let (prefix, mut last, mut all) =
                (record::prefix(&self.owner, &self.vhost), None::<Box<str>>, Vec::new());
            loop {
                let page = ledger.scan(&prefix, last.as_deref(), PAGE).await?;
                let Some((key, _)) = page.last() else { break };
                last = Some(key.clone());
                all.extend(page);
            }
            let (mut count, known) = (0, all.len());
            let mut found = Vec::with_capacity(known);
            for (key, entry) in all {
                match Record::read(&entry.value) {
                    Ok(record) => found.push(Written { record, version: entry.version, told: false }),
                    Err(why) => tracing::warn!(%key, %why, "a session cannot be taken up; its record stays"),
                }
            }
            let clients: HashSet<&str> = found.iter().map(|written| &*written.record.client).collect();
            // Whose a record is that cannot be read nobody knows: then nothing is taken for a leftover.
            let spare = found.len() < known;
            let goes_on = |client: &str| spare || clients.contains(client);
            self.backend.recall_sessions(&self.vhost, &list, &goes_on).await;
            for written in found {
                count += usize::from(self.recall(written).await);
            }
            if known > 0 {
                tracing::info!(known, taken_up = count, "sessions were taken up");
            }
            let later = self.unmade.lock().len();
            if later > 0 {
                tracing::warn!(later, "sessions cannot be taken up now: it is tried again");
            }
        }
        self.taken_up.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Takes up one session; false when it is over, or cannot be made now.
    async fn recall(self: &Arc<Self>, written: Written) -> bool {
        let client: Arc<str> = written.record.client.as_ref().into();
        let Some(claim) = self.registry.take(&client) else {
            // Its client is at the door, and may be let in with a clean start or be refused.
            self.unmade.lock().insert(Arc::clone(&client), written);
            if self.registry.has_begun(&client) {
                self.forget_unmade(&client).await;
            }
            return false;
        };
        self.recall_for(claim, written).await
    }

    /// The session that was not made yet is over: its client has begun another one.
    pub(super) async fn forget_unmade(&self, client: &str) {
        let written = self.unmade.lock().remove(client);
        if let Some(written) = written {
            self.forget(&written).await;
        }
    }

    /// Tries once more to make the sessions that could not be made, as long as their clients have not come: then these do.
    pub(super) async fn recall_again(self: &Arc<Self>) {
        let clients: Vec<Arc<str>> = self.unmade.lock().keys().cloned().collect();
        for client in clients {
            let Some(claim) = self.registry.take(&client) else { continue };
            let written = self.unmade.lock().remove(&client);
            if let Some(written) = written {
                self.recall_for(claim, written).await;
            }
        }
    }

    /// Whether there are such sessions.
    pub(super) fn has_unmade(&self) -> bool {
        !self.unmade.lock().is_empty()
    }

    async fn recall_for(self: &Arc<Self>, claim: Claim, mut written: Written) -> bool {
        let client = Arc::clone(claim.identifier());
        match restore(self, &claim, &written).await {
            // What its back ends have of it goes with it.
            Ok(resting) if written.is_over(self.now()) && written.record.will.is_none() => {
                end(resting).await;
                false
            }
            Ok(resting) => {
                let (ends, due) = (written.record.ends, written.record.will.and_then(|will| will.due));
                Keeper::new(self, claim, Box::new(resting), ends, due).start();
                true
            }
            Err(why) if !why.is_final() => {
                if why.is_away() || std::mem::replace(&mut written.told, true) {
                    tracing::debug!(%client, %why, "a session is taken up later, or when its client comes");
                } else {
                    tracing::warn!(%client, %why, "a session cannot be taken up: it is tried again");
                }
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

    /// Removes a record of which no session is made, and before it what the home back end has of the session.
    pub(super) async fn forget(&self, written: &Written) {
        let keep = written.record.keep.max(1);
        let client = self.client_of(&written.record, true, keep);
        let nobody = Away::new(&Arc::default());
        match self.backend.connect(&client, Arc::new(nobody)).await {
            Ok(connection) => connection.close().await,
            Err(why) => {
                tracing::debug!(client = %client.identifier, %why, "what a session has left is removed later");
            }
        }
        let place = self.ledger.as_ref();
        let mut place =
            place.and_then(|it| record::Place::of(it, &self.owner, &self.vhost, &written.record.client));
        place.iter_mut().for_each(|place| place.found(written.version));
        remove(place).await;
    }

    /// A client as its back end is to see it whose session was written down.
    fn client_of(&self, record: &Record, fresh: bool, keep: u32) -> Client {
        let terms = SessionTerms { at_broker: false, fresh, keep, window: u16::MAX, will: None };
        Client {
            number: client_number(),
            identifier: record.client.as_ref().into(),
            user: record.user.as_ref().into(),
            vhost: Arc::clone(&self.vhost),
            session: Some(Arc::new(terms)),
        }
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
    /// People were told why it cannot be made.
    told: bool,
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
    /// Whether what it needs is only not there now.
    const fn is_away(&self) -> bool {
        matches!(self, Self::Backend(BackendError::Away { .. }) | Self::Refused(Refused::Away(_)))
    }

    /// Whether there cannot be such a session any more. Everything else may pass: a broker's node that is down, a permission
    /// that was taken by mistake, a limit.
    pub(super) const fn is_final(&self) -> bool {
        match self {
            Self::Unreadable(_) | Self::Backend(BackendError::BadIdentifier { .. }) => true,
            Self::Refused(why) => matches!(
                why,
                Refused::NotFound { .. }
                    | Refused::NotImplemented(_)
                    | Refused::AddressInvalid(_)
                    | Refused::FilterInvalid(_)
            ),
            Self::Backend(_) | Self::Turned(_) => false,
        }
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
    let Written { record, version, .. } = written;
    let user: Arc<str> = record.user.as_ref().into();
    let keep = door.limits.kept_for(record.keep);
    let mut tenure = door.hold(&record.client, &user, keep).map_err(|away| Unmade::Turned(away.text))?;
    tenure.record.iter_mut().for_each(|place| place.found(*version));
    let client = door.client_of(record, false, tenure.keep);
    let mailbox = claim.mailbox();
    let mut connection = door.backend.connect(&client, Arc::new(Away::new(mailbox))).await?;
    let mut lane = connection.lane(Arc::clone(mailbox) as _, Arc::clone(mailbox) as _).await?;
    lane.attended(false);
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
