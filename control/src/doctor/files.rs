//! Configuration, keys and the store: there, readable by the daemon, and secrets by nobody else.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Account, Finding};
use crate::config::Site;

const CONFIGURATION: &str = "configuration";
const KEY: &str = "key";
const PUBLISH_KEY: &str = "publish key";
const STORE: &str = "store";

/// Bits of a file's or folder's mode.
const READ: u32 = 4;
const WRITE: u32 = 2;
const ENTER: u32 = 1;

/// Files that root writes and the daemon reads. `config` is that of `site`.
pub(super) fn readable(config: &Path, site: &Site, daemon: &Account) -> Vec<Finding> {
    let files = [config, &site.node.hosts_file, &site.node.policy_file];
    let unreadable = files.into_iter().filter_map(|file| unreadable(CONFIGURATION, file, daemon));
    unreadable.collect()
}

/// What keeps the daemon from reading a file that is there.
fn unreadable(topic: &'static str, file: &Path, daemon: &Account) -> Option<Finding> {
    let metadata = fs::metadata(file).ok()?;
    let shown = file.display();
    let Account { name, group, .. } = daemon;
    if let Some(folder) = file.parent().filter(|folder| !may(fs::metadata(folder).ok().as_ref(), daemon, ENTER)) {
        let folder = folder.display();
        let text = format!("{shown}: {name} may not pass through {folder}");
        return Some(Finding::fail(topic, text).mend(format!("chgrp {group} {folder} && chmod g+rx {folder}")));
    }
    (!may(Some(&metadata), daemon, READ)).then(|| {
        Finding::fail(topic, format!("{shown}: {name} may not read it"))
            .mend(format!("chgrp {group} {shown} && chmod g+r {shown}"))
    })
}

/// Whether the daemon may do `what` with a file. What cannot be looked at is not held against anybody.
fn may(metadata: Option<&Metadata>, daemon: &Account, what: u32) -> bool {
    let Some(metadata) = metadata else { return true };
    let mode = metadata.mode();
    let of_its_kind = if metadata.uid() == daemon.uid {
        mode >> 6
    } else if daemon.groups.contains(&metadata.gid()) {
        mode >> 3
    } else {
        mode
    };
    daemon.uid == 0 || of_its_kind & what != 0
}

/// What nobody but the daemon may read.
pub(super) fn secrets(config: &Path, site: &Site, daemon: &Account) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &site.key {
        None => findings.push(Finding::ok(KEY, "site.key is not set: hosts get HBA-only addresses")),
        Some(file) => findings.push(key(file, daemon).unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Finding::fail(KEY, format!("{} is not there", file.display())).mend(format!(
                "pshim6ctl --config {} key make && chown {} {}",
                config.display(),
                daemon.name,
                file.display()
            )),
            _ => Finding::fail(KEY, format!("{}: {error}", file.display())),
        })),
    }
    if let Some(publish) = &site.publish {
        let good = || Finding::ok(PUBLISH_KEY, format!("{}: readable by {}", publish.key.display(), daemon.name));
        findings.push(match fs::metadata(&publish.key) {
            Err(error) => Finding::fail(PUBLISH_KEY, format!("{}: {error}", publish.key.display())),
            Ok(metadata) if metadata.mode() & 0o007 != 0 => everybody(PUBLISH_KEY, &publish.key, &metadata, "o="),
            Ok(_) => unreadable(PUBLISH_KEY, &publish.key, daemon).unwrap_or_else(good),
        });
    }
    findings
}

fn key(file: &Path, daemon: &Account) -> io::Result<Finding> {
    let metadata = fs::metadata(file)?;
    if metadata.mode() & 0o077 != 0 {
        return Ok(everybody(KEY, file, &metadata, "600"));
    }
    let good = || Finding::ok(KEY, format!("{}: for {} alone", file.display(), daemon.name));
    Ok(owned(KEY, file, &metadata, daemon).unwrap_or_else(good))
}

fn everybody(topic: &'static str, file: &Path, metadata: &Metadata, mode: &str) -> Finding {
    let text = format!("{}: mode {:04o} lets others read it", file.display(), metadata.mode() & 0o7777);
    Finding::fail(topic, text).mend(format!("chmod {mode} {}", file.display()))
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
    Some(match fs::metadata(file) {
        Ok(metadata) if metadata.mode() & 0o077 != 0 => everybody(STORE, file, &metadata, "600"),
        Ok(metadata) => {
            let good = || Finding::ok(STORE, format!("{}: {} octets", file.display(), metadata.len()));
            owned(STORE, file, &metadata, daemon).unwrap_or_else(good)
        }
        Err(_) => folder_of(file, daemon),
    })
}

/// A store that is still to be made: by the daemon, in a directory that is its own.
fn folder_of(file: &Path, daemon: &Account) -> Finding {
    let folder: PathBuf = file.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    let shown = folder.display();
    let command = format!("install -d -o {} -m 700 {shown}", daemon.name);
    match fs::metadata(&folder) {
        Ok(metadata) if may(Some(&metadata), daemon, WRITE) => {
            Finding::ok(STORE, format!("{} is made at the first start", file.display()))
        }
        Ok(_) => {
            let text = format!("{} is to be made in {shown}, where {} may not write", file.display(), daemon.name);
            Finding::fail(STORE, text).mend(command)
        }
        Err(error) => Finding::fail(STORE, format!("{shown}: {error}")).mend(command),
    }
}
