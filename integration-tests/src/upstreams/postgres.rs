//! PostgreSQL, for ledgers that instances share.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::endpoint;
use super::place::Kind;
use super::port::Port;
use super::upstream::Upstream;

const KIND: Kind = Kind {
    name: "PostgreSQL",
    stand_in: "linkspan-stand-in/postgres",
    official: "postgres:17",
    user: "postgres",
    url_variable: "LINKSPAN_TEST_POSTGRES",
    image_variable: "LINKSPAN_TEST_POSTGRES_IMAGE",
    program: "postgres",
    package: "postgresql",
};

/// Runs it as somebody else where the test is root's, who may not run it.
const RUN: &str = "
[ $(id -u) != 0 ] || { chown 65534:65534 . && as='setpriv --reuid=65534 --regid=65534 --clear-groups'; }
PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
[ -e data ] || ${as-} initdb --pgdata data --auth trust --username linkspan --encoding UTF8 --no-sync > /dev/null || exit 1
exec ${as-} postgres -D data -k \"$HOME\" -c listen_addresses=127.0.0.1 -p ";

/// A PostgreSQL that lets everybody in on loopback.
#[derive(Debug)]
pub struct Postgres {
    address: SocketAddr,
    url: String,
    own: Option<Upstream>,
}

impl Postgres {
    /// The one that tests share, each with a database of its own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(Self::given_or_own).await
    }

    /// The one that the environment names, or else a fresh one.
    pub async fn given_or_own() -> Self {
        let Ok(url) = std::env::var(KIND.url_variable) else { return Self::own().await };
        let address = endpoint(KIND.url_variable, &url);
        assert!(serves(address), "{}: nobody serves PostgreSQL at {address}", KIND.url_variable);
        Self { address, url, own: None }
    }

    /// A fresh one that is the caller's alone.
    pub async fn own() -> Self {
        let port = Port::reserve();
        let address = port.address();
        let run = format!("{}{}", RUN.trim_start(), address.port());
        let upstream =
            Upstream::start(&KIND, vec![], vec![], run, vec![(address, serves as _)], [port]).await;
        Self { address, url: format!("postgres://linkspan@{address}/postgres"), own: Some(upstream) }
    }

    /// Its URL, of the database that every server has.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of another database, as it is reached at `address`.
    pub fn url_of(&self, database: &str, address: SocketAddr) -> String {
        let (server, _) = self.url.rsplit_once('/').expect("a URL with a database");
        format!("{}/{database}", server.replace(&self.address.to_string(), &address.to_string()))
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The variables that give it to another process as its shared one.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![(KIND.url_variable, self.url.clone())]
    }

    /// Starts it again after [`kill`](Self::kill), on the same port with the same data, and waits until it serves.
    pub async fn start(&self) {
        self.upstream().start_again().await;
    }

    /// Kills it (SIGKILL), with all that it started.
    pub async fn kill(&self) {
        self.upstream().kill().await;
    }

    fn upstream(&self) -> &Upstream {
        self.own.as_ref().expect("a PostgreSQL from the environment is shared: use Postgres::own()")
    }
}

/// Whether it answers a start-up message by asking who we are, and not by saying that it is starting.
fn serves(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // length, protocol 3.0, user
        stream.write_all(b"\0\0\0\x17\0\x03\0\0user\0linkspan\0\0")?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        std::io::Result::Ok(kind == *b"R")
    };
    ask().unwrap_or(false)
}
