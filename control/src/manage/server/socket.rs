//! The file that a Unix socket is: made with its own mode from the beginning, removed by who made it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::Group;

use super::{ServerError, Socket};

/// A socket's file, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    // Device and inode of our socket, so that we never remove another's.
    identity: (u64, u64),
    // Who has it is the one at this place.
    _lock: File,
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|it| (it.dev(), it.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket that listens.
pub(crate) fn bind(wanted: &Socket) -> Result<(UnixListener, Place), ServerError> {
    let refused = |source| ServerError::Refused { path: wanted.path.clone(), source };
    let group = group(wanted)?;
    let lock = lock(&wanted.path)?;
    make_room(&wanted.path)?;
    let (listener, identity) = place(wanted, group).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    Ok((listener, Place { path: wanted.path.clone(), identity, _lock: lock }))
}

fn group(wanted: &Socket) -> Result<Option<u32>, ServerError> {
    let Some(name) = &wanted.group else { return Ok(None) };
    let found = match name.parse::<u32>() {
        Ok(number) => Some(number),
        Err(_) => Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()),
    };
    let missing = || ServerError::NoGroup { path: wanted.path.clone(), group: name.clone() };
    found.ok_or_else(missing).map(Some)
}

/// Makes sure that nobody else comes to `path` from now on: of two that start at the same moment, each would find nobody there
/// and put its own socket in the place of the other's. The file stays when its owner ends (the lock does not), for one that is
/// removed may be held by somebody who does not see the next one.
fn lock(path: &Path) -> Result<File, ServerError> {
    let refused = |source| ServerError::Refused { path: path.to_path_buf(), source };
    if let Some(directory) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(refused)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(PathBuf::from(beside)).map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServerError::Taken(path.to_path_buf())),
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}

/// Makes sure that nobody is at `path`; one without a lock, perhaps.
fn make_room(path: &Path) -> Result<(), ServerError> {
    let refused = |source| ServerError::Refused { path: path.to_path_buf(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => Err(ServerError::NotASocket(path.to_path_buf())),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(refused(error)),
            Ok(_) => Err(ServerError::Taken(path.to_path_buf())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

/// A socket which never has another mode or group than its own: it is made under another name and renamed.
fn place(wanted: &Socket, group: Option<u32>) -> io::Result<(UnixListener, (u64, u64))> {
    let mut beside = wanted.path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    let own = || -> io::Result<(u64, u64)> {
        // Nobody may connect before the group is set: what the mode lets in is another group until then.
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        if group.is_some() {
            chown(&beside, None, group)?;
        }
        fs::set_permissions(&beside, fs::Permissions::from_mode(wanted.mode))?;
        let metadata = fs::symlink_metadata(&beside)?;
        fs::rename(&beside, &wanted.path)?;
        Ok((metadata.dev(), metadata.ino()))
    };
    let placed = own();
    if placed.is_err() {
        let _ = fs::remove_file(&beside);
    }
    Ok((listener, placed?))
}
