//! The machine goes off, and the disk fails, at every single call.

use std::hash::{BuildHasher, Hasher};
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;

use foldhash::fast::FixedState;
use linkspan_contract::topology::BindingEnd;
use linkspan_contract::{ExchangeKind, Refused};

use super::disk::Disk;
use super::life::{CLIENT, Life, Rows, STEPS, poll};

/// What is kept before each step and after the last, and how many calls that takes.
async fn states() -> (Vec<Rows>, u64) {
    let disk = Disk::default();
    let life = Life::on(disk.clone()).unwrap();
    let mut states = vec![life.rows()];
    for step in 0..STEPS {
        life.step(step).await.unwrap();
        states.push(life.rows());
    }
    drop(life);
    (states, disk.calls())
}

/// Yes and no by chance, the same for the same seed.
fn chance(seed: u64) -> impl FnMut() -> bool {
    let mut turn = 0_u64;
    move || {
        turn += 1;
        let mut hasher = FixedState::with_seed(seed).build_hasher();
        hasher.write_u64(turn);
        hasher.finish() & 1 == 1
    }
}

#[tokio::test]
async fn wherever_the_machine_goes_off_what_was_told_is_there_and_what_is_there_was_asked_for() {
    let (states, calls) = states().await;
    assert!(calls > 100, "{calls} calls change the disk");
    for call in 1..=calls {
        let disk = Disk::default();
        disk.off_at(call);
        let mut told = 0;
        let mut highest = 0;
        if let Ok(life) = Life::on(disk.clone()) {
            while told < STEPS && life.step(told).await.is_ok() {
                told += 1;
                highest = highest.max(life.number("q").unwrap_or(0));
            }
        }
        // All that was written, nothing that was not synced, and something in between.
        for seed in 0..4 {
            let mut by_chance = chance(call * 10 + seed);
            let left = disk.after_power_loss(|| match seed {
                0 => true,
                1 => false,
                _ => by_chance(),
            });
            let life = Life::on(left).unwrap_or_else(|error| panic!("call {call}, seed {seed}: {error}"));
            let next = states.get(told + 1);
            assert!(
                life.known == states[told] || Some(&life.known) == next,
                "call {call}, seed {seed}, after step {told} was told: {:#?}\nis neither {:#?}\nnor {next:#?}",
                life.known,
                states[told]
            );
            assert!(life.whole);
            assert_eq!(life.rows(), life.known, "call {call}, seed {seed}: what is kept is seen");
            let number = life.register.number();
            assert!(number > highest, "call {call}, seed {seed}: {number} was given, up to {highest}");
        }
    }
}

#[tokio::test]
async fn a_step_that_the_disk_refuses_is_told_so_and_can_be_done_again() {
    let (states, calls) = states().await;
    let mut refused_of_all = 0;
    for call in 1..=calls {
        let kind = if call % 2 == 0 { ErrorKind::StorageFull } else { ErrorKind::Other };
        let disk = Disk::default();
        disk.fail_at(call, kind, false);
        // There is nothing to serve at the very first start.
        let Ok(life) = Life::on(disk.clone()) else { continue };
        let mut refusals = 0;
        for step in 0..STEPS {
            if let Err(refused) = life.step(step).await {
                refusals += 1;
                refused_of_all += 1;
                assert!(matches!(refused, Refused::Full(_)), "{kind}, call {call}, step {step}: {refused}");
                assert!(refused.may_retry());
                let goes = matches!(step, 9..=12 | 15);
                let seen = &states[if goes { step + 1 } else { step }];
                assert_eq!(life.rows(), *seen, "{kind}, call {call}, step {step}: what is seen");
                let left = Life::on(disk.after_power_loss(chance(call))).unwrap().known;
                assert!(
                    left == states[step] || left == states[step + 1],
                    "{kind}, call {call}, step {step}: what is left"
                );
                life.step(step).await.unwrap();
            }
            assert_eq!(life.rows(), states[step + 1], "{kind}, call {call}: after step {step}");
            if refusals > 0 {
                let left = Life::on(disk.after_power_loss(|| false)).unwrap();
                assert_eq!(
                    left.known,
                    states[step + 1],
                    "{kind}, call {call}: what is safe after step {step}"
                );
            }
        }
        drop(life);
        let life = Life::on(disk.after_power_loss(|| false)).unwrap();
        assert_eq!(life.known, states[STEPS], "{kind}, call {call}: what is safe at the end");
    }
    assert!(refused_of_all > calls / 2, "{refused_of_all} refusals at {calls} calls");
}

#[tokio::test]
async fn what_was_refused_is_not_kept_whatever_was_written_of_it() {
    // The steps that declare.
    for step in [0, 1, 2, 3, 4, 7] {
        for later in 1.. {
            let disk = Disk::default();
            let life = Life::on(disk.clone()).unwrap();
            for earlier in 0..step {
                life.step(earlier).await.unwrap();
            }
            disk.fail_at(disk.calls() + later, ErrorKind::Other, false);
            if life.step(step).await.is_ok() {
                assert!(later > 3, "a transaction is more than {later} calls");
                break;
            }
            // Another goes on with what the failure left.
            life.queue("other", &[]).await.unwrap();
            let rows = life.rows();
            assert!(rows.len() <= step + 1, "step {step}, call {later}: it is not seen");
            drop(life);
            let life = Life::on(disk.after_power_loss(|| false)).unwrap();
            assert_eq!(life.known, rows, "step {step}, call {later}");
        }
    }
}

#[tokio::test]
async fn a_binding_that_is_kept_stays_when_the_same_asked_for_once_more_fails() {
    let mut failed = 0;
    for later in 1..20 {
        let disk = Disk::default();
        let life = Life::on(disk.clone()).unwrap();
        life.queue("q", &[]).await.unwrap();
        disk.hold(true);
        let bind = || life.bind("amq.topic", BindingEnd::Queue("q"), "k");
        let (mut one, mut other) = (pin!(bind()), pin!(bind()));
        assert!(poll(one.as_mut()).is_pending());
        while !disk.holds() {
            tokio::task::yield_now().await;
        }
        assert!(poll(other.as_mut()).is_pending(), "nobody sees the binding yet");
        disk.fail_at(disk.calls() + later, ErrorKind::Other, false);
        disk.hold(false);
        let told = (one.await.is_ok(), other.await.is_ok());
        failed += u32::from(told == (true, false));
        disk.mend();
        life.queue("later", &[]).await.unwrap();
        let rows = life.rows();
        assert_eq!(rows.iter().any(|row| row.starts_with("Binding")), told.0 || told.1, "call {later}");
        let left = Life::on(disk.after_power_loss(|| false)).unwrap();
        assert_eq!(left.known, rows, "call {later}");
    }
    assert!(failed > 2, "the second alone failed {failed} times");
}

#[tokio::test]
async fn while_the_disk_is_full_nothing_durable_is_declared_and_what_goes_stays_away() {
    let disk = Disk::default();
    let life = Life::on(disk.clone()).unwrap();
    life.queue("q", &[]).await.unwrap();
    life.queue("w", &[]).await.unwrap();
    life.bind("amq.topic", BindingEnd::Queue("w"), "k").await.unwrap();
    let w = life.rows();
    disk.fail_at(disk.calls() + 1, ErrorKind::StorageFull, true);
    let refused = life.queue("new", &[]).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.starts_with("what is declared cannot be written to disk/topology.redb: "), "{text}");
    assert!(text.ends_with("it can be as soon as that is over"), "{text}");
    assert!(!life.sees_queue("new"));
    assert!(life.exchange("x", ExchangeKind::Fanout).await.is_err());
    assert!(life.bind("amq.topic", BindingEnd::Queue("w"), "l").await.is_err());
    assert_eq!(life.rows(), w);
    assert!(life.vhost.delete_queue("q", false, false, CLIENT).await.is_err(), "it may come back");
    assert!(!life.sees_queue("q"), "but it is gone here");
    assert!(life.queue("w", &[]).await.is_ok(), "what is there can be declared again");
    let mut transient = super::life::queue("transient", &[]);
    transient.durable = false;
    assert!(life.vhost.declare_queue(&transient, CLIENT).await.is_ok(), "the disk does not matter to it");

    disk.mend();
    life.queue("new", &[]).await.unwrap();
    let rows = life.rows();
    drop(life);
    let life = Life::on(disk.after_power_loss(|| false)).unwrap();
    assert_eq!(life.known, rows);
    assert!(!life.sees_queue("q") && life.sees_queue("w") && life.sees_queue("new"));
}

#[tokio::test]
async fn what_goes_by_itself_while_the_disk_is_full_goes_for_good_when_it_is_not_any_more() {
    let disk = Disk::default();
    let life = Life::on(disk.clone()).unwrap();
    for step in 0..9 {
        life.step(step).await.unwrap();
    }
    disk.fail_at(disk.calls() + 1, ErrorKind::StorageFull, true);
    let w = life.vhost.look().queue("w").cloned().unwrap();
    life.vhost.leave(&w);
    assert!(life.settled().await.is_err());
    disk.mend();
    // Nobody asks for anything: the end alone writes it.
    let rows = life.rows();
    drop((life, w));
    assert_eq!(Life::on(disk.after_power_loss(|| false)).unwrap().known, rows);
}

#[tokio::test]
async fn a_server_starts_on_a_full_disk_with_what_was_declared() {
    let disk = Disk::default();
    Life::on(disk.clone()).unwrap().queue("q", &[]).await.unwrap();
    let disk = disk.after_power_loss(|| false);
    disk.fail_at(1, ErrorKind::StorageFull, true);
    let life = Life::on(disk.clone()).unwrap();
    assert!(life.sees_queue("q"));
    assert!(life.queue("new", &[]).await.is_err());
    disk.mend();
    life.queue("new", &[]).await.unwrap();
    drop(life);
    let life = Life::on(disk.after_power_loss(|| false)).unwrap();
    assert!(life.sees_queue("q") && life.sees_queue("new"));
}

#[tokio::test]
async fn a_register_that_was_closed_refuses() {
    let life = Life::on(Disk::default()).unwrap();
    life.queue("q", &[]).await.unwrap();
    life.register.close();
    let refused = life.queue("new", &[]).await.unwrap_err();
    assert_eq!(refused, Refused::Full("the back end is being closed".into()));
    assert!(life.vhost.delete_queue("q", false, false, CLIENT).await.is_err(), "it comes back");
    drop(Arc::clone(&life.register));
}
