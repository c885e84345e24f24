//! A message's properties as headers, as a publisher by HTTP would say them.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use linkspan_contract::{Flags, Kept, Properties, Value};

use super::json_value;

/// How long a lease lasts from now on.
const LEASE: HeaderName = HeaderName::from_static("linkspan-lease");

/// What a publisher's own properties begin with.
const PROPERTY: &str = "linkspan-property-";

/// Has all of them as JSON when a header of its own cannot have one as it is.
const PROPERTIES: HeaderName = HeaderName::from_static("linkspan-properties");

/// The header that says how long a lease lasts from now on.
pub(crate) fn lasts(lease: Duration) -> (HeaderName, HeaderValue) {
    (LEASE, value(&written(lease)).unwrap_or_else(|| HeaderValue::from_static("0s")))
}

/// A duration in the largest of `s` and `ms` that keeps it whole.
pub(crate) fn written(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// What is said of a message that has waited for `age` milliseconds and was given out `attempt` times before.
pub(crate) fn headers(message: &Kept, age: u64, attempt: u32) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let head = message.message();
    let topic = message.address().topic().into_owned();
    let mut put = |name: &'static str, text: Option<HeaderValue>| {
        headers.extend(text.map(|text| (HeaderName::from_static(name), text)));
    };
    put("linkspan-address", HeaderValue::from_bytes(&topic).ok());
    put("linkspan-deliveries", value(&attempt.saturating_add(1).to_string()));
    put("linkspan-durable", value(if head.flags.has(Flags::DURABLE) { "true" } else { "false" }));
    if head.flags.has(Flags::EXPIRES) {
        let left = Duration::from_millis(head.expiry.saturating_sub(age));
        put("linkspan-expiry", value(&written(left)));
    }
    let size = message.payload_len();
    headers.insert(header::CONTENT_LENGTH, size.into());
    match message.properties() {
        Ok(properties) => add(&properties, &mut headers),
        Err(error) => tracing::error!(%error, "the properties of a message cannot be read"),
    }
    headers
}

fn add(properties: &Properties<'_>, headers: &mut HeaderMap) {
    let texts = [
        (header::CONTENT_TYPE, &properties.content_type),
        (header::CONTENT_ENCODING, &properties.content_encoding),
        (HeaderName::from_static("linkspan-message-id"), &properties.message_id),
        (HeaderName::from_static("linkspan-reply-to"), &properties.reply_to),
        (HeaderName::from_static("linkspan-type"), &properties.kind),
        (HeaderName::from_static("linkspan-user-id"), &properties.user_id),
        (HeaderName::from_static("linkspan-app-id"), &properties.app_id),
    ];
    for (name, text) in texts {
        headers.extend(text.as_deref().and_then(value).map(|text| (name, text)));
    }
    let numbers = [
        ("linkspan-priority", properties.priority.map(u64::from)),
        ("linkspan-timestamp", properties.timestamp),
    ];
    for (name, number) in numbers {
        headers.extend(number.map(|number| (HeaderName::from_static(name), number.into())));
    }
    if let Some(correlation) =
        properties.correlation.as_deref().and_then(|it| HeaderValue::from_bytes(it).ok())
    {
        headers.insert(HeaderName::from_static("linkspan-correlation-id"), correlation);
    }
    let mut plain = true;
    for (name, of) in &properties.headers {
        match own(name, of) {
            Some((header, value)) => drop(headers.append(header, value)),
            None => plain = false,
        }
        plain &= !name.bytes().any(|letter| letter.is_ascii_uppercase());
    }
    if !plain {
        let all: serde_json::Map<_, _> =
            properties.headers.iter().map(|(name, value)| (name.to_string(), json_value(value))).collect();
        // The one control character that JSON leaves as it is.
        let all = serde_json::Value::Object(all).to_string().replace('\u{7f}', "\\u007f");
        headers.extend(value(&all).map(|all| (PROPERTIES, all)));
    }
}

/// The header of a publisher's own property.
fn own(name: &str, of: &Value<'_>) -> Option<(HeaderName, HeaderValue)> {
    let text: Cow<'_, str> = match of {
        Value::Text(text) => Cow::Borrowed(text),
        other => match json_value(other) {
            serde_json::Value::String(text) => Cow::Owned(text),
            json => Cow::Owned(json.to_string()),
        },
    };
    let header = match name {
        // What whoever has a queue alone shows with its own writes, and what traces go by.
        "linkspan-fence" | "traceparent" | "tracestate" => HeaderName::try_from(name).ok()?,
        name => HeaderName::try_from(format!("{PROPERTY}{name}")).ok()?,
    };
    Some((header, value(&text)?))
}

/// A header's value, when it can be one: no control characters, and no blanks around it, which are lost on the way.
fn value(text: &str) -> Option<HeaderValue> {
    (text.trim() == text).then(|| HeaderValue::from_bytes(text.as_bytes()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use linkspan_contract::neutral::Draft;
    use linkspan_contract::{Body, Message};

    use super::super::message;
    use super::*;

    fn kept(properties: &Properties<'_>, head: Message) -> Kept {
        let payload = Body::Shared("12345".into());
        let draft = Draft { exchange: None, topic: "plant/pumpe-ü".as_bytes(), properties, payload, head };
        draft.build().kept(0).unwrap()
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| std::str::from_utf8(value.as_bytes()).unwrap())
    }

    #[test]
    fn a_message_is_given_with_the_headers_that_it_would_be_published_with() {
        let said = [
            ("content-type", "text/plain"),
            ("content-encoding", "gzip"),
            ("linkspan-message-id", "m-1"),
            ("linkspan-reply-to", "answers"),
            ("linkspan-correlation-id", "c-1"),
            ("linkspan-priority", "7"),
            ("linkspan-property-site", "north"),
            ("traceparent", "00-1-2-01"),
        ];
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let published: HeaderMap = said.iter().map(pair).collect();
        let (properties, head) = message(&published).unwrap();
        let head = Message { expiry: 10_000, flags: head.flags | Flags::EXPIRES, ..head };
        let given = headers(&kept(&properties, head), 2_500, 2);
        for (name, value) in said {
            assert_eq!(text(&given, name), Some(value), "{name}");
        }
        assert_eq!(text(&given, "linkspan-expiry"), Some("7500ms"), "what remains of it");
        assert_eq!(text(&given, "linkspan-deliveries"), Some("3"));
        assert_eq!(text(&given, "linkspan-address"), Some("plant/pumpe-ü"));
        assert_eq!(text(&given, "linkspan-durable"), Some("true"));
        assert_eq!(text(&given, "content-length"), Some("5"));
        assert_eq!(text(&given, "linkspan-properties"), None, "headers say it all");
    }

    #[test]
    fn properties_that_no_header_can_have_are_told_as_json_with_all_others() {
        let mut properties = Properties::default();
        let headers_of = [
            ("site", Value::Text("north".into())),
            ("Case", Value::Text("kept".into())),
            ("a name", Value::I32(7)),
            ("lines", Value::Text("one\ntwo\u{7f}".into())),
        ];
        properties.headers = headers_of.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let given = headers(&kept(&properties, Message::default()), 0, 0);
        assert_eq!(text(&given, "linkspan-property-site"), Some("north"));
        assert_eq!(text(&given, "linkspan-property-case"), Some("kept"));
        let all: serde_json::Value =
            serde_json::from_str(text(&given, "linkspan-properties").unwrap()).unwrap();
        let expected =
            serde_json::json!({ "site": "north", "Case": "kept", "a name": 7, "lines": "one\ntwo\u{7f}" });
        assert_eq!(all, expected);
    }

    #[test]
    fn the_fence_of_an_exclusive_consumer_is_a_header_of_its_own() {
        let fence = vec![("linkspan-fence".into(), Value::I64(7))];
        let properties = Properties { headers: fence, ..Properties::default() };
        let given = headers(&kept(&properties, Message::default()), 0, 0);
        assert_eq!(text(&given, "linkspan-fence"), Some("7"));
    }

    #[test]
    fn a_property_that_comes_several_times_is_several_headers() {
        let tags = vec![("tag".into(), Value::Text("a".into())), ("tag".into(), Value::Text("b".into()))];
        let properties = Properties { headers: tags, ..Properties::default() };
        let given = headers(&kept(&properties, Message::default()), 0, 0);
        let tags: Vec<_> = given.get_all("linkspan-property-tag").iter().collect();
        assert_eq!(tags, ["a", "b"]);
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for (millis, text) in [(0, "0s"), (30_000, "30s"), (1_500, "1500ms"), (90_000, "90s")] {
            assert_eq!(written(Duration::from_millis(millis)), text);
            assert_eq!(super::super::duration(text), Some(millis));
        }
    }
}
