//! Providers that come and go in `site.toml`, by a program: what people wrote around them stays as they wrote it.

use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::hosts::replace_file;
use super::prefix::Prefix;
use super::problem::{Problem, Problems};

/// What `site.toml` shall say of a provider.
#[derive(Clone, Debug)]
pub struct NewProvider {
    /// Its name.
    pub name: String,
    /// Name of the port it is behind.
    pub port: String,
    /// What it delegates for locators.
    pub prefix: Prefix,
    /// Its router.
    pub next_hop: Ipv6Addr,
    /// Lower comes first; the file's default when not given.
    pub preference: Option<u16>,
    /// All that it delegates, for translation by prefix.
    pub delegated: Option<Prefix>,
}

/// Why `site.toml` was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SiteEditError {
    /// It cannot be understood, or what would come of the change is wrong.
    #[error(transparent)]
    File(#[from] Problems),
    /// There is such a provider.
    #[error("there is a provider called {0} already")]
    Taken(String),
    /// There is no such provider.
    #[error("there is no provider called {0}")]
    Unknown(String),
    /// Its providers are written in a way that is not edited here.
    #[error("{0}: providers are not written as [[provider]] tables; edit the file by hand and use `host update`")]
    Form(PathBuf),
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The text of a `site.toml`, to be changed and put back.
pub struct SiteEdit {
    file: PathBuf,
    before: String,
    document: DocumentMut,
}

impl SiteEdit {
    /// Reads `file`.
    ///
    /// # Errors
    /// [`SiteEditError`] if it cannot be read or is no TOML.
    pub fn begin(file: &Path) -> Result<SiteEdit, SiteEditError> {
        // A rename would replace a symbolic link and leave its target alone.
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
        let before = fs::read_to_string(&file).map_err(|source| SiteEditError::Io { path: file.clone(), source })?;
        SiteEdit::of(file, before)
    }

    fn of(file: PathBuf, before: String) -> Result<SiteEdit, SiteEditError> {
        let parsed = before.parse::<DocumentMut>();
        let document = parsed.map_err(|error| Problems::from(Problem::of_file(&file, error.message())))?;
        Ok(SiteEdit { file, before, document })
    }

    /// Adds a provider behind all others.
    ///
    /// # Errors
    /// [`SiteEditError`] if there is one of that name.
    pub fn add(&mut self, provider: &NewProvider) -> Result<(), SiteEditError> {
        self.free(&provider.name)?;
        self.providers()?.push(table(provider));
        Ok(())
    }

    /// Removes a provider, from classes that prefer it as well.
    ///
    /// # Errors
    /// [`SiteEditError`] if there is none of that name.
    pub fn remove(&mut self, name: &str) -> Result<(), SiteEditError> {
        let at = self.place(name)?;
        self.providers()?.remove(at);
        self.in_forks(|names| {
            names.retain(|it| it.as_str() != Some(name));
            if let Some(first) = names.get_mut(0) {
                // The space that stood between it and what went.
                first.decor_mut().set_prefix("");
            }
        });
        Ok(())
    }

    /// Puts a provider in the place of another, in classes that prefer it as well.
    ///
    /// # Errors
    /// [`SiteEditError`] if there is none of the old name, or one of the new.
    pub fn replace(&mut self, old: &str, provider: &NewProvider) -> Result<(), SiteEditError> {
        let at = self.place(old)?;
        if provider.name != old {
            self.free(&provider.name)?;
        }
        if let Some(place) = self.providers()?.get_mut(at) {
            let mut new = table(provider);
            *new.decor_mut() = place.decor().clone();
            new.set_position(place.position());
            *place = new;
        }
        self.in_forks(|names| {
            for it in names.iter_mut().filter(|it| it.as_str() == Some(old)) {
                let decor = it.decor().clone();
                *it = provider.name.as_str().into();
                *it.decor_mut() = decor;
            }
        });
        Ok(())
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What it shall say.
    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// Puts the new text in place of the old: a crash leaves one or the other.
    ///
    /// # Errors
    /// [`SiteEditError::Io`] if it cannot be written.
    pub fn save(&self) -> Result<(), SiteEditError> {
        self.put(&self.text())
    }

    /// Puts the old text back.
    ///
    /// # Errors
    /// [`SiteEditError::Io`] if it cannot be written.
    pub fn undo(&self) -> Result<(), SiteEditError> {
        self.put(&self.before)
    }

    fn put(&self, text: &str) -> Result<(), SiteEditError> {
        let mode = fs::metadata(&self.file).map(|it| it.permissions().mode() & 0o777);
        mode.and_then(|mode| replace_file(&self.file, text.as_bytes(), mode))
            .map_err(|source| SiteEditError::Io { path: self.file.clone(), source })
    }

    fn providers(&mut self) -> Result<&mut ArrayOfTables, SiteEditError> {
        let item = self.document.entry("provider").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        item.as_array_of_tables_mut().ok_or_else(|| SiteEditError::Form(self.file.clone()))
    }

    fn position(&mut self, name: &str) -> Result<Option<usize>, SiteEditError> {
        let named = |it: &Table| it.get("name").and_then(Item::as_str) == Some(name);
        Ok(self.providers()?.iter().position(named))
    }

    fn place(&mut self, name: &str) -> Result<usize, SiteEditError> {
        self.position(name)?.ok_or_else(|| SiteEditError::Unknown(name.to_owned()))
    }

    fn free(&mut self, name: &str) -> Result<(), SiteEditError> {
        match self.position(name)? {
            Some(_) => Err(SiteEditError::Taken(name.to_owned())),
            None => Ok(()),
        }
    }

    fn in_forks(&mut self, mut change: impl FnMut(&mut Array)) {
        let forks = self.document.get_mut("fork").and_then(Item::as_array_of_tables_mut);
        for fork in forks.into_iter().flat_map(ArrayOfTables::iter_mut) {
            if let Some(names) = fork.get_mut("providers").and_then(Item::as_array_mut) {
                change(names);
            }
        }
    }
}

fn table(provider: &NewProvider) -> Table {
    let mut table = Table::new();
    table.insert("name", value(&provider.name));
    table.insert("port", value(&provider.port));
    table.insert("prefix", value(provider.prefix.to_string()));
    table.insert("next_hop", value(provider.next_hop.to_string()));
    if let Some(preference) = provider.preference {
        table.insert("preference", value(i64::from(preference)));
    }
    if let Some(delegated) = provider.delegated {
        table.insert("delegated", value(delegated.to_string()));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# The site of the examples.
[site]
prefix = "fc00:a::/48" # ours

# The good one.
[[provider]]
name = "x"
port = "x"
prefix = "2001:db8:a1:1::/64"
next_hop = "fe80::1"

# The cheap one.
[[provider]]
name = "y"   # as in why
port = "y"
prefix = "2001:db8:a2:1::/64"
next_hop = "fe80::1"

[[fork]]
name = "bulk"
providers = ["y", "x"] # cheap first

[reap]
send_timeout_s = 3
"#;

    fn edit() -> SiteEdit {
        SiteEdit::of(PathBuf::from("site.toml"), FILE.to_owned()).unwrap()
    }

    fn v() -> NewProvider {
        NewProvider {
            name: "v".into(),
            port: "spare".into(),
            prefix: "2001:db8:a3:1::/64".parse().unwrap(),
            next_hop: "2001:db8:a3:ffff::1".parse().unwrap(),
            preference: Some(5),
            delegated: Some("2001:db8:a3::/48".parse().unwrap()),
        }
    }

    #[test]
    fn a_provider_comes_behind_the_others_and_everything_else_stays() {
        let mut edit = edit();
        edit.add(&v()).unwrap();
        let text = edit.text();
        let new = r#"
[[provider]]
name = "v"
port = "spare"
prefix = "2001:db8:a3:1::/64"
next_hop = "2001:db8:a3:ffff::1"
preference = 5
delegated = "2001:db8:a3::/48"
"#;
        let at = text.find(new).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(text.replacen(new, "", 1), FILE);
        assert!(at > text.find("as in why").unwrap() && at < text.find("[[fork]]").unwrap());
        assert!(matches!(edit.add(&v()), Err(SiteEditError::Taken(name)) if name == "v"));
    }

    #[test]
    fn a_provider_goes_with_what_was_said_of_it() {
        let mut edit = edit();
        edit.remove("y").unwrap();
        let text = edit.text();
        assert!(!text.contains("as in why") && text.contains("# The good one.") && text.contains("[\"x\"]"), "{text}");
        assert!(matches!(edit.remove("y"), Err(SiteEditError::Unknown(name)) if name == "y"));
    }

    #[test]
    fn a_provider_takes_the_place_of_another() {
        let mut edit = edit();
        edit.replace("x", &v()).unwrap();
        let text = edit.text();
        let place = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word} in {text}"));
        assert!(place("# The good one.") < place("name = \"v\"") && place("name = \"v\"") < place("# The cheap one."));
        assert!(text.contains("providers = [\"y\", \"v\"] # cheap first") && !text.contains("\"x\""), "{text}");
        assert!(matches!(edit.replace("y", &v()), Err(SiteEditError::Taken(_))));
        edit.replace("v", &v()).unwrap();
        assert_eq!(edit.text(), text, "the same again is no news");
    }

    #[test]
    fn what_is_not_tables_is_left_alone() {
        let inline = "provider = [{ name = \"x\" }]\n";
        let mut edit = SiteEdit::of(PathBuf::from("site.toml"), inline.to_owned()).unwrap();
        assert!(matches!(edit.add(&v()), Err(SiteEditError::Form(_))));
        assert_eq!(edit.text(), inline);
        assert!(matches!(SiteEdit::of(PathBuf::new(), "[".to_owned()), Err(SiteEditError::File(_))));
    }
}
