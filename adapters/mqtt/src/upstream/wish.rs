//! How a client subscribes, in either version's words.

use std::num::NonZeroU32;

use linkspan_contract::{Replay, Settle, Subscribe};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, RetainForwardRule};

/// A client's options for one filter. QoS 2 ends at Linkspan's door: nobody asks for more than QoS 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    acknowledged: bool,
    pub(crate) no_local: bool,
    retain_as_published: bool,
    replay: Replay,
    pub(crate) identifier: Option<NonZeroU32>,
}

impl Wish {
    pub(crate) fn of(how: &Subscribe<'_>) -> Self {
        let wishes = how.wishes;
        Self {
            acknowledged: how.settle != Settle::OnDelivery,
            no_local: how.no_local,
            retain_as_published: wishes.is_some_and(|wishes| wishes.retain_as_published),
            replay: wishes.map_or(Replay::Always, |wishes| wishes.replay),
            identifier: wishes.and_then(|wishes| wishes.identifier),
        }
    }

    pub(crate) fn v5(&self, filter: &str) -> Filter {
        let qos = if self.acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let mut asked = Filter::new(filter, qos);
        asked.nolocal = self.no_local;
        asked.preserve_retain = self.retain_as_published;
        asked.retain_forward_rule = match self.replay {
            Replay::Always => RetainForwardRule::OnEverySubscribe,
            Replay::IfNew => RetainForwardRule::OnNewSubscribe,
            Replay::Never => RetainForwardRule::Never,
        };
        asked
    }

    pub(crate) fn v311(&self) -> rumqttc::QoS {
        if self.acknowledged { rumqttc::QoS::AtLeastOnce } else { rumqttc::QoS::AtMostOnce }
    }
}
