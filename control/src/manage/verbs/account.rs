//! The account the package makes for the daemon, and files that only it may read.

use std::os::unix::fs::chown;
use std::path::Path;

use nix::unistd::{Gid, Group, User, getegid, geteuid, getgrouplist};

use super::VerbError;
use crate::doctor::Account;

/// Its name.
const ACCOUNT: &str = "pshim6";

/// Who the daemon is: `named`, or the package's account, or else whoever asks.
pub(super) fn of_daemon(named: Option<&str>) -> Result<Account, VerbError> {
    if let Some(name) = named {
        let user = User::from_name(name).ok().flatten();
        return user.map(account).ok_or_else(|| VerbError::Words(format!("there is no user called {name}")));
    }
    let asking = geteuid();
    let user = User::from_name(ACCOUNT).ok().flatten().or_else(|| User::from_uid(asking).ok().flatten());
    let nameless =
        || Account { name: asking.to_string(), uid: asking.as_raw(), group: getegid().to_string(), groups: Vec::new() };
    Ok(user.map_or_else(nameless, account))
}

fn account(user: User) -> Account {
    let name = std::ffi::CString::new(user.name.as_str()).unwrap_or_default();
    let groups = getgrouplist(&name, user.gid).unwrap_or_else(|_| vec![user.gid]);
    let own = Group::from_gid(user.gid).ok().flatten().map_or_else(|| user.gid.to_string(), |group| group.name);
    let groups = groups.into_iter().map(Gid::as_raw).collect();
    Account { name: user.name, uid: user.uid.as_raw(), group: own, groups }
}

/// What root has just made for its owner's eyes only is for the daemon, if the daemon has an account of its own.
pub(super) fn give(file: &Path) -> Result<(), VerbError> {
    let Some(user) = User::from_name(ACCOUNT).ok().flatten().filter(|_| geteuid().is_root()) else { return Ok(()) };
    chown(file, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .map_err(|error| VerbError::Words(format!("{}: cannot be given to {ACCOUNT}: {error}", file.display())))
}
