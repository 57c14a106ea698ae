//! Other boxes of the same site, which know this one's contexts (`[sync]`).

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig};
use toml::Spanned;

use super::check::number;
use super::file::SyncSection;
use super::limits;
use super::manage::address;
use super::problem::Problem;
use super::source::Source;
use super::tls::{authorities, misfit, own, roots};

/// Octets of `sync.secret`.
const SECRET: usize = 32;
/// Most boxes of a site: as many as tags can name.
const BOXES_MAX: usize = 16;

/// Who hears of this box's contexts, and of whose it hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Where others tell us.
    pub listen: SocketAddr,
    /// Where we tell others.
    pub peers: Vec<SocketAddr>,
    /// Our certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs the certificates of all boxes of the site, and of nobody else.
    pub authority: PathBuf,
    /// What all of them share.
    pub secret: PathBuf,
    /// How long a box that begins waits for the others.
    pub patience: Duration,
}

/// The files, read and found good.
#[derive(Clone, Debug)]
pub struct SyncFiles {
    /// For those who tell us.
    pub server: Arc<ServerConfig>,
    /// For those whom we tell.
    pub client: Arc<ClientConfig>,
    /// What all boxes share.
    pub secret: Secret,
}

/// What boxes of a site share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET]);

impl Secret {
    /// Octets that all boxes of the site have and nobody else.
    pub fn new(octets: [u8; SECRET]) -> Secret {
        Secret(octets)
    }

    /// The octets.
    pub fn octets(&self) -> &[u8; SECRET] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

pub(super) fn check(source: &mut Source<'_>, section: &Option<Spanned<SyncSection>>, directory: &Path) -> Option<Sync> {
    let section = section.as_ref()?;
    let (span, section) = (section.span(), section.get_ref());
    let mut file = |name: &str, text: &Option<Spanned<String>>| match text {
        Some(text) if !text.get_ref().is_empty() => Some(directory.join(text.get_ref())),
        Some(text) => {
            source.problem(&text.span(), "names no file");
            None
        }
        None => {
            source.problem_at(&span, format!("sync.{name}"), "is missing");
            None
        }
    };
    let certificate = file("certificate", &section.certificate);
    let key = file("key", &section.key);
    let authority = file("ca", &section.ca);
    let secret = file("secret", &section.secret);
    let example = "[2001:db8::1]:4700";
    let listen = match &section.listen {
        Some(text) => address(source, text, example),
        None => {
            source.problem_at(&span, "sync.listen".into(), "is missing: where other boxes reach this one");
            None
        }
    };
    let mut peers = Vec::new();
    for text in section.peers.iter().flat_map(|peers| peers.get_ref()) {
        let Some(peer) = address(source, text, example) else { continue };
        if peers.contains(&peer) {
            source.problem(&text.span(), "is there twice");
        } else if Some(peer) == listen {
            source.problem(&text.span(), "is this box itself");
        } else {
            peers.push(peer);
        }
    }
    if section.peers.as_ref().is_none_or(|peers| peers.get_ref().is_empty()) {
        source.problem_at(&span, "sync.peers".into(), "is missing: the addresses of the other boxes");
    }
    if let Some(list) = section.peers.as_ref().filter(|_| peers.len() >= BOXES_MAX) {
        source.problem(&list.span(), format!("a site has at most {BOXES_MAX} boxes"));
    }
    let patience = number::<u64>(source, &section.wait_s, limits::SYNC_WAIT_S);
    Some(Sync {
        listen: listen?,
        peers,
        certificate: certificate?,
        key: key?,
        authority: authority?,
        secret: secret?,
        patience: Duration::from_secs(patience),
    })
}

impl SyncFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// A [`Problem`] that names the file.
    pub fn load(sync: &Sync) -> Result<SyncFiles, Problem> {
        let provider = Arc::new(ring::default_provider());
        let wrong = |file: &Path, error: &dyn std::fmt::Display| Problem::of_file(file, error.to_string());
        let known = Arc::new(roots(authorities(&sync.authority)?, &sync.authority)?);
        let clients = WebPkiClientVerifier::builder_with_provider(known.clone(), provider.clone())
            .build()
            .map_err(|error| wrong(&sync.authority, &error))?;
        let (chain, key) = own(&sync.certificate, &sync.key)?;
        let misfit = |error: rustls::Error| Problem::of_file(&sync.key, misfit(&error, &sync.certificate));
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| wrong(&sync.certificate, &error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(misfit)?;
        // Each connection is judged by itself, and nothing of one can be used in another.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| wrong(&sync.certificate, &error))?
            .with_root_certificates(known)
            .with_client_auth_cert(chain, key)
            .map_err(misfit)?;
        client.resumption = rustls::client::Resumption::disabled();
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(SyncFiles { server: Arc::new(server), client: Arc::new(client), secret: secret(&sync.secret)? })
    }
}

/// The only protocol above TLS.
const PROTOCOL: &[u8] = b"pshim6-sync";

/// The octets in a file that only its owner may read: as they are, or in hexadecimal digits.
fn secret(file: &Path) -> Result<Secret, Problem> {
    let wrong = |text: String| Problem::of_file(file, text);
    let unread = |error: std::io::Error| wrong(format!("cannot be read: {error}"));
    let mode = std::fs::metadata(file).map_err(unread)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(wrong(format!("mode {mode:04o} lets everybody read the secret; chmod 600 {}", file.display())));
    }
    let octets = std::fs::read(file).map_err(unread)?;
    let plain = <[u8; SECRET]>::try_from(octets.as_slice()).ok();
    let found = plain.or_else(|| digits(octets.trim_ascii()));
    let words = format!("holds no {SECRET} octets, nor {} hexadecimal digits (openssl rand -hex {SECRET})", 2 * SECRET);
    found.map(Secret::new).ok_or_else(|| wrong(words))
}

fn digits(text: &[u8]) -> Option<[u8; SECRET]> {
    let mut octets = [0; SECRET];
    if text.len() != 2 * SECRET {
        return None;
    }
    for (octet, pair) in octets.iter_mut().zip(text.chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *octet = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(octets)
}

impl Sync {
    /// How many boxes the site has.
    pub fn boxes(&self) -> u32 {
        self.peers.len() as u32 + 1
    }

    /// The address of another box, without the port at which it listens.
    pub fn peer_ip(&self, at: usize) -> Option<IpAddr> {
        self.peers.get(at).map(SocketAddr::ip)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOOD, load};
    use super::*;

    fn with(section: &str) -> Result<Option<Sync>, Vec<String>> {
        load(&format!("{GOOD}\n{section}\n")).map(|(site, _)| site.sync)
    }

    const FILES: &str = "certificate = \"a.pem\"\nkey = \"k.pem\"\nca = \"ca.pem\"\nsecret = \"s\"";

    #[test]
    fn other_boxes_are_named_by_their_addresses() {
        assert_eq!(with("").unwrap(), None);
        let text = format!("[sync]\nlisten = \"[::1]:4700\"\npeers = [\"[::1]:4701\", \"192.0.2.2:4700\"]\n{FILES}");
        let sync = with(&text).unwrap().unwrap();
        assert_eq!((sync.boxes(), sync.peers.len(), sync.patience), (3, 2, Duration::from_secs(10)));
        assert!(sync.secret.ends_with("s") && sync.authority.ends_with("ca.pem"));
    }

    #[test]
    fn what_is_missing_or_makes_no_sense_is_told() {
        for (text, expected) in [
            (
                format!("[sync]\npeers = [\"[::1]:1\"]\n{FILES}"),
                "sync.listen: is missing: where other boxes reach this one",
            ),
            (
                format!("[sync]\nlisten = \"[::1]:2\"\n{FILES}"),
                "sync.peers: is missing: the addresses of the other boxes",
            ),
            (
                format!("[sync]\nlisten = \"[::1]:2\"\npeers = [\"[::1]:2\"]\n{FILES}"),
                "sync.peers[0]: is this box itself",
            ),
            (
                format!("[sync]\nlisten = \"[::1]:2\"\npeers = [\"[::1]:3\", \"[::1]:3\"]\n{FILES}"),
                "sync.peers[1]: is there twice",
            ),
            (
                format!("[sync]\nlisten = \"[::1]:2\"\npeers = [\"[::1]\"]\n{FILES}"),
                "sync.peers[0]: \"[::1]\" is no address with a port, as [2001:db8::1]:4700",
            ),
        ] {
            let problems = with(&text).unwrap_err();
            assert!(problems.len() == 1 && problems[0].ends_with(expected), "{problems:?}");
        }
        let problems = with("[sync]\nlisten = \"[::1]:2\"\npeers = [\"[::1]:3\"]").unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn a_secret_is_octets_or_digits_that_not_everybody_can_read() {
        let folder = std::env::temp_dir().join(format!("pshim6-secret-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("secret");
        let read = |octets: &[u8], mode: u32| {
            std::fs::write(&file, octets).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            secret(&file)
        };
        assert_eq!(read(&[7; 32], 0o600).unwrap(), Secret::new([7; 32]));
        assert_eq!(read(format!("{}\n", "a5".repeat(32)).as_bytes(), 0o640).unwrap(), Secret::new([0xa5; 32]));
        for (octets, mode) in [(&[7; 31][..], 0o600), (&[b'g'; 64], 0o600), (&[7; 32], 0o604), (b"", 0o600)] {
            assert!(read(octets, mode).is_err(), "{octets:?} {mode:o}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
