//! What routers may tell of the providers' routes (`[bmp]`).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use toml::Spanned;

use super::check::{number, required};
use super::file::{BmpSection, BmpSourceSection};
use super::limits;
use super::manage::address;
use super::network::Network;
use super::source::Source;
use super::tls::TlsFiles;

/// Sources there can be.
pub const SOURCES_MAX: usize = 64;

/// Where routers tell of the providers' routes (`[bmp]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bmp {
    /// Where routers connect.
    pub listen: SocketAddr,
    /// The files for TLS; without them connections are plain.
    pub tls: Option<TlsFiles>,
    /// Where connections may come from; never empty where they are plain. From anywhere if it is empty.
    pub from: Vec<IpAddr>,
    /// Which view of a session's routes counts.
    pub view: View,
    /// After how long a silence what a router said does not count any more; none if that is never.
    pub stall: Option<Duration>,
    /// Routers connected at one time.
    pub routers_max: u16,
    /// Routes of one session.
    pub routes_max: u32,
    /// Sessions with providers; never empty.
    pub sources: Vec<RouteSource>,
}

/// A BGP session of the site with a provider (`[[bmp.source]]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSource {
    /// `provider.name`.
    pub provider: String,
    /// The BGP neighbour: the provider's end of the session.
    pub peer: IpAddr,
    /// Its AS number, if that is to be looked at.
    pub asn: Option<u32>,
    /// sysName of the site's router, if the same neighbour may be told of by several.
    pub router: Option<String>,
    /// Whether the provider gives a route to everything it can reach, so that what it has none for is lost from the beginning.
    pub complete: bool,
    /// Whether ::/0 is a route to everybody.
    pub default_route: bool,
}

/// Which view of a session's routes counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Those that the router's policy lets in: what it uses.
    #[default]
    PostPolicy,
    /// Those that came.
    PrePolicy,
}

pub(super) fn check(
    source: &mut Source<'_>,
    section: &Option<Spanned<BmpSection>>,
    network: &Network,
    directory: &Path,
) -> Option<Bmp> {
    let (span, section) = (section.as_ref()?.span(), section.as_ref()?.get_ref());
    let listen = required(source, &span, "listen", &section.listen);
    let listen = listen.and_then(|text| address(source, text, "[2001:db8::1]:11019"));
    let from = from(source, section);
    let plain = section.plain.as_ref().is_some_and(|it| *it.get_ref());
    let files = [("certificate", &section.certificate), ("key", &section.key), ("clients_ca", &section.clients_ca)];
    let mut given = Vec::new();
    for (name, text) in files {
        match text {
            Some(text) if plain => source.problem(&text.span(), "is for TLS, and bmp.plain says that there is none"),
            Some(text) if text.get_ref().is_empty() => source.problem(&text.span(), "names no file"),
            Some(text) => given.push(directory.join(text.get_ref())),
            None if plain => {}
            None => {
                let text = "is missing: routers connect over TLS unless bmp.plain = true says otherwise";
                source.problem_at(&span, format!("bmp.{name}"), text);
            }
        }
    }
    let tls = match (listen, <[_; 3]>::try_from(given)) {
        (Some(listen), Ok([certificate, key, clients])) => {
            Some(TlsFiles { listen, certificate, key, readers: Some(clients), operators: None })
        }
        _ => None,
    };
    if let Some(plain) = section.plain.as_ref().filter(|_| plain) {
        if from.is_empty() {
            source.problem(&plain.span(), "needs bmp.from: without TLS the address is all by which a router is known");
        } else if listen.is_some_and(|listen| !listen.ip().is_loopback()) {
            let text = "whoever is between a router and the box can read and change what it says; \
                        listen on ::1 behind a program that ends TLS, or on a network of its own";
            source.warning(&plain.span(), text);
        }
    }
    let stall: u64 = number(source, &section.stall_s, limits::BMP_STALL_S);
    let sources = sources(source, section, network);
    if sources.is_empty() && section.source.as_ref().is_none_or(Vec::is_empty) {
        source.missing(&span, "source");
    }
    Some(Bmp {
        listen: listen?,
        tls,
        from,
        view: section.view.unwrap_or_default(),
        stall: Some(Duration::from_secs(stall)).filter(|stall| !stall.is_zero()),
        routers_max: number(source, &section.routers_max, limits::BMP_ROUTERS_MAX),
        routes_max: number(source, &section.routes_max, limits::BMP_ROUTES_MAX),
        sources,
    })
}

fn from(source: &mut Source<'_>, section: &BmpSection) -> Vec<IpAddr> {
    let Some(list) = &section.from else { return Vec::new() };
    let mut from = Vec::new();
    for text in list.get_ref() {
        match text.get_ref().parse::<IpAddr>() {
            Ok(address) => from.push(address.to_canonical()),
            Err(_) => source.problem(&text.span(), format!("\"{}\" is no address", text.get_ref())),
        }
    }
    if list.get_ref().is_empty() {
        source.problem(&list.span(), "lets nobody in");
    }
    from
}

fn sources(source: &mut Source<'_>, section: &BmpSection, network: &Network) -> Vec<RouteSource> {
    let mut sources: Vec<RouteSource> = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in section.source.iter().flatten() {
        let Some(checked) = one(source, entry, network) else { continue };
        if !seen.insert((checked.peer, checked.router.clone())) {
            source.problem(&entry.span(), format!("{} stands twice", checked.peer));
        }
        sources.push(checked);
    }
    if sources.len() > SOURCES_MAX
        && let Some(last) = section.source.iter().flatten().last()
    {
        source.problem(&last.span(), format!("there are {} sources; at most {SOURCES_MAX}", sources.len()));
    }
    sources
}

fn one(source: &mut Source<'_>, entry: &Spanned<BmpSourceSection>, network: &Network) -> Option<RouteSource> {
    let (span, section) = (entry.span(), entry.get_ref());
    let provider = required(source, &span, "provider", &section.provider).and_then(|text| {
        let name = text.get_ref();
        let known = network.providers.iter().map(|it| &it.name).chain(network.uplinks.iter().map(|it| &it.name));
        if known.into_iter().any(|it| it == name) {
            return Some(name.clone());
        }
        source.problem(&text.span(), format!("there is no provider called {name}"));
        None
    });
    let peer = required(source, &span, "peer", &section.peer).and_then(|text| match text.get_ref().parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical()),
        Err(_) => {
            source.problem(&text.span(), format!("\"{}\" is no address", text.get_ref()));
            None
        }
    });
    let asn = section.asn.as_ref().and_then(|field| match u32::try_from(*field.get_ref()) {
        Ok(asn) if asn > 0 => Some(asn),
        _ => {
            source.problem(&field.span(), format!("{} is no AS number", field.get_ref()));
            None
        }
    });
    Some(RouteSource {
        provider: provider?,
        peer: peer?,
        asn,
        router: section.router.as_ref().map(|text| text.get_ref().clone()),
        complete: section.complete.unwrap_or(false),
        default_route: section.default_route.unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOOD, load};
    use super::*;

    const TLS: &str = "certificate = \"c.pem\"\nkey = \"k.pem\"\nclients_ca = \"ca.pem\"\n";
    const SOURCE: &str = "[[bmp.source]]\nprovider = \"isp-x\"\npeer = \"2001:db8:aa::1\"\n";

    fn with(lines: &str, sources: &str) -> Result<Option<Bmp>, Vec<String>> {
        load(&format!("{GOOD}\n[bmp]\nlisten = \"[::1]:11019\"\n{lines}\n{sources}\n")).map(|(site, _)| site.bmp)
    }

    #[test]
    fn what_routers_may_tell_is_read() {
        let bmp = with(&format!("{TLS}stall_s = 0\nview = \"pre-policy\""), SOURCE).unwrap().unwrap();
        assert_eq!((bmp.stall, bmp.view, bmp.from.len()), (None, View::PrePolicy, 0));
        assert!(bmp.tls.unwrap().readers.unwrap().ends_with("ca.pem"));
        let more = "asn = 65001\nrouter = \"edge-1\"\ncomplete = true\ndefault_route = false\n";
        let bmp =
            with("plain = true\nfrom = [\"::1\", \"::ffff:10.0.0.1\"]", &format!("{SOURCE}{more}")).unwrap().unwrap();
        assert_eq!((bmp.tls, bmp.stall), (None, Some(Duration::from_secs(300))));
        assert_eq!(bmp.from[1], "10.0.0.1".parse::<IpAddr>().unwrap());
        let [source] = &bmp.sources[..] else { panic!("{:?}", bmp.sources) };
        assert_eq!((source.asn, source.router.as_deref()), (Some(65001), Some("edge-1")));
        assert!(source.complete && !source.default_route);
        assert_eq!(load(GOOD).unwrap().0.bmp, None);
    }

    #[test]
    fn what_would_let_anybody_speak_or_nobody_is_refused() {
        for (lines, sources, expected) in [
            (
                "",
                SOURCE,
                "bmp.certificate: is missing: routers connect over TLS unless bmp.plain = true says otherwise",
            ),
            (
                "plain = true",
                SOURCE,
                "bmp.plain: needs bmp.from: without TLS the address is all by which a router is known",
            ),
            ("plain = true\nfrom = []", SOURCE, "bmp.from: lets nobody in"),
            (
                "plain = true\nfrom = [\"::1\"]\nkey = \"k\"",
                SOURCE,
                "bmp.key: is for TLS, and bmp.plain says that there is none",
            ),
            ("plain = true\nfrom = [\"x\"]", SOURCE, "\"x\" is no address"),
            ("plain = true\nfrom = [\"::1\"]", "", "bmp.source: is missing"),
            (TLS, "[[bmp.source]]\nprovider = \"isp-z\"\npeer = \"::1\"", "there is no provider called isp-z"),
            (TLS, "[[bmp.source]]\nprovider = \"isp-x\"\npeer = \"edge\"", "\"edge\" is no address"),
            (TLS, &format!("{SOURCE}asn = 0"), "0 is no AS number"),
            (TLS, &format!("{SOURCE}{SOURCE}"), "2001:db8:aa::1 stands twice"),
            (&format!("{TLS}stall_s = 90000"), SOURCE, "bmp.stall_s: 90000 is out of range"),
        ] {
            let problems = with(lines, sources).expect_err(lines);
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{lines}: {problems:?}");
        }
    }
}
