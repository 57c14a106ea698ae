//! A store on a disk that fails when a test wants it to.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::{Store, StoreError, failure, migrate};

#[derive(Debug)]
struct Faulty {
    file: FileBackend,
    broken: Arc<AtomicBool>,
}

impl Faulty {
    fn check<E: From<io::Error>>(&self) -> Result<(), E> {
        match self.broken.load(Ordering::Relaxed) {
            true => Err(io::Error::from(io::ErrorKind::StorageFull).into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.check::<io::Error>()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.check::<io::Error>()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.check::<io::Error>()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
}

impl Store {
    /// Opens a file that is there; nothing is written to it while `broken` is set.
    pub(crate) fn open_faulty(file: &Path, broken: Arc<AtomicBool>) -> Result<Store, StoreError> {
        let opened = OpenOptions::new().read(true).write(true).open(file);
        let opened = opened.map_err(|source| StoreError::Open { file: file.to_path_buf(), source })?;
        let file_backend = FileBackend::new(opened).map_err(|error| failure(file, error))?;
        Store::open_backend(file, Faulty { file: file_backend, broken }, migrate::STEPS)
    }
}
