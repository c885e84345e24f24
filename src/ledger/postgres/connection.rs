//! Connections to the server: a few, made when they are needed, given up when they are lost or slow.

use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, PoolError, RecyclingMethod, Runtime,
};
use linkspan_contract::ledger::LedgerError;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::statements;

/// Connections at most; an instance asks its ledger seldom.
const CONNECTIONS: usize = 4;
/// How long one statement may take, waiting for a connection included.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// How often what has expired is deleted.
const REAP_EVERY: Duration = Duration::from_secs(60);
/// The format of the tables that this version knows.
const FORMAT: i32 = 1;

/// A few connections to one server.
pub struct Pool {
    inner: Arc<deadpool_postgres::Pool>,
}

impl Pool {
    pub(super) fn new(url: &str) -> Result<Self, LedgerError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config(url)?, tls()?, recycling);
        let inner = deadpool_postgres::Pool::builder(manager)
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(PATIENCE))
            .create_timeout(Some(PATIENCE))
            .post_create(Hook::async_fn(|client, _| Box::pin(async move { prepare(client).await })))
            .build()
            .map_err(|error| LedgerError::Unfit(error.to_string()))?;
        let inner = Arc::new(inner);
        tokio::spawn(reap(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// The first row that the statement answers with.
    pub(super) async fn first(
        &self,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, LedgerError> {
        Ok(self.all(statement, values).await?.into_iter().next())
    }

    /// All rows that it answers with.
    pub(super) async fn all(
        &self,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, LedgerError> {
        rows(&self.inner, statement, values).await
    }
}

/// What the URL says, with what it leaves out.
pub(super) fn config(url: &str) -> Result<Config, LedgerError> {
    let unfit = |why: String| LedgerError::Unfit(why);
    let mut config: Config = url.parse().map_err(|error| unfit(told(&error)))?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    if config.get_application_name().is_none() {
        config.application_name("linkspan");
    }
    Ok(config)
}

fn tls() -> Result<MakeRustlsConnect, LedgerError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| LedgerError::Unfit(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(tls))
}

/// Connects once, looks, and hangs up.
pub(super) async fn probe(url: &str) -> Result<String, LedgerError> {
    let away = |error: tokio_postgres::Error| LedgerError::Away(told(&error));
    let (config, tls) = (config(url)?, tls()?);
    let look = async {
        let (client, connection) = config.connect(tls).await.map_err(away)?;
        let connection = tokio::spawn(connection);
        let found = async {
            let row = client.query_one(statements::LOOK, &[]).await?;
            let there: bool = row.try_get(1)?;
            let format: Option<i32> = match there {
                true => client.query_one(statements::FORMAT, &[]).await?.try_get(0)?,
                false => None,
            };
            Ok((row.try_get::<_, String>(0)?, format, row.try_get::<_, bool>(2)?))
        };
        let found = found.await.map_err(away);
        connection.abort();
        found
    };
    let found = timeout(PATIENCE, look).await;
    let (version, format, may_make) = found.unwrap_or_else(|_| Err(LedgerError::Away(silent())))?;
    match format {
        Some(FORMAT) => Ok(format!("PostgreSQL {version}, with tables of format {FORMAT}")),
        Some(other) => Err(LedgerError::Unfit(unknown(other))),
        None if may_make => Ok(format!("PostgreSQL {version}; its tables are made at the start")),
        None => Err(LedgerError::Unfit(
            "its user may not make a schema in this database: GRANT CREATE ON DATABASE".into(),
        )),
    }
}

fn silent() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

fn unknown(format: i32) -> String {
    format!(
        "its tables have format {format}, which this version of Linkspan does not know; it knows {FORMAT}"
    )
}

async fn rows(
    pool: &deadpool_postgres::Pool,
    statement: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, LedgerError> {
    let client = pool.get().await.map_err(not_connected)?;
    let asked = async {
        let prepared = client.prepare_cached(statement).await?;
        client.query(&prepared, values).await
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => Err(LedgerError::Away(told(&error))),
        // What is still under way on it must not be answered to the next who asks.
        Err(_) => {
            drop(Client::take(client));
            Err(LedgerError::Away(silent()))
        }
    }
}

/// Makes the tables where there are none.
async fn prepare(client: &deadpool_postgres::ClientWrapper) -> Result<(), HookError> {
    client.batch_execute(statements::TABLES).await.map_err(HookError::Backend)?;
    let row = client.query_one(statements::FORMAT, &[]).await.map_err(HookError::Backend)?;
    match row.try_get::<_, i32>(0).map_err(HookError::Backend)? {
        FORMAT => Ok(()),
        other => Err(HookError::message(unknown(other))),
    }
}

fn not_connected(error: PoolError) -> LedgerError {
    LedgerError::Away(match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => told(&error),
        error => error.to_string(),
    })
}

/// An error with what caused it, which its own text leaves out.
fn told(error: &tokio_postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        return format!("{} ({})", answer.message(), answer.code().code());
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Deletes what has expired, for as long as the pool is used.
async fn reap(pool: Weak<deadpool_postgres::Pool>) {
    loop {
        tokio::time::sleep(REAP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        if let Err(error) = rows(&pool, statements::REAP, &[]).await {
            tracing::debug!(%error, "what has expired stays in the ledger for now");
        }
    }
}
