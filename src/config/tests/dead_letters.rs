//! Where dead letters may go, and how the queue that keeps them is named.

use super::*;

fn refused(of_jobs: &str, rest: &str) -> Vec<String> {
    errors(&format!("{JOBS}{of_jobs}\n{rest}"))
}

#[test]
fn a_queue_of_dead_letters_is_a_route_of_its_own() {
    let config =
        parse(&format!("{JOBS}dead-letter = {{ address = \"jobs/failed\", queue = \"failed\" }}\n")).unwrap();
    let route = &config.routes[1];
    assert_eq!(
        (route.filter.as_str(), &*route.queues[0], &*route.backend),
        ("jobs/failed", "failed", "local")
    );
    assert_eq!(config.routes[0].dead_letter.as_deref(), Some("jobs/failed"));
}

#[test]
fn a_route_behind_one_with_a_queue_of_dead_letters_is_named_by_its_own_number_and_line() {
    let behind = "[[route]]\nmatch = \"x\"\npattern = \"competing-consumers\"\nqueue = \"x\"\nlevels = 3\n\
                  [[route]]\nmatch = \"x\"\npattern = \"competing-consumers\"\nqueue = \"y\"\n";
    assert_eq!(
        refused("dead-letter = { address = \"failed\", queue = \"failed\" }", behind),
        [
            "linkspan.toml:10: route[1].levels: only a route of pattern `priority-queue` has levels",
            "linkspan.toml:12: route[2].match: `x` matches the same addresses as `x` of route[1] (line 7); keep one of them",
        ]
    );
}

#[test]
fn dead_letters_go_to_one_address_that_is_there() {
    for (written, said) in [
        ("\"\"", ": is empty; write the address that dead letters are published to, such as \"jobs/failed\""),
        ("\"x/#\"", ": `x/#` is a filter; dead letters go to one address"),
        ("\"a+b\"", ": `a+b` is a filter; dead letters go to one address"),
        ("\"$SYS/x\"", ": `$SYS/x` begins with `$`: such addresses are the server's own"),
        (
            "{ queue = \"failed\" }",
            ".address: is missing; the one that dead letters are published to, such as \"jobs/failed\"",
        ),
        (
            "{ address = \"x/#\", queue = \"failed\" }",
            ".address: `x/#` is a filter; dead letters go to one address",
        ),
        ("{ address = \"x\", queue = \"\" }", ".queue: a queue's name has 1 to 255 bytes"),
        ("{ address = \"x\", qeue = \"x\" }", ".qeue: unknown key; did you mean `queue`?"),
        ("{ address = \"x\", queue = 5 }", ".queue: expected a text in quotes, found a number"),
        ("5", ": expected an address, or { address = \"...\", queue = \"...\" }, found a number"),
    ] {
        let of_jobs = format!("dead-letter = {written}");
        assert_eq!(
            refused(&of_jobs, ""),
            [format!("linkspan.toml:5: route[0].dead-letter{said}")],
            "{written}"
        );
    }
}

#[test]
fn dead_letters_do_not_come_back_to_the_queue_that_they_come_from() {
    assert_eq!(
        refused("dead-letter = \"jobs\"", ""),
        [
            "linkspan.toml:5: route[0].dead-letter: `jobs` is this route's own address: its dead letters would come back to \
             it; name another one"
        ]
    );
    let all =
        |rest: &str| errors(&format!("{}{rest}", JOBS.replace("match = \"jobs\"", "match = \"jobs/#\"")));
    assert_eq!(
        all("dead-letter = \"jobs/failed\"\n"),
        [
            "linkspan.toml:5: route[0].dead-letter: `jobs/failed` belongs to this route, which is for `jobs/#`: its dead \
             letters would come back to it; name an address outside of that, or give this one a queue: { address = \
             \"jobs/failed\", queue = \"…\" }"
        ]
    );
    for elsewhere in [
        "dead-letter = { address = \"jobs/failed\", queue = \"failed\" }\n",
        "dead-letter = \"jobs/failed\"\n[[route]]\nmatch = \"jobs/failed\"\npattern = \"publish-subscribe\"\n",
    ] {
        assert_eq!(all(elsewhere), [""; 0], "another route has the address");
    }
    assert_eq!(
        refused("dead-letter = { address = \"failed\", queue = \"jobs\" }", ""),
        [
            "linkspan.toml:5: route[0].dead-letter.queue: `jobs` is the queue that the dead letters come from; name another \
             one for them"
        ]
    );
}

#[test]
fn an_address_that_has_a_route_already_gets_no_second_queue() {
    let kept = "dead-letter = { address = \"failed\", queue = \"failed\" }";
    let other = "[[route]]\nmatch = \"failed\"\npattern = \"competing-consumers\"\nqueue = \"failed\"\n";
    assert_eq!(
        refused(kept, other),
        [
            "linkspan.toml:5: route[0].dead-letter.address: `failed` is the address of route[1] (line 7), which has a queue \
             for it; write `dead-letter = \"failed\"` here"
        ]
    );
    let plain = "[[route]]\nmatch = \"failed\"\npattern = \"publish-subscribe\"\n";
    assert_eq!(
        refused(kept, plain),
        [
            "linkspan.toml:5: route[0].dead-letter.address: `failed` is the match of route[1] (line 7), which has no queue; \
             give that route the queue, and write `dead-letter = \"failed\"` here"
        ]
    );
    let twice =
        format!("[[route]]\nmatch = \"x\"\npattern = \"competing-consumers\"\nqueue = \"x\"\n{kept}\n");
    assert_eq!(
        refused(kept, &twice),
        [
            "linkspan.toml:10: route[1].dead-letter.address: `failed` is the address of route[0].dead-letter (line 5), which \
             has a queue for it; write `dead-letter = \"failed\"` here"
        ]
    );
    let of_another = "[[route]]\nmatch = \"x\"\npattern = \"competing-consumers\"\nqueue = \"failed\"\n";
    assert_eq!(
        refused(kept, of_another),
        [
            "linkspan.toml:9: route[1].queue: queue `failed` already belongs to route[0].dead-letter (line 5); each queue \
             has one route"
        ]
    );
}
