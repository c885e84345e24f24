//! The scope of a client that is passed through: from its coming to its going.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use linkspan_contract::session::FOREVER;
use linkspan_contract::{
    Backend, BackendError, Client, Connection, DeliverySink, Lane, LaneEvents, ReceiptSink, SessionState,
    SessionTerms,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::coordinator::{self, Opened};
use super::farewell::{Farewell, LIFETIME, Left};
use super::passage::Passage;
use crate::claim::Ears;
use crate::here::Here;
use crate::house::House;
use crate::lane::{MqttLane, Own};
use crate::publisher::Publisher;
use crate::upstream::connection::Introduction;
use crate::upstream::failure::Failure;
use crate::upstream::packet::{Version, Welcome};
use crate::upstream::session::{Marks, Session};
use crate::upstream::will::Will;

/// Messages of a client that may be on their way at once: what rumqttc keeps for one grows with it.
const WINDOW: u16 = 64;

/// Bytes that wait for the broker above which a client is not read.
const HIGH: u64 = 1 << 20;

/// How long what a client published before its good-bye may take to be acknowledged, and the good-bye itself.
const FAREWELL: Duration = Duration::from_millis(800);

/// One client and its session at the broker.
pub(crate) struct PassageConnection {
    house: Arc<House>,
    client: Client,
    inner: Option<Box<dyn Connection>>,
    passage: Arc<Passage>,
    granted: SessionState,
    how: Introduction,
    version: Version,
    /// Seconds for which the broker keeps the session.
    held: u32,
    opened: Option<Opened>,
    task: Option<JoinHandle<()>>,
    has_left: bool,
}

impl PassageConnection {
    /// Opens a client's session at the broker.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn open(
        house: &Arc<House>,
        client: &Client,
        terms: &SessionTerms,
        sink: Arc<dyn DeliverySink>,
    ) -> Result<Self, BackendError> {
        let mut how = introduction(house, client, terms)?;
        let entrance = house.farewells.enter(&client.identifier, client.number);
        let opened = {
            let before = entrance.owed.clone();
            // The broker is not told of the one before any more, and has heard what it was told.
            let _turn = match &before {
                Some(before) => Some(before.turn.lock().await),
                None => None,
            };
            how.fresh |= before.as_ref().is_some_and(|before| before.is_over(house.now()));
            let opened = house.dial.open(&how).await.map_err(|why| refusal(house, why))?;
            entrance.settle();
            opened
        };
        let welcome = opened.2;
        let keep =
            terms.keep.min(if welcome.version == Version::V5 { welcome.session_expiry } else { FOREVER });
        let limit = house.options.outbox_limit;
        let marks = Marks { high: HIGH.min(house.options.outbox_high), limit, window: (WINDOW - 1).into() };
        let session = Session::new(Arc::clone(&house.name), None, marks);
        let passage = Passage::new(Arc::clone(house), session, Arc::clone(&sink), keep);
        let granted =
            SessionState { resumed: welcome.resumed && !how.fresh, keep, will: terms.will.is_some() };
        let mut this = Self {
            house: Arc::clone(house),
            client: Client { session: None, ..client.clone() },
            inner: None,
            passage,
            granted,
            how,
            version: welcome.version,
            held: welcome.session_expiry,
            opened: Some(Opened { connection: opened.0, sender: opened.1, welcome }),
            task: None,
            has_left: false,
        };
        this.inner = Some(house.inner.connect(&this.client, sink).await?);
        house.locals.see(&client.vhost);
        Ok(this)
    }

    /// What the client owes the broker when it leaves now: with a good-bye, or without.
    fn owes(&self, good_bye: bool) -> Option<Arc<Farewell>> {
        let left = Left {
            keep: self.passage.keep(),
            held: self.held,
            version: self.version,
            will_stands: good_bye && self.how.will.is_some() && self.passage.is_cut_off(),
        };
        let farewell = (left.owes() && !self.passage.is_given_up()).then(|| {
            let will = self.how.will.clone().filter(|_| !good_bye);
            let how = Introduction { will, begun: Vec::new(), ..self.how.clone() };
            Farewell::new(Arc::clone(&self.client.identifier), left, self.house.now(), how)
        });
        let is_owed =
            self.house.farewells.leave(&self.client.identifier, self.client.number, farewell.clone());
        farewell.filter(|_| is_owed)
    }
}

fn introduction(house: &House, client: &Client, terms: &SessionTerms) -> Result<Introduction, BackendError> {
    let name = || house.name.to_string();
    let identifier = client.identifier.to_string();
    if identifier.starts_with("linkspan.") || identifier.starts_with(&format!("{}.", house.options.instance))
    {
        let why = format!("'{identifier}' is one that Linkspan itself may have there");
        return Err(BackendError::BadIdentifier { name: name(), why });
    }
    let will = terms.will.as_ref().map(|will| Will::of(will, terms.keep)).transpose();
    let will = will.map_err(|why| BackendError::Denied { name: name(), why: format!("the will: {why}") })?;
    Ok(Introduction {
        fresh: terms.fresh,
        // A link that is cut must not cost it what comes meanwhile.
        session_expiry: terms.keep.max(LIFETIME),
        manual: true,
        receive_maximum: terms.window.max(1),
        window: WINDOW,
        will: will.map(Arc::new),
        ..house.introduction(identifier)
    })
}

fn refusal(house: &House, why: Failure) -> BackendError {
    let name = house.name.to_string();
    match why {
        Failure::BadIdentifier(why) => BackendError::BadIdentifier { name, why },
        Failure::Denied(why) => BackendError::Denied { name, why },
        other => BackendError::Away { name, why: other.to_string() },
    }
}

#[async_trait]
impl Connection for PassageConnection {
    fn attach(&mut self, sink: Arc<dyn DeliverySink>) {
        self.passage.attach(Arc::clone(&sink));
        if let Some(inner) = &mut self.inner {
            inner.attach(sink);
        }
    }

    async fn lane(
        &mut self,
        receipts: Arc<dyn ReceiptSink>,
        events: Arc<dyn LaneEvents>,
    ) -> Result<Box<dyn Lane>, BackendError> {
        let gone = || BackendError::Away { name: self.house.name.to_string(), why: "it was left".into() };
        let ears = Ears::new(receipts, Arc::clone(&events));
        let here = Here::new(Arc::clone(&ears));
        let inner = match &mut self.inner {
            Some(inner) => inner.lane(Arc::clone(&here) as _, events).await?,
            None => return Err(gone()),
        };
        if let Some(opened) = self.opened.take() {
            let (house, passage) = (Arc::clone(&self.house), Arc::clone(&self.passage));
            let how = self.how.clone();
            self.task = Some(coordinator::start(house, passage, how, Arc::clone(&ears), opened));
        }
        let (house, session) = (Arc::clone(&self.house), Arc::clone(&self.passage.session));
        let publisher = Publisher::by(session, Arc::clone(&house), &self.client, Arc::clone(&ears), here);
        let own = Own::new(Arc::clone(&self.passage));
        Ok(Box::new(MqttLane::new(house, &self.client, inner, ears, publisher, Some(own))))
    }

    fn session(&self) -> Option<SessionState> {
        Some(self.granted)
    }

    fn keep_session(&mut self, seconds: u32) {
        self.passage.set_keep(seconds);
    }

    async fn close(mut self: Box<Self>) {
        // What is not acknowledged by then the client sends again when it has a session.
        let _ = timeout(FAREWELL, self.passage.session.drained()).await;
        self.has_left = true;
        let owed = self.owes(true);
        self.passage.session.close();
        drop(self.opened.take());
        if let Some(end) = coordinator::end(Arc::clone(&self.house), self.task.take(), owed)
            && timeout(FAREWELL, end).await.is_err()
        {
            self.passage.vanish();
        }
        if let Some(inner) = self.inner.take() {
            inner.close().await;
        }
    }
}

impl Drop for PassageConnection {
    fn drop(&mut self) {
        if !self.has_left {
            let owed = self.owes(false);
            self.passage.vanish();
            drop(self.opened.take());
            coordinator::end(Arc::clone(&self.house), self.task.take(), owed);
        }
    }
}

/// What the session's publishing side is told: rumqttc gives out as many packet identifiers as there may be messages on
/// their way, and a SUBSCRIBE takes one of them.
pub(crate) fn narrowed(welcome: Welcome) -> Welcome {
    let receive_maximum = welcome.receive_maximum.min(WINDOW).saturating_sub(1).max(1);
    Welcome { receive_maximum, ..welcome }
}
