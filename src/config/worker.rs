//! `[[worker]]`: URLs that the messages of a queue are pushed to.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use linkspan_contract::Retry;
use serde::Deserialize;

use super::duration;
use super::key::KeyPath;
use super::report::Report;
use super::terms::RetryTable;
use super::vhosts;

/// A worker: each message of a queue is POSTed to a URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Worker {
    /// The queue.
    pub queue: Arc<str>,
    /// The vhost that it lies in.
    pub vhost: Arc<str>,
    /// Where messages are pushed to: `http` or `https`, with a host. Its query may hold a secret.
    pub url: Uri,
    /// Messages that are pushed at a time; with one they keep their order.
    pub concurrency: NonZeroU16,
    /// How long a push may take, from the connection to the end of the answer's head.
    pub timeout: Duration,
    /// Headers that each request has besides those of its message. They may hold secrets.
    pub headers: HeaderMap,
    /// How long a message waits that could not be pushed, and the worker whose server is not to be had; where nothing is
    /// said, the queue's route says it of messages.
    pub retry: Option<Retry>,
    /// Certificates to trust beside the machine's own.
    pub ca: Option<PathBuf>,
}

/// `[[worker]]` as written.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct WorkerTable {
    queue: Option<String>,
    url: Option<String>,
    vhost: Option<String>,
    concurrency: Option<NonZeroU16>,
    #[serde(deserialize_with = "duration::optional::deserialize")]
    timeout: Option<Duration>,
    headers: BTreeMap<String, String>,
    retry: Option<RetryTable>,
    ca: Option<String>,
}

/// How long a push may take when nothing is said.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The workers, each correct and no two the same.
pub(super) fn check<'a>(
    tables: &[WorkerTable],
    vhosts: impl Iterator<Item = &'a str> + Clone,
    report: &mut Report<'_>,
) -> Vec<Worker> {
    let mut workers: Vec<Worker> = Vec::with_capacity(tables.len());
    for (at, table) in tables.iter().enumerate() {
        let key = KeyPath::of(["worker"]).index(at);
        let Some(worker) = table.check(&key, vhosts.clone(), report) else { continue };
        let same = |other: &Worker| {
            (&other.vhost, &other.queue, &other.url) == (&worker.vhost, &worker.queue, &worker.url)
        };
        if workers.iter().any(same) {
            let text = "another worker pushes the same queue there; set its `concurrency` instead";
            report.bad_value(&key.key("url"), text);
        }
        workers.push(worker);
    }
    workers
}

impl WorkerTable {
    fn check<'a>(
        &self,
        key: &KeyPath,
        vhosts: impl Iterator<Item = &'a str> + Clone,
        report: &mut Report<'_>,
    ) -> Option<Worker> {
        let queue = self.queue.as_deref().filter(|queue| !queue.is_empty());
        if queue.is_none() {
            report.missing(&key.key("queue"), "the name of the queue whose messages are pushed");
        }
        let url = self.check_url(key, report);
        let vhost = self.vhost.as_deref().unwrap_or(vhosts::DEFAULT_NAME);
        if !vhosts.clone().any(|known| known == vhost) {
            report.unknown(&key.key("vhost"), "vhost", vhost, vhosts);
        }
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        if timeout.is_zero() {
            report.bad_value(&key.key("timeout"), "0s leaves no time to push; expected \"1s\" or more");
        }
        let retry = self.retry.as_ref().and_then(|retry| retry.check(&key.key("retry"), report));
        let ca = self.ca.as_deref().filter(|ca| !ca.is_empty()).map(PathBuf::from);
        let is_plain = url.as_ref().is_some_and(|url| url.scheme_str() == Some("http"));
        if self.ca.is_some() && (is_plain || ca.is_none()) {
            let text = "is the file of the certificates that the server of an `https` url is trusted by";
            report.bad_value(&key.key("ca"), text);
        }
        let headers = self.check_headers(key, report);
        Some(Worker {
            queue: queue?.into(),
            vhost: vhost.into(),
            url: url?,
            concurrency: self.concurrency.unwrap_or(NonZeroU16::MIN),
            timeout,
            headers,
            retry,
            ca,
        })
    }

    /// The value is not repeated: its query may hold a secret.
    fn check_url(&self, key: &KeyPath, report: &mut Report<'_>) -> Option<Uri> {
        const EXPECTED: &str = "expected http://HOST or https://HOST, with a path if need be";
        let key = key.key("url");
        let Some(text) = self.url.as_deref() else {
            report.missing(&key, "where messages are pushed to, such as \"https://localhost:8443/jobs\"");
            return None;
        };
        let url: Option<Uri> = text.parse().ok();
        let Some(url) = url.filter(|url| url.host().is_some_and(|host| !host.is_empty())) else {
            report.bad_value(&key, format!("is no url; {EXPECTED}"));
            return None;
        };
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            report.bad_value(&key, format!("has another scheme; {EXPECTED}"));
            return None;
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            let text = "has an account before its host; write `headers = { Authorization = \"Basic …\" }`";
            report.bad_value(&key, text);
            return None;
        }
        Some(url)
    }

    fn check_headers(&self, key: &KeyPath, report: &mut Report<'_>) -> HeaderMap {
        // What a request's form says, and not whoever configures it.
        let of_the_form =
            [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::HOST];
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let key = key.key("headers").key(name);
            match (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
                (Ok(name), _) if of_the_form.contains(&name) => {
                    report.bad_value(&key, "is set by Linkspan itself");
                }
                (Ok(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
                (Err(_), _) => report.bad_value(&key, "is no name of a header"),
                (_, Err(_)) => report.bad_value(&key, "has a value that no header can have"),
            }
        }
        headers
    }
}

impl Worker {
    /// Where it pushes to, for people: without the query.
    pub fn place(&self) -> String {
        let part = |part: Option<&str>| part.unwrap_or_default().to_owned();
        let authority = part(self.url.authority().map(|authority| authority.as_str()));
        format!("{}://{authority}{}", part(self.url.scheme_str()), self.url.path())
    }
}

/// Without what may be secret.
impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("queue", &self.queue)
            .field("place", &self.place())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn config(of_worker: &str) -> Result<Config, String> {
        let toml = format!("[[worker]]\n{of_worker}\n");
        Config::parse(Some(("x.toml", &toml)), []).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_worker_needs_a_queue_and_a_url_and_the_rest_is_usual() {
        let config = config("queue = \"jobs\"\nurl = \"https://h:8443/a?key=s3cret\"").unwrap();
        let [worker] = &config.workers[..] else { panic!("one worker: {:?}", config.workers) };
        assert_eq!((&*worker.queue, &*worker.vhost, worker.concurrency.get()), ("jobs", "/", 1));
        assert_eq!((worker.timeout, worker.retry), (TIMEOUT, None));
        let shown = format!("{worker:?}");
        assert!(shown.contains("https://h:8443/a") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn all_of_it_can_be_said() {
        let config = config(
            "queue = \"jobs\"\nurl = \"https://h\"\nvhost = \"/\"\nconcurrency = 8\ntimeout = \"5s\"\nca = \"ca.pem\"\n\
             headers = { Authorization = \"Bearer s3cret\" }\nretry = { delay = \"2s\", factor = 3, max = \"1h\" }",
        )
        .unwrap();
        let worker = &config.workers[0];
        assert_eq!((worker.concurrency.get(), worker.timeout.as_secs()), (8, 5));
        assert_eq!(worker.retry, Some(Retry { delay: 2_000, factor: 300, max: 3_600_000 }));
        assert_eq!(worker.ca.as_deref(), Some(std::path::Path::new("ca.pem")));
        assert!(worker.headers.get("authorization").is_some_and(|value| value == "Bearer s3cret"));
        assert!(!format!("{worker:?}").contains("s3cret"));
    }

    #[test]
    fn what_is_wrong_with_a_worker_is_said_without_its_secrets() {
        let rest = "queue = \"jobs\"\nurl = \"https://h\"\n";
        for (of_worker, said) in [
            ("url = \"https://h\"".to_owned(), "worker[0].queue"),
            ("queue = \"jobs\"".to_owned(), "worker[0].url"),
            ("queue = \"jobs\"\nurl = \"h/s3cret\"".to_owned(), "worker[0].url: is no url"),
            ("queue = \"jobs\"\nurl = \"ftp://h/s3cret\"".to_owned(), "worker[0].url: has another scheme"),
            ("queue = \"jobs\"\nurl = \"https://me:s3cret@h\"".to_owned(), "worker[0].url: has an account"),
            ("queue = \"jobs\"\nurl = \"http://h\"\nca = \"ca.pem\"".to_owned(), "worker[0].ca"),
            (format!("{rest}vhost = \"lab\""), "worker[0].vhost"),
            (format!("{rest}concurrency = 0"), "worker[0].concurrency"),
            (format!("{rest}timeout = \"0s\""), "worker[0].timeout"),
            (format!("{rest}headers = {{ \"a b\" = \"s3cret\" }}"), "is no name of a header"),
            (format!("{rest}headers = {{ a = \"s3cret\\n\" }}"), "no header can have"),
            (format!("{rest}headers = {{ Host = \"s3cret\" }}"), "set by Linkspan itself"),
            (format!("{rest}retry = {{ delay = \"2s\", max = \"1s\" }}"), "worker[0].retry.max"),
            (format!("{rest}[[worker]]\n{rest}"), "worker[1].url: another worker"),
            (format!("{rest}concurency = 2"), "did you mean `concurrency`"),
        ] {
            let errors = config(&of_worker).unwrap_err();
            assert!(errors.contains(said) && !errors.contains("s3cret"), "{of_worker}\nsays {errors}");
        }
    }
}
