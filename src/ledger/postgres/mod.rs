//! The ledger of several instances: a PostgreSQL. Its clock is the one that counts for leases and for what expires.

pub mod connection;
mod statements;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use linkspan_contract::ledger::{Conditions, Entry, Expected, LedgerError, Version, fits};
use linkspan_contract::{Fence, Health, Lease, Leases, Ledger, NotGranted};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use self::connection::Pool;
use super::LEASE;

/// A ledger in a PostgreSQL. Each method is one statement of its own, so that nothing is half done, whenever the
/// connection is lost.
pub struct PostgresLedger {
    instance: Arc<str>,
    /// This run of the instance: one that was started again takes over what the one before held.
    run: i64,
    pool: Pool,
}

/// What a statement is given.
type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

impl PostgresLedger {
    /// For the server at `url` (`postgres://user:password@host:5432/database?sslmode=require`). It connects when it is
    /// first asked.
    ///
    /// # Errors
    /// [`LedgerError::Unfit`]: what is wrong with the URL or the machine's certificates.
    pub fn open(url: &str, instance: &str) -> Result<Self, LedgerError> {
        Ok(Self { instance: instance.into(), run: rand_run(), pool: Pool::new(url)? })
    }

    /// What is wrong with a URL, as [`open`](Self::open) would find it.
    ///
    /// # Errors
    /// What is wrong, without the password.
    pub fn verify(url: &str) -> Result<(), LedgerError> {
        connection::config(url).map(|_| ())
    }

    /// Connects once, and makes nothing: what is there, for people.
    ///
    /// # Errors
    /// Why it cannot be the ledger.
    pub async fn probe(url: &str) -> Result<String, LedgerError> {
        connection::probe(url).await
    }

    /// Stands before a write that is guarded: nothing comes of it while another number is the lease's.
    async fn changed(
        &self,
        statement: &str,
        values: Values<'_>,
        key: &str,
        terms: &Conditions<'_>,
    ) -> Result<Option<Row>, LedgerError> {
        let row = self.pool.first(statement, values).await?;
        match (row, terms.guard) {
            (Some(row), _) => Ok(Some(row)),
            (None, Some((lease, fence))) => {
                let number = i64::try_from(fence).unwrap_or(i64::MAX);
                match self.pool.first(statements::GUARD, &[&lease, &number]).await? {
                    Some(_) => Ok(None),
                    None => Err(LedgerError::Fenced { lease: lease.into() }),
                }
            }
            (None, None) => Ok(None),
        }
        .and_then(|row| match (row, terms.expected) {
            (None, Expected::Nothing | Expected::Version(_)) => Err(LedgerError::Stale { key: key.into() }),
            (row, _) => Ok(row),
        })
    }

    async fn granted(&self, statement: &str, values: Values<'_>, name: &str) -> Result<Lease, NotGranted> {
        let away = |error: LedgerError| NotGranted::Away(error.to_string());
        if let Some(row) = self.pool.first(statement, values).await.map_err(away)? {
            let fence: i64 = column(&row, 0).map_err(away)?;
            return Ok(Lease { fence: fence.unsigned_abs(), lasts: LEASE });
        }
        let holder = self.pool.first(statements::HOLDER, &[&name]).await.map_err(away)?;
        let holder: String =
            holder.map_or_else(|| Ok("nobody".to_owned()), |row| column(&row, 0)).map_err(away)?;
        Err(NotGranted::Held(holder.into()))
    }
}

/// Any number: two runs of one instance have different ones.
fn rand_run() -> i64 {
    use std::hash::{BuildHasher, RandomState};
    i64::from_ne_bytes(RandomState::new().hash_one(std::process::id()).to_ne_bytes())
}

fn guard<'a>(terms: &Conditions<'a>) -> (Option<&'a str>, i64) {
    let (lease, fence) = terms.guard.unzip();
    (lease, fence.map_or(0, |fence| i64::try_from(fence).unwrap_or(i64::MAX)))
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, LedgerError> {
    row.try_get(index).map_err(|error| LedgerError::Broken(format!("its tables are not Linkspan's: {error}")))
}

fn entry(row: &Row, from: usize) -> Result<Entry, LedgerError> {
    let value: &[u8] = column(row, from)?;
    let version: i64 = column(row, from.saturating_add(1))?;
    Ok(Entry { value: Bytes::copy_from_slice(value), version: version.unsigned_abs() })
}

/// The first key behind all that begin with `prefix`; none when there is no such.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut behind = prefix.get(..=last)?.to_vec();
    if let Some(byte) = behind.last_mut() {
        *byte = byte.saturating_add(1);
    }
    Some(behind)
}

#[async_trait]
impl Leases for PostgresLedger {
    async fn take(&self, name: &str) -> Result<Lease, NotGranted> {
        let values: Values<'_> = &[&name, &&*self.instance, &self.run, &seconds(LEASE)];
        self.granted(statements::TAKE, values, name).await
    }

    async fn give_back(&self, name: &str, fence: Fence) {
        let fence = i64::try_from(fence).unwrap_or(i64::MAX);
        let values: Values<'_> = &[&name, &&*self.instance, &self.run, &fence];
        if let Err(error) = self.pool.first(statements::GIVE_BACK, values).await {
            tracing::warn!(lease = name, %error, "a lease was not given back; it runs out by itself");
        }
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn get(&self, key: &str) -> Result<Option<Entry>, LedgerError> {
        let row = self.pool.first(statements::GET, &[&key.as_bytes()]).await?;
        row.map(|row| entry(&row, 0)).transpose()
    }

    async fn put(&self, key: &str, value: &[u8], terms: Conditions<'_>) -> Result<Version, LedgerError> {
        fits(key, value)?;
        let (bytes, lasts, (lease, fence)) = (key.as_bytes(), terms.lasts.map(seconds), guard(&terms));
        let row = match terms.expected {
            Expected::Version(expected) => {
                let expected = i64::try_from(expected).unwrap_or(i64::MAX);
                let values: Values<'_> = &[&bytes, &value, &lasts, &lease, &fence, &expected];
                self.changed(statements::REPLACE, values, key, &terms).await?
            }
            expected => {
                let must_be_new = expected == Expected::Nothing;
                let values: Values<'_> = &[&bytes, &value, &lasts, &lease, &fence, &must_be_new];
                self.changed(statements::PUT, values, key, &terms).await?
            }
        };
        let row = row.ok_or_else(|| LedgerError::Stale { key: key.into() })?;
        let version: i64 = column(&row, 0)?;
        Ok(version.unsigned_abs())
    }

    async fn delete(&self, key: &str, terms: Conditions<'_>) -> Result<bool, LedgerError> {
        fits(key, &[])?;
        let (lease, fence) = guard(&terms);
        let version = match terms.expected {
            Expected::Anything => None,
            // nothing is there to be deleted: only whether that holds is asked
            Expected::Nothing => {
                return match self.get(key).await? {
                    None => Ok(false),
                    Some(_) => Err(LedgerError::Stale { key: key.into() }),
                };
            }
            Expected::Version(version) => Some(i64::try_from(version).unwrap_or(i64::MAX)),
        };
        let values: Values<'_> = &[&key.as_bytes(), &version, &lease, &fence];
        let row = self.changed(statements::DELETE, values, key, &terms).await?;
        row.map_or(Ok(false), |row| column(&row, 0))
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Box<str>, Entry)>, LedgerError> {
        let (after, limit) = (after.map(str::as_bytes), i64::try_from(limit).unwrap_or(i64::MAX));
        let values: Values<'_> = &[&prefix.as_bytes(), &behind(prefix.as_bytes()), &after, &limit];
        let rows = self.pool.all(statements::SCAN, values).await?;
        rows.iter()
            .map(|row| {
                let key: &[u8] = column(row, 0)?;
                Ok((String::from_utf8_lossy(key).into(), entry(row, 1)?))
            })
            .collect()
    }

    async fn advance(&self, name: &str, fence: Fence) -> Result<Lease, NotGranted> {
        let fence = i64::try_from(fence).unwrap_or(i64::MAX);
        let values: Values<'_> = &[&name, &&*self.instance, &self.run, &fence, &seconds(LEASE)];
        self.granted(statements::ADVANCE, values, name).await
    }

    async fn health(&self) -> Health {
        match self.pool.first(statements::PING, &[]).await {
            Ok(_) => Health::Up,
            Err(LedgerError::Away(why)) => Health::Away(why),
            Err(error) => Health::Away(error.to_string()),
        }
    }
}
