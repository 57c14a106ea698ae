//! Providers that come and go: the configuration, the hosts' locators and the running box, in one step.

use std::path::Path;

use serde::Serialize;

use super::files::{reload, updated_table, updated_views};
use super::{Output, VerbError};
use crate::config::edit::{NewProvider, SiteEdit, SiteEditError};
use crate::config::hosts::{Edit, Updated};
use crate::config::{Hosts, Site, key};

/// What is to become of the site's providers.
pub(super) enum Change {
    /// One more.
    Add(NewProvider),
    /// One less.
    Remove(String),
    /// One for another.
    Replace(String, NewProvider),
}

impl Change {
    fn apply(&self, edit: &mut SiteEdit) -> Result<(), SiteEditError> {
        match self {
            Change::Add(provider) => edit.add(provider),
            Change::Remove(name) => edit.remove(name),
            Change::Replace(old, provider) => edit.replace(old, provider),
        }
    }

    fn added(&self) -> Option<&str> {
        match self {
            Change::Add(provider) | Change::Replace(_, provider) => Some(&provider.name),
            Change::Remove(_) => None,
        }
    }

    fn removed(&self) -> Option<&str> {
        match self {
            Change::Remove(name) | Change::Replace(name, _) => Some(name),
            Change::Add(_) => None,
        }
    }
}

#[derive(Serialize)]
struct ChangedView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<&'a str>,
    hosts: Vec<serde_json::Value>,
    daemon_reloaded: bool,
}

/// Changes the site's providers: `site.toml`, the hosts' locators, and the running daemon. All of it, or nothing: what
/// would be wrong afterwards is said before anything is written, and what the daemon refuses is taken back.
pub(super) fn change(config: &Path, change: &Change, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (before, _) = Site::load(config)?;
    // Whoever changes hosts holds this, so there is one change at a time.
    let mut hosts = Edit::begin(&before.node.hosts_file)?;
    let mut edit = SiteEdit::begin(config)?;
    change.apply(&mut edit)?;
    let (site, warnings) = Site::parse(config, &edit.text())?;
    for warning in &warnings {
        output.note(format_args!("warning: {warning}"))?;
    }
    let key = site.key.as_deref().filter(|file| file.exists()).map(key::load).transpose()?;
    let updated = hosts.update(None, &site, key.as_ref(), &mut rand::rng())?;
    nobody_is_cut_off(&updated, &hosts)?;
    // Everything that a start would say of the new files is said now.
    Hosts::parse(hosts.file(), &hosts.text()?, &site)?;
    let undo = hosts.save()?;
    if let Err(error) = edit.save() {
        undo.undo()?;
        return Err(error.into());
    }
    let reloaded = match reload(&site, output) {
        Ok(reloaded) => reloaded,
        Err(error) => {
            undo.undo()?;
            edit.undo()?;
            return Err(VerbError::Words(format!("{error}\nnothing was changed: the files are again as they were")));
        }
    };
    say(change, &updated, reloaded, output)
}

/// Nobody may lose the last locator: such a host could talk to no one, and would have to be made again.
fn nobody_is_cut_off(updated: &[Updated], hosts: &Edit) -> Result<(), VerbError> {
    let bare = hosts.entries().iter().filter(|entry| entry.locators.is_empty());
    let names: Vec<&str> = bare.map(|entry| entry.name.as_str()).collect();
    if names.is_empty() || updated.is_empty() {
        return Ok(());
    }
    let why = "would have no locator left: only hosts made with a site.key can have one from a provider they were not made for";
    Err(VerbError::Words(format!("{} {why}; nothing was changed", names.join(", "))))
}

fn say(change: &Change, updated: &[Updated], daemon_reloaded: bool, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (added, removed) = (change.added(), change.removed());
    let view = ChangedView { added, removed, hosts: updated_views(updated), daemon_reloaded };
    output.answer(&view, |_| {
        let done = match (removed, added) {
            (Some(old), Some(new)) => format!("{new} is in the place of {old}"),
            (Some(old), None) => format!("{old} is removed; sessions leave it now, and it serves them until they have"),
            (None, Some(new)) => format!("{new} is added"),
            (None, None) => String::new(),
        };
        format!("{done}\n{}", updated_table(updated))
    })
}
