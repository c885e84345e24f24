//! Queues that one consumer at a time has.

use std::time::Duration;

use linkspan_contract::Terms;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::routes::{Exclusive, Others};

fn bids(holder_timeout: Duration) -> Arc<Route> {
    let exclusive = Exclusive { others: Others::StandBy, holder_timeout: Some(holder_timeout) };
    let terms = Arc::new(Terms { ack_timeout: Some(50), ..Terms::default() });
    let route = Route::new(Filter::parse("bids").unwrap(), Pattern::ExclusiveConsumer, "one");
    Arc::new(Route { queues: vec!["bids".into()], exclusive: Some(exclusive), terms, ..route })
}

/// What a client is given once it has the queue.
async fn given(client: &mut Client1) -> Delivery {
    let waiting = async {
        loop {
            if client.ear.changed.swap(false, Ordering::SeqCst) {
                client.lane.refresh().await;
            }
            if let Ok(delivery) = timeout(Duration::from_millis(5), client.next()).await {
                return delivery;
            }
        }
    };
    timeout(Duration::from_secs(10), waiting).await.expect("something is given")
}

#[tokio::test]
async fn who_cancels_and_has_lost_all_it_had_to_the_deadline_passes_the_queue_on_at_once() {
    let an_hour = Duration::from_secs(3600);
    let hub = hub([bids(an_hour)]).await;
    let mut holder = Client1::connect(&hub, 1, None).await;
    holder.subscribe(Source::Queue("bids"), Settle::ByConsumer).await.unwrap();
    holder.publish(&["bids"], WANTED);
    let first = given(&mut holder).await;
    let again = given(&mut holder).await;
    assert_eq!((first.attempt, again.attempt), (0, 1), "its time was over");
    let mut other = Client1::connect(&hub, 2, None).await;
    other.subscribe(Source::Queue("bids"), Settle::ByConsumer).await.unwrap();
    sleep(Duration::from_millis(60)).await;
    let cancelled = Instant::now();
    holder.lane.unsubscribe(SubscriptionKey { subscription: 1, part: 0 }).await.unwrap();
    let next = given(&mut other).await;
    assert!(cancelled.elapsed() < Duration::from_secs(2), "after {:?}", cancelled.elapsed());
    assert!(next.attempt >= 2, "{}", next.attempt);
    next.settle(Settlement::Accept);
}

#[tokio::test]
async fn what_does_not_say_the_number_of_the_holder_is_counted_once_wherever_it_stands_in_its_batch() {
    let mut highest = route("highest", "one", &[]);
    Arc::make_mut(&mut highest).fence = Some("bids".into());
    let hub = hub([bids(Duration::from_secs(60)), highest]).await;
    let mut client = Client1::connect(&hub, 1, None).await;
    for topics in [&["highest"][..], &["open", "highest"], &["open", "highest", "open"]] {
        let recorder = PrometheusBuilder::new().build_recorder();
        let figures = recorder.handle();
        let published = metrics::with_local_recorder(&recorder, || client.publish(topics, WANTED));
        let is_fenced = |outcome: &Outcome| matches!(outcome, Outcome::Refused(Refused::Fenced(_)));
        let fenced = published.exceptions.iter().filter(|(_, outcome)| is_fenced(outcome));
        let told: Vec<_> = fenced.map(|(at, _)| topics[*at as usize]).collect();
        assert_eq!((published.taken as usize, told), (topics.len(), vec!["highest"]));
        let shown = figures.render();
        assert!(shown.contains("linkspan_publishes_fenced_total 1\n"), "of {topics:?}: {shown}");
    }
}
