//! The site's key pair: a PEM file that only its owner may read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::identity::{KeyError, SigningKey};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Not there, or not to be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The key file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than the owner may read it.
    #[error("{file}: mode {mode:04o} lets others read the key; chmod 600 {file}")]
    Mode {
        /// The key file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds no RSA private key that can be used.
    #[error("{file}: {source}")]
    Key {
        /// The key file.
        file: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// A key is there already; a key is never overwritten, since addresses hang on it.
    #[error("{file}: there already; hybrid hosts depend on it, so remove it by hand if that is meant")]
    Exists {
        /// The key file.
        file: PathBuf,
    },
    /// The new file could not be written.
    #[error("{file}: cannot be written: {source}")]
    Write {
        /// The key file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl KeyFileError {
    /// The same without the file's name, for those who have said it.
    pub(super) fn reason(&self) -> String {
        let (KeyFileError::Read { file, .. }
        | KeyFileError::Mode { file, .. }
        | KeyFileError::Key { file, .. }
        | KeyFileError::Exists { file }
        | KeyFileError::Write { file, .. }) = self;
        let text = self.to_string();
        text.strip_prefix(&format!("{}: ", file.display())).unwrap_or(&text).to_string()
    }
}

/// The key in `file`, which nobody but its owner may be able to read.
pub fn load(file: &Path) -> Result<SigningKey, KeyFileError> {
    let wrong = |source| KeyFileError::Read { file: file.to_path_buf(), source };
    let mode = fs::metadata(file).map_err(wrong)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Mode { file: file.to_path_buf(), mode });
    }
    let pem = fs::read(file).map_err(wrong)?;
    SigningKey::from_pem(&pem).map_err(|source| KeyFileError::Key { file: file.to_path_buf(), source })
}

/// Makes a key of `bits` bits and writes it to `file`, mode 0600, unless there is such a file.
pub fn make(file: &Path, bits: u32) -> Result<SigningKey, KeyFileError> {
    let key_error = |source| KeyFileError::Key { file: file.to_path_buf(), source };
    if file.exists() {
        return Err(KeyFileError::Exists { file: file.to_path_buf() });
    }
    let key = SigningKey::generate(bits).map_err(key_error)?;
    let pem = key.to_pem().map_err(key_error)?;
    // Opened with its final mode: there is no moment in which others could read it.
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = written.and_then(|mut new| new.write_all(&pem).and_then(|()| new.sync_all()));
    match written {
        Ok(()) => Ok(key),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            Err(KeyFileError::Exists { file: file.to_path_buf() })
        }
        Err(source) => Err(KeyFileError::Write { file: file.to_path_buf(), source }),
    }
}
