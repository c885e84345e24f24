//! Deliveries that are known beyond the end of the process: their packet identifiers, and how an exchange goes on that began
//! in an earlier life of the server.

use std::num::NonZeroU16;

use linkspan_contract::{Batch, DeliveryTag, Pick, Settlement, Standing, SubscriptionKey};

use super::{Deliveries, Writer, add_run};
use crate::doors::mqtt::inflight::{Inflight, Stage};
use crate::protocol::mqtt::{Ack, Packet, ReasonCode};

impl Deliveries {
    /// What is not acknowledged.
    #[inline]
    pub(super) fn inflight(&mut self) -> &mut Inflight {
        let lasts = self.lasts;
        self.inflight
            .get_or_insert_with(|| Box::new(if lasts { Inflight::lasting() } else { Inflight::default() }))
    }

    /// That the client has a delivery is safe: whether it is to be released now.
    pub(in crate::doors::mqtt) fn release(&mut self, packet_id: NonZeroU16) -> bool {
        self.inflight.as_mut().is_some_and(|inflight| inflight.release(packet_id))
    }

    /// The packet identifier of a delivery.
    #[inline]
    pub(super) fn identify(
        &mut self,
        pick: &Pick,
        tag: DeliveryTag,
        exactly_once: bool,
    ) -> Option<NonZeroU16> {
        let inflight = self.inflight();
        if !pick.standing.lasts() {
            return inflight.allot(pick.key, tag, exactly_once);
        }
        inflight.hold(pick.key, tag, if exactly_once { Stage::Pubrec } else { Stage::Puback })
    }

    /// Appends what the client may know from before a restart of the server.
    #[cold]
    pub(super) fn append_known(&mut self, batch: &Batch<'_>, pick: &Pick, to: &mut Writer<'_>) {
        let tags = (pick.first..).zip(pick.at.clone());
        if pick.standing == Standing::Received {
            return tags.for_each(|(tag, _)| self.append_pubrel(pick.key, tag, to.out));
        }
        for (tag, at) in tags {
            let one = Pick { at: at..at.saturating_add(1), first: tag, ..pick.clone() };
            let Some((terms, [message])) = self.begin(batch, &one, false, to) else { continue };
            let sent = self.append_one(batch, message, &one, tag, terms, to);
            to.tally.sent += u64::from(sent);
        }
    }

    /// Releases a delivery of which the client has said that it has it before it was given again; false when it has not.
    #[cold]
    pub(super) fn append_early(&mut self, pick: &Pick, out: &mut Vec<u8>) -> bool {
        let is_early = self.inflight().was_early(pick.first);
        if is_early {
            self.append_pubrel(pick.key, pick.first, out);
            add_run(self.discarded.get_or_insert_default(), pick.key, pick.first, 1, Settlement::Receive);
        }
        is_early
    }

    /// Appends a PUBREL for a lasting delivery that the client has, unless that was seen to already.
    pub(super) fn append_pubrel(&mut self, key: SubscriptionKey, tag: DeliveryTag, out: &mut Vec<u8>) {
        let version = self.receiver.version;
        let inflight = self.inflight();
        if !inflight.holds(tag)
            && let Some(packet_id) = inflight.hold(key, tag, Stage::Pubcomp)
        {
            // It always fits: it has no diagnostics.
            let _ = Packet::Pubrel(Ack::new(packet_id, ReasonCode::Success)).encode(version, out);
        }
    }
}
