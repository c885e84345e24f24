//! UNSUBSCRIBE: a client ends subscriptions (§3.10).

use std::{fmt, num::NonZeroU16};

use super::{
    error::Error,
    header::PacketType,
    identifier::Carrier,
    property::{self, PropertyReader},
    reader::Reader,
    topic,
    user_property::UserProperties,
    version::Version,
    writer,
};

/// A client's wish to end one or more subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Found again in the UNSUBACK.
    pub packet_id: NonZeroU16,
    /// 5.0 only: for the server's use.
    pub user_properties: UserProperties<'a>,
    /// The filters of the subscriptions to be ended: at least one.
    pub filters: TopicFilters<'a>,
}

/// The topic filters of an UNSUBSCRIBE, in order, as they lie encoded in its payload.
#[derive(Clone, Copy)]
pub struct TopicFilters<'a> {
    payload: &'a [u8],
}

impl<'a> TopicFilters<'a> {
    /// The topic filters in the payload of an UNSUBSCRIBE. [`append`](Self::append) makes such payloads.
    ///
    /// # Errors
    /// [`Error::UnsubscribeEmpty`], [`Error::TopicFilterEmpty`], [`Error::TopicFilterWildcard`], or a malformed string.
    pub fn from_encoded(payload: &'a [u8]) -> Result<Self, Error> {
        if payload.is_empty() {
            return Err(Error::UnsubscribeEmpty);
        }
        let mut reader = Reader::new(payload);
        while !reader.is_empty() {
            topic::check_topic_filter(reader.string()?)?;
        }
        Ok(Self { payload })
    }

    /// Appends a filter as it stands in the payload of an UNSUBSCRIBE.
    ///
    /// # Errors
    /// [`Error::FieldTooLong`]: the filter has more than 65,535 bytes; nothing was appended.
    pub fn append(payload: &mut Vec<u8>, filter: &str) -> Result<(), Error> {
        writer::binary(payload, filter.as_bytes())
    }

    /// Each in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.payload);
        std::iter::from_fn(move || reader.string().ok())
    }
}

impl PartialEq for TopicFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.payload == other.payload
    }
}

impl Eq for TopicFilters<'_> {}

impl fmt::Debug for TopicFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_identifier()?;
        let mut user_properties = UserProperties::NONE;
        if version == Version::V5 {
            let list = reader.properties()?;
            let mut properties = PropertyReader::new(list, Carrier::Unsubscribe);
            while properties.next()?.is_some() {}
            user_properties = UserProperties::of_checked(list);
        }
        Ok(Self { packet_id, user_properties, filters: TopicFilters::from_encoded(reader.rest())? })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>, version: Version) -> Result<(), Error> {
        writer::packet(out, PacketType::Unsubscribe, |out| {
            writer::packet_identifier(out, self.packet_id);
            if version == Version::V5 {
                property::encode_list(out, [], self.user_properties)?;
            }
            out.extend_from_slice(self.filters.payload);
            Ok(())
        })
    }
}
