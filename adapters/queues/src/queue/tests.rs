use std::sync::Arc;

use linkspan_contract::{Credit, Settle, Settlement};

use super::*;
use crate::assignment::Direct;
use crate::consumer::{Consumer, ExclusiveUse};

type Texts = Queue<&'static str>;

fn queue(limits: Limits) -> Texts {
    Queue::new(0, limits)
}

fn offer(body: &'static str) -> Offer<&'static str> {
    Offer { body, size: 10, priority: 0, expiry: None, key: 0, delay: 0, durable: true, apart: false }
}

fn push(queue: &mut Texts, bodies: &[&'static str]) {
    for body in bodies {
        assert_eq!(queue.push(0, offer(body), &mut Vec::new()), Pushed::Queued);
    }
}

fn consume(queue: &mut Texts, consumer: Consumer) {
    let id = consumer.id;
    queue.add_consumer(consumer).unwrap();
    queue.set_paused(id, false);
}

fn settling(id: u64) -> Consumer {
    Consumer::new(id, id, Settle::ByConsumer)
}

fn windowed(id: u64, window: u32) -> (Consumer, Arc<Credit>) {
    let credit = Arc::new(Credit::new(window));
    (Consumer { credit: Some(Arc::clone(&credit)), ..settling(id) }, credit)
}

fn assignments(queue: &mut Texts, now: Millis) -> Vec<Assignment<&'static str>> {
    let mut out = Vec::new();
    queue.dispatch(now, &mut out);
    out
}

/// Who got what.
fn dispatch(queue: &mut Texts, now: Millis) -> Vec<(u64, &'static str)> {
    assignments(queue, now).into_iter().map(|got| (got.consumer, got.message.body)).collect()
}

/// What died of what.
fn dead(queue: &mut Texts) -> Vec<(&'static str, &'static str)> {
    let dead = |effect| match effect {
        Effect::Dead { message, reason } => Some((message.body, reason.name())),
        _ => None,
    };
    queue.effects().filter_map(dead).collect()
}

fn accept(queue: &mut Texts, consumer: u64, first: u64, count: u32) -> Tally {
    queue.settle(0, consumer, first, count, &Settlement::Accept)
}

const RELEASE: Settlement = Settlement::Release { delay: 0 };

#[test]
fn messages_wait_until_somebody_comes() {
    let mut queue = queue(Limits::default());
    push(&mut queue, &["a", "b"]);
    assert!(dispatch(&mut queue, 0).is_empty());
    assert_eq!((queue.len(), queue.bytes()), (2, 20));
    queue.add_consumer(settling(1)).unwrap();
    assert!(dispatch(&mut queue, 0).is_empty(), "it has not been started");
    queue.set_paused(1, false);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a"), (1, "b")]);
    assert_eq!((queue.len(), queue.bytes(), queue.unsettled()), (0, 0, 2));
}

#[test]
fn a_burst_is_shared_message_by_message() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, windowed(1, 10).0);
    consume(&mut queue, windowed(2, 10).0);
    push(&mut queue, &["a", "b", "c", "d"]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a"), (2, "b"), (1, "c"), (2, "d")]);
    push(&mut queue, &["e"]);
    push(&mut queue, &["f"]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "e"), (2, "f")], "the turns go on between calls");
}

#[test]
fn tags_count_from_one_on_each_consumer() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, settling(1));
    consume(&mut queue, settling(2));
    push(&mut queue, &["a", "b", "c"]);
    let tags: Vec<_> = assignments(&mut queue, 0).iter().map(|got| (got.consumer, got.tag)).collect();
    assert_eq!(tags, [(1, 1), (2, 1), (1, 2)]);
}

#[test]
fn a_consumer_gets_no_more_than_its_window() {
    let mut queue = queue(Limits::default());
    let (consumer, credit) = windowed(1, 2);
    consume(&mut queue, consumer);
    push(&mut queue, &["a", "b", "c"]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a"), (1, "b")]);
    assert_eq!(accept(&mut queue, 1, 1, 2), Tally { known: 2, unknown: 0 });
    assert!(credit.grant(2), "it had run dry");
    assert!(dispatch(&mut queue, 0).is_empty(), "it has not been resumed");
    queue.resume(1);
    assert_eq!(dispatch(&mut queue, 0), [(1, "c")]);
    assert_eq!(credit.available(), 1);
}

#[test]
fn credit_taken_for_messages_that_expired_is_given_back() {
    let mut queue = queue(Limits::default());
    let (consumer, credit) = windowed(1, 10);
    consume(&mut queue, consumer);
    push(&mut queue, &["a"]);
    queue.push(0, Offer { expiry: Some(5), ..offer("b") }, &mut Vec::new());
    assert_eq!(dispatch(&mut queue, 5), [(1, "a")]);
    assert_eq!(dead(&mut queue), [("b", "expired")]);
    assert_eq!(credit.available(), 9);
}

#[test]
fn consumers_of_a_higher_priority_come_first_as_long_as_they_can_take() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, settling(1));
    consume(&mut queue, Consumer { priority: 5, ..windowed(2, 2).0 });
    push(&mut queue, &["a", "b", "c"]);
    assert_eq!(dispatch(&mut queue, 0), [(2, "a"), (2, "b"), (1, "c")]);
}

#[test]
fn a_paused_consumer_leaves_its_turn_to_others() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, Consumer::new(1, 1, Settle::OnDelivery));
    consume(&mut queue, Consumer::new(2, 2, Settle::OnDelivery));
    queue.set_paused(1, true);
    queue.resume(1);
    push(&mut queue, &["a", "b"]);
    assert_eq!(dispatch(&mut queue, 0), [(2, "a"), (2, "b")]);
    queue.set_paused(2, true);
    push(&mut queue, &["c"]);
    assert!(dispatch(&mut queue, 0).is_empty());
    queue.set_paused(1, false);
    assert_eq!(dispatch(&mut queue, 0), [(1, "c")]);
}

#[test]
fn higher_levels_come_first_and_each_keeps_its_order() {
    let mut queue = queue(Limits { max_priority: 9, ..Limits::default() });
    for (body, priority) in [("a", 0), ("b", 9), ("c", 3), ("d", 200), ("e", 3)] {
        queue.push(0, Offer { priority, ..offer(body) }, &mut Vec::new());
    }
    assert_eq!(queue.level_len(9), 2, "what is above the highest level counts as that");
    consume(&mut queue, settling(1));
    let got: Vec<_> = dispatch(&mut queue, 0).into_iter().map(|(_, body)| body).collect();
    assert_eq!(got, ["b", "d", "c", "e", "a"]);
}

#[test]
fn what_comes_back_stands_where_it_stood() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, windowed(1, 4).0);
    push(&mut queue, &["a", "b", "c", "d", "e", "f"]);
    assert_eq!(dispatch(&mut queue, 0).len(), 4);
    queue.settle(0, 1, 3, 1, &RELEASE);
    queue.settle(0, 1, 1, 2, &RELEASE);
    queue.settle(0, 1, 4, 1, &RELEASE);
    consume(&mut queue, settling(2));
    let got: Vec<_> =
        assignments(&mut queue, 0).iter().map(|got| (got.message.body, got.message.attempts)).collect();
    assert_eq!(got, [("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 0), ("f", 0)]);
}

#[test]
fn a_lane_that_goes_gives_back_all_that_it_has_not_settled() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, settling(1));
    push(&mut queue, &["a", "b", "c"]);
    dispatch(&mut queue, 0);
    accept(&mut queue, 1, 2, 1);
    push(&mut queue, &["d"]);
    let removed = queue.release_lane(0, 1);
    assert_eq!((removed.removed, removed.was_last), (1, true));
    assert_eq!((queue.unsettled(), queue.consumers()), (0, 0));
    consume(&mut queue, settling(2));
    assert_eq!(dispatch(&mut queue, 0), [(2, "a"), (2, "c"), (2, "d")]);
}

#[test]
fn what_a_removed_consumer_has_can_still_be_settled() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, settling(1));
    push(&mut queue, &["a", "b"]);
    dispatch(&mut queue, 0);
    assert!(queue.remove_consumer(0, 1).was_last);
    assert!(!queue.remove_consumer(0, 1).was_last, "it has gone already");
    assert_eq!(queue.unsettled(), 2);
    assert_eq!(accept(&mut queue, 1, 1, 1).known, 1);
    queue.release_lane(0, 1);
    assert_eq!((queue.len(), queue.unsettled()), (1, 0));
}

#[test]
fn settling_what_is_not_there_is_ignored_and_counted() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, settling(1));
    push(&mut queue, &["a", "b", "c"]);
    dispatch(&mut queue, 0);
    assert_eq!(accept(&mut queue, 1, 2, 1), Tally { known: 1, unknown: 0 });
    assert_eq!(accept(&mut queue, 1, 1, 10), Tally { known: 2, unknown: 8 });
    assert_eq!(accept(&mut queue, 1, 1, u32::MAX), Tally { known: 0, unknown: u32::MAX });
    assert_eq!(accept(&mut queue, 7, 1, 1), Tally { known: 0, unknown: 1 });
}

#[test]
fn one_delivery_held_for_long_does_not_hold_the_room_of_all_behind_it() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, settling(1));
    push(&mut queue, &["held"]);
    dispatch(&mut queue, 0);
    for tag in 2..10_000 {
        push(&mut queue, &["quick"]);
        dispatch(&mut queue, 0);
        assert_eq!(accept(&mut queue, 1, tag, 1).known, 1);
    }
    let holder = queue.holders.get(0).unwrap();
    assert!(holder.unsettled.room() < 100, "{} slots for one delivery", holder.unsettled.room());
    assert_eq!(accept(&mut queue, 1, 1, 1).known, 1);
}

#[test]
fn a_rejected_message_is_dead_and_says_why() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, settling(1));
    push(&mut queue, &["a", "b"]);
    dispatch(&mut queue, 0);
    queue.settle(0, 1, 1, 1, &Settlement::Reject(Some("not a picture".into())));
    let Some(Effect::Dead { message, reason }) = queue.effects().next() else { panic!("it is not dead") };
    assert_eq!((message.body, reason), ("a", DeadReason::Rejected(Some("not a picture".into()))));
    assert_eq!((queue.len(), queue.unsettled()), (0, 1));
}

#[test]
fn a_message_that_came_back_too_often_is_dead() {
    let mut queue = queue(Limits { delivery_limit: Some(1), ..Limits::default() });
    consume(&mut queue, settling(1));
    push(&mut queue, &["poison"]);
    for (tag, attempts) in [(1, 0), (2, 1)] {
        assert!(dead(&mut queue).is_empty());
        assert_eq!(assignments(&mut queue, 0)[0].message.attempts, attempts);
        queue.settle(0, 1, tag, 1, &RELEASE);
    }
    assert_eq!(dead(&mut queue), [("poison", "delivery_limit")]);
    assert!(dispatch(&mut queue, 0).is_empty());
}

#[test]
fn a_delayed_release_is_ready_after_its_time() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, settling(1));
    push(&mut queue, &["a"]);
    dispatch(&mut queue, 0);
    queue.settle(100, 1, 1, 1, &Settlement::Release { delay: 50 });
    push(&mut queue, &["b"]);
    assert_eq!((dispatch(&mut queue, 100), queue.delayed()), (vec![(1, "b")], 1));
    assert_eq!(queue.next_tick(), Some(150));
    queue.tick(149);
    assert!(dispatch(&mut queue, 149).is_empty());
    assert_eq!(queue.tick(150), None);
    assert_eq!(dispatch(&mut queue, 150), [(1, "a")]);
}

#[test]
fn expired_messages_never_reach_a_consumer() {
    let mut queue = queue(Limits { message_ttl: Some(100), ..Limits::default() });
    for (body, expiry) in [("a", None), ("b", Some(30)), ("c", Some(500))] {
        queue.push(0, Offer { expiry, ..offer(body) }, &mut Vec::new());
    }
    consume(&mut queue, windowed(1, 1).0);
    assert_eq!(dispatch(&mut queue, 30), [(1, "a")]);
    assert_eq!(dead(&mut queue), [("b", "expired")], "it had become the head");
    assert_eq!(queue.tick(99), Some(100));
    assert_eq!(queue.tick(100), None);
    assert_eq!(dead(&mut queue), [("c", "expired")], "the shorter of its own time and the queue's counts");
}

#[test]
fn a_message_that_must_not_wait_goes_to_who_can_take_it_or_nowhere() {
    let mut queue = queue(Limits::default());
    let at_once = |body| Offer { expiry: Some(0), ..offer(body) };
    assert_eq!(queue.push(0, at_once("a"), &mut Vec::new()), Pushed::Queued);
    assert_eq!((dead(&mut queue), queue.len()), (vec![("a", "expired")], 0));
    consume(&mut queue, windowed(1, 2).0);
    push(&mut queue, &["b"]);
    let mut out = Vec::new();
    queue.push(0, at_once("c"), &mut out);
    queue.push(0, at_once("d"), &mut out);
    let got: Vec<_> = out.iter().map(|got| got.message.body).collect();
    assert_eq!(got, ["b", "c"], "what was there before it goes first");
    assert_eq!((dead(&mut queue), queue.len()), (vec![("d", "expired")], 0));
}

#[test]
fn a_delivery_past_its_deadline_comes_back_and_a_late_word_is_ignored() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, Consumer { ack_timeout: Some(30), ..windowed(1, 2).0 });
    push(&mut queue, &["a", "b"]);
    dispatch(&mut queue, 10);
    assert_eq!(queue.next_tick(), Some(40));
    assert_eq!(accept(&mut queue, 1, 2, 1).known, 1);
    assert_eq!(queue.tick(40), None);
    assert_eq!(queue.effects().collect::<Vec<_>>(), [Effect::Overdue { consumer: 1, count: 1 }]);
    assert_eq!((queue.len(), queue.unsettled()), (1, 0));
    assert_eq!(accept(&mut queue, 1, 1, 1), Tally { known: 0, unknown: 1 });
    queue.resume(1);
    assert!(dispatch(&mut queue, 40).is_empty(), "a consumer that hangs is given nothing more");
    consume(&mut queue, settling(2));
    assert_eq!(assignments(&mut queue, 40)[0].message.attempts, 1);
}

#[test]
fn a_deadline_can_be_moved() {
    let mut queue = queue(Limits { ack_timeout: Some(30), ..Limits::default() });
    consume(&mut queue, settling(1));
    push(&mut queue, &["a", "b"]);
    dispatch(&mut queue, 0);
    assert_eq!(queue.settle(20, 1, 1, 1, &Settlement::Extend(30)), Tally { known: 1, unknown: 0 });
    assert_eq!(queue.tick(30), Some(50));
    assert_eq!(queue.unsettled_by(1), 1, "only the other one is overdue");
    queue.tick(50);
    assert_eq!(queue.unsettled_by(1), 0);
}

#[test]
fn many_extensions_of_one_deadline_take_no_room() {
    let mut queue = queue(Limits { ack_timeout: Some(1000), ..Limits::default() });
    consume(&mut queue, settling(1));
    push(&mut queue, &["a"]);
    dispatch(&mut queue, 0);
    for by in 0..10_000 {
        queue.settle(0, 1, 1, 1, &Settlement::Extend(2000 + by));
    }
    assert!(queue.holders.get(0).unwrap().unsettled.deadlines() <= 70);
    queue.tick(11_998);
    assert_eq!(queue.unsettled(), 1);
    queue.tick(11_999);
    assert_eq!(queue.unsettled(), 0);
}

#[test]
fn a_full_queue_lets_its_head_go() {
    let mut queue = queue(Limits { max_length: Some(2), ..Limits::default() });
    push(&mut queue, &["a", "b", "c"]);
    assert_eq!(dead(&mut queue), [("a", "maxlen")]);
    assert_eq!(queue.len(), 2);
}

#[test]
fn a_full_queue_refuses_when_it_is_told_to() {
    let mut queue = queue(Limits { max_bytes: Some(20), overflow: Overflow::Reject, ..Limits::default() });
    push(&mut queue, &["a", "b"]);
    assert_eq!(queue.push(0, offer("c"), &mut Vec::new()), Pushed::Refused);
    assert!(!queue.has_effects());
    queue.limits.overflow = Overflow::RejectDeadLetter;
    assert_eq!(queue.push(0, offer("c"), &mut Vec::new()), Pushed::Refused);
    assert_eq!(dead(&mut queue), [("c", "maxlen")]);
    assert_eq!(queue.len(), 2);
}

#[test]
fn what_somebody_can_take_fills_no_queue() {
    for overflow in [Overflow::DropHead, Overflow::Reject] {
        let mut queue = queue(Limits { max_length: Some(1), overflow, ..Limits::default() });
        consume(&mut queue, windowed(1, 3).0);
        let mut out = Vec::new();
        for body in ["a", "b", "c", "d"] {
            assert_eq!(queue.push(0, offer(body), &mut out), Pushed::Queued, "{body}");
        }
        assert_eq!(out.iter().map(|got| got.message.body).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(dispatch(&mut queue, 0).is_empty());
        assert!(!queue.has_effects());
        let refused = queue.push(0, offer("e"), &mut out) == Pushed::Refused;
        assert_eq!((refused, queue.len()), (overflow == Overflow::Reject, 1));
    }
}

#[test]
fn an_exclusive_consumer_is_alone() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, settling(1));
    assert_eq!(queue.add_consumer(Consumer { exclusive: true, ..settling(2) }), Err(ExclusiveUse));
    queue.remove_consumer(0, 1);
    consume(&mut queue, Consumer { exclusive: true, ..settling(2) });
    assert_eq!(queue.add_consumer(settling(3)), Err(ExclusiveUse));
    queue.remove_consumer(0, 2);
    queue.add_consumer(settling(3)).unwrap();
}

#[test]
fn a_single_active_consumer_is_followed_by_the_first_by_priority_then_arrival() {
    let mut queue = queue(Limits { single_active: true, ..Limits::default() });
    consume(&mut queue, windowed(1, 1).0);
    consume(&mut queue, settling(2));
    consume(&mut queue, Consumer { priority: 1, ..settling(3) });
    consume(&mut queue, Consumer { priority: 1, ..settling(4) });
    push(&mut queue, &["a", "b"]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a")], "nobody steps in for one that is merely busy");
    queue.remove_consumer(0, 1);
    assert_eq!(queue.active(), Some(3));
    assert_eq!(dispatch(&mut queue, 0), [(3, "b")]);
    queue.remove_consumer(0, 4);
    queue.release_lane(0, 3);
    queue.release_lane(0, 2);
    let active = |effect| if let Effect::Active(who) = effect { Some(who) } else { None };
    let told: Vec<_> = queue.effects().filter_map(active).collect();
    assert_eq!(told, [Some(1), Some(3), Some(2), None]);
}

#[test]
fn fetching_takes_one_under_the_key_of_who_asks() {
    let mut queue = queue(Limits::default());
    push(&mut queue, &["a", "b", "c"]);
    let first = queue.fetch(7, 100, 1, false).unwrap();
    assert_eq!((first.message.body, first.tag, first.age, first.settled), ("a", 1, 7, false));
    assert_eq!(accept(&mut queue, 100, 1, 1).known, 1);
    assert_eq!(queue.fetch(7, 100, 1, false).unwrap().tag, 2, "tags count on");
    assert!(queue.fetch(7, 100, 1, true).unwrap().settled);
    assert_eq!(queue.fetch(7, 100, 1, true), None);
    queue.recover(7, 1);
    assert_eq!(queue.fetch(7, 100, 1, false).unwrap().message.attempts, 1);
}

#[test]
fn a_resumed_session_is_given_the_same_again_under_the_same_tags() {
    let mut queue = queue(Limits { ack_timeout: Some(10), ..Limits::default() });
    consume(&mut queue, settling(1));
    push(&mut queue, &["a", "b", "c"]);
    dispatch(&mut queue, 0);
    accept(&mut queue, 1, 2, 1);
    let mut out = Vec::new();
    queue.redeliver(8, 1, &mut out);
    let again: Vec<_> = out.iter().map(|got| (got.tag, got.message.body, got.message.attempts)).collect();
    assert_eq!(again, [(1, "a", 1), (3, "c", 1)]);
    assert_eq!(queue.tick(10), Some(18), "the deadlines begin anew");
    assert_eq!(queue.unsettled(), 2);
}

#[test]
fn qos_0_takes_no_credit_and_is_settled_by_nobody() {
    let mut queue = queue(Limits::default());
    let (consumer, credit) = windowed(1, 1);
    consume(&mut queue, Consumer { settle: Settle::AsPublished, ..consumer });
    for (body, durable) in [("a", false), ("b", true), ("c", false)] {
        queue.push(0, Offer { durable, ..offer(body) }, &mut Vec::new());
    }
    let got: Vec<_> = assignments(&mut queue, 0).iter().map(|got| (got.message.body, got.settled)).collect();
    assert_eq!(got, [("a", true), ("b", false), ("c", true)]);
    assert_eq!((queue.unsettled(), credit.available()), (1, 0));
}

#[test]
fn messages_go_past_an_empty_queue_to_who_settles_nothing() {
    let mut queue = queue(Limits::default());
    let mut out = Vec::new();
    assert_eq!(queue.direct(3, true, &mut out), 0, "nobody is there");
    consume(&mut queue, Consumer::new(1, 1, Settle::OnDelivery));
    assert_eq!(queue.direct(3, true, &mut out), 3);
    assert_eq!(std::mem::take(&mut out), [Direct { consumer: 1, first: 0, turns: 1 }]);
    consume(&mut queue, Consumer::new(2, 2, Settle::AsPublished));
    assert_eq!(queue.direct(3, true, &mut out), 0, "one would have to settle what is durable");
    assert_eq!(queue.direct(3, false, &mut out), 3);
    let share = |consumer, first| Direct { consumer, first, turns: 2 };
    assert_eq!(std::mem::take(&mut out), [share(1, 0), share(2, 1)]);
    queue.direct(1, false, &mut out);
    assert_eq!(out, [share(2, 0)], "the turns go on");
    queue.set_paused(1, true);
    queue.set_paused(2, true);
    push(&mut queue, &["a"]);
    queue.set_paused(1, false);
    assert_eq!(queue.direct(1, false, &mut out), 0, "nothing overtakes what is ready");
}

#[test]
fn what_a_closed_sink_refused_is_as_if_it_had_not_been_given_out() {
    for settle in [Settle::ByConsumer, Settle::OnDelivery] {
        let mut queue = queue(Limits::default());
        let (consumer, credit) = windowed(1, 5);
        consume(&mut queue, Consumer { settle, ..consumer });
        push(&mut queue, &["a", "b"]);
        let refused = assignments(&mut queue, 0);
        push(&mut queue, &["c"]);
        refused.into_iter().for_each(|assignment| queue.take_back(assignment));
        assert_eq!((queue.remove_consumer(0, 1).was_last, credit.available()), (true, 5));
        consume(&mut queue, settling(2));
        let got: Vec<_> =
            assignments(&mut queue, 0).iter().map(|got| (got.message.body, got.message.attempts)).collect();
        assert_eq!(got, [("a", 0), ("b", 0), ("c", 0)]);
    }
}

#[test]
fn purging_removes_what_is_ready_or_delayed_but_not_what_is_unsettled() {
    let mut queue = queue(Limits::default());
    consume(&mut queue, windowed(1, 2).0);
    push(&mut queue, &["a", "b", "c"]);
    dispatch(&mut queue, 0);
    queue.settle(0, 1, 1, 1, &Settlement::Release { delay: 10 });
    assert_eq!(queue.purge(), 2);
    assert_eq!((queue.len(), queue.delayed(), queue.unsettled()), (0, 0, 1));
    assert!(!queue.has_effects(), "purged messages are no dead letters");
}

#[test]
fn a_queue_that_nobody_uses_asks_once_to_be_deleted() {
    let mut queue = queue(Limits { expires: Some(100), ..Limits::default() });
    assert_eq!(queue.next_tick(), Some(100));
    queue.touch(50);
    assert_eq!(queue.tick(100), Some(150));
    queue.add_consumer(settling(1)).unwrap();
    queue.tick(150);
    assert!(!queue.has_effects(), "somebody uses it");
    queue.remove_consumer(200, 1);
    assert_eq!(queue.next_tick(), Some(300));
    assert_eq!(queue.tick(300), None);
    assert_eq!(queue.effects().collect::<Vec<_>>(), [Effect::Unused]);
    queue.tick(400);
    assert!(!queue.has_effects());
}

#[test]
fn what_was_restored_goes_on_where_it_was() {
    let mut queue = queue(Limits::default());
    let kept = |body, position, attempts| Queued {
        body,
        position,
        size: 10,
        since: 5,
        deadline: NEVER,
        attempts,
        key: 0,
        priority: 0,
        durable: true,
        logged: false,
        apart: false,
        received: false,
    };
    queue.restore(100, kept("c", 9, 0), 0);
    queue.restore(100, kept("a", 2, 1), 0);
    queue.restore(100, kept("b", 4, 3), 120);
    push(&mut queue, &["d"]);
    queue.tick(120);
    consume(&mut queue, settling(1));
    let got: Vec<_> = assignments(&mut queue, 120)
        .iter()
        .map(|got| (got.message.body, got.message.position, got.message.attempts))
        .collect();
    assert_eq!(got, [("a", 2, 1), ("b", 4, 3), ("c", 9, 0), ("d", 10, 0)]);
}

#[test]
fn a_queue_that_is_held_gives_nothing_to_anybody_in_any_way() {
    let mut queue = queue(Limits { max_length: Some(1), overflow: Overflow::Reject, ..Limits::default() });
    consume(&mut queue, settling(1));
    queue.hold(true);
    let mut out = Vec::new();
    assert_eq!(queue.push(0, offer("a"), &mut out), Pushed::Queued);
    assert_eq!(queue.push(0, offer("b"), &mut out), Pushed::Refused, "there is room for one");
    assert!(queue.fetch(0, 9, 9, true).is_none());
    assert_eq!(queue.direct(1, false, &mut Vec::new()), 0);
    assert!(out.is_empty() && dispatch(&mut queue, 0).is_empty());
    queue.hold(false);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a")]);
}

#[test]
fn what_must_not_wait_waits_for_a_queue_that_is_held_and_for_no_consumer() {
    let mut queue = queue(Limits::default());
    let at_once = || Offer { expiry: Some(0), ..offer("now") };
    queue.hold(true);
    assert_eq!(queue.push(0, at_once(), &mut Vec::new()), Pushed::Queued);
    assert_eq!(dead(&mut queue), [("now", "expired")], "nobody would take it");
    consume(&mut queue, settling(1));
    queue.push(0, at_once(), &mut Vec::new());
    queue.hold(false);
    assert_eq!(dispatch(&mut queue, 20), [(1, "now")]);
}

fn by_position(id: ConsumerId) -> Consumer {
    Consumer { tags_by_position: true, ..settling(id) }
}

#[test]
fn what_a_consumer_has_is_not_given_again_and_stays_unsettled() {
    let mut queue = queue(Limits::default());
    push(&mut queue, &["a", "b", "c"]);
    consume(&mut queue, by_position(1));
    assert_eq!(assignments(&mut queue, 0).len(), 3);
    assert_eq!(queue.settle(0, 1, 2, 1, &Settlement::Receive).known, 1);
    let mut again = Vec::new();
    queue.redeliver(0, 1, &mut again);
    assert_eq!(again.iter().map(|it| it.message.body).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(queue.unsettled(), 3);
    queue.release_lane(0, 1);
    consume(&mut queue, by_position(2));
    let after = assignments(&mut queue, 0);
    let seen: Vec<_> = after.iter().map(|it| (it.message.body, it.message.received)).collect();
    assert_eq!(seen, [("a", false), ("b", true), ("c", false)]);
    assert_eq!(queue.settle(0, 2, 2, 1, &Settlement::Accept).known, 1);
}

#[test]
fn a_consumer_whose_tags_are_positions_waits_for_what_it_has_not_settled_for_long() {
    let mut queue = queue(Limits::default());
    let span = usize::try_from(linkspan_contract::sink::SPAN).unwrap();
    push(&mut queue, &vec!["x"; span + 2]);
    consume(&mut queue, by_position(1));
    assert_eq!(assignments(&mut queue, 0).len(), span);
    queue.settle(0, 1, 2, u32::try_from(span).unwrap(), &Settlement::Accept);
    assert!(assignments(&mut queue, 0).is_empty(), "the oldest one is not settled");
    queue.resume(1);
    assert!(assignments(&mut queue, 0).is_empty(), "it is not settled still");
    queue.settle(0, 1, 1, 1, &Settlement::Accept);
    assert_eq!(assignments(&mut queue, 0).len(), 2);
}

/// Keeps everything.
struct Keeps;

impl Journal<&'static str> for Keeps {
    fn queued(&mut self, _message: &Queued<&'static str>, _paged: bool) -> bool {
        true
    }

    fn given(&mut self, _priority: u8, _positions: std::ops::Range<Position>) {}

    fn returned(&mut self, _message: &Queued<&'static str>, _not_before: Millis) {}

    fn gone(&mut self, _priority: u8, _positions: std::ops::Range<Position>, _how: Gone) {}

    fn received(&mut self, _message: &Queued<&'static str>) {}
}

#[test]
fn what_lies_apart_counts_little_for_the_memory_and_in_full_for_all_else() {
    let limits = Limits {
        window: Some(crate::Window { messages: 100, bytes: 40 << 10 }),
        max_bytes: Some(4 << 30),
        overflow: Overflow::Reject,
        ..Limits::default()
    };
    let mut queue = Queue::with_journal(0, limits, Keeps);
    let large = |body| Offer { size: 1 << 30, apart: true, ..offer(body) };
    let mut none = Vec::new();
    for body in ["a", "b", "c", "d"] {
        assert_eq!(queue.push(0, large(body), &mut none), Pushed::Queued);
    }
    assert_eq!(
        queue.push(0, large("e"), &mut none),
        Pushed::Refused,
        "the bytes that it may have count them whole"
    );
    assert_eq!((queue.len(), queue.bytes()), (4, 4 << 30));
    assert_eq!(queue.wants(), None);
    queue.add_consumer(settling(1)).unwrap();
    queue.set_paused(1, false);
    let mut got = Vec::new();
    queue.dispatch(0, &mut got);
    let bodies: Vec<_> = got.iter().map(|got| got.message.body).collect();
    assert_eq!(bodies, ["a", "b", "c"], "as long as 40 KiB had room for one more");
    assert_eq!(queue.wants(), Some(Absent { priority: 0, from: 3 }));
}

fn keyed(queue: &mut Texts, bodies: &[(&'static str, u32)]) {
    for (body, key) in bodies {
        queue.push(0, Offer { key: *key, ..offer(body) }, &mut Vec::new());
    }
}

#[test]
fn messages_of_one_key_go_to_one_consumer_at_a_time_and_hold_up_no_others() {
    let mut queue = queue(Limits { keyed: true, ..Limits::default() });
    let (one, credit) = windowed(1, 2);
    consume(&mut queue, one);
    let (two, _) = windowed(2, 10);
    consume(&mut queue, two);
    keyed(&mut queue, &[("a1", 1), ("b1", 2), ("a2", 1), ("a3", 1), ("n1", 0), ("b2", 2), ("a4", 1)]);
    assert_eq!(
        dispatch(&mut queue, 0),
        [(1, "a1"), (2, "b1"), (1, "a2"), (2, "n1"), (2, "b2")],
        "those of `a` wait for who has some"
    );
    assert_eq!(queue.len(), 2);
    accept(&mut queue, 1, 1, 1);
    assert_eq!(dispatch(&mut queue, 0), []);
    credit.grant(1);
    queue.resume(1);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a3")]);
    accept(&mut queue, 1, 2, 2);
    assert_eq!(dispatch(&mut queue, 0), [(2, "a4")], "nobody has any of `a`: it goes to whose turn it is");
    accept(&mut queue, 2, 1, 4);
    assert_eq!((queue.len(), queue.unsettled()), (0, 0));
    assert_eq!(
        queue.keys.as_ref().unwrap().count(),
        0,
        "nothing is kept of keys of which nobody has anything"
    );
}

#[test]
fn who_is_several_has_one_message_of_a_key_at_a_time() {
    let mut queue = queue(Limits { keyed: true, ..Limits::default() });
    let (one, credit) = windowed(1, 4);
    consume(&mut queue, Consumer { several: true, ..one });
    keyed(&mut queue, &[("a1", 1), ("a2", 1), ("b1", 2), ("n1", 0), ("n2", 0), ("a3", 1)]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a1"), (1, "b1"), (1, "n1"), (1, "n2")]);
    consume(&mut queue, settling(2));
    assert_eq!(dispatch(&mut queue, 0), [], "others have none of it either");
    accept(&mut queue, 1, 2, 3);
    credit.grant(3);
    queue.resume(1);
    assert_eq!(dispatch(&mut queue, 0), [], "it could take more, but one of `a` is in its hands");
    queue.remove_consumer(0, 1);
    assert_eq!(dispatch(&mut queue, 0), [], "though it consumes no more, they still are");
    accept(&mut queue, 1, 1, 1);
    assert!(queue.take_freed());
    assert_eq!(dispatch(&mut queue, 0), [(2, "a2"), (2, "a3")]);
    accept(&mut queue, 2, 1, 2);
    assert_eq!(queue.keys.as_ref().unwrap().count(), 0);
}

#[test]
fn one_of_a_key_that_was_given_to_nobody_comes_before_the_others() {
    for several in [false, true] {
        let mut queue = queue(Limits { keyed: true, ..Limits::default() });
        consume(&mut queue, Consumer { several, ..settling(1) });
        keyed(&mut queue, &[("a1", 1), ("a2", 1), ("a3", 1)]);
        let given = dispatch(&mut queue, 0).len();
        assert_eq!(given, if several { 1 } else { 3 });
        queue.remove_consumer(0, 1);
        consume(&mut queue, settling(2));
        queue.settle(0, 1, 1, 3, &Settlement::Undo);
        assert_eq!(dispatch(&mut queue, 0), [(2, "a1"), (2, "a2"), (2, "a3")], "several: {several}");
    }
}

#[test]
fn what_was_given_to_nobody_is_in_its_place_at_once_and_counts_no_attempt() {
    let retry = Some(linkspan_contract::Retry { delay: 100, factor: 100, max: 100 });
    let mut queue = queue(Limits { delivery_limit: Some(0), retry, ..Limits::default() });
    let (one, credit) = windowed(1, 3);
    consume(&mut queue, one);
    push(&mut queue, &["a", "b", "c", "d"]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a"), (1, "b"), (1, "c")]);
    let tally = queue.settle(0, 1, 2, 3, &Settlement::Undo);
    assert_eq!(tally, Tally { known: 2, unknown: 1 });
    assert_eq!((queue.len(), queue.unsettled(), queue.delayed()), (3, 1, 0));
    credit.grant(2);
    queue.resume(1);
    let again = assignments(&mut queue, 0);
    let again: Vec<_> = again.iter().map(|it| (it.message.body, it.message.attempts, it.tag)).collect();
    assert_eq!(again, [("b", 0, 4), ("c", 0, 5)]);
    assert_eq!(dead(&mut queue), [], "it was not given out for the first and last time");
}

#[test]
fn what_the_same_consumer_is_given_too_often_is_dead_as_others_are() {
    let mut queue = queue(Limits { delivery_limit: Some(1), ..Limits::default() });
    let (one, credit) = windowed(1, 2);
    consume(&mut queue, one);
    push(&mut queue, &["a", "b", "c"]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a"), (1, "b")]);
    queue.settle(0, 1, 2, 1, &Settlement::Receive);
    let again = |queue: &mut Texts| {
        let mut out = Vec::new();
        queue.redeliver(0, 1, &mut out);
        out.iter().map(|it| (it.message.body, it.tag, it.message.attempts)).collect::<Vec<_>>()
    };
    assert_eq!(again(&mut queue), [("a", 1, 1)]);
    assert_eq!(dead(&mut queue), []);
    assert_eq!(again(&mut queue), [], "it was given out twice");
    assert_eq!(dead(&mut queue), [("a", "delivery_limit")]);
    assert_eq!(queue.unsettled(), 1, "what the consumer says that it has is its own");
    assert_eq!(accept(&mut queue, 1, 1, 2), Tally { known: 1, unknown: 1 });
    credit.grant(2);
    queue.resume(1);
    assert_eq!(dispatch(&mut queue, 0), [(1, "c")]);
}

#[test]
fn a_key_does_not_stand_still_when_a_higher_one_of_it_had_to_wait_for_what_comes_back() {
    for delay in [0, 10] {
        let mut queue = queue(Limits { keyed: true, max_priority: 2, ..Limits::default() });
        consume(&mut queue, Consumer { several: true, ..settling(1) });
        keyed(&mut queue, &[("low", 1)]);
        assert_eq!(dispatch(&mut queue, 0), [(1, "low")]);
        queue.push(0, Offer { key: 1, priority: 2, ..offer("high") }, &mut Vec::new());
        assert_eq!(dispatch(&mut queue, 0), []);
        queue.settle(0, 1, 1, 1, &Settlement::Release { delay });
        queue.remove_consumer(0, 1);
        consume(&mut queue, settling(2));
        let mut given = dispatch(&mut queue, 0);
        queue.tick(10);
        given.extend(dispatch(&mut queue, 10));
        given.sort_unstable();
        assert_eq!(given, [(2, "high"), (2, "low")], "after {delay}");
    }
}

#[test]
fn a_higher_one_of_a_key_waits_for_no_other_levels_when_a_lower_one_has_come_back() {
    for outcome in [Some(Settlement::Undo), Some(Settlement::Release { delay: 0 }), None] {
        let mut queue = queue(Limits { keyed: true, max_priority: 2, ..Limits::default() });
        consume(&mut queue, windowed(1, 1).0);
        keyed(&mut queue, &[("low", 1)]);
        assert_eq!(dispatch(&mut queue, 0), [(1, "low")]);
        consume(&mut queue, windowed(2, 1).0);
        queue.push(0, Offer { key: 1, priority: 2, ..offer("high") }, &mut Vec::new());
        assert_eq!(dispatch(&mut queue, 0), []);
        queue.push(0, Offer { priority: 1, ..offer("middle") }, &mut Vec::new());
        if let Some(outcome) = &outcome {
            queue.settle(0, 1, 1, 1, outcome);
        } else {
            queue.release_lane(0, 1);
        }
        assert_eq!(dispatch(&mut queue, 0), [(2, "high")], "after {outcome:?}");
    }
}

#[test]
fn a_key_moves_when_its_consumer_goes_and_its_order_stays() {
    let mut queue = queue(Limits { keyed: true, ..Limits::default() });
    let (one, _) = windowed(1, 2);
    consume(&mut queue, one);
    keyed(&mut queue, &[("a1", 1), ("a2", 1), ("a3", 1)]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a1"), (1, "a2")]);
    let (two, credit) = windowed(2, 1);
    consume(&mut queue, two);
    assert_eq!(dispatch(&mut queue, 0), []);
    queue.release_lane(0, 1);
    assert_eq!(dispatch(&mut queue, 0), [(2, "a1")]);
    for (tag, next) in [(1, "a2"), (2, "a3")] {
        accept(&mut queue, 2, tag, 1);
        credit.grant(1);
        queue.resume(2);
        assert_eq!(dispatch(&mut queue, 0), [(2, next)]);
    }
}

#[test]
fn no_later_message_of_a_key_is_given_before_one_that_waits_for_its_retry() {
    let retry = Some(linkspan_contract::Retry { delay: 100, factor: 100, max: 100 });
    let mut queue = queue(Limits { keyed: true, retry, ..Limits::default() });
    let (one, credit) = windowed(1, 1);
    consume(&mut queue, one);
    keyed(&mut queue, &[("a1", 1), ("a2", 1), ("b1", 2)]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a1")]);
    queue.settle(0, 1, 1, 1, &Settlement::Release { delay: 0 });
    credit.grant(5);
    queue.resume(1);
    assert_eq!(dispatch(&mut queue, 0), [(1, "b1")]);
    assert_eq!(queue.tick(100), None);
    assert_eq!(dispatch(&mut queue, 100), [(1, "a1"), (1, "a2")]);
}

#[test]
fn a_key_is_free_when_what_waited_for_its_retry_was_purged() {
    let retry = Some(linkspan_contract::Retry { delay: 100, factor: 100, max: 100 });
    let mut queue = queue(Limits { keyed: true, retry, ..Limits::default() });
    consume(&mut queue, settling(1));
    keyed(&mut queue, &[("a1", 1), ("b1", 2), ("a2", 1)]);
    assert_eq!(dispatch(&mut queue, 0).len(), 3);
    queue.settle(0, 1, 1, 1, &Settlement::Release { delay: 0 });
    queue.settle(0, 1, 3, 1, &Settlement::Release { delay: 0 });
    assert_eq!(queue.purge(), 2);
    keyed(&mut queue, &[("a3", 1), ("b2", 2)]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a3"), (1, "b2")]);
    accept(&mut queue, 1, 2, 4);
    assert_eq!(queue.keys.as_ref().unwrap().count(), 0);
}

#[test]
fn who_settles_is_told_that_others_of_the_key_had_waited() {
    let mut queue = queue(Limits { keyed: true, ..Limits::default() });
    consume(&mut queue, settling(1));
    keyed(&mut queue, &[("a1", 1), ("b1", 2)]);
    assert_eq!(dispatch(&mut queue, 0).len(), 2);
    queue.remove_consumer(0, 1);
    consume(&mut queue, settling(2));
    keyed(&mut queue, &[("a2", 1)]);
    assert_eq!(dispatch(&mut queue, 0), []);
    accept(&mut queue, 1, 2, 1);
    assert!(!queue.take_freed(), "nothing waited for it");
    accept(&mut queue, 1, 1, 1);
    assert!(queue.take_freed());
    assert!(!queue.take_freed(), "it was told");
    assert_eq!(dispatch(&mut queue, 0), [(2, "a2")]);
}

#[test]
fn what_is_fetched_keeps_others_of_its_key() {
    let mut queue = queue(Limits { keyed: true, ..Limits::default() });
    keyed(&mut queue, &[("a1", 1), ("a2", 1), ("b1", 2)]);
    let fetch = |queue: &mut Texts, key| queue.fetch(0, key, key, false).map(|got| got.message.body);
    assert_eq!(fetch(&mut queue, 7), Some("a1"));
    assert_eq!(fetch(&mut queue, 8), Some("b1"));
    assert_eq!(fetch(&mut queue, 8), None);
    assert_eq!(fetch(&mut queue, 7), None, "it was passed over, and comes when the first is settled");
    accept(&mut queue, 7, 1, 1);
    assert_eq!(fetch(&mut queue, 8), Some("a2"));
}

#[test]
fn what_a_fetch_passes_over_goes_to_who_can_take_it() {
    let mut queue = queue(Limits { keyed: true, ..Limits::default() });
    consume(&mut queue, settling(1));
    keyed(&mut queue, &[("a1", 1), ("a2", 1)]);
    assert_eq!(dispatch(&mut queue, 0).len(), 2);
    queue.settle(0, 1, 1, 1, &Settlement::Undo);
    assert_eq!(queue.fetch(0, 7, 7, false), None, "it is for who has the other one");
    assert_eq!(dispatch(&mut queue, 0), [(1, "a1")]);
}

#[test]
fn what_a_fetch_passes_over_is_not_brought_in_again_for_it() {
    let window = Some(crate::Window { messages: 1, bytes: 1 << 20 });
    let mut queue = Queue::with_journal(0, Limits { keyed: true, window, ..Limits::default() }, Keeps);
    let (two, _) = windowed(2, 1);
    for consumer in [settling(1), two] {
        let id = consumer.id;
        queue.add_consumer(consumer).unwrap();
        queue.set_paused(id, false);
    }
    let mut all = Vec::new();
    for (body, key) in [("a1", 1), ("b1", 2), ("b2", 2)] {
        queue.push(0, Offer { key, ..offer(body) }, &mut Vec::new());
        queue.dispatch(0, &mut all);
    }
    let all: Vec<_> = all.iter().map(|got| (got.consumer, got.message.body)).collect();
    assert_eq!(all, [(1, "a1"), (2, "b1")], "the window is full with what waits for others of its key");
    queue.push(0, Offer { key: 1, ..offer("a2") }, &mut Vec::new());
    assert_eq!(queue.fetch(0, 8, 8, false), None, "it is for who has the other one");
    assert_eq!(queue.due(), None, "a journal has nothing to bring in: who asks again would find the same");
    let mut got = Vec::new();
    queue.dispatch(0, &mut got);
    assert_eq!((got[0].consumer, got[0].message.body), (1, "a2"));
}

#[test]
fn what_waits_for_others_of_its_key_expires() {
    let mut queue = queue(Limits { keyed: true, message_ttl: Some(50), ..Limits::default() });
    let (one, _) = windowed(1, 1);
    consume(&mut queue, one);
    keyed(&mut queue, &[("a1", 1), ("a2", 1)]);
    assert_eq!(dispatch(&mut queue, 0), [(1, "a1")]);
    consume(&mut queue, settling(2));
    assert_eq!(dispatch(&mut queue, 0), []);
    assert_eq!(queue.next_tick(), Some(50));
    queue.tick(50);
    assert_eq!(dead(&mut queue), [("a2", "expired")]);
    assert_eq!(queue.len(), 0);
}

#[test]
fn lower_levels_have_their_share() {
    let mut queue = queue(Limits { max_priority: 1, weighted: true, ..Limits::default() });
    for at in 0..60 {
        queue.push(
            0,
            Offer { priority: at % 2, ..offer(["low", "high"][usize::from(at % 2)]) },
            &mut Vec::new(),
        );
    }
    let (one, credit) = windowed(1, 6);
    consume(&mut queue, one);
    let count = |got: &[(u64, &str)]| got.iter().filter(|(_, body)| *body == "high").count();
    let got = dispatch(&mut queue, 0);
    assert_eq!((got.len(), count(&got)), (6, 4), "two of three are of the higher level");
    queue.settle(0, 1, 1, 6, &Settlement::Release { delay: 0 });
    credit.grant(6);
    queue.resume(1);
    let got = dispatch(&mut queue, 0);
    assert_eq!(count(&got), 4, "what came back keeps its level");
    accept(&mut queue, 1, 7, 6);
    credit.grant(54);
    queue.resume(1);
    let got = dispatch(&mut queue, 0);
    assert_eq!((got.len(), count(&got)), (54, 26));
    assert!(got[39..].iter().all(|(_, body)| *body == "low"), "a level alone has all turns: {got:?}");
}

#[test]
fn what_is_held_back_is_ready_when_its_time_has_come_and_expires_from_then_on() {
    let mut queue = queue(Limits { max_length: Some(1), ..Limits::default() });
    let late = |body, delay| Offer { delay, expiry: Some(50), ..offer(body) };
    let out = &mut Vec::new();
    assert_eq!(queue.push(0, late("a", 100), out), Pushed::Queued);
    assert_eq!(queue.push(0, late("b", 20), out), Pushed::Queued);
    assert_eq!((queue.len(), queue.delayed(), queue.next_tick()), (0, 2, Some(20)));
    consume(&mut queue, settling(1));
    assert_eq!(dispatch(&mut queue, 19), []);
    queue.tick(20);
    assert_eq!(dispatch(&mut queue, 20), [(1, "b")]);
    queue.remove_consumer(20, 1);
    queue.tick(100);
    assert_eq!(queue.len(), 1);
    queue.tick(150);
    assert_eq!(dead(&mut queue), [("a", "expired")]);
}

#[test]
fn what_was_given_out_for_the_last_time_before_a_restart_is_dead() {
    let mut queue = queue(Limits { delivery_limit: Some(1), ..Limits::default() });
    queue.leave_outside(0, 0, 2, 20, 2);
    for (position, body, attempts) in [(0, "a", 2), (1, "b", 1)] {
        let message = Queued { position, attempts, ..queued(body) };
        queue.bring(0, message, 0);
    }
    assert_eq!(dead(&mut queue), [("a", "delivery_limit")]);
    assert_eq!(queue.len(), 1);
}

#[test]
fn what_has_come_back_too_often_for_a_limit_is_dead_when_that_is_set() {
    for keyed in [false, true] {
        let mut queue = queue(Limits { max_priority: 1, keyed, ..Limits::default() });
        queue.leave_outside(0, 0, 5, 50, 5);
        let all = [("a", 2, 0), ("b", 1, 0), ("c", 3, 100), ("d", 1, 100), ("e", 0, 0)];
        for (position, (body, attempts, not_before)) in (0..).zip(all) {
            queue.bring(0, Queued { position, attempts, key: 7, ..queued(body) }, not_before);
        }
        queue.restore(0, Queued { position: 5, attempts: 2, priority: 1, ..queued("f") }, 0);
        assert_eq!((queue.len(), queue.delayed(), dead(&mut queue)), (4, 2, vec![]));
        let limits = Limits { delivery_limit: Some(1), ..queue.limits().clone() };
        queue.set_limits(limits);
        let too_often = "delivery_limit";
        assert_eq!(dead(&mut queue), [("f", too_often), ("a", too_often), ("c", too_often)]);
        assert_eq!((queue.len(), queue.bytes(), queue.delayed()), (2, 20, 1));
        consume(&mut queue, settling(1));
        queue.tick(100);
        assert_eq!(dispatch(&mut queue, 100), [(1, "b"), (1, "d"), (1, "e")], "keyed: {keyed}");
    }
}

fn queued(body: &'static str) -> Queued<&'static str> {
    let mut queue = queue(Limits::default());
    push(&mut queue, &[body]);
    queue.fetch(0, 1, 1, true).unwrap().message
}
