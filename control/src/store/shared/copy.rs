//! The box's own copy of a shared store: a file, so that a box that cannot reach the cluster knows what it knew, and does
//! not forget what it wrote meanwhile.

use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::mirror::{Known, Mirror};
use crate::store::{META, Store, StoreError, migrate};

/// A key; the revision that wrote it last, the revision it had when it was changed here, and what it says.
type Fields = (u64, Option<u64>, Option<&'static str>);
const INSTANCE: &str = "instance";
const ROWS: TableDefinition<'_, &str, Fields> = TableDefinition::new("rows");

impl Store {
    /// What is in the copy.
    pub(super) fn read_mirror(&self) -> Result<Mirror, StoreError> {
        let mut mirror = Mirror::default();
        let transaction = self.database.begin_read().map_err(|error| self.failed(error))?;
        let table = match transaction.open_table(ROWS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(mirror),
            table => table.map_err(|error| self.failed(error))?,
        };
        for row in table.iter().map_err(|error| self.failed(error))? {
            let (key, fields) = row.map_err(|error| self.failed(error))?;
            let (revision, base, value) = fields.value();
            let known = Known { value: value.map(str::to_owned), revision, base, news: 0 };
            mirror.put(key.value().to_owned(), known);
        }
        Ok(mirror)
    }

    /// Makes rows of the copy like those of `mirror`. What the cluster has need not be on disk at once.
    pub(super) fn write_mirror<'k>(
        &self,
        mirror: &Mirror,
        keys: impl IntoIterator<Item = &'k str>,
        at_once: bool,
    ) -> Result<(), StoreError> {
        let mut transaction = self.database.begin_write().map_err(|error| self.failed(error))?;
        let durability = if at_once { Durability::Immediate } else { Durability::None };
        transaction.set_durability(durability).map_err(|error| self.failed(error))?;
        let write = || -> Result<(), redb::Error> {
            let mut table = transaction.open_table(ROWS)?;
            for key in keys {
                match mirror.get(key) {
                    Some(known) => {
                        _ = table.insert(key, (known.revision, known.base, known.value.as_deref()))?;
                    }
                    None => _ = table.remove(key)?,
                }
            }
            Ok(())
        };
        write().map_err(|error| self.failed(error))?;
        transaction.commit().map_err(|error| self.failed(error))
    }

    /// Which box this is the copy of; `fresh` if nobody has said so yet, and from then on.
    pub(super) fn instance(&self, fresh: &str) -> Result<String, StoreError> {
        if let Some(known) = self.read_instance()? {
            return Ok(known);
        }
        self.write(|transaction| transaction.open_table(META)?.insert(INSTANCE, fresh).map(drop).map_err(Into::into))?;
        Ok(fresh.to_owned())
    }

    pub(super) fn read_instance(&self) -> Result<Option<String>, StoreError> {
        let transaction = self.database.begin_read().map_err(|error| self.failed(error))?;
        let meta = transaction.open_table(META).map_err(|error| self.failed(error))?;
        let text = meta.get(INSTANCE).map_err(|error| self.failed(error))?;
        Ok(text.map(|text| text.value().to_owned()))
    }

    /// One that is forgotten with the process.
    pub(super) fn in_memory(name: &Path) -> Result<Store, StoreError> {
        Store::open_backend(name, InMemoryBackend::new(), migrate::STEPS)
    }
}
