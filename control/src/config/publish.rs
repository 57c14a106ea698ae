//! Where the site's names are published, and the key that says they are ours (`[publish]`).

use std::fmt;
use std::fs;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::check::seconds;
use super::file::PublishSection;
use super::limits;
use super::network::{Network, parsed};
use super::problem::Problem;
use super::source::Source;

/// Where names go (`[publish]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The zones' primary server, by its addresses in the order in which they are tried.
    pub servers: Vec<Ipv6Addr>,
    /// The domain of the hosts, with a dot at its end.
    pub zone: String,
    /// The tree of their identifiers, with a dot at its end.
    pub reverse: String,
    /// The file with the key.
    pub key: PathBuf,
    /// How long others may remember.
    pub ttl: Duration,
}

/// What authenticates a change of a zone (RFC 8945).
#[derive(Clone, PartialEq, Eq)]
pub struct TsigKey {
    /// Its name, which the server knows.
    pub name: String,
    /// How it is used.
    pub algorithm: KeyAlgorithm,
    secret: Vec<u8>,
}

/// What a key is used with; the others of RFC 8945 §6 are not to be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// `hmac-sha256`.
    Sha256,
    /// `hmac-sha384`.
    Sha384,
    /// `hmac-sha512`.
    Sha512,
}

impl TsigKey {
    /// What nobody else may know.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// The key in `file`, written as BIND and `nsupdate -k` do. Only its owner may be able to read the file.
    ///
    /// # Errors
    /// A [`Problem`] that names the file.
    pub fn load(file: &Path) -> Result<TsigKey, Problem> {
        let wrong = |text: String| Problem::of_file(file, text);
        let unread = |error: std::io::Error| wrong(format!("cannot be read: {error}"));
        let mode = fs::metadata(file).map_err(unread)?.permissions().mode() & 0o7777;
        if mode & 0o007 != 0 {
            return Err(wrong(format!("mode {mode:04o} lets everybody read the key; chmod 600 {}", file.display())));
        }
        let text = fs::read_to_string(file).map_err(unread)?;
        TsigKey::parse(&text).map_err(|text| wrong(text.to_owned()))
    }

    /// `key "name" { algorithm hmac-sha256; secret "base64"; };`
    ///
    /// # Errors
    /// What is wrong with it, without a word of it.
    pub fn parse(text: &str) -> Result<TsigKey, &'static str> {
        const FORM: &str = "is not of the form: key \"NAME\" { algorithm hmac-sha256; secret \"BASE64\"; };";
        let plain: String = text.lines().filter(|line| !line.trim_start().starts_with(['#', '/'])).collect();
        let words: Vec<&str> = plain.split(|it: char| it.is_whitespace() || "{};\"".contains(it)).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let after = |word: &str| words.iter().position(|it| *it == word).and_then(|at| words.get(at + 1)).copied();
        let (Some("key"), Some(name), Some(algorithm), Some(secret)) =
            (words.first().copied(), words.get(1), after("algorithm"), after("secret"))
        else {
            return Err(FORM);
        };
        let algorithm = match algorithm.to_ascii_lowercase().as_str() {
            "hmac-sha256" => KeyAlgorithm::Sha256,
            "hmac-sha384" => KeyAlgorithm::Sha384,
            "hmac-sha512" => KeyAlgorithm::Sha512,
            _ => return Err("has an algorithm that is not used here: hmac-sha256, hmac-sha384 or hmac-sha512"),
        };
        let secret = openssl::base64::decode_block(secret).map_err(|_| "has a secret that is no base64")?;
        if secret.len() < 16 {
            return Err("has a secret of less than 16 octets");
        }
        Ok(TsigKey { name: (*name).to_owned(), algorithm, secret })
    }
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TsigKey")
            .field("name", &self.name)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

pub(super) fn check(
    source: &mut Source<'_>,
    section: &Option<Spanned<PublishSection>>,
    network: &Network,
    directory: &Path,
) -> Option<Publish> {
    let section = section.as_ref()?;
    let (span, section) = (section.span(), section.get_ref());
    let mut servers: Vec<Ipv6Addr> = Vec::new();
    for text in section.servers.iter().flat_map(|list| list.get_ref()) {
        if let Some(server) = parsed(source, text, "an IPv6 address") {
            servers.push(server);
        }
    }
    match &section.servers {
        None => source.missing(&span, "servers"),
        Some(list) if list.get_ref().is_empty() => source.problem(&list.span(), "names no server"),
        Some(_) => {}
    }
    let zone = match &section.zone {
        None => {
            source.missing(&span, "zone");
            None
        }
        Some(text) => domain(source, text),
    };
    let reverse = match &section.reverse {
        Some(text) => domain(source, text),
        None if network.prefix.length().is_multiple_of(4) => Some(reverse_of(network)),
        None => {
            source.missing(&span, "reverse");
            None
        }
    };
    let key = match &section.key {
        None => {
            source.missing(&span, "key");
            None
        }
        Some(text) => Some(directory.join(text.get_ref())),
    };
    let ttl = seconds(source, &section.ttl_s, limits::PUBLISH_TTL_S);
    Some(Publish { servers, zone: zone?, reverse: reverse?, key: key?, ttl })
}

/// The tree of the site's identifiers: the digits of its prefix backwards (RFC 3596 §2.5).
fn reverse_of(network: &Network) -> String {
    let digits = format!("{:032x}", network.prefix.address().to_bits());
    let digits = &digits[..usize::from(network.prefix.length() / 4)];
    digits.chars().rev().flat_map(|digit| [digit, '.']).chain("ip6.arpa.".chars()).collect()
}

/// A domain name, in small letters and with a dot at its end.
fn domain(source: &mut Source<'_>, text: &Spanned<String>) -> Option<String> {
    let name = text.get_ref().trim_end_matches('.').to_ascii_lowercase();
    let fits = |label: &str| {
        let letters = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
        (1..=63).contains(&label.len()) && label.chars().all(letters)
    };
    if name.is_empty() || name.len() > 253 || !name.split('.').all(fits) {
        source.problem(&text.span(), format!("\"{}\" is no domain name", text.get_ref()));
        return None;
    }
    Some(format!("{name}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_bind_writes_it() {
        let text = "# made by tsig-keygen\nkey \"a-site\" {\n\talgorithm hmac-sha256;\n\tsecret \"MDEyMzQ1Njc4OWFiY2RlZg==\";\n};\n";
        let key = TsigKey::parse(text).unwrap();
        assert_eq!(
            (key.name.as_str(), key.algorithm, key.secret()),
            ("a-site", KeyAlgorithm::Sha256, &b"0123456789abcdef"[..])
        );
        let shown = format!("{key:?}");
        assert!(shown.contains("a-site") && !shown.contains("secret") && !shown.contains("48"), "{shown}");
        for (wrong, why) in [
            ("", "is not of the form"),
            ("key x { secret \"MDEyMzQ1Njc4OWFiY2RlZg==\"; };", "is not of the form"),
            ("key x { algorithm hmac-md5; secret \"MDEyMzQ1Njc4OWFiY2RlZg==\"; };", "not used here"),
            ("key x { algorithm hmac-sha256; secret \"!\"; };", "no base64"),
            ("key x { algorithm hmac-sha256; secret \"MDEyMzQ1\"; };", "less than 16"),
        ] {
            let said = TsigKey::parse(wrong).unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }
}
