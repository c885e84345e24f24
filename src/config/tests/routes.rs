//! Routes, their patterns, queues and back ends.

use super::*;

#[test]
fn two_equal_matches_name_each_other() {
    told(
        &format!("{JOBS}\n[[route]]\nmatch = \"jobs\"\npattern = \"publish-subscribe\"\n"),
        &[
            "linkspan.toml:7: route[1].match: `jobs` matches the same addresses as `jobs` of route[0] (line 2); keep one \
           of them",
        ],
    );
}

#[test]
fn a_queue_has_one_route() {
    told(
        &format!(
            "{JOBS}\n[[route]]\nmatch = \"x\"\npattern = \"competing-consumers\"\nqueue = [\"a\", \"jobs\"]\n"
        ),
        &[
            "linkspan.toml:9: route[1].queue: queue `jobs` already belongs to route[0] (line 4); each queue has one route",
        ],
    );
    told(
        "[[route]]\nmatch = \"x\"\npattern = \"competing-consumers\"\nqueue = [\"a\", \"a\"]\n",
        &["linkspan.toml:4: route[0].queue[1]: `a` is named twice"],
    );
}

#[test]
fn a_pattern_and_its_queue_go_together() {
    told(
        "[[route]]\nmatch = \"x\"\npattern = \"competing-consumers\"\n",
        &[
            "linkspan.toml:1: route[0].queue: is missing; pattern `competing-consumers` needs the name of a queue, or \
           several in a list",
        ],
    );
    told(
        "[[route]]\nmatch = \"x\"\npattern = \"publish-subscribe\"\nqueue = \"q\"\nwindow = 3\n",
        &[
            "linkspan.toml:4: route[0].queue: a publish-subscribe route has no queue; did you mean pattern \
             `competing-consumers`?",
            "linkspan.toml:5: route[0].window: a publish-subscribe route has no window; it has no queue",
        ],
    );
}

#[test]
fn a_queue_name_has_to_suit_all_protocols() {
    let route = |queue: &str| errors(&JOBS.replace("queue = \"jobs\"", &format!("queue = \"{queue}\"")));
    assert_eq!(route(""), ["linkspan.toml:4: route[0].queue: a queue's name has 1 to 255 bytes"]);
    assert_eq!(
        route("amq.x"),
        ["linkspan.toml:4: route[0].queue: `amq.x` begins with `amq.`, which is reserved"]
    );
    assert_eq!(
        route("a+b"),
        ["linkspan.toml:4: route[0].queue: \"a+b\" contains '+', which no MQTT client could subscribe to"]
    );
    assert!(route("images/resize ü").is_empty());
}

#[test]
fn an_unknown_back_end_is_named_with_the_one_that_was_meant() {
    told(
        "[backends.rabbit]\nkind = \"embedded\"\n[[route]]\nmatch = \"x\"\npattern = \"publish-subscribe\"\nbackend = \
         \"rabit\"\n",
        &["linkspan.toml:6: route[0].backend: there is no back end `rabit`; did you mean `rabbit`?"],
    );
}
