//! A web server of the test's own: it writes down what it is asked, and answers as the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Certificates;
use crate::patience::{soon, within};

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its number, from 0 on.
    pub number: usize,
    /// The connection that it came by, from 0 on.
    pub connection: usize,
    /// Its first line.
    pub line: String,
    /// Its headers: names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
    /// When all of it was there.
    pub at: Instant,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, each a line.
    pub headers: String,
    /// How long it takes.
    pub after: Duration,
}

impl Reply {
    /// An answer of that status, at once.
    pub fn status(status: u16) -> Self {
        Self { status, headers: String::new(), after: Duration::ZERO }
    }

    /// The same with a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The same, so much later.
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

type Answers = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// The server; it goes with the test.
pub struct Web {
    address: SocketAddr,
    asked: mpsc::Receiver<Asked>,
    serving: JoinHandle<()>,
}

impl Web {
    /// Answers requests on a port of its own.
    pub async fn start(answers: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(Arc::new(answers), None, TcpListener::bind("127.0.0.1:0").await.expect("a port")).await
    }

    /// The same on a port that was another one's.
    pub async fn start_at(
        address: SocketAddr,
        answers: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Arc::new(answers), None, TcpListener::bind(address).await.expect("the port")).await
    }

    /// The same over TLS, as `localhost`.
    pub async fn start_tls(
        certificates: &Certificates,
        answers: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let chain = CertificateDer::pem_file_iter(certificates.path("broker.pem")).expect("a certificate");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(certificates.path("broker.key")).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("certificate and key fit");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::serve(Arc::new(answers), Some(TlsAcceptor::from(Arc::new(config))), listener).await
    }

    async fn serve(answers: Answers, tls: Option<TlsAcceptor>, listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("an address");
        let (tells, asked) = mpsc::channel(1024);
        let numbers = Arc::new(AtomicUsize::new(0));
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (answers, tells, numbers) = (Arc::clone(&answers), tells.clone(), Arc::clone(&numbers));
                let tls = tls.clone();
                connections.spawn(async move {
                    let talk = Talk { connection, answers, tells, numbers };
                    match tls {
                        None => talk.over(stream).await,
                        // Who does not trust the certificate goes.
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => talk.over(stream).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, asked, serving }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as `localhost`.
    pub fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}{path}", self.address.port())
    }

    /// The next request.
    pub async fn next(&mut self) -> Asked {
        soon("a request", self.asked.recv()).await.expect("the server lives")
    }

    /// The next request, if there is one so soon.
    pub async fn next_within(&mut self, limit: Duration) -> Option<Asked> {
        within(limit, self.asked.recv()).await.flatten()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Talk {
    connection: usize,
    answers: Answers,
    tells: mpsc::Sender<Asked>,
    numbers: Arc<AtomicUsize>,
}

impl Talk {
    /// Answers requests until the client goes.
    async fn over<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) -> Option<()> {
        let mut got = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = got.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                    break at;
                }
                more(&mut stream, &mut got).await?;
            };
            let head = String::from_utf8_lossy(&got[..end]).into_owned();
            let mut lines = head.lines();
            let line = lines.next().unwrap_or_default().to_owned();
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
                .collect();
            let size = headers.iter().find(|(name, _)| name == "content-length");
            let size: usize = size.map_or(0, |(_, size)| size.parse().expect("a number"));
            while got.len() < end + 4 + size {
                more(&mut stream, &mut got).await?;
            }
            let rest = got.split_off(end + 4 + size);
            let body = std::mem::replace(&mut got, rest).split_off(end + 4);
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let asked =
                Asked { number, connection: self.connection, line, headers, body, at: Instant::now() };
            let Reply { status, headers, after } = (self.answers)(&asked);
            self.tells.send(asked).await.ok()?;
            tokio::time::sleep(after).await;
            let answer = format!("HTTP/1.1 {status} As Said\r\n{headers}Content-Length: 2\r\n\r\nok");
            let answer = if status == 204 { format!("HTTP/1.1 204 None\r\n{headers}\r\n") } else { answer };
            stream.write_all(answer.as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
        }
    }
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, got: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(got).await.ok()? > 0).then_some(())
}
