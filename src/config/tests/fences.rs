//! Routes that only the holder of a queue may publish to.

use super::*;

const BIDS: &str = "[[route]]\nmatch = \"bids\"\npattern = \"exclusive-consumer\"\nqueue = \"bids\"\n";

#[test]
fn a_route_of_any_pattern_may_be_for_the_holder_of_a_queue_alone() {
    let config = parse(&format!("{JOBS}fence = \"bids\"\n{BIDS}")).unwrap();
    assert_eq!(config.routes[0].fence.as_deref(), Some("bids"));
    assert!(config.routes().unwrap().to_string().contains(", published to by the holder of bids alone"));
}

#[test]
fn a_queue_that_nobody_holds_is_no_fence() {
    told(
        &format!("{JOBS}fence = \"bid\"\n{BIDS}"),
        &[
            "linkspan.toml:5: route[0].fence: there is no queue of an exclusive consumer `bid`; did you mean `bids`?",
        ],
    );
    told(
        &format!("{JOBS}fence = \"jobs\"\n"),
        &[
            "linkspan.toml:5: route[0].fence: `jobs` belongs to route[0] (line 3), of pattern `competing-consumers`: nobody \
             holds it; expected a queue of pattern `exclusive-consumer`",
        ],
    );
}

#[test]
fn dead_letters_cannot_go_where_only_a_holder_may_publish() {
    told(
        &format!(
            "{JOBS}dead-letter = \"highest\"\n{BIDS}[[route]]\nmatch = \"highest\"\npattern = \"publish-subscribe\"\n\
             fence = \"bids\"\n"
        ),
        &[
            "linkspan.toml:5: route[0].dead-letter: only the holder of queue `bids` may publish there, by route[2] (line \
             13): dead letters could not; name another address",
        ],
    );
}
