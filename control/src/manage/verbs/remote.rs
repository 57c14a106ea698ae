//! A daemon on another machine, and the files that say who we are.

use std::path::PathBuf;

use clap::Args;

use super::VerbError;
use crate::config::{Problems, tls};
use crate::manage::client::Client;

#[derive(Args, Debug)]
pub(super) struct RemoteArgs {
    /// Ask the daemon at `manage.listen` of another machine; needs --cert, --key and --ca.
    #[arg(long, global = true, value_name = "HTTPS://HOST:PORT", conflicts_with = "socket")]
    connect: Option<String>,
    /// Our certificate for --connect, with those between it and the authority (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long = "key", id = "own-key", global = true, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The authorities of which one signed the daemon's certificate.
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl RemoteArgs {
    /// Whether any of it was said.
    pub(super) fn is_given(&self) -> bool {
        self.connect.is_some() || self.cert.is_some() || self.key.is_some() || self.ca.is_some()
    }

    /// A connection to that daemon; nothing if none was named.
    pub(super) fn client(&self) -> Result<Option<Client>, VerbError> {
        if !self.is_given() {
            return Ok(None);
        }
        let (Some(address), Some(certificate), Some(key), Some(authority)) =
            (&self.connect, &self.cert, &self.key, &self.ca)
        else {
            return Err(VerbError::Words("--connect, --cert, --key and --ca belong together: see --help".into()));
        };
        let files = tls::client(authority, certificate, key).map_err(Problems::from)?;
        Ok(Some(Client::connect_tls(address, files)?))
    }
}
