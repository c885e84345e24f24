//! An HTTP client by a third party, `ureq`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::patience::soon;

/// What may wait for the test to look at it, in events.
const WAITING: usize = 10_000;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers: names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn of(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Self {
        Self::read(response).expect("an answer")
    }

    fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Self, ureq::Error> {
        let mut response = response?;
        let header = |(name, value): (&ureq::http::HeaderName, &ureq::http::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Ok(Self {
            status: response.status().as_u16(),
            headers: response.headers().iter().map(header).collect(),
            body: response.body_mut().read_to_string()?,
        })
    }
}

/// GET, with headers.
pub async fn get(door: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let (url, headers) = (format!("http://{door}{path}"), owned(headers));
    let asking = spawn_blocking(move || {
        let mut request = ureq::get(url);
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        Answer::of(request.config().http_status_as_error(false).build().call())
    });
    soon("an answer", asking).await.expect("an answer")
}

/// POST, with headers.
pub async fn post(door: SocketAddr, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let (url, headers) = (format!("http://{door}{path}"), owned(headers));
    let asking = spawn_blocking(move || {
        let mut request = ureq::post(url);
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        Answer::of(request.config().http_status_as_error(false).build().send(&body[..]))
    });
    soon("an answer", asking).await.expect("an answer")
}

/// DELETE, with headers.
pub async fn delete(door: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let (url, headers) = (format!("http://{door}{path}"), owned(headers));
    let asking = spawn_blocking(move || {
        let mut request = ureq::delete(url);
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        Answer::of(request.config().http_status_as_error(false).build().call())
    });
    soon("an answer", asking).await.expect("an answer")
}

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A client that uses its connections again.
#[derive(Clone)]
pub struct Client {
    door: SocketAddr,
    login: Option<&'static str>,
    asks: Arc<Asks>,
}

type Asks = dyn Fn(ureq::http::Request<Vec<u8>>) -> Result<Answer, ureq::Error> + Send + Sync;

/// `guest` with the password `guest`, as `Authorization` has it.
const GUEST: &str = "Basic Z3Vlc3Q6Z3Vlc3Q=";

impl Client {
    /// One without a name.
    pub fn to(door: SocketAddr) -> Self {
        let connections = ureq::config::Config::builder().http_status_as_error(false).build().new_agent();
        let asks = Arc::new(move |request| Answer::read(connections.run(request)));
        Self { door, login: None, asks }
    }

    /// The user `guest`.
    pub fn guest(door: SocketAddr) -> Self {
        Self { login: Some(GUEST), ..Self::to(door) }
    }

    /// POST.
    pub async fn post(&self, path: &str, headers: Vec<(String, String)>, body: Vec<u8>) -> Answer {
        soon("an answer", self.ask("POST", path, headers, body)).await.expect("an answer")
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        soon("an answer", self.ask("DELETE", path, Vec::new(), Vec::new())).await.expect("an answer")
    }

    /// Any method, as long as the answer takes.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    ) -> Result<Answer, ureq::Error> {
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.door));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(login) = self.login {
            request = request.header("Authorization", login);
        }
        let (request, asks) = (request.body(body).expect("a request"), Arc::clone(&self.asks));
        spawn_blocking(move || asks(request)).await.expect("it is asked")
    }
}

/// A stream of Server-Sent Events.
pub struct Events {
    events: mpsc::Receiver<(String, serde_json::Value)>,
}

impl Events {
    /// Watches `filter`, which is given as it stands in a path.
    pub async fn watch(door: SocketAddr, filter: &str) -> Self {
        let url = format!("http://{door}/v1/subscriptions/{filter}");
        let asking = spawn_blocking(move || ureq::get(url).call());
        let response =
            soon("an event stream", asking).await.expect("an event stream").expect("an event stream");
        let (sender, events) = mpsc::channel(WAITING);
        std::thread::spawn(move || {
            let mut kind = String::new();
            for line in BufReader::new(response.into_body().into_reader()).lines() {
                let Ok(line) = line else { return };
                if let Some(name) = line.strip_prefix("event:") {
                    kind = name.trim().to_owned();
                } else if let Some(data) = line.strip_prefix("data:") {
                    let data = serde_json::from_str(data).expect("JSON");
                    if sender.blocking_send((kind.clone(), data)).is_err() {
                        return;
                    }
                }
            }
        });
        Self { events }
    }

    /// The next event: its name and data.
    pub async fn next(&mut self) -> (String, serde_json::Value) {
        soon("an event", self.events.recv()).await.expect("the stream goes on")
    }

    /// The same; none when the stream has ended.
    pub async fn next_if_any(&mut self) -> Option<(String, serde_json::Value)> {
        self.events.recv().await
    }

    /// Returns when the server has ended the stream.
    pub async fn end(mut self) {
        soon("the stream ends", async { while self.events.recv().await.is_some() {} }).await;
    }
}
