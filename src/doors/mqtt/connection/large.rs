//! Packets that are too large to pass through the thread's buffer: into memory, or where their payload is kept.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::held::Held;
use super::turn::Live;
use crate::doors::buffer;
use crate::doors::mqtt::MqttDoor;
use crate::doors::mqtt::arriving::Beginning;
use crate::doors::mqtt::ending::Ending;
use crate::doors::mqtt::input::Input;
use crate::doors::mqtt::limits::LARGE;
use crate::doors::mqtt::subscribing::Request;
use crate::doors::mqtt::work::Work;
use crate::protocol::mqtt::PacketType;

impl Live {
    /// Finds out where a large PUBLISH goes, of which only the beginning is there.
    fn poll_beginning(&mut self, cx: &mut Context<'_>) -> Poll<Result<(usize, Option<Request>), Ending>> {
        let (bytes, needed) = self.input.beginning();
        match self.session.begin_large(bytes, needed)? {
            Beginning::Memory => self.input.goes_into_memory(),
            Beginning::Arriving(arriving) => self.input.goes_to_its_place(arriving),
            Beginning::Short => {
                // Never all of it: where it goes is not known before, and there it is read to its end.
                let most = LARGE.saturating_sub(bytes.len());
                let count = ready!(self.poll_read(cx, most, Input::add_to_beginning))?;
                return Poll::Ready(Ok((count, None)));
            }
        }
        Poll::Ready(Ok((0, None)))
    }

    /// Reads up to `most` bytes and hands them to `take`.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&mut Input, &[u8]),
    ) -> Poll<Result<usize, Ending>> {
        let Self { read, input, .. } = self;
        let count = ready!(buffer::with_scratch(|scratch| {
            let end = scratch.len().min(most);
            let room = scratch.get_mut(..end).unwrap_or_default();
            Poll::Ready(match ready!(read.poll_read(cx, room)) {
                Ok(0) => Err(Ending::Gone(None)),
                Ok(count) => {
                    take(input, scratch.get(..count).unwrap_or_default());
                    Ok(count)
                }
                Err(error) => Err(Ending::Gone(Some(error.kind()))),
            })
        }))?;
        self.heard();
        Poll::Ready(Ok(count))
    }

    /// Reads on in a PUBLISH whose payload goes where it is kept, as fast as it can be written there.
    fn poll_arriving(
        &mut self,
        cx: &mut Context<'_>,
        door: &MqttDoor,
        alarm: bool,
    ) -> Poll<Result<(usize, Option<Request>), Ending>> {
        let Some(arriving) = self.input.arriving() else { return Poll::Ready(Ok((0, None))) };
        let left = arriving.left();
        if left > 0 {
            // No room is taken now, also by one that has begun.
            if alarm && let Some(hold) = door.alarms.hold("mqtt") {
                self.held = Some(Held::new(hold));
                return Poll::Ready(Ok((0, None)));
            }
            if arriving.poll_ready(cx).is_pending() {
                // Who is not listened to is not silent.
                self.heard();
                return Poll::Pending;
            }
            let write = |input: &mut Input, part: &[u8]| {
                if let Some(arriving) = input.arriving() {
                    arriving.write(part);
                }
            };
            let count = ready!(self.poll_read(cx, left, write))?;
            self.session.count_received(0, count as u64);
            return Poll::Ready(Ok((count, None)));
        }
        let body = ready!(arriving.poll_finish(cx));
        let Some(arrived) = self.input.arrived() else { return Poll::Ready(Ok((0, None))) };
        let session = &mut self.session;
        Poll::Ready(Work::with(|work| {
            let taken = session.take_arrived(*arrived, body, work);
            let concluded = session.conclude(work);
            let refused = session.publishing.refused().map_or(Ok(()), Err);
            let messages = session.publishing.take_count();
            session.count_received(messages, 0);
            taken.and(concluded).and(refused).map(|()| (0, None))
        }))
    }

    /// Reads on in a large packet: where its payload is kept, or once there is room for it in memory among all that are under
    /// way.
    pub(super) fn poll_large(
        &mut self,
        cx: &mut Context<'_>,
        door: &Arc<MqttDoor>,
        alarm: bool,
    ) -> Poll<Result<(usize, Option<Request>), Ending>> {
        if self.input.is_open() {
            // No room is taken now; a PUBLISH that has it is read to its end.
            if alarm && let Some(hold) = door.alarms.hold("mqtt") {
                self.held = Some(Held::new(hold));
                return Poll::Ready(Ok((0, None)));
            }
            return self.poll_beginning(cx);
        }
        if self.input.arriving().is_some() {
            return self.poll_arriving(cx, door, alarm);
        }
        if let Some(permits) = self.input.permits_needed(door.limits.large_packets) {
            // Memory is not taken now; a PUBLISH that has it is read to its end.
            if alarm
                && self.input.is_publish()
                && let Some(hold) = door.alarms.hold("mqtt")
            {
                self.permit = None;
                self.held = Some(Held::new(hold));
                return Poll::Ready(Ok((0, None)));
            }
            let waiting = self
                .permit
                .get_or_insert_with(|| Box::pin(Arc::clone(&door.large).acquire_many_owned(permits.max(1))));
            let permit = match waiting.as_mut().poll(cx) {
                Poll::Ready(Ok(permit)) => permit,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Ending::ShuttingDown)),
                Poll::Pending => {
                    self.heard();
                    return Poll::Pending;
                }
            };
            self.permit = None;
            self.input.admit(permit);
        }
        let count = match ready!(self.read.poll_read(cx, self.input.large_room())) {
            Ok(0) => return Poll::Ready(Err(Ending::Gone(None))),
            Ok(count) => count,
            Err(error) => return Poll::Ready(Err(Ending::Gone(Some(error.kind())))),
        };
        self.heard();
        let Some((packet, _permit)) = self.input.large_filled(count) else {
            return Poll::Ready(Ok((count, None)));
        };
        let is_publish = packet.first().is_some_and(|byte| byte >> 4 == PacketType::Publish as u8);
        if !is_publish {
            return Poll::Ready(self.deal_with_unread(packet.into(), None));
        }
        let session = &mut self.session;
        Poll::Ready(Work::with(|work| {
            let taken = session.take_large(&packet, work);
            let concluded = session.conclude(work);
            let refused = session.publishing.refused().map_or(Ok(()), Err);
            let messages = session.publishing.take_count();
            session.count_received(messages, count as u64);
            taken.and(concluded).and(refused).map(|()| (count, None))
        }))
    }
}
