//! Addresses that only the holder of a queue may publish to: each message says under which number it has that queue.

use linkspan_contract::{Batch, Fence, Flags, Message, Refused, Value};

use super::exclusive::Place;
use super::lane::HubLane;
use super::tenancy::FENCE;

impl HubLane {
    /// Whether a message may be published, whose plan was made.
    ///
    /// # Errors
    /// When it says no number, or another one than that under which somebody has the queue here now.
    pub(super) fn admit(&self, batch: &Batch<'_>, message: &Message) -> Result<(), Refused> {
        // Most lanes know no such address.
        if !self.is_fenced || self.scope.carries {
            return Ok(());
        }
        let Some(plan) = self.plans.get(message.target.0 as usize) else { return Ok(()) };
        plan.fences.iter().try_for_each(|place| self.admit_holder(place, said(batch, message)))
    }

    #[cold]
    fn admit_holder(&self, place: &Place, said: Option<Fence>) -> Result<(), Refused> {
        let queue = &place.queue;
        let held = self.scope.hub.exclusives.holder(place).map(|(_, fence)| fence);
        let why = match (said, held) {
            (Some(said), Some(held)) if said == held => return Ok(()),
            (None, _) => format!(
                "only who has queue '{queue}' may publish here: the message needs the property {FENCE} with the number that \
                 deliveries of that queue have"
            ),
            (Some(said), Some(held)) => {
                format!("{FENCE} is {said}, and queue '{queue}' is held under {held}: consume anew")
            }
            (Some(said), None) => {
                format!("{FENCE} is {said}, and nobody has queue '{queue}' at this server now: consume anew")
            }
        };
        Err(Refused::Fenced(why))
    }
}

/// The number that a message says.
fn said(batch: &Batch<'_>, message: &Message) -> Option<Fence> {
    if !message.flags.has(Flags::HEADERS) {
        return None;
    }
    match batch.properties(message).ok()?.header(FENCE)? {
        Value::Text(text) => text.trim().parse().ok(),
        other => other.as_i64().and_then(|number| Fence::try_from(number).ok()),
    }
}
