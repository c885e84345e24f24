//! What of a read was published before.

use std::sync::Arc;

use linkspan_contract::{Batch, Flags, Millis, Outcome, Published, Refused};
use linkspan_queues::log::Lsn;
use smallvec::SmallVec;

use crate::archive::Archive;
use crate::repeats::{self, Fresh, Repeats, Turns};
use crate::scratch::Scratch;

/// What a read has of messages that were published before.
#[derive(Default)]
pub(crate) struct Again {
    turns: Turns,
    pub(crate) count: u32,
    /// The places of those that are durable.
    durable: Vec<u32>,
}

impl Again {
    /// Lets nobody else publish to these queues until it is dropped. Once for each read.
    pub(crate) fn be_alone(&mut self, queues: Vec<Arc<Repeats>>) {
        self.turns = Turns::take(queues);
    }

    /// Looks whether queues have seen a message. Yields which of them have; none when all have: then nobody gets it.
    pub(crate) fn look<'r>(
        &mut self,
        repeats: impl Iterator<Item = (u32, &'r Arc<Repeats>)>,
        batch: &Batch<'_>,
        place: u32,
        now: Millis,
        scratch: &mut Scratch,
    ) -> Option<SmallVec<[u32; 2]>> {
        let mut known = SmallVec::new();
        let message = batch.message(place)?;
        let mut is_new = false;
        for (at, repeats) in repeats {
            match repeats.id(batch, message) {
                // Nothing makes it the same as another one there.
                None => is_new = true,
                Some(id) if repeats.enter(id, now) => {
                    is_new = true;
                    scratch.fresh.push(Fresh { of: repeats.number(), place, id });
                }
                Some(_) => known.push(at),
            }
        }
        if is_new || known.is_empty() {
            return Some(known);
        }
        if repeats::has_died(batch, message) {
            return Some(SmallVec::new());
        }
        self.count += 1;
        if message.flags.has(Flags::DURABLE) {
            self.durable.push(place);
        }
        None
    }

    /// Says of what came again what was said of it before; yields up to where the log has to be safe first, 0 when nothing
    /// has.
    #[cold]
    pub(crate) fn tell(
        &self,
        batch: &Batch<'_>,
        archive: Option<&Archive>,
        published: &mut Published,
    ) -> Lsn {
        repeats::count(self.count);
        let Some(archive) = archive.filter(|_| !self.durable.is_empty()) else { return 0 };
        if !archive.is_failed() {
            return archive.said();
        }
        let waits =
            |place: &&u32| batch.message(**place).is_some_and(|message| message.flags.has(Flags::RECEIPT));
        let failed = || Outcome::Failed(Refused::Full(archive.why()));
        published.exceptions.extend(self.durable.iter().filter(waits).map(|place| (*place, failed())));
        0
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use linkspan_contract::conformance::Fixture;
    use linkspan_contract::conformance::letters::{Letter, Letters};
    use linkspan_contract::conformance::stage::{Stage, queue_spec};
    use linkspan_contract::{Attribute, Backend, Deduplicate, QueueSpec, SystemClock, Terms, Value};

    use super::*;
    use crate::embedded::Embedded;
    use crate::options::EmbeddedOptions;

    struct InMemory;

    #[async_trait]
    impl Fixture for InMemory {
        async fn backend(&self) -> Arc<dyn Backend> {
            Embedded::open("local", EmbeddedOptions::default(), Arc::new(SystemClock))
        }
    }

    #[tokio::test]
    async fn a_message_without_what_one_queue_looks_at_is_known_to_another_when_it_comes_again() {
        let stage = Stage::new(&InMemory, "again").await;
        let mut client = stage.client().await;
        let queues = ["one", "two"];
        let terms = queues.map(|queue| {
            let deduplicate = Deduplicate { by: Attribute::Property(queue.into()), window: 600_000 };
            Arc::new(Terms { deduplicate: Some(deduplicate), ..Terms::default() })
        });
        for (queue, terms) in queues.iter().zip(&terms) {
            let spec = QueueSpec { terms: Some(terms), ..queue_spec(queue, &[]) };
            client.declare_queue(&spec).await.unwrap();
            client.bind_queue("amq.fanout", queue, "").await;
        }
        let both = client.to_exchange("amq.fanout", "");
        let mut expected = [0, 0];
        for in_transaction in [false, true] {
            // Whichever queue is looked at first, it is the one that does not know one of these.
            for (at, header) in queues.into_iter().enumerate() {
                let id = Value::I64(in_transaction.into());
                let letter = || Letter::numbered(both, 1).confirmed().header(header, id.clone());
                for _ in 0..3 {
                    if in_transaction {
                        client.begin().await.unwrap();
                        client.publish(&Letters::from_iter([letter()]));
                        client.commit().await.unwrap();
                    } else {
                        assert!(client.confirm(&Letters::from_iter([letter()])).await.is_empty());
                    }
                }
                expected[at] += 1;
                expected[1 - at] += 3;
            }
            for (queue, expected) in queues.iter().zip(expected) {
                let there = client.declare_queue(&queue_spec(queue, &[])).await.unwrap().messages;
                assert_eq!(there, expected, "in '{queue}', in a transaction: {in_transaction}");
            }
        }
        stage.close().await;
    }
}
