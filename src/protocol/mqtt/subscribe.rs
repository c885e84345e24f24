//! SUBSCRIBE: a client asks for messages (§3.8).

use std::{
    fmt,
    num::{NonZeroU16, NonZeroU32},
};

use super::{
    error::Error,
    header::PacketType,
    identifier::Carrier,
    property::{self, Property, PropertyReader},
    qos::Qos,
    reader::Reader,
    topic,
    user_property::UserProperties,
    version::Version,
    writer,
};

/// A client's wish for one or more subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Found again in the SUBACK.
    pub packet_id: NonZeroU16,
    /// 5.0 only: comes with each message that these subscriptions match; at most 268,435,455.
    pub subscription_identifier: Option<NonZeroU32>,
    /// 5.0 only: for the server's use.
    pub user_properties: UserProperties<'a>,
    /// What to subscribe to: at least one.
    pub subscriptions: Subscriptions<'a>,
}

/// One topic filter and how to serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// What to match. `$share/…` is not taken apart here.
    pub filter: &'a str,
    /// How to serve it.
    pub options: SubscriptionOptions,
}

/// The subscription options (§3.8.3.1); in 3.1.1 the QoS alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// The highest QoS at which the client wants messages.
    pub qos: Qos,
    /// Whether the client's own messages are left out.
    pub no_local: bool,
    /// Whether messages keep their retain flag.
    pub retain_as_published: bool,
    /// Which retained messages are sent when the subscription is made.
    pub retain_handling: RetainHandling,
}

/// Which retained messages a new subscription brings (§3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// All that match.
    #[default]
    Send = 0,
    /// All that match, unless there was such a subscription before.
    SendIfNew = 1,
    /// None.
    DoNotSend = 2,
}

impl SubscriptionOptions {
    /// The options that `byte` stands for.
    fn decode(byte: u8, version: Version) -> Result<Self, Error> {
        let reserved = match version {
            Version::V311 => 0b1111_1100,
            Version::V5 => 0b1100_0000,
        };
        if byte & reserved != 0 {
            return Err(Error::SubscriptionOptions);
        }
        Ok(Self {
            qos: Qos::from_bits(byte & 0b11).ok_or(Error::SubscriptionQos)?,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling: match byte >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(Error::RetainHandling),
            },
        })
    }

    const fn bits(self, version: Version) -> u8 {
        match version {
            Version::V311 => self.qos.bits(),
            Version::V5 => {
                self.qos.bits()
                    | (self.no_local as u8) << 2
                    | (self.retain_as_published as u8) << 3
                    | (self.retain_handling as u8) << 4
            }
        }
    }
}

impl<'a> Subscription<'a> {
    fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, Error> {
        let filter = reader.string()?;
        topic::check_topic_filter(filter)?;
        let options = SubscriptionOptions::decode(reader.u8()?, version)?;
        if options.no_local && filter.starts_with("$share/") {
            return Err(Error::NoLocalShared);
        }
        Ok(Self { filter, options })
    }

    /// Appends it as it stands in the payload of a SUBSCRIBE.
    ///
    /// # Errors
    /// [`Error::FieldTooLong`]: the filter has more than 65,535 bytes; nothing was appended.
    pub fn append(&self, payload: &mut Vec<u8>, version: Version) -> Result<(), Error> {
        writer::binary(payload, self.filter.as_bytes())?;
        payload.push(self.options.bits(version));
        Ok(())
    }
}

/// The subscriptions of a SUBSCRIBE, in order, as they lie encoded in its payload.
#[derive(Clone, Copy)]
pub struct Subscriptions<'a> {
    payload: &'a [u8],
    version: Version,
}

impl<'a> Subscriptions<'a> {
    /// The subscriptions in the payload of a SUBSCRIBE. [`Subscription::append`] makes such payloads.
    ///
    /// # Errors
    /// [`Error::SubscribeEmpty`], [`Error::TopicFilterEmpty`], [`Error::TopicFilterWildcard`],
    /// [`Error::SubscriptionOptions`], [`Error::SubscriptionQos`], [`Error::RetainHandling`], [`Error::NoLocalShared`],
    /// or a malformed string.
    pub fn from_encoded(payload: &'a [u8], version: Version) -> Result<Self, Error> {
        if payload.is_empty() {
            return Err(Error::SubscribeEmpty);
        }
        let mut reader = Reader::new(payload);
        while !reader.is_empty() {
            Subscription::read(&mut reader, version)?;
        }
        Ok(Self { payload, version })
    }

    /// Each in order.
    pub fn iter(&self) -> impl Iterator<Item = Subscription<'a>> + use<'a> {
        let mut reader = Reader::new(self.payload);
        let version = self.version;
        std::iter::from_fn(move || Subscription::read(&mut reader, version).ok())
    }
}

impl PartialEq for Subscriptions<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Subscriptions<'_> {}

impl fmt::Debug for Subscriptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Subscribe<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_identifier()?;
        let mut subscription_identifier = None;
        let mut user_properties = UserProperties::NONE;
        if version == Version::V5 {
            let list = reader.properties()?;
            let mut properties = PropertyReader::new(list, Carrier::Subscribe);
            while let Some(property) = properties.next()? {
                if let Property::SubscriptionIdentifier(number) = property {
                    subscription_identifier = Some(number);
                }
            }
            user_properties = UserProperties::of_checked(list);
        }
        let subscriptions = Subscriptions::from_encoded(reader.rest(), version)?;
        Ok(Self { packet_id, subscription_identifier, user_properties, subscriptions })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), Error> {
        writer::packet(out, PacketType::Subscribe, |out| {
            writer::packet_identifier(out, self.packet_id);
            if version == Version::V5 {
                let identifier = self.subscription_identifier.map(Property::SubscriptionIdentifier);
                property::encode_list(out, [identifier], self.user_properties)?;
            }
            self.subscriptions.iter().try_for_each(|subscription| subscription.append(out, version))
        })
    }
}
