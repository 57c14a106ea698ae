//! Keys and the store: there, readable by the daemon, and by nobody else.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Account, Finding};
use crate::config::Site;

const KEY: &str = "key";
const STORE: &str = "store";

/// What nobody but its owner may read.
pub(super) fn secrets(site: &Site, daemon: &Account) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &site.key {
        None => findings.push(Finding::ok(KEY, "site.key is not set: hosts get HBA-only addresses")),
        Some(file) => findings.push(secret(KEY, file, daemon).unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Finding::fail(KEY, format!("{} is not there", file.display())).mend(format!(
                "pshim6ctl key make && chown {} {}",
                daemon.name,
                file.display()
            )),
            _ => Finding::fail(KEY, format!("{}: {error}", file.display())),
        })),
    }
    if let Some(publish) = &site.publish {
        let topic = "publish key";
        let file = &publish.key;
        findings.push(
            secret(topic, file, daemon)
                .unwrap_or_else(|error| Finding::fail(topic, format!("{}: {error}", file.display()))),
        );
    }
    findings
}

fn secret(topic: &'static str, file: &Path, daemon: &Account) -> io::Result<Finding> {
    let metadata = fs::metadata(file)?;
    let shown = file.display();
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let text = format!("{shown}: mode {mode:04o} lets others read it");
        return Ok(Finding::fail(topic, text).mend(format!("chmod 600 {shown}")));
    }
    Ok(owned(topic, file, &metadata, daemon)
        .unwrap_or_else(|| Finding::ok(topic, format!("{shown}: mode {mode:04o}, owner {}", daemon.name))))
}

/// A file of mode 0600 that the daemon cannot open because it is somebody else's; root can.
fn owned(topic: &'static str, file: &Path, metadata: &Metadata, daemon: &Account) -> Option<Finding> {
    let text = format!("{} belongs to user {}, and the daemon is {}", file.display(), metadata.uid(), daemon.name);
    let command = format!("chown {} {}", daemon.name, file.display());
    (daemon.uid != 0 && metadata.uid() != daemon.uid).then(|| Finding::fail(topic, text).mend(command))
}

/// The leases, if there is a store.
pub(super) fn store(site: &Site, daemon: &Account) -> Option<Finding> {
    let file = site.store.as_ref()?;
    let shown = file.display();
    match fs::metadata(file) {
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            let text = format!("{shown}: mode {:04o} lets others read it", metadata.mode() & 0o7777);
            Some(Finding::fail(STORE, text).mend(format!("chmod 600 {shown}")))
        }
        Ok(metadata) => {
            let good = || Finding::ok(STORE, format!("{shown}: {} octets", metadata.len()));
            Some(owned(STORE, file, &metadata, daemon).unwrap_or_else(good))
        }
        Err(_) => Some(folder_of(file, daemon)),
    }
}

/// A store that is still to be made: by the daemon, in a directory that is its own.
fn folder_of(file: &Path, daemon: &Account) -> Finding {
    let folder: PathBuf = file.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    let shown = folder.display();
    let command = format!("install -d -o {} -m 700 {shown}", daemon.name);
    match fs::metadata(&folder) {
        Ok(metadata) if metadata.uid() != daemon.uid && metadata.mode() & 0o002 == 0 && daemon.uid != 0 => {
            let text = format!("{} is to be made in {shown}, where {} may not write", file.display(), daemon.name);
            Finding::fail(STORE, text).mend(command)
        }
        Ok(_) => Finding::ok(STORE, format!("{} is made at the first start", file.display())),
        Err(error) => Finding::fail(STORE, format!("{shown}: {error}")).mend(command),
    }
}
