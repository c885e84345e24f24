//! Answers of a server, for people or as they are.

use std::fmt::Write;

use serde_json::Value;

use super::table::Table;
use super::{At, OperateError};

/// An answer as JSON when that is asked for, else as `text` has it.
///
/// # Errors
/// When it is not what this version expects.
pub(super) fn answer(
    at: &At,
    found: &Value,
    text: impl FnOnce(&Value) -> Option<String>,
) -> Result<String, OperateError> {
    if at.json {
        return Ok(format!("{found:#}\n"));
    }
    text(found).ok_or_else(|| OperateError::Refused {
        detail: "the server is of another version: it answers otherwise than expected; try --json".into(),
    })
}

/// What a field says; a dash when it says nothing.
fn cell(of: &Value, name: &str) -> String {
    match of.get(name) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                .collect();
            items.join(", ")
        }
        Some(other) => other.to_string(),
    }
}

fn count(of: &Value, name: &str) -> Option<u64> {
    of.get(name)?.as_u64()
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn state(queue: &Value) -> String {
    if queue.get("unknown").is_some_and(|why| !why.is_null()) {
        return "unknown".into();
    }
    if queue.get("paused").and_then(Value::as_bool) == Some(true) { "paused".into() } else { "open".into() }
}

/// All queues.
pub(super) fn queues(found: &Value) -> Option<String> {
    let queues = found.as_array()?;
    if queues.is_empty() {
        return Some("There are no queues.\n".into());
    }
    let headings = [
        "QUEUE",
        "#READY",
        "#UNSETTLED",
        "#CONSUMERS",
        "STATE",
        "PATTERN",
        "MATCH",
        "BACK END",
        "DEAD LETTERS",
    ];
    let mut table = Table::new(headings);
    for queue in queues {
        let own = |name| cell(queue, name);
        table.row([
            own("name"),
            own("ready"),
            own("unsettled"),
            own("consumers"),
            state(queue),
            own("pattern"),
            own("match"),
            own("backend"),
            own("dead_letter"),
        ]);
    }
    let mut text = table.text();
    for queue in queues {
        if let Some(why) = queue.get("unknown").and_then(Value::as_str) {
            let _ = writeln!(text, "{}: {why}", cell(queue, "name"));
        }
    }
    Some(text)
}

/// One queue.
pub(super) fn queue(found: &Value) -> Option<String> {
    found.get("name")?;
    let mut lines = vec![
        ("queue", cell(found, "name")),
        ("vhost", cell(found, "vhost")),
        ("back end", cell(found, "backend")),
        ("pattern", cell(found, "pattern")),
        ("match", cell(found, "match")),
        ("state", state(found)),
        ("ready", cell(found, "ready")),
        ("unsettled", cell(found, "unsettled")),
        ("consumers", cell(found, "consumers")),
    ];
    if let Some(holder) = found.get("holder").filter(|holder| !holder.is_null()) {
        lines.push(("holder", format!("{}, fence {}", cell(holder, "client"), cell(holder, "fence"))));
    }
    lines.push(("dead letters", cell(found, "dead_letter")));
    if let Some(queue) = found.get("dead_letter_queue").and_then(Value::as_str) {
        lines.push(("kept in", queue.to_owned()));
    }
    if let Some(why) = found.get("unknown").and_then(Value::as_str) {
        lines.push(("unknown", why.to_owned()));
    }
    Some(below_each_other(&lines))
}

fn below_each_other(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<width$}  {value}");
        text
    })
}

/// How much is gone.
pub(super) fn purged(found: &Value, what: &str) -> Option<String> {
    let (queue, purged) = (cell(found, "queue"), count(found, "purged")?);
    Some(format!("{} of {queue} removed.\n", counted(purged, what)))
}

/// Whether a queue is paused now.
pub(super) fn paused(found: &Value) -> Option<String> {
    let queue = cell(found, "queue");
    let is_new = found.get("changed")?.as_bool()?;
    Some(match (found.get("paused")?.as_bool()?, is_new) {
        (true, true) => {
            format!("{queue} is paused: nothing is given out until `linkspan queues resume {queue}`.\n")
        }
        (true, false) => format!("{queue} was paused already.\n"),
        (false, true) => format!("{queue} goes on.\n"),
        (false, false) => format!("{queue} was not paused.\n"),
    })
}

/// Dead letters of a queue.
pub(super) fn dead_letters(found: &Value) -> Option<String> {
    let letters = found.get("letters")?.as_array()?;
    let (queue, kept_in) = (cell(found, "queue"), cell(found, "kept_in"));
    let (waiting, looked_at) = (count(found, "waiting")?, count(found, "looked_at")?);
    let mut text = String::new();
    if letters.is_empty() {
        let _ = writeln!(text, "No such dead letters of {queue} are in {kept_in}.");
    } else {
        let headings =
            ["#N", "REASON", "#COUNT", "TIME", "FIRST", "LAST", "#REPLAYS", "#BYTES", "MESSAGE ID"];
        let mut table = Table::new(headings);
        for letter in letters {
            let own = |name| cell(letter, name);
            table.row([
                own("number"),
                own("reason"),
                own("count"),
                time(count(letter, "time").unwrap_or(0)),
                place(letter, "first"),
                place(letter, "last"),
                own("replays"),
                own("bytes"),
                own("message_id"),
            ]);
        }
        text = table.text();
    }
    if looked_at < waiting {
        let _ = writeln!(
            text,
            "{kept_in} has {}; the first {looked_at} were looked at.",
            counted(waiting, "message")
        );
    }
    Some(text)
}

/// Queue and address of a death.
fn place(letter: &Value, which: &str) -> String {
    let queue = cell(letter, &format!("{which}_queue"));
    match letter.get(format!("{which}_address")).and_then(Value::as_str) {
        Some(address) => format!("{queue} ({address})"),
        None => queue,
    }
}

/// One dead letter.
pub(super) fn dead_letter(found: &Value) -> Option<String> {
    let (letter, message) = (found.get("letter")?, found.get("message")?);
    let mut lines = vec![
        ("number", cell(letter, "number")),
        ("reason", cell(letter, "reason")),
        ("count", cell(letter, "count")),
        ("time", time(count(letter, "time").unwrap_or(0))),
        ("first", place(letter, "first")),
        ("last", place(letter, "last")),
        ("replays", cell(letter, "replays")),
        ("address", cell(message, "address")),
        ("content type", cell(message, "content_type")),
        ("message id", cell(message, "message_id")),
        ("bytes", cell(letter, "bytes")),
    ];
    lines.retain(|(name, value)| !matches!(*name, "content type" | "message id") || value != "-");
    let mut text = below_each_other(&lines);
    if let Some(properties) = message.get("properties").and_then(Value::as_object) {
        text.push_str("\nproperties\n");
        for (name, value) in properties {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(text, "  {name}: {value}");
        }
    }
    text.push('\n');
    match (
        message.get("payload").and_then(Value::as_str),
        message.get("payload_base64").and_then(Value::as_str),
    ) {
        (Some(payload), _) => text.push_str(payload),
        (None, Some(payload)) => {
            let _ = write!(text, "(base64) {payload}");
        }
        (None, None) => text.push_str("(the payload is too large to be shown)"),
    }
    text.push('\n');
    Some(text)
}

/// What was moved back.
pub(super) fn replayed(found: &Value) -> Option<String> {
    let mut text = format!("{} replayed.\n", counted(count(found, "replayed")?, "dead letter"));
    if let Some(expired) = count(found, "expired").filter(|expired| *expired > 0) {
        let _ = writeln!(text, "{} dropped: their time is over.", counted(expired, "dead letter"));
    }
    if let Some(why) = found.get("stopped").and_then(Value::as_str) {
        let _ = writeln!(text, "The others stay where they are: {why}.");
    }
    Some(text)
}

/// Seconds since 1970 as a date and time of day, UTC.
fn time(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days in eras of 400 years that begin with March, so that a leap day is a year's last.
    let shifted = days.saturating_add(719_468);
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let of_year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * of_year + of_year / 4 - of_year / 100);
    let of_months = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * of_months + 2) / 5 + 1;
    let month = if of_months < 10 { of_months + 3 } else { of_months - 9 };
    let year = of_year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn seconds_are_a_date() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_782_399), "2000-02-28 23:59:59Z");
        assert_eq!(time(951_782_400), "2000-02-29 00:00:00Z");
        assert_eq!(time(1_709_251_199), "2024-02-29 23:59:59Z");
        assert_eq!(time(4_102_444_800), "2100-01-01 00:00:00Z");
    }

    #[test]
    fn queues_are_a_table_and_what_is_not_known_is_said() {
        let found = json!([
            { "name": "jobs", "ready": 12, "unsettled": null, "consumers": 2, "paused": true, "pattern": "competing-consumers",
              "match": "jobs/#", "backend": "local", "dead_letter": "failed", "unknown": null },
            { "name": "far", "ready": null, "paused": false, "backend": "rabbit", "unknown": "it is away" },
        ]);
        assert_eq!(
            queues(&found).unwrap(),
            "QUEUE  READY  UNSETTLED  CONSUMERS  STATE    PATTERN              MATCH   BACK END  DEAD LETTERS\n\
             jobs      12          -          2  paused   competing-consumers  jobs/#  local     failed\n\
             far        -          -          -  unknown  -                    -       rabbit    -\n\
             far: it is away\n"
        );
        assert_eq!(queues(&json!([])).unwrap(), "There are no queues.\n");
        assert!(queues(&json!({})).is_none());
    }

    #[test]
    fn what_was_done_is_one_sentence() {
        assert_eq!(
            purged(&json!({ "queue": "jobs", "purged": 1 }), "message").unwrap(),
            "1 message of jobs removed.\n"
        );
        let stopped = json!({ "replayed": 3, "expired": 1, "stopped": "it is full" });
        assert_eq!(
            replayed(&stopped).unwrap(),
            "3 dead letters replayed.\n1 dead letter dropped: their time is over.\nThe others stay where they are: it is full.\n"
        );
        let now =
            |paused, changed| super::paused(&json!({ "queue": "q", "paused": paused, "changed": changed }));
        assert!(now(true, true).unwrap().starts_with("q is paused"));
        assert_eq!(now(false, false).unwrap(), "q was not paused.\n");
    }

    #[test]
    fn a_dead_letter_is_told_with_its_history_and_payload() {
        let letter = json!({ "number": 1, "reason": "rejected", "count": 2, "time": 0, "first_queue": "a",
            "first_address": "x/y", "last_queue": "b", "last_address": null, "replays": 1, "bytes": 3, "message_id": null });
        let message = json!({ "address": "failed", "payload": "job", "properties": { "site": "north" } });
        let text = dead_letter(&json!({ "letter": letter, "message": message })).unwrap();
        assert!(text.contains("first    a (x/y)\nlast     b\n"), "{text}");
        assert!(text.ends_with("\nproperties\n  site: north\n\njob\n"), "{text}");
        let list =
            json!({ "queue": "a", "kept_in": "failed", "waiting": 3, "looked_at": 2, "letters": [letter] });
        let text = dead_letters(&list).unwrap();
        assert!(text.contains("rejected") && text.contains("1970-01-01"), "{text}");
        assert!(text.ends_with("failed has 3 messages; the first 2 were looked at.\n"), "{text}");
    }
}
