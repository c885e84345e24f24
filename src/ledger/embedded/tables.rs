//! What the file holds, and what one transaction does to it.

use linkspan_contract::ledger::{Conditions, Entry, Expected, LedgerError, Version};
use linkspan_contract::{Fence, Millis};
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

/// What a key has: the version, when it expires (0: never), the value.
pub(super) type Row<'a> = (Version, Millis, &'a [u8]);

pub(super) const ENTRIES: TableDefinition<'static, &str, Row<'static>> = TableDefinition::new("entries");
/// Keys by the time at which they expire.
const EXPIRIES: TableDefinition<'static, (Millis, &str), ()> = TableDefinition::new("expiries");
const FENCES: TableDefinition<'static, &str, Fence> = TableDefinition::new("fences");
/// The format of this file, and the last version given.
const NUMBERS: TableDefinition<'static, &str, u64> = TableDefinition::new("numbers");

const FORMAT: u64 = 1;

/// The tables within one transaction.
pub(super) struct Tables<'t> {
    entries: Table<'t, &'static str, Row<'static>>,
    expiries: Table<'t, (Millis, &'static str), ()>,
    fences: Table<'t, &'static str, Fence>,
    numbers: Table<'t, &'static str, u64>,
}

/// What came of a request: its answer, or why the file could not be used.
type Outcome<T> = Result<Result<T, LedgerError>, redb::Error>;

impl<'t> Tables<'t> {
    pub(super) fn of(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            entries: transaction.open_table(ENTRIES)?,
            expiries: transaction.open_table(EXPIRIES)?,
            fences: transaction.open_table(FENCES)?,
            numbers: transaction.open_table(NUMBERS)?,
        })
    }

    /// Marks a new file as this format's; whether this is one of it.
    pub(super) fn is_ours(&mut self) -> Result<Result<(), u64>, redb::Error> {
        let format = self.numbers.get("format")?.map(|format| format.value());
        match format {
            None => {
                self.numbers.insert("format", FORMAT)?;
                Ok(Ok(()))
            }
            Some(FORMAT) => Ok(Ok(())),
            Some(other) => Ok(Err(other)),
        }
    }

    pub(super) fn put(
        &mut self,
        key: &str,
        value: &[u8],
        terms: Conditions<'_>,
        now: Millis,
    ) -> Outcome<Version> {
        if let Err(refused) = self.holds(key, terms, now)? {
            return Ok(Err(refused));
        }
        self.remove(key)?;
        let version = self.next("version")?;
        let lasts = terms.lasts.map(|lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        let expires = lasts.map_or(0, |lasts| now.saturating_add(lasts).max(1));
        self.entries.insert(key, (version, expires, value))?;
        if expires > 0 {
            self.expiries.insert((expires, key), ())?;
        }
        Ok(Ok(version))
    }

    pub(super) fn delete(&mut self, key: &str, terms: Conditions<'_>, now: Millis) -> Outcome<bool> {
        if let Err(refused) = self.holds(key, terms, now)? {
            return Ok(Err(refused));
        }
        let expires = self.remove(key)?;
        Ok(Ok(expires.is_some_and(|expires| is_there(expires, now))))
    }

    /// The number after all that were given for this lease.
    pub(super) fn next_fence(&mut self, name: &str) -> Result<Fence, redb::Error> {
        let fence = self.fences.get(name)?.map_or(0, |fence| fence.value()).saturating_add(1);
        self.fences.insert(name, fence)?;
        Ok(fence)
    }

    /// Deletes at most `most` keys that have expired; how many it was.
    pub(super) fn reap(&mut self, now: Millis, most: usize) -> Result<usize, redb::Error> {
        let mut gone: Vec<(Millis, String)> = Vec::new();
        for row in self.expiries.range(..(now.saturating_add(1), ""))?.take(most) {
            let (row, _) = row?;
            let (expires, key) = row.value();
            gone.push((expires, key.to_owned()));
        }
        for (expires, key) in &gone {
            self.entries.remove(key.as_str())?;
            self.expiries.remove((*expires, key.as_str()))?;
        }
        Ok(gone.len())
    }

    fn holds(&self, key: &str, terms: Conditions<'_>, now: Millis) -> Outcome<()> {
        if let Some((lease, fence)) = terms.guard
            && self.fences.get(lease)?.map(|fence| fence.value()) != Some(fence)
        {
            return Ok(Err(LedgerError::Fenced { lease: lease.into() }));
        }
        let version = self.entries.get(key)?.and_then(|row| {
            let (version, expires, _) = row.value();
            is_there(expires, now).then_some(version)
        });
        let holds = match terms.expected {
            Expected::Anything => true,
            Expected::Nothing => version.is_none(),
            Expected::Version(expected) => version == Some(expected),
        };
        Ok(if holds { Ok(()) } else { Err(LedgerError::Stale { key: key.into() }) })
    }

    /// Takes a key out of both tables; when it would have expired.
    fn remove(&mut self, key: &str) -> Result<Option<Millis>, redb::Error> {
        let expires = self.entries.remove(key)?.map(|row| row.value().1);
        if let Some(expires) = expires
            && expires > 0
        {
            self.expiries.remove((expires, key))?;
        }
        Ok(expires)
    }

    fn next(&mut self, number: &str) -> Result<u64, redb::Error> {
        let next = self.numbers.get(number)?.map_or(0, |number| number.value()).saturating_add(1);
        self.numbers.insert(number, next)?;
        Ok(next)
    }
}

/// The entry of a row, unless it has expired.
pub(super) fn entry((version, expires, value): Row<'_>, now: Millis) -> Option<Entry> {
    is_there(expires, now).then(|| Entry { value: value.to_vec().into(), version })
}

fn is_there(expires: Millis, now: Millis) -> bool {
    expires == 0 || expires > now
}
