//! Who may ask the daemon what (`[manage]`), and what monitoring is told (`[metrics]`).

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use toml::Spanned;

use super::check::{number, socket};
use super::file::{ManageSection, MetricsSection};
use super::limits;
use super::source::Source;
use super::tls::TlsFiles;

/// Mode of a socket unless said otherwise: its owner and its group.
const MODE: u32 = 0o660;

/// Who may ask the daemon (`[manage]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manage {
    /// File mode of `box.control_socket`: who can write to it may give orders.
    pub mode: u32,
    /// Its group, by name or number; that of the daemon if none is named.
    pub group: Option<String>,
    /// A second socket, on which questions are answered and orders refused.
    pub read: Option<ReadSocket>,
    /// Where the same is asked over TLS; nowhere if nothing is said.
    pub tls: Option<TlsFiles>,
}

impl Default for Manage {
    fn default() -> Manage {
        Manage { mode: MODE, group: None, read: None, tls: None }
    }
}

/// The socket for those who may look and not touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadSocket {
    /// Where it is.
    pub path: PathBuf,
    /// Its file mode.
    pub mode: u32,
    /// Its group, by name or number.
    pub group: Option<String>,
}

/// What monitoring is told (`[metrics]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where Prometheus may ask over TCP; nowhere if nothing is said. The sockets answer `/metrics` as well.
    pub listen: Option<SocketAddr>,
    /// Paths that are told one by one; all others are told as a number.
    pub paths: usize,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { listen: None, paths: limits::METRICS_PATHS.default as usize }
    }
}

pub(super) fn check(
    source: &mut Source<'_>,
    section: &Option<Spanned<ManageSection>>,
    directory: &Path,
    control_socket: &Path,
) -> Manage {
    let Some(section) = section else { return Manage::default() };
    let section = section.get_ref();
    let path = section.read_socket.as_ref().map(|text| socket(source, text, directory));
    if path.is_none()
        && let Some(alone) = section.read_mode.as_ref().or(section.read_group.as_ref())
    {
        source.problem(&alone.span(), "is of manage.read_socket, and there is none");
    }
    if let (Some(path), Some(text)) = (&path, &section.read_socket)
        && plain(path) == plain(control_socket)
    {
        source.problem(&text.span(), "is box.control_socket: one socket cannot have both roles");
    }
    let read_mode = mode(source, &section.read_mode);
    let read_group = group(source, &section.read_group);
    Manage {
        mode: mode(source, &section.mode),
        group: group(source, &section.group),
        read: path.map(|path| ReadSocket { path, mode: read_mode, group: read_group }),
        tls: tls(source, section, directory),
    }
}

/// A path without what leads nowhere: `a/./b` is `a/b`.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

fn tls(source: &mut Source<'_>, section: &ManageSection, directory: &Path) -> Option<TlsFiles> {
    let needed = [("certificate", &section.certificate), ("key", &section.key)];
    let lists = [&section.clients_read_ca, &section.clients_operator_ca];
    let Some(listen) = &section.listen else {
        for text in needed.iter().map(|(_, text)| *text).chain(lists).flatten() {
            source.problem(&text.span(), "is of manage.listen, and there is none");
        }
        return None;
    };
    let mut file = |text: &Option<Spanned<String>>| {
        let text = text.as_ref()?;
        if text.get_ref().is_empty() {
            source.problem(&text.span(), "names no file");
        }
        Some(directory.join(text.get_ref()))
    };
    let (certificate, key) = (file(&section.certificate), file(&section.key));
    let (readers, operators) = (file(&section.clients_read_ca), file(&section.clients_operator_ca));
    for (name, _) in needed.iter().filter(|(_, text)| text.is_none()) {
        source.problem(&listen.span(), format!("needs manage.{name}"));
    }
    if readers.is_none() && operators.is_none() {
        source.problem(&listen.span(), "needs manage.clients_read_ca or manage.clients_operator_ca: who may ask");
    }
    let listen = address(source, listen, "[2001:db8::1]:9465")?;
    Some(TlsFiles { listen, certificate: certificate?, key: key?, readers, operators })
}

/// An address with a port.
pub(super) fn address(source: &mut Source<'_>, text: &Spanned<String>, example: &str) -> Option<SocketAddr> {
    match text.get_ref().parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Some(address),
        Ok(_) => {
            source.problem(&text.span(), "names no port");
            None
        }
        Err(_) => {
            source.problem(&text.span(), format!("\"{}\" is no address with a port, as {example}", text.get_ref()));
            None
        }
    }
}

pub(super) fn metrics(source: &mut Source<'_>, section: &Option<Spanned<MetricsSection>>) -> Metrics {
    let Some(section) = section else { return Metrics::default() };
    let section = section.get_ref();
    let listen = section.listen.as_ref().and_then(|text| address(source, text, "[::1]:9464"));
    Metrics { listen, paths: usize::from(number::<u16>(source, &section.paths, limits::METRICS_PATHS)) }
}

/// A mode in octal digits. Others may be let in, but a socket nobody can write to is a mistake.
fn mode(source: &mut Source<'_>, text: &Option<Spanned<String>>) -> u32 {
    let Some(text) = text else { return MODE };
    // Digits alone: what reads numbers takes a sign as well.
    let digits = text.get_ref().bytes().all(|octet| (b'0'..=b'7').contains(&octet));
    match u32::from_str_radix(text.get_ref(), 8) {
        _ if !digits => {
            source.problem(&text.span(), format!("\"{}\" is no file mode, as \"0660\"", text.get_ref()));
            MODE
        }
        Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => mode,
        Ok(mode) if mode <= 0o777 => {
            source.problem(&text.span(), format!("{mode:04o} does not let the socket's owner read and write"));
            MODE
        }
        _ => {
            source.problem(&text.span(), format!("\"{}\" is no file mode, as \"0660\"", text.get_ref()));
            MODE
        }
    }
}

fn group(source: &mut Source<'_>, text: &Option<Spanned<String>>) -> Option<String> {
    let text = text.as_ref()?;
    if text.get_ref().is_empty() || text.get_ref().contains([':', ',', ' ', '/']) {
        source.problem(&text.span(), format!("\"{}\" is no name of a group", text.get_ref()));
        return None;
    }
    Some(text.get_ref().clone())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOOD, load};
    use super::*;

    fn with(sections: &str) -> Result<(Manage, Metrics), Vec<String>> {
        load(&format!("{GOOD}\n{sections}\n")).map(|(site, _)| (site.manage, site.metrics))
    }

    #[test]
    fn the_sockets_of_both_roles_are_read() {
        let (manage, metrics) = with("").unwrap();
        assert_eq!((manage, metrics.listen), (Manage::default(), None));
        let (manage, metrics) = with(
            "[manage]\nmode = \"0600\"\ngroup = \"noc\"\nread_socket = \"/run/look.sock\"\nread_mode = \"0666\"\n\
             [metrics]\nlisten = \"[::1]:9464\"\npaths = 7",
        )
        .unwrap();
        assert_eq!((manage.mode, manage.group.as_deref()), (0o600, Some("noc")));
        let read = manage.read.unwrap();
        assert_eq!((read.path.to_str(), read.mode, read.group), (Some("/run/look.sock"), 0o666, None));
        assert_eq!((metrics.listen, metrics.paths), (Some("[::1]:9464".parse().unwrap()), 7));
    }

    #[test]
    fn what_would_let_nobody_or_the_wrong_ones_in_is_refused() {
        for (sections, expected) in [
            ("[manage]\nmode = \"rw\"", "manage.mode: \"rw\" is no file mode, as \"0660\""),
            ("[manage]\nmode = \"0066\"", "manage.mode: 0066 does not let the socket's owner read and write"),
            ("[manage]\nmode = \"+660\"", "manage.mode: \"+660\" is no file mode, as \"0660\""),
            ("[manage]\nmode = \"0o660\"", "manage.mode: \"0o660\" is no file mode, as \"0660\""),
            (
                "[manage]\nread_socket = \"/run/./a.sock\"",
                "manage.read_socket: is box.control_socket: one socket cannot have both roles",
            ),
            ("[manage]\nkey = \"k.pem\"", "manage.key: is of manage.listen, and there is none"),
            (
                "[manage]\nlisten = \"[::1]:1\"\ncertificate = \"c\"\nkey = \"k\"",
                "manage.listen: needs manage.clients_read_ca or manage.clients_operator_ca: who may ask",
            ),
            (
                "[manage]\nlisten = \"[::1]:1\"\nclients_read_ca = \"c\"\nkey = \"k\"",
                "manage.listen: needs manage.certificate",
            ),
            ("[manage]\nread_mode = \"0660\"", "manage.read_mode: is of manage.read_socket, and there is none"),
            ("[manage]\ngroup = \"a b\"", "manage.group: \"a b\" is no name of a group"),
            ("[metrics]\nlisten = \"9464\"", "metrics.listen: \"9464\" is no address with a port, as [::1]:9464"),
            ("[metrics]\nlisten = \"[::1]:0\"", "metrics.listen: names no port"),
        ] {
            let problems = with(sections).unwrap_err();
            assert!(problems.len() == 1 && problems[0].ends_with(expected), "{problems:?}");
        }
    }
}
