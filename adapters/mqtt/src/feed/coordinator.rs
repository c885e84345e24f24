//! Which instance is a queue's member: the one that has the queue's lease, for as long as it has it.

use std::sync::Arc;
use std::time::Duration;

use linkspan_contract::{Lease, Leases, NotGranted};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Feed, Feeder, Hold};
use crate::house::House;
use crate::upstream::coordinator::{Coordinator, fill};
use crate::upstream::failure::Failure;

/// How long after a refusal the lease is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Is the queue's member as long as its lease is ours.
pub(crate) async fn work(house: Arc<House>, feed: Arc<Feed>) {
    let name = lease_of(&house.name, &feed.vhost, &feed.queue);
    let Some(feeder) = Feeder::open(&house, Arc::clone(&feed)).await else { return };
    // The broker sends no more than its window before it has acknowledgements.
    let (sender, receiver) = mpsc::channel(usize::from(house.options.feed_window) * 2);
    let filling = tokio::spawn(fill(Arc::clone(&house), Arc::clone(&feed), feeder, receiver));
    let _filling = Aborts(filling.abort_handle());
    let mut told = None;
    while !house.is_closed() && !feed.session.is_closing() {
        let asked = Instant::now();
        match house.leases.take(&name).await {
            Ok(lease) => {
                told = None;
                feed.hold(Hold::Ours);
                let coordinator = Coordinator::of_feed(&house, &feed, sender.clone());
                let why = tokio::select! {
                    why = coordinator.run() => why,
                    why = keep(&*house.leases, &name, lease, asked) => Some(Failure::Lost(why.to_string())),
                };
                feed.session.lost();
                // Somebody who asks for no lease would be thrown out in turn, and come back.
                let is_stranger = matches!(why, Some(Failure::TakenOver(_)))
                    && house.leases.take(&name).await.is_ok_and(|again| again.fence == lease.fence);
                house.leases.give_back(&name, lease.fence).await;
                let Some(why) = why else { return };
                tracing::error!(backend = %house.name, queue = %feed.queue, %why, "a work queue is not fed any more");
                if is_stranger {
                    feed.hold(Hold::Not(why.to_string()));
                    return;
                }
                feed.hold(Hold::Asking);
            }
            Err(why) => {
                if told.as_ref().is_none_or(|told| is_news(told, &why)) {
                    tracing::warn!(backend = %house.name, queue = %feed.queue, %why, "a work queue is not fed by this instance, which asks for its lease again");
                }
                // Who consumes waits for a ledger that is away; nobody else is known to have the queue.
                feed.hold(match &why {
                    NotGranted::Held(_) => Hold::Not(why.to_string()),
                    NotGranted::Away(_) => Hold::Asking,
                });
                told = Some(why);
            }
        }
        sleep(ASK_AGAIN).await;
    }
}

/// What a queue's lease is called: the same in all instances whose back ends are called the same.
fn lease_of(backend: &str, vhost: &str, queue: &str) -> String {
    format!("work-queue/{backend}/{vhost}/{queue}")
}

/// Another holder is news; another way of not answering is none.
fn is_news(before: &NotGranted, now: &NotGranted) -> bool {
    !matches!((before, now), (NotGranted::Away(_), NotGranted::Away(_))) && before != now
}

/// Renews a lease; returns when it is lost: somebody else has it, or it ends and nobody could be asked.
async fn keep(leases: &dyn Leases, name: &str, lease: Lease, asked: Instant) -> NotGranted {
    let mut ends = asked + lease.lasts;
    let mut pause = lease.lasts / 3;
    loop {
        sleep(pause).await;
        let asked = Instant::now();
        match timeout_at(ends, leases.take(name)).await {
            Ok(Ok(again)) if again.fence == lease.fence => {
                ends = asked + again.lasts;
                pause = again.lasts / 3;
            }
            Ok(Ok(_)) => return NotGranted::Away("this one's had run out".into()),
            Ok(Err(why @ NotGranted::Held(_))) => return why,
            Ok(Err(why)) if Instant::now() + ASK_AGAIN >= ends => return why,
            Ok(Err(_)) => pause = ASK_AGAIN,
            Err(_) => return NotGranted::Away("nobody answers".into()),
        }
    }
}

/// Ends a task with who started it.
struct Aborts(AbortHandle);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use async_trait::async_trait;
    use linkspan_contract::Fence;
    use parking_lot::Mutex;

    use super::*;

    const LASTS: Duration = Duration::from_secs(15);

    /// Answers in turn; none: not at all.
    struct Scripted(Mutex<VecDeque<Option<Result<Lease, NotGranted>>>>);

    #[async_trait]
    impl Leases for Scripted {
        async fn take(&self, _name: &str) -> Result<Lease, NotGranted> {
            let next = self.0.lock().pop_front().expect("nobody asks so often");
            match next {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }

        async fn give_back(&self, _name: &str, _fence: Fence) {}
    }

    fn granted(fence: Fence) -> Option<Result<Lease, NotGranted>> {
        Some(Ok(Lease { fence, lasts: LASTS }))
    }

    fn away() -> Option<Result<Lease, NotGranted>> {
        Some(Err(NotGranted::Away("the link is cut".into())))
    }

    fn held() -> NotGranted {
        NotGranted::Held("another".into())
    }

    /// Why the lease is lost, and after how long.
    async fn kept(
        answers: impl IntoIterator<Item = Option<Result<Lease, NotGranted>>>,
    ) -> (NotGranted, Duration) {
        let leases = Scripted(Mutex::new(answers.into_iter().collect()));
        let begun = Instant::now();
        let lost = keep(&leases, "queue", Lease { fence: 7, lasts: LASTS }, begun).await;
        (lost, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_is_away_for_a_moment_costs_no_lease() {
        let answers = [away(), away(), away(), granted(7), Some(Err(held()))];
        let (lost, after) = kept(answers).await;
        assert_eq!(lost, held());
        assert_eq!(after, LASTS / 3 + ASK_AGAIN * 3 + LASTS / 3, "asked again soon, then in its time");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_under_a_lease_stops_before_it_ends_whether_or_not_anybody_answers() {
        let (lost, after) = kept(std::iter::repeat_n(away(), 100)).await;
        assert!(matches!(lost, NotGranted::Away(_)) && after <= LASTS, "{lost} after {after:?}");
        let (lost, after) = kept([granted(7), None]).await;
        assert!(matches!(lost, NotGranted::Away(_)), "{lost}");
        assert_eq!(after, LASTS / 3 + LASTS, "counted from the asking, not from the answer");
    }

    #[tokio::test(start_paused = true)]
    async fn another_number_means_that_it_had_run_out() {
        let (lost, after) = kept([granted(8)]).await;
        assert!(matches!(lost, NotGranted::Away(_)), "{lost}");
        assert_eq!(after, LASTS / 3);
    }
}
