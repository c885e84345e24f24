//! What a later version will have.

use super::*;

#[test]
fn patterns_of_later_versions_are_refused_with_those_there_are() {
    told(
        "[[route]]\nmatch = \"x\"\npattern = \"request-reply\"\nqueue = \"q\"\ntimeout = 10\n",
        &[
            "linkspan.toml:3: route[0].pattern: pattern `request-reply` is not available in this version; available: \
             publish-subscribe, competing-consumers, exclusive-consumer, priority-queue",
            "linkspan.toml:5: route[0].timeout: this key is not available in this version; remove it",
        ],
    );
}

#[test]
fn keys_of_later_versions_are_refused_not_ignored() {
    for key in ["claim-check", "timeout"] {
        told(
            &format!("{JOBS}{key} = 1\n"),
            &[&format!(
                "linkspan.toml:5: route[0].{key}: this key is not available in this version; remove it"
            )],
        );
    }
    told(
        "[claims]\nstore = \"file://x\"",
        &["linkspan.toml:1: claims: this key is not available in this version; remove it"],
    );
}
