//! Commands about the store: the file itself, or the daemon that has it open.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Output, StoreVerb, VerbError, account};
use crate::config::Site;
use crate::manage::api::{Request, Response};
use crate::manage::client::Client;
use crate::store::{Export, Storage, Store, StoreError};

pub(super) fn run(config: &Path, verb: &StoreVerb, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (site, _) = Site::load(config)?;
    let Some(file) = &site.store else {
        return Err(VerbError::Words(format!("{}: there is no [store]", config.display())));
    };
    match verb {
        StoreVerb::Export => {
            let export = match Store::open_existing(file) {
                Ok(mut store) => store.export()?,
                Err(StoreError::InUse { .. }) => ask(&site)?,
                Err(error) => return Err(error.into()),
            };
            // It is for machines, whatever `--json` says.
            Output {
                json: true,
                socket: output.socket,
                remote: output.remote,
                out: &mut *output.out,
                err: &mut *output.err,
            }
            .answer(&export, |_| String::new())
        }
        StoreVerb::Import { file: from } => {
            let export = read(from)?;
            let mut store = Store::open(file)?;
            store.import(&export).map_err(|error| VerbError::Words(format!("nothing was taken in: {error}")))?;
            account::give(file)?;
            output.note(format!("{}: {} leases", file.display(), export.stored.leases.len()))
        }
        StoreVerb::Check => {
            let mut store = Store::open_existing(file)?;
            let whole = store.check()?;
            let stored = store.load()?;
            let state = if whole { "good" } else { "repaired" };
            output.note(format!(
                "{}: {state}; {} leases, {} quarantined",
                file.display(),
                stored.leases.len(),
                stored.quarantine.len()
            ))
        }
    }
}

fn ask(site: &Site) -> Result<Export, VerbError> {
    let mut client = Client::reach(site)?;
    match client.call(Request::StoreExport)? {
        Response::Store(export) => Ok(*export),
        _ => Err(client.wrong_answer().into()),
    }
}

fn read(from: &PathBuf) -> Result<Export, VerbError> {
    let wrong = |error: &dyn std::fmt::Display| VerbError::Words(format!("{}: {error}", from.display()));
    let mut text = String::new();
    let result = match from.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(from).and_then(|mut file| file.read_to_string(&mut text)),
    };
    result.map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}
