//! The tables of the file, and what one transaction does to them.

use std::path::Path;
use std::sync::Arc;

use linkspan_contract::neutral::{self, NEUTRAL};
use linkspan_contract::{ExchangeKind, Properties, WireForm};
use redb::{
    Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, Value,
    WriteTransaction,
};

use crate::archive::GROUPS;
use crate::arguments::Owned;
use crate::register::RegisterError;
use crate::register::known::Known;
use crate::register::row::{BindingRow, EndRow, ExchangeRow, Gone, QueueRow, Row};
use crate::register::store::Image;

/// The format of this file, and the number that the next queue gets.
const NUMBERS: TableDefinition<'static, &str, u64> = TableDefinition::new("numbers");
/// By vhost and name: kind, flags, arguments.
const EXCHANGES: TableDefinition<'static, (&str, &str), (&str, u8, &[u8])> =
    TableDefinition::new("exchanges");
/// By vhost and name: number, flags, arguments.
const QUEUES: TableDefinition<'static, (&str, &str), (u64, u8, &[u8])> = TableDefinition::new("queues");
/// By where they lead: vhost, kind and name of the end, source, key, arguments.
const BINDINGS: TableDefinition<'static, ToKey<'static>, ()> = TableDefinition::new("bindings");
/// The same by where they come from: vhost, source, kind and name of the end, key, arguments.
const SOURCES: TableDefinition<'static, FromKey<'static>, ()> = TableDefinition::new("sources");

type ToKey<'a> = (&'a str, u8, &'a str, &'a str, &'a [u8], &'a [u8]);
type FromKey<'a> = (&'a str, &'a str, u8, &'a str, &'a [u8], &'a [u8]);

const FORMAT: u64 = 1;

const AUTO_DELETE: u8 = 1;
const INTERNAL: u8 = 2;

const QUEUE: u8 = 0;
const EXCHANGE: u8 = 1;

/// Pages that are kept in memory, in bytes. What is declared is small.
const CACHE: usize = 4 << 20;

/// The builder of every database here.
pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// Opens what a file holds, in memory; every page is checked, and a transaction that was not complete is undone.
pub(super) fn opened(bytes: Vec<u8>, file: &Path) -> Result<Database, RegisterError> {
    if bytes.is_empty() {
        return Err(RegisterError::damaged(file)("it is empty"));
    }
    let database = builder()
        .set_check_integrity_on_open(true)
        .create_with_backend(Image::of(bytes))
        .map_err(RegisterError::damaged(file))?;
    let format = || -> Result<_, redb::Error> {
        let numbers = database.begin_read()?.open_table(NUMBERS)?;
        Ok(numbers.get("format")?.map(|format| format.value()))
    };
    match format().map_err(RegisterError::damaged(file))? {
        Some(FORMAT) => Ok(database),
        Some(found) => Err(RegisterError::Version { file: file.to_owned(), found, known: FORMAT }),
        None => Err(RegisterError::damaged(file)("it does not say its format")),
    }
}

/// Reads everything; and the number that the next queue gets.
pub(super) fn known(database: &Database) -> Result<(Known, u64), redb::Error> {
    let read = database.begin_read()?;
    let mut known = Known { whole: true, ..Known::default() };
    let mut next = read.open_table(NUMBERS)?.get("next")?.map_or(1, |next| next.value());
    for row in read.open_table(EXCHANGES)?.iter()? {
        let (key, row) = row?;
        let ((vhost, name), (kind, flags, bytes)) = (key.value(), row.value());
        let row = arguments(bytes).map(|arguments| {
            Row::Exchange(ExchangeRow {
                name: name.into(),
                kind: ExchangeKind::named(kind),
                auto_delete: flags & AUTO_DELETE != 0,
                internal: flags & INTERNAL != 0,
                arguments,
            })
        });
        known.add(vhost, row, || format!("exchange '{name}'"));
    }
    for row in read.open_table(QUEUES)?.iter()? {
        let (key, row) = row?;
        let ((vhost, name), (number, flags, bytes)) = (key.value(), row.value());
        if number < GROUPS {
            next = next.max(number.saturating_add(1));
        }
        let row = arguments(bytes).map(|arguments| {
            let auto_delete = flags & AUTO_DELETE != 0;
            Row::Queue(QueueRow { name: name.into(), number, auto_delete, arguments })
        });
        known.add(vhost, row, || format!("queue '{name}'"));
    }
    for row in read.open_table(BINDINGS)?.iter()? {
        let (key, _) = row?;
        let (vhost, kind, to, source, key, bytes) = key.value();
        let end = match kind {
            QUEUE => Some(EndRow::Queue(to.into())),
            EXCHANGE => Some(EndRow::Exchange(to.into())),
            _ => None,
        };
        let row = end.zip(arguments(bytes)).map(|(to, arguments)| {
            Row::Binding(BindingRow { source: source.into(), to, key: key.into(), arguments })
        });
        known.add(vhost, row, || format!("binding from '{source}' to '{to}'"));
    }
    Ok((known, next))
}

impl Known {
    fn add(&mut self, vhost: &str, row: Option<Row>, what: impl FnOnce() -> String) {
        let Some(row) = row else {
            self.whole = false;
            tracing::error!(
                vhost,
                what = what(),
                "a declaration that was kept cannot be read: it is left out"
            );
            return;
        };
        match self.vhosts.get_mut(vhost) {
            Some(rows) => rows.push(row),
            None => {
                self.vhosts.insert(Arc::from(vhost), vec![row]);
            }
        }
    }
}

/// The tables within one transaction.
pub(super) struct Tables<'t> {
    numbers: Table<'t, &'static str, u64>,
    exchanges: Table<'t, (&'static str, &'static str), (&'static str, u8, &'static [u8])>,
    queues: Table<'t, (&'static str, &'static str), (u64, u8, &'static [u8])>,
    bindings: Table<'t, ToKey<'static>, ()>,
    sources: Table<'t, FromKey<'static>, ()>,
}

impl<'t> Tables<'t> {
    pub(super) fn of(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            numbers: transaction.open_table(NUMBERS)?,
            exchanges: transaction.open_table(EXCHANGES)?,
            queues: transaction.open_table(QUEUES)?,
            bindings: transaction.open_table(BINDINGS)?,
            sources: transaction.open_table(SOURCES)?,
        })
    }

    /// Marks a new file as this format's.
    pub(super) fn begin(&mut self) -> Result<(), redb::Error> {
        self.numbers.insert("format", FORMAT)?;
        Ok(())
    }

    /// Copies what another file holds as it is, whether or not it is understood.
    pub(super) fn copy(&mut self, from: &ReadTransaction) -> Result<(), redb::Error> {
        copy(from, NUMBERS, &mut self.numbers)?;
        copy(from, EXCHANGES, &mut self.exchanges)?;
        copy(from, QUEUES, &mut self.queues)?;
        copy(from, BINDINGS, &mut self.bindings)?;
        copy(from, SOURCES, &mut self.sources)
    }

    /// The number that the next queue gets.
    pub(super) fn set_next(&mut self, next: u64) -> Result<(), redb::Error> {
        self.numbers.insert("next", next)?;
        Ok(())
    }

    /// Keeps something; false when just that was kept already.
    pub(super) fn put(&mut self, vhost: &str, row: &Row) -> Result<bool, redb::Error> {
        match row {
            Row::Exchange(ExchangeRow { name, kind, auto_delete, internal, arguments }) => {
                let flags = flag(*auto_delete, AUTO_DELETE) | flag(*internal, INTERNAL);
                let row = (kind.name(), flags, &*encoded(arguments));
                self.exchanges.insert((vhost, &**name), row)?;
                Ok(true)
            }
            Row::Queue(QueueRow { name, number, auto_delete, arguments }) => {
                let row = (*number, flag(*auto_delete, AUTO_DELETE), &*encoded(arguments));
                self.queues.insert((vhost, &**name), row)?;
                Ok(true)
            }
            Row::Binding(binding) => {
                let BindingRow { source, key, arguments, .. } = binding;
                let ((kind, to), arguments) = (end(binding), encoded(arguments));
                self.sources.insert((vhost, &**source, kind, to, &**key, &*arguments), ())?;
                let before = self.bindings.insert((vhost, kind, to, &**source, &**key, &*arguments), ())?;
                Ok(before.is_none())
            }
        }
    }

    /// Forgets something, and the bindings that go with it.
    pub(super) fn remove(&mut self, vhost: &str, gone: &Gone) -> Result<(), redb::Error> {
        match gone {
            Gone::Exchange(name) => {
                self.exchanges.remove((vhost, &**name))?;
                self.remove_leading_to(vhost, EXCHANGE, name)?;
                self.remove_coming_from(vhost, name)
            }
            Gone::Queue(name) => {
                self.queues.remove((vhost, &**name))?;
                self.remove_leading_to(vhost, QUEUE, name)
            }
            Gone::Binding(binding) => {
                let BindingRow { source, key, arguments, .. } = binding;
                let ((kind, to), arguments) = (end(binding), encoded(arguments));
                self.sources.remove((vhost, &**source, kind, to, &**key, &*arguments))?;
                self.bindings.remove((vhost, kind, to, &**source, &**key, &*arguments))?;
                Ok(())
            }
        }
    }

    fn remove_leading_to(&mut self, vhost: &str, kind: u8, to: &str) -> Result<(), redb::Error> {
        let first: ToKey<'_> = (vhost, kind, to, "", &[], &[]);
        let mut found: Vec<(String, Vec<u8>, Vec<u8>)> = Vec::new();
        for row in self.bindings.range(first..)? {
            let (row, _) = row?;
            let (of, end, name, source, key, arguments) = row.value();
            if (of, end, name) != (vhost, kind, to) {
                break;
            }
            found.push((source.into(), key.into(), arguments.into()));
        }
        for (source, key, arguments) in &found {
            self.bindings.remove((vhost, kind, to, &**source, &**key, &**arguments))?;
            self.sources.remove((vhost, &**source, kind, to, &**key, &**arguments))?;
        }
        Ok(())
    }

    fn remove_coming_from(&mut self, vhost: &str, source: &str) -> Result<(), redb::Error> {
        let first: FromKey<'_> = (vhost, source, 0, "", &[], &[]);
        let mut found: Vec<(u8, String, Vec<u8>, Vec<u8>)> = Vec::new();
        for row in self.sources.range(first..)? {
            let (row, _) = row?;
            let (of, from, kind, to, key, arguments) = row.value();
            if (of, from) != (vhost, source) {
                break;
            }
            found.push((kind, to.into(), key.into(), arguments.into()));
        }
        for (kind, to, key, arguments) in &found {
            self.sources.remove((vhost, source, *kind, &**to, &**key, &**arguments))?;
            self.bindings.remove((vhost, *kind, &**to, source, &**key, &**arguments))?;
        }
        Ok(())
    }
}

fn copy<K: Key, V: Value>(
    from: &ReadTransaction,
    definition: TableDefinition<'_, K, V>,
    to: &mut Table<'_, K, V>,
) -> Result<(), redb::Error> {
    for row in from.open_table(definition)?.iter()? {
        let (key, value) = row?;
        to.insert(key.value(), value.value())?;
    }
    Ok(())
}

fn flag(yes: bool, flag: u8) -> u8 {
    if yes { flag } else { 0 }
}

fn end(binding: &BindingRow) -> (u8, &str) {
    match &binding.to {
        EndRow::Queue(name) => (QUEUE, name),
        EndRow::Exchange(name) => (EXCHANGE, name),
    }
}

/// Arguments are kept as headers are: with their types, their order and what was given twice.
fn encoded(arguments: &Owned) -> Vec<u8> {
    let headers = arguments.iter().map(|(name, value)| ((&**name).into(), value.clone())).collect();
    let mut bytes = Vec::new();
    neutral::encode(&Properties { headers, ..Properties::default() }, &mut bytes);
    bytes
}

fn arguments(bytes: &[u8]) -> Option<Owned> {
    let headers = NEUTRAL.properties(bytes).ok()?.headers;
    Some(headers.into_iter().map(|(name, value)| (name.into(), value.into_owned())).collect())
}
