//! Every pattern, from every protocol to every other, on every back end, by third parties' clients.
//!
//! `docs/matrix.md` is what comes of it. With `LINKSPAN_WRITE_MATRIX=1` it is written, else it has to be right. Cells are
//! `PATTERN: PROTOCOL -> PROTOCOL on BACK END`; `LINKSPAN_MATRIX_CELLS="priority, HTTP on"` runs those whose names hold all
//! of these words, and leaves the file alone.

mod ack_timeout;
mod cell;
mod competing;
mod dead_letter;
mod deduplicate;
mod exclusive_reject;
mod exclusive_standby;
mod groups;
mod numbers;
mod ordering_key;
mod page;
mod pattern;
mod priority;
mod publish_subscribe;
mod retry;
mod stage;
mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linkspan_integration_tests::Server;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::back_end::BackEnd;

use cell::Cell;
use page::Page;
use stage::Stage;
use support::{Support, Supports};

/// Cells that run at a time: most of a cell is waiting.
const AT_A_TIME: usize = 8;

/// How long a cell may take.
const LONGEST: Duration = Duration::from_secs(100);

/// Which cells are run, when not all are.
const FILTER: &str = "LINKSPAN_MATRIX_CELLS";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_pattern_works_from_every_protocol_to_every_other_on_every_back_end() {
    let began = Instant::now();
    let filter = std::env::var(FILTER).ok();
    let cells: Vec<Cell> =
        Cell::all().into_iter().filter(|cell| cell.is_named(filter.as_deref().unwrap_or(""))).collect();
    assert!(!cells.is_empty(), "{FILTER}: no cell is called so");
    let mut supports = Supports::new();
    let said: HashMap<Cell, Support> = cells.iter().map(|cell| (*cell, supports.of(cell))).collect();
    let run: Vec<Cell> = cells.iter().copied().filter(|cell| !said[cell].is_refused()).collect();
    let mut failures = run_all(run).await;
    eprintln!("{} cells took {:?}", cells.len(), began.elapsed());
    if filter.is_none() {
        assert_eq!(cells.len(), 528, "no cell is excused");
        failures.extend(Page::of(&said).write_or_compare().err());
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Runs cells, one server for those of one back end; what is wrong with those that fail.
async fn run_all(cells: Vec<Cell>) -> Vec<String> {
    let mut stages = Vec::new();
    for back_end in BackEnd::ALL {
        let mine: Vec<Cell> = cells.iter().copied().filter(|cell| cell.back_end == back_end).collect();
        if mine.is_empty() {
            continue;
        }
        let of_back_end: Vec<(Cell, cell::Place)> =
            mine.into_iter().enumerate().map(|(n, cell)| (cell, cell::Place::new(n))).collect();
        let routes = of_back_end.iter().map(|(cell, place)| cell.route(place)).collect::<String>();
        let server = Arc::new(Server::start(&format!("{}{routes}", back_end.table().await)).await);
        stages.extend(of_back_end.into_iter().map(|(cell, place)| Stage::new(&server, cell, place)));
    }
    // Neighbours are of the same pattern: so each takes its turn with others, and with other back ends.
    stages.sort_by_key(|stage| (stage.cell.to as u8, stage.cell.from as u8, stage.cell.pattern));
    let room = Arc::new(Semaphore::new(AT_A_TIME));
    let mut running = JoinSet::new();
    let mut names = HashMap::new();
    for stage in stages {
        let (room, cell) = (Arc::clone(&room), stage.cell);
        let started = running.spawn(async move {
            let _place = room.acquire_owned().await.expect("a place");
            let began = Instant::now();
            let ended = tokio::time::timeout(LONGEST, stage.cell.pattern.check(&stage)).await;
            assert!(ended.is_ok(), "did not end within {LONGEST:?}");
            began.elapsed()
        });
        names.insert(started.id(), cell);
    }
    let mut failures = Vec::new();
    while let Some(ended) = running.join_next_with_id().await {
        match ended {
            Ok((id, took)) => eprintln!("{}: {took:?}", names[&id]),
            Err(error) => {
                let name = names[&error.id()];
                let why = what_was_said(error);
                eprintln!("{name}: FAILED: {why}");
                failures.push(format!("{name}: {why}"));
            }
        }
    }
    failures.sort();
    failures
}

/// What a task said when it failed.
fn what_was_said(error: tokio::task::JoinError) -> String {
    let said = match error.try_into_panic() {
        Ok(said) => said,
        Err(error) => return error.to_string(),
    };
    match (said.downcast_ref::<String>(), said.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_owned(),
        (None, None) => "it failed without a word".to_owned(),
    }
}
