//! Several clients at a time.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use linkspan_contract::topology::BindingEnd;
use linkspan_contract::{ExchangeKind, Refused, SystemClock, Value, What};
use tokio::task::JoinSet;

use super::disk::Disk;
use super::life::{CLIENT, Life, binding, exchange, poll, queue};
use crate::house::House;
use crate::options::EmbeddedOptions;
use crate::vhost::Vhost;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_declarations_of_one_queue_one_makes_it() {
    let directory = tempfile::tempdir().unwrap();
    let life = Life::at(directory.path());
    for round in 0..20 {
        let name = format!("q{round}");
        let mut lanes = JoinSet::new();
        for lane in 0..8 {
            let (vhost, name) = (Arc::clone(&life.vhost), name.clone());
            lanes.spawn(async move {
                // Half of them want it otherwise.
                let arguments = [("x-max-length", Value::I32(lane % 2))];
                vhost.declare_queue(&queue(&name, &arguments), CLIENT).await.map(|(_, made)| made.is_some())
            });
        }
        let all = lanes.join_all().await;
        let made = all.iter().filter(|made| **made == Ok(true)).count();
        let found = all.iter().filter(|made| **made == Ok(false)).count();
        let refused = all.iter().filter(|made| matches!(made, Err(Refused::Inequivalent { .. }))).count();
        assert_eq!((made, found, refused), (1, 3, 4), "{all:?}");
    }
    let (rows, numbers) =
        (life.rows(), (0..20).map(|round| life.number(&format!("q{round}"))).collect::<Vec<_>>());
    drop(life);
    let life = Life::at(directory.path());
    assert_eq!(life.rows(), rows);
    assert_eq!((0..20).map(|round| life.number(&format!("q{round}"))).collect::<Vec<_>>(), numbers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_many_do_at_a_time_what_is_seen_is_what_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut life = Life::at(directory.path());
    for round in 0..10_u64 {
        let mut lanes = JoinSet::new();
        for lane in 0..8_u64 {
            let vhost = Arc::clone(&life.vhost);
            lanes.spawn(async move {
                for turn in 0..20_u64 {
                    let dice = ((round * 31 + lane * 17 + turn * 7) * 2_654_435_761) >> 7;
                    let q = ["a", "b"][(dice % 2) as usize];
                    let x = ["x", "y"][(dice / 2 % 2) as usize];
                    let to = BindingEnd::Queue(q);
                    // Some of it is refused, as others are in between.
                    let _ = match dice / 4 % 8 {
                        0 | 1 => vhost.declare_queue(&queue(q, &[]), CLIENT).await.map(drop),
                        2 => vhost.delete_queue(q, false, false, CLIENT).await.map(drop),
                        3 => {
                            let mut spec = exchange(x, ExchangeKind::Direct);
                            spec.durable = dice / 32 % 4 > 0;
                            spec.auto_delete = true;
                            vhost.declare_exchange(&spec).await
                        }
                        4 => vhost.delete_exchange(x, false).await,
                        5 | 6 => vhost.bind(&binding(x, to, "k"), CLIENT).await,
                        _ => vhost.unbind(&binding(x, to, "k"), CLIENT).await,
                    };
                }
            });
        }
        lanes.join_all().await;
        life.settled().await.unwrap();
        let rows = life.rows();
        drop(life);
        life = Life::at(directory.path());
        assert!(life.whole, "nothing leads nowhere");
        assert_eq!(life.known, rows, "round {round}");
    }
}

#[tokio::test]
async fn nothing_is_seen_before_it_is_durable() {
    let disk = Disk::default();
    let life = Life::on(disk.clone()).unwrap();
    life.queue("there", &[]).await.unwrap();
    disk.hold(true);
    {
        let mut declaring = pin!(life.queue("q", &[]));
        let mut making = pin!(life.exchange("x", ExchangeKind::Fanout));
        let mut binding = pin!(life.bind("amq.fanout", BindingEnd::Queue("there"), ""));
        assert!(poll(declaring.as_mut()).is_pending());
        assert!(poll(making.as_mut()).is_pending());
        assert!(poll(binding.as_mut()).is_pending());
        assert!(!life.sees_queue("q"));
        assert!(life.vhost.look().exchange("x").is_none());
        assert!(!life.vhost.look().exchange("amq.fanout").unwrap().is_used());
        let unseen = life.bind("amq.fanout", BindingEnd::Queue("q"), "").await.unwrap_err();
        assert_eq!(unseen, Refused::NotFound { what: What::Queue, name: "q".into() });
        disk.hold(false);
        declaring.await.unwrap();
        making.await.unwrap();
        binding.await.unwrap();
    }
    assert!(life.sees_queue("q"));
    assert!(life.vhost.look().exchange("x").is_some());
    assert!(life.vhost.look().exchange("amq.fanout").unwrap().is_used());
}

#[tokio::test]
async fn a_client_that_goes_while_it_declares_leaves_what_is_kept_in_sight() {
    let disk = Disk::default();
    let life = Life::on(disk.clone()).unwrap();
    disk.hold(true);
    {
        let mut declaring = Box::pin(life.queue("q", &[]));
        assert!(poll(declaring.as_mut()).is_pending());
        drop(declaring);
    }
    disk.hold(false);
    life.settled().await.unwrap();
    assert!(life.sees_queue("q"));
    assert!(life.queue("q", &[]).await.unwrap().1.is_none(), "its name is free to be asked for");
    let rows = life.rows();
    drop(life);
    assert_eq!(Life::on(disk.after_power_loss(|| false)).unwrap().known, rows);
}

#[tokio::test]
async fn a_binding_whose_end_goes_while_it_is_written_is_refused_and_not_kept() {
    let disk = Disk::default();
    let life = Life::on(disk.clone()).unwrap();
    life.queue("q", &[]).await.unwrap();
    life.exchange("x", ExchangeKind::Fanout).await.unwrap();
    disk.hold(true);
    let (to_q, from_x) = {
        let q = BindingEnd::Queue("q");
        let x = BindingEnd::Exchange("x");
        let mut to_q = pin!(life.bind("amq.fanout", q, ""));
        let mut from_x = pin!(life.bind("amq.fanout", x, ""));
        let mut deleting = pin!(life.vhost.delete_queue("q", false, false, CLIENT));
        let mut leaving = pin!(life.vhost.delete_exchange("x", false));
        let mut anew = pin!(life.queue("q", &[]));
        assert!(poll(to_q.as_mut()).is_pending() && poll(from_x.as_mut()).is_pending());
        assert!(poll(deleting.as_mut()).is_pending() && poll(leaving.as_mut()).is_pending());
        assert!(poll(anew.as_mut()).is_pending(), "another queue of that name");
        disk.hold(false);
        let refused = (to_q.await.unwrap_err(), from_x.await.unwrap_err());
        deleting.await.unwrap();
        leaving.await.unwrap();
        anew.await.unwrap();
        refused
    };
    assert_eq!(to_q, Refused::NotFound { what: What::Queue, name: "q".into() });
    assert_eq!(from_x, Refused::NotFound { what: What::Exchange, name: "x".into() });
    let rows = life.rows();
    assert_eq!(rows.len(), 1, "the queue alone: {rows:?}");
    drop(life);
    assert_eq!(Life::on(disk.after_power_loss(|| false)).unwrap().known, rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_declare_at_a_time_share_a_sync() {
    let disk = Disk::default();
    let life = Life::on(disk.clone()).unwrap();
    life.queue("first", &[]).await.unwrap();
    disk.hold(true);
    let names: Vec<String> = (0..50).map(|number| format!("q{number}")).collect();
    let mut lanes: Vec<_> = names.iter().map(|name| Box::pin(life.queue(name, &[]))).collect();
    // Whose turns fall together with another's wait for these.
    let waiting = lanes.iter_mut().map(|lane| poll(lane.as_mut())).filter(Poll::is_pending).count();
    assert_eq!(waiting, 50);
    let before = disk.syncs();
    disk.hold(false);
    for lane in lanes {
        lane.await.unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!(syncs < 25, "{syncs} syncs for 50 queues");
}

#[tokio::test]
async fn what_is_not_kept_never_touches_the_file_and_waits_for_nobody() {
    let disk = Disk::default();
    let kept = Life::on(disk.clone()).unwrap();
    let calls = disk.calls();
    let house = Arc::new(House::new("local", EmbeddedOptions::default(), Arc::new(SystemClock), None));
    let in_memory = Arc::new(Vhost::new("/".into(), house, None));
    for (vhost, durable) in [(&kept.vhost, false), (&in_memory, true), (&in_memory, false)] {
        let mut x = exchange("x", ExchangeKind::Fanout);
        x.durable = durable;
        let mut q = queue("q", &[]);
        q.durable = durable;
        let mut own = queue("own", &[]);
        own.exclusive = true;
        let end = BindingEnd::Queue("q");
        let at_once = async {
            vhost.declare_exchange(&x).await.unwrap();
            vhost.declare_queue(&q, CLIENT).await.unwrap();
            vhost.declare_queue(&own, CLIENT).await.unwrap();
            vhost.bind(&binding("x", end, "k"), CLIENT).await.unwrap();
            vhost.unbind(&binding("x", end, "k"), CLIENT).await.unwrap();
            vhost.delete_queue("q", false, false, CLIENT).await.unwrap();
            vhost.delete_queue("own", false, false, CLIENT).await.unwrap();
            vhost.delete_exchange("x", false).await.unwrap();
        };
        assert!(poll(pin!(at_once)).is_ready(), "nothing is waited for");
    }
    kept.settled().await.unwrap();
    assert_eq!(disk.calls(), calls);
}
