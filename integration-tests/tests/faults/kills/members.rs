//! Clients whose sessions are kept: they come and go, subscribe and unsubscribe, and take at QoS 1 what was published
//! meanwhile. Groups (`$share`) with kept members have their place here, too, once such a group outlives the process.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use linkspan_integration_tests::mqtt5::Mqtt5;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, Packet, PubAckReason, Publish, SubscribeReasonCode, UnsubAckReason,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event};
use tokio::time::{sleep, timeout};

use super::life::{Life, Work};
use super::notes::{Name, Settled, Standing};

/// A client with a session of its own.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Its identifier; what it is given is noted as a queue's of that name.
    pub name: &'static str,
    pub lines: &'static [&'static str],
    /// What it may have unacknowledged.
    pub window: u16,
    /// Seconds for which its session is kept.
    pub keep: u32,
    /// So often in a hundred it begins anew.
    pub fresh: u64,
}

/// How long it may be away at most.
const AWAY: u64 = 300;

/// One connection.
struct Link {
    client: AsyncClient,
    events: BoxStream<'static, Result<Event, ConnectionError>>,
    /// What is not settled yet.
    hand: VecDeque<(Name, Publish)>,
    /// What it has published itself, and waits to be given.
    marker: Option<String>,
}

impl Link {
    async fn connect(life: &Life, member: &Member, fresh: bool) -> anyhow::Result<Self> {
        let mut options = Mqtt5::options(life.mqtt, member.name);
        options
            .set_clean_start(fresh)
            .set_session_expiry_interval(Some(member.keep))
            .set_receive_maximum(Some(member.window))
            .set_manual_acks(true);
        let asked = (life.notes().connecting(member.name, fresh), Instant::now());
        let (client, events) = AsyncClient::new(options, 1000);
        let mut events =
            unfold(events, |mut events| async move { Some((events.poll().await, events)) }).boxed();
        loop {
            match events.next().await.ok_or_else(|| anyhow!("no end of events"))?? {
                Event::Incoming(Packet::ConnAck(welcome)) => {
                    let keep = Duration::from_secs(member.keep.into());
                    life.notes().connected(member.name, asked, (fresh, welcome.session_present), keep);
                    return Ok(Self { client, events, hand: VecDeque::new(), marker: None });
                }
                Event::Outgoing(_) => {}
                Event::Incoming(other) => bail!("unexpected: {other:?}"),
            }
        }
    }

    /// The next packet; none for a message, which is in the hand then.
    async fn next(&mut self, life: &Life, member: &Member) -> anyhow::Result<Option<Packet>> {
        loop {
            match self.events.next().await.ok_or_else(|| anyhow!("no end of events"))?? {
                Event::Incoming(Packet::Publish(publish)) => {
                    life.notes().heard(member.name);
                    self.take(life, member, publish)?;
                    return Ok(None);
                }
                Event::Incoming(packet) => return Ok(Some(packet)),
                Event::Outgoing(_) => {}
            }
        }
    }

    fn take(&mut self, life: &Life, member: &Member, publish: Publish) -> Work {
        if publish.topic.ends_with(b"/end") {
            self.marker.take_if(|marker| marker.as_bytes() == publish.payload);
            self.client.try_ack(&publish)?;
            return Ok(());
        }
        match life.notes().seen(member.name, &publish.payload, publish.dup) {
            Some(name) => self.hand.push_back((name, publish)),
            None => self.client.try_ack(&publish)?,
        }
        Ok(())
    }

    /// Acknowledges so many.
    fn settle(&mut self, life: &Life, member: &Member, count: usize) -> Work {
        for (name, publish) in self.hand.drain(..count.min(self.hand.len())) {
            life.notes().settled(member.name, name, Settled::Accepted);
            self.client.try_ack(&publish)?;
        }
        Ok(())
    }

    /// Publishes something, and returns when it is acknowledged; with it everything that was acknowledged here before.
    async fn ask(&mut self, life: &Life, member: &Member, topic: &str) -> Work {
        self.client.try_publish(topic, QoS::AtLeastOnce, false, member.name)?;
        loop {
            if let Some(Packet::PubAck(ack)) = self.next(life, member).await? {
                let fine = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
                ensure!(fine, "PUBACK says {:?}", ack.reason);
                life.notes().answered(member.name);
                return Ok(());
            }
        }
    }

    /// Returns when it has been given all that is acknowledged of a line, and has acknowledged it.
    async fn catch_up(&mut self, life: &Life, member: &Member, line: &'static str) -> Work {
        let tick = life.notes().next_tick();
        let marker = self.marker.insert(format!("{} {tick}", member.name)).clone();
        self.client.try_publish(format!("{line}/end"), QoS::AtLeastOnce, false, marker)?;
        while self.marker.is_some() {
            if let Ok(packet) = timeout(Duration::from_millis(20), self.next(life, member)).await {
                packet?;
            }
            self.settle(life, member, usize::MAX)?;
        }
        life.notes().caught_up(member.name, line, tick);
        Ok(())
    }

    async fn subscribe(&mut self, life: &Life, member: &Member, line: &'static str) -> Work {
        life.notes().subscribing(member.name, line);
        self.client.try_subscribe_many([Filter::new(format!("{line}/#"), QoS::AtLeastOnce)])?;
        loop {
            if let Some(Packet::SubAck(ack)) = self.next(life, member).await? {
                ensure!(ack.return_codes == [SubscribeReasonCode::Success(QoS::AtLeastOnce)], "{ack:?}");
                life.notes().subscribed(member.name, line);
                return Ok(());
            }
        }
    }

    async fn unsubscribe(&mut self, life: &Life, member: &Member, line: &'static str) -> Work {
        life.notes().unsubscribing(member.name, line);
        self.client.try_unsubscribe(format!("{line}/#"))?;
        loop {
            if let Some(Packet::UnsubAck(ack)) = self.next(life, member).await? {
                let known = [UnsubAckReason::Success, UnsubAckReason::NoSubscriptionExisted];
                ensure!(ack.reasons.iter().all(|reason| known.contains(reason)), "{ack:?}");
                life.notes().unsubscribed(member.name, line);
                return Ok(());
            }
        }
    }

    /// Sees to it that it is known what is subscribed to, and changes it now and then.
    async fn arrange(&mut self, life: &Life, member: &Member) -> Work {
        for line in member.lines {
            let dice = life.below(100);
            let standing = life.notes().standing(member.name, line);
            match standing {
                Standing::Out if dice < 70 => self.subscribe(life, member, line).await?,
                Standing::Unknown if dice < 50 => self.subscribe(life, member, line).await?,
                Standing::Unknown => self.unsubscribe(life, member, line).await?,
                Standing::In if dice < 10 && !life.is_last => {
                    self.catch_up(life, member, line).await?;
                    self.unsubscribe(life, member, line).await?;
                }
                // What is there already is replaced.
                Standing::In if dice > 90 => self.subscribe(life, member, line).await?,
                Standing::In | Standing::Out => {}
            }
        }
        Ok(())
    }

    /// Says DISCONNECT, and returns when the server has closed the connection.
    async fn leave(mut self, life: &Life, member: &Member) -> Work {
        self.client.try_disconnect()?;
        while let Some(Ok(event)) = self.events.next().await {
            if let Event::Incoming(Packet::Publish(publish)) = event
                && !publish.topic.ends_with(b"/end")
            {
                life.notes().seen(member.name, &publish.payload, publish.dup);
            }
        }
        if !life.is_over() {
            life.notes().gone(member.name);
        }
        Ok(())
    }
}

/// Comes and goes until the server is killed; in the last life until it was given everything.
pub async fn attend(life: Life, member: Member) -> Work {
    let fresh = |life: &Life| !life.is_last && life.below(100) < member.fresh;
    let mut link = Link::connect(&life, &member, fresh(&life)).await?;
    loop {
        link.arrange(&life, &member).await?;
        if life.is_last {
            for line in member.lines {
                if life.notes().standing(member.name, line) == Standing::In {
                    link.catch_up(&life, &member, line).await?;
                }
            }
            return link.ask(&life, &member, "asked").await;
        }
        let until = Instant::now() + Duration::from_millis(life.below(400));
        let mut settled = 0;
        while Instant::now() < until {
            if let Ok(packet) = timeout(Duration::from_millis(20), link.next(&life, &member)).await {
                packet?;
            }
            // Now and then it keeps them for a while.
            if life.below(4) > 0 {
                let count = 1 + usize::try_from(life.below(5))?;
                settled += count.min(link.hand.len());
                link.settle(&life, &member, count)?;
            }
            if settled >= 20 {
                settled = 0;
                link.ask(&life, &member, "asked").await?;
            }
        }
        match life.below(4) {
            0 => link.leave(&life, &member).await?,
            1 => drop(link),
            2 => {
                // Another connection takes the session over.
                let before = link;
                link = Link::connect(&life, &member, fresh(&life)).await?;
                drop(before);
                continue;
            }
            _ => continue,
        }
        let away = if life.below(4) == 0 { 2000 } else { AWAY };
        sleep(Duration::from_millis(life.below(away))).await;
        link = Link::connect(&life, &member, fresh(&life)).await?;
    }
}
