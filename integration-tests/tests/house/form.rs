//! What a file may be: how long, and how named.

use crate::source::Source;

/// Lines of code beyond which a file tells two stories.
const LONGEST: usize = 400;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["common", "helper", "helpers", "misc", "types", "util", "utils"];

/// Files that every door and every adapter of a protocol has under the same name, because the job is the same.
const DOOR_JOBS: [&str; 3] = ["connection", "handshake", "translate"];

/// Where files are too long or named by nothing.
pub fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = vec![];
    for s in sources {
        let lines = s.lines_of_code();
        if lines > LONGEST {
            found.push(format!(
                "{}: {lines} lines of code, more than {LONGEST}: split it by its nouns",
                s.path
            ));
        }
        let mut parts = s.path.trim_end_matches(".rs").split('/');
        if let Some(name) = parts.find(|p| EMPTY_NAMES.contains(p)) {
            found.push(format!("{}: `{name}` says nothing about what is inside", s.path));
        }
    }
    found
}

/// Doors that do a common job in a file of another name.
pub fn jobs_under_other_names(sources: &[Source]) -> Vec<String> {
    let mut found = vec![];
    for door in ["mqtt", "amqp"] {
        let has = |job: &str| sources.iter().any(|s| s.module() == ["doors", door, job]);
        let exists = sources.iter().any(|s| s.module().starts_with(&["doors", door]));
        for job in DOOR_JOBS.iter().filter(|job| exists && !has(job)) {
            found.push(format!("src/doors/{door}/: no {job}.rs, which is where every door does that"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_more_than_400_lines_of_code_is_split() {
        let code = |n: usize| Source::new("src/hub.rs", &"fn f() {}\n".repeat(n));
        assert!(violations(&[code(400)]).is_empty());
        assert_eq!(violations(&[code(401)]).len(), 1);
        let tested = format!(
            "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
            "fn f() {}\n\n// why\n".repeat(400),
            "fn t() {}\n".repeat(99)
        );
        assert!(violations(&[Source::new("src/hub.rs", &tested)]).is_empty());
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        for path in ["src/utils.rs", "src/doors/common/mod.rs", "integration-tests/tests/helpers.rs"] {
            assert_eq!(violations(&[Source::new(path, "")]).len(), 1, "{path}");
        }
        assert!(violations(&[Source::new("src/doors/listener.rs", "")]).is_empty());
    }

    #[test]
    fn the_same_job_has_the_same_name_in_every_door() {
        let all = ["connection", "handshake", "translate"]
            .map(|j| Source::new(&format!("src/doors/mqtt/{j}.rs"), ""));
        assert!(jobs_under_other_names(&all).is_empty());
        assert_eq!(jobs_under_other_names(&all[..2]).len(), 1);
        assert!(jobs_under_other_names(&[]).is_empty());
    }
}
