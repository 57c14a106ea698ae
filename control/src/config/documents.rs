//! Files that boxes of a site share by their store (`store.share`): read, and written whole.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::Site;
use super::hosts::replace_file;
use super::problem::Problem;

/// What may be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// `box.hosts_file`.
    Hosts,
    /// `box.policy_file`.
    Policy,
    /// `site.key`, sealed with `store.wrap_key`.
    Key,
}

impl Share {
    /// What it is called in the store.
    pub fn name(self) -> &'static str {
        match self {
            Share::Hosts => "hosts",
            Share::Policy => "policy",
            Share::Key => "key",
        }
    }

    /// The file of this box.
    pub fn file(self, site: &Site) -> Option<PathBuf> {
        match self {
            Share::Hosts => Some(site.node.hosts_file.clone()),
            Share::Policy => Some(site.node.policy_file.clone()),
            Share::Key => site.key.clone(),
        }
    }

    /// The mode it is made with.
    fn mode(self) -> u32 {
        match self {
            Share::Hosts | Share::Policy => 0o640,
            Share::Key => 0o600,
        }
    }

    /// What the file says; nothing if there is none.
    pub fn read(self, file: &Path) -> io::Result<Option<String>> {
        match fs::read_to_string(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the file say this from now on, or ends it.
    pub fn write(self, file: &Path, text: Option<&str>) -> io::Result<()> {
        // A rename would replace a symbolic link and leave its target alone.
        let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
        match text {
            Some(text) => replace_file(&target, text.as_bytes(), self.mode()),
            None => match fs::remove_file(&target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Keeps beside the file what it said and is to say no longer, although nobody else knows it. The place.
    pub fn put_aside(self, file: &Path, text: &str) -> io::Result<PathBuf> {
        let aside = beside(file, ".lost");
        replace_file(&aside, text.as_bytes(), self.mode())?;
        Ok(aside)
    }

    /// Remembers beside the file that it goes on saying `text` although the store says otherwise, which was not good here. A
    /// process that begins later would take it for a change of the operator's.
    pub fn note_refusal(self, file: &Path, text: &str) -> io::Result<()> {
        replace_file(&beside(file, REFUSED), digest_of(text).as_bytes(), self.mode())
    }

    /// Whether that was noted of this text.
    pub fn is_refusal(self, file: &Path, text: &str) -> bool {
        fs::read_to_string(beside(file, REFUSED)).is_ok_and(|noted| noted == digest_of(text))
    }

    /// It is over.
    pub fn forget_refusal(self, file: &Path) -> io::Result<()> {
        match fs::remove_file(beside(file, REFUSED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// What the name of a note ends with.
const REFUSED: &str = ".refused";

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_os_string();
    name.push(ending);
    file.with_file_name(name)
}

fn digest_of(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The key that seals, of which a file has 32 octets that nobody but its owner may read.
///
/// # Errors
/// A [`Problem`] that names the file.
pub fn wrap_key(file: &Path) -> Result<[u8; 32], Problem> {
    let wrong = |text: String| Problem::of_file(file, text);
    let unread = |error: io::Error| wrong(format!("cannot be read: {error}"));
    let mode = fs::metadata(file).map_err(unread)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(wrong(format!("mode {mode:04o} lets others read the key; chmod 600 {}", file.display())));
    }
    let octets = fs::read(file).map_err(unread)?;
    let length = octets.len();
    octets.try_into().map_err(|_| wrong(format!("has {length} octets; 32 random ones are wanted")))
}
