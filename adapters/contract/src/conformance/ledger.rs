//! What every ledger has to do, as tests: whoever implements one calls
//! [`ledger_conformance!`](crate::ledger_conformance!).
//!
//! Names are unique to a check, so that a server that outlives it can be used again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::lease::NotGranted;
use crate::ledger::{Conditions, Expected, LARGEST_VALUE, LONGEST_KEY, Ledger, LedgerError};

/// What a ledger lends the suite.
#[async_trait]
pub trait LedgerFixture: Send + Sync {
    /// The ledger as the instance of that name sees it.
    async fn ledger(&self, instance: &str) -> Arc<dyn Ledger>;

    /// Lets so much time pass, for the ledger too.
    async fn pass(&self, time: Duration);
}

/// Makes a test of each check: `ledger_conformance!(#[tokio::test] fixture().await)`.
#[macro_export]
macro_rules! ledger_conformance {
    (#[$test:meta] $fixture:expr) => {
        $crate::ledger_conformance! { @each #[$test] $fixture;
            a_value_is_there_until_it_is_deleted
            versions_only_grow
            one_of_many_makes_a_key
            no_increment_is_lost
            a_write_over_another_version_is_refused
            a_value_expires
            a_value_lasts_as_its_last_write_says
            keys_are_scanned_by_prefix_in_order_and_in_pages
            what_does_not_fit_is_refused
            a_lease_has_one_holder_and_keeps_its_number
            a_lease_that_ran_out_goes_to_another_under_a_greater_number
            a_lease_that_was_given_back_is_free_at_once
            a_holder_that_comes_late_takes_nothing_from_its_successor
            one_of_many_gets_a_lease
            what_an_old_number_guards_is_refused
            a_number_that_was_advanced_makes_the_one_before_old
        }
    };
    (@each #[$test:meta] $fixture:expr; $($check:ident)*) => {
        $(
            #[$test]
            async fn $check() {
                $crate::conformance::ledger::$check(&$fixture).await;
            }
        )*
    };
}

const NOTHING: Conditions<'static> = Conditions { expected: Expected::Nothing, guard: None, lasts: None };

fn over(version: u64) -> Conditions<'static> {
    Conditions { expected: Expected::Version(version), ..Conditions::default() }
}

fn lasting(lasts: Duration) -> Conditions<'static> {
    Conditions { lasts: Some(lasts), ..Conditions::default() }
}

/// A value is there until it is deleted.
pub async fn a_value_is_there_until_it_is_deleted(fixture: &impl LedgerFixture) {
    let (one, two) = (fixture.ledger("one").await, fixture.ledger("two").await);
    assert_eq!(one.get("there/a").await, Ok(None));
    let version = one.put("there/a", b"first \0\xff", Conditions::default()).await.unwrap();
    let entry = two.get("there/a").await.unwrap().expect("the other instance sees it");
    assert_eq!((&entry.value[..], entry.version), (&b"first \0\xff"[..], version));
    assert_eq!(two.delete("there/a", Conditions::default()).await, Ok(true));
    assert_eq!(one.get("there/a").await, Ok(None));
    assert_eq!(one.delete("there/a", Conditions::default()).await, Ok(false), "it is gone already");
}

/// Versions only grow.
pub async fn versions_only_grow(fixture: &impl LedgerFixture) {
    let ledger = fixture.ledger("one").await;
    let first = ledger.put("grow/a", b"1", Conditions::default()).await.unwrap();
    let second = ledger.put("grow/a", b"2", Conditions::default()).await.unwrap();
    ledger.delete("grow/a", Conditions::default()).await.unwrap();
    let third = ledger.put("grow/a", b"3", NOTHING).await.unwrap();
    assert!(first < second && second < third, "{first}, {second}, and after a deletion {third}");
    assert_eq!(
        ledger.put("grow/a", b"4", over(second)).await,
        Err(LedgerError::Stale { key: "grow/a".into() }),
        "a version from before the deletion is another value's"
    );
}

/// One of many makes a key.
pub async fn one_of_many_makes_a_key(fixture: &impl LedgerFixture) {
    let mut tasks = Vec::new();
    for n in 0..16 {
        let ledger = fixture.ledger(&format!("instance-{n}")).await;
        tasks.push(tokio::spawn(
            async move { ledger.put("made/a", format!("{n}").as_bytes(), NOTHING).await },
        ));
    }
    let mut made = Vec::new();
    for (n, task) in tasks.into_iter().enumerate() {
        match task.await.unwrap() {
            Ok(version) => made.push((n, version)),
            Err(error) => assert_eq!(error, LedgerError::Stale { key: "made/a".into() }),
        }
    }
    let [(n, version)] = made[..] else { panic!("one was to make it, not {made:?}") };
    let entry = fixture.ledger("one").await.get("made/a").await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.version), (n.to_string().as_bytes(), version));
}

/// No increment is lost when each is written over what was read.
pub async fn no_increment_is_lost(fixture: &impl LedgerFixture) {
    const EACH: u32 = 10;
    fixture.ledger("one").await.put("count/a", b"0", Conditions::default()).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..4 {
        let ledger = fixture.ledger(&format!("instance-{n}")).await;
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            while done < EACH {
                let entry = ledger.get("count/a").await.unwrap().unwrap();
                let count: u32 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                match ledger.put("count/a", (count + 1).to_string().as_bytes(), over(entry.version)).await {
                    Ok(_) => done += 1,
                    Err(error) => assert_eq!(error, LedgerError::Stale { key: "count/a".into() }),
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let entry = fixture.ledger("one").await.get("count/a").await.unwrap().unwrap();
    assert_eq!(&entry.value[..], (4 * EACH).to_string().as_bytes());
}

/// A write over another version is refused, and so is a deletion.
pub async fn a_write_over_another_version_is_refused(fixture: &impl LedgerFixture) {
    let ledger = fixture.ledger("one").await;
    let stale = || Err(LedgerError::Stale { key: "stale/a".into() });
    assert_eq!(ledger.put("stale/a", b"0", over(7)).await, stale(), "nothing is there");
    let first = ledger.put("stale/a", b"1", NOTHING).await.unwrap();
    assert_eq!(ledger.put("stale/a", b"2", NOTHING).await, stale());
    let second = ledger.put("stale/a", b"2", over(first)).await.unwrap();
    assert_eq!(ledger.put("stale/a", b"3", over(first)).await, stale());
    assert_eq!(ledger.delete("stale/a", over(first)).await.map(drop), stale().map(drop));
    assert_eq!(&ledger.get("stale/a").await.unwrap().unwrap().value[..], b"2");
    assert_eq!(ledger.delete("stale/a", over(second)).await, Ok(true));
    assert_eq!(ledger.delete("stale/a", over(second)).await.map(drop), stale().map(drop), "it is gone");
}

/// A value expires, and is then as if it had never been.
pub async fn a_value_expires(fixture: &impl LedgerFixture) {
    let ledger = fixture.ledger("one").await;
    let hour = Duration::from_secs(3600);
    let first = ledger.put("expires/a", b"1", lasting(hour)).await.unwrap();
    fixture.pass(hour / 2).await;
    assert!(ledger.get("expires/a").await.unwrap().is_some(), "half of its time is over");
    fixture.pass(hour).await;
    assert_eq!(ledger.get("expires/a").await, Ok(None));
    assert_eq!(ledger.scan("expires/", None, 10).await, Ok(vec![]));
    assert_eq!(
        ledger.put("expires/a", b"2", over(first)).await,
        Err(LedgerError::Stale { key: "expires/a".into() })
    );
    assert_eq!(ledger.delete("expires/a", Conditions::default()).await, Ok(false));
    ledger.put("expires/a", b"2", NOTHING).await.expect("nothing is there");
}

/// A value lasts as its last write says.
pub async fn a_value_lasts_as_its_last_write_says(fixture: &impl LedgerFixture) {
    let ledger = fixture.ledger("one").await;
    let hour = Duration::from_secs(3600);
    ledger.put("lasts/longer", b"1", lasting(hour)).await.unwrap();
    ledger.put("lasts/for-ever", b"1", lasting(hour)).await.unwrap();
    ledger.put("lasts/shorter", b"1", Conditions::default()).await.unwrap();
    ledger.put("lasts/longer", b"2", lasting(3 * hour)).await.unwrap();
    ledger.put("lasts/for-ever", b"2", Conditions::default()).await.unwrap();
    ledger.put("lasts/shorter", b"2", lasting(hour)).await.unwrap();
    fixture.pass(2 * hour).await;
    let left: Vec<Box<str>> =
        ledger.scan("lasts/", None, 10).await.unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, ["lasts/for-ever".into(), "lasts/longer".into()]);
}

/// Keys are scanned by prefix, in the order of their bytes, in pages.
pub async fn keys_are_scanned_by_prefix_in_order_and_in_pages(fixture: &impl LedgerFixture) {
    let ledger = fixture.ledger("one").await;
    // in the order of bytes, which is no language's
    let keys = ["scan/A", "scan/a", "scan/a/b", "scan/b", "scan/z", "scan/\u{e4}", "scan/\u{10ffff}"];
    for key in keys.iter().rev().chain(&["scan", "scan.", "scan0", "sca\u{10ffff}"]) {
        ledger.put(key, key.as_bytes(), Conditions::default()).await.unwrap();
    }
    let mut found = Vec::new();
    let mut after: Option<Box<str>> = None;
    loop {
        let page = ledger.scan("scan/", after.as_deref(), 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (key, entry) in page {
            assert_eq!(key.as_bytes(), &entry.value[..]);
            found.push(key);
        }
    }
    assert_eq!(found, keys.map(Box::from));
    assert_eq!(ledger.scan("scan/nothing", None, 3).await, Ok(vec![]));
    let all = ledger.scan("", None, 1000).await.unwrap();
    assert!(keys.iter().all(|key| all.iter().any(|(found, _)| **found == **key)), "no prefix is everything");
}

/// What does not fit is refused.
pub async fn what_does_not_fit_is_refused(fixture: &impl LedgerFixture) {
    let ledger = fixture.ledger("one").await;
    let long = format!("fits/{}", "k".repeat(LONGEST_KEY - 5));
    ledger
        .put(&long, &vec![7; LARGEST_VALUE], Conditions::default())
        .await
        .expect("the longest and the largest");
    assert_eq!(ledger.get(&long).await.unwrap().unwrap().value.len(), LARGEST_VALUE);
    ledger.put("fits/empty", b"", Conditions::default()).await.expect("an empty value is one");
    assert_eq!(ledger.get("fits/empty").await.unwrap().unwrap().value.len(), 0);
    for (key, size) in [(format!("{long}k"), 0), (String::new(), 0), ("fits/a".to_owned(), LARGEST_VALUE + 1)]
    {
        let refused = ledger.put(&key, &vec![7; size], Conditions::default()).await;
        assert!(matches!(refused, Err(LedgerError::Unfit(_))), "{refused:?}");
    }
}

/// A lease has one holder, who renews it under the same number.
pub async fn a_lease_has_one_holder_and_keeps_its_number(fixture: &impl LedgerFixture) {
    let (one, two) = (fixture.ledger("one").await, fixture.ledger("two").await);
    let lease = one.take("held").await.unwrap();
    assert!(lease.fence > 0);
    for _ in 0..3 {
        fixture.pass(lease.lasts / 2).await;
        assert_eq!(one.take("held").await.map(|lease| lease.fence), Ok(lease.fence), "renewed in time");
        assert_eq!(two.take("held").await, Err(NotGranted::Held("one".into())));
    }
    two.take("another").await.expect("leases do not depend on each other");
}

/// A lease that ran out goes to another under a greater number.
pub async fn a_lease_that_ran_out_goes_to_another_under_a_greater_number(fixture: &impl LedgerFixture) {
    let (one, two) = (fixture.ledger("one").await, fixture.ledger("two").await);
    let before = one.take("runs out").await.unwrap();
    fixture.pass(before.lasts + Duration::from_secs(1)).await;
    let after = two.take("runs out").await.expect("nobody holds it");
    assert!(after.fence > before.fence, "{} after {}", after.fence, before.fence);
    assert_eq!(one.take("runs out").await, Err(NotGranted::Held("two".into())));
    fixture.pass(after.lasts + Duration::from_secs(1)).await;
    let again = two.take("runs out").await.unwrap();
    assert!(again.fence > after.fence, "what was begun before it ran out is over for the same holder too");
}

/// A lease that was given back is free at once.
pub async fn a_lease_that_was_given_back_is_free_at_once(fixture: &impl LedgerFixture) {
    let (one, two) = (fixture.ledger("one").await, fixture.ledger("two").await);
    let before = one.take("given back").await.unwrap();
    one.give_back("given back", before.fence).await;
    let after = two.take("given back").await.expect("nobody holds it");
    assert!(after.fence > before.fence, "{} after {}", after.fence, before.fence);
}

/// A holder that comes late takes nothing from its successor.
pub async fn a_holder_that_comes_late_takes_nothing_from_its_successor(fixture: &impl LedgerFixture) {
    let (one, two) = (fixture.ledger("one").await, fixture.ledger("two").await);
    let before = one.take("late").await.unwrap();
    fixture.pass(before.lasts + Duration::from_secs(1)).await;
    let after = two.take("late").await.unwrap();
    one.give_back("late", before.fence).await;
    one.give_back("late", after.fence).await;
    assert_eq!(one.advance("late", before.fence).await, Err(NotGranted::Held("two".into())));
    assert_eq!(one.take("late").await, Err(NotGranted::Held("two".into())));
    assert_eq!(two.take("late").await.map(|lease| lease.fence), Ok(after.fence), "it holds it still");
}

/// One of many gets a lease.
pub async fn one_of_many_gets_a_lease(fixture: &impl LedgerFixture) {
    let mut tasks = Vec::new();
    for n in 0..16 {
        let ledger = fixture.ledger(&format!("instance-{n}")).await;
        tasks.push(tokio::spawn(async move { ledger.take("wanted").await }));
    }
    let mut granted = Vec::new();
    for task in tasks {
        granted.extend(task.await.unwrap().ok());
    }
    assert_eq!(granted.len(), 1, "{granted:?}");
}

/// What an old number guards is refused, and nothing is changed.
pub async fn what_an_old_number_guards_is_refused(fixture: &impl LedgerFixture) {
    let (one, two) = (fixture.ledger("one").await, fixture.ledger("two").await);
    let guarded = |fence, expected| Conditions { expected, guard: Some(("guards", fence)), lasts: None };
    let fenced = || LedgerError::Fenced { lease: "guards".into() };
    let before = one.take("guards").await.unwrap();
    let version = one.put("guarded/a", b"1", guarded(before.fence, Expected::Nothing)).await.unwrap();
    fixture.pass(before.lasts + Duration::from_secs(1)).await;
    one.put("guarded/b", b"1", guarded(before.fence, Expected::Anything))
        .await
        .expect("nobody has taken it since");
    let after = two.take("guards").await.unwrap();
    for expected in [Expected::Anything, Expected::Version(version)] {
        assert_eq!(one.put("guarded/a", b"2", guarded(before.fence, expected)).await, Err(fenced()));
        assert_eq!(one.delete("guarded/a", guarded(before.fence, expected)).await, Err(fenced()));
    }
    assert_eq!(one.put("guarded/c", b"2", guarded(before.fence, Expected::Nothing)).await, Err(fenced()));
    assert_eq!(one.put("guarded/c", b"2", guarded(after.fence + 1, Expected::Nothing)).await, Err(fenced()));
    assert_eq!(&two.get("guarded/a").await.unwrap().unwrap().value[..], b"1");
    assert_eq!(two.get("guarded/c").await, Ok(None));
    let stale = two.put("guarded/a", b"3", guarded(after.fence, Expected::Nothing)).await;
    assert_eq!(
        stale,
        Err(LedgerError::Stale { key: "guarded/a".into() }),
        "the guard holds and the rest does not"
    );
    two.put("guarded/a", b"3", guarded(after.fence, Expected::Version(version))).await.unwrap();
}

/// A number that was advanced makes the one before old.
pub async fn a_number_that_was_advanced_makes_the_one_before_old(fixture: &impl LedgerFixture) {
    let (one, two) = (fixture.ledger("one").await, fixture.ledger("two").await);
    assert!(matches!(one.advance("advances", 1).await, Err(NotGranted::Held(_))), "nobody holds it");
    let first = one.take("advances").await.unwrap();
    let second = one.advance("advances", first.fence).await.unwrap();
    assert!(second.fence > first.fence);
    let guarded = |fence| Conditions { guard: Some(("advances", fence)), ..Conditions::default() };
    let refused = one.put("advanced/a", b"1", guarded(first.fence)).await;
    assert_eq!(refused, Err(LedgerError::Fenced { lease: "advances".into() }));
    one.put("advanced/a", b"2", guarded(second.fence)).await.unwrap();
    assert!(one.advance("advances", first.fence).await.is_err(), "the number is not the lease's any more");
    assert_eq!(two.advance("advances", second.fence).await, Err(NotGranted::Held("one".into())));
    assert_eq!(one.take("advances").await.map(|lease| lease.fence), Ok(second.fence));
}
