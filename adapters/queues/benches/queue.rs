//! What a message costs on its way through a queue; bodies are handles as small as the embedded back end's.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use linkspan_contract::{Credit, Settle, Settlement};
use linkspan_queues::{Assignment, Consumer, Limits, Offer, Queue};

type Body = (Arc<str>, u32);

const BATCH: u32 = 100;

fn offer(body: &Body) -> Offer<Body> {
    Offer {
        body: body.clone(),
        size: 16,
        priority: 0,
        expiry: None,
        key: 0,
        delay: 0,
        durable: true,
        apart: false,
    }
}

/// A queue with `consumers` of `settle`, each with a window of 200 where it settles.
fn queue(consumers: u64, settle: Settle) -> (Queue<Body>, Arc<Credit>) {
    let mut queue = Queue::new(0, Limits::default());
    let credit = Arc::new(Credit::new(200));
    for id in 0..consumers {
        let mut consumer = Consumer::new(id, id, settle);
        consumer.credit = (settle == Settle::ByConsumer).then(|| Arc::clone(&credit));
        if queue.add_consumer(consumer).is_ok() {
            queue.set_paused(id, false);
        }
    }
    (queue, credit)
}

/// Pushes a batch, gives it out and settles it in runs of `run`.
fn round(queue: &mut Queue<Body>, credit: &Credit, body: &Body, out: &mut Vec<Assignment<Body>>, run: u32) {
    for _ in 0..BATCH {
        black_box(queue.push(1, offer(body), out));
    }
    queue.dispatch(1, out);
    assert_eq!(out.len(), BATCH as usize);
    for assignment in out.iter().step_by(run as usize).filter(|assignment| !assignment.settled) {
        let tally = queue.settle(1, assignment.consumer, assignment.tag, run, &Settlement::Accept);
        credit.grant(tally.known);
    }
    out.clear();
}

fn through(c: &mut Criterion) {
    let mut group = c.benchmark_group("push, dispatch, settle");
    group.throughput(Throughput::Elements(BATCH.into()));
    let body: Body = ("body".into(), 0);
    let mut out = Vec::new();
    for (name, consumers, settle, run) in [
        ("one consumer, one run", 1, Settle::ByConsumer, BATCH),
        ("one consumer, runs of one", 1, Settle::ByConsumer, 1),
        ("four consumers, runs of one", 4, Settle::ByConsumer, 1),
        ("one consumer, nobody settles", 1, Settle::OnDelivery, 1),
    ] {
        let (mut queue, credit) = queue(consumers, settle);
        group.bench_function(name, |b| b.iter(|| round(&mut queue, &credit, &body, &mut out, run)));
    }
    group.finish();
}

fn backlog(c: &mut Criterion) {
    let mut group = c.benchmark_group("backlog of a million");
    group.throughput(Throughput::Elements(BATCH.into()));
    let body: Body = ("body".into(), 0);
    let mut out = Vec::new();
    let (mut queue, credit) = queue(1, Settle::ByConsumer);
    for _ in 0..1_000_000 {
        queue.push(0, offer(&body), &mut out);
    }
    group.bench_function("one consumer, window of 200", |b| {
        b.iter(|| {
            for _ in 0..BATCH {
                queue.push(1, offer(&body), &mut out);
            }
            queue.resume(0);
            queue.dispatch(1, &mut out);
            for assignment in &out {
                let tally = queue.settle(1, assignment.consumer, assignment.tag, 1, &Settlement::Accept);
                credit.grant(tally.known);
            }
            out.clear();
        });
    });
    group.finish();
}

criterion_group!(benches, through, backlog);
criterion_main!(benches);
