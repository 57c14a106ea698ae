//! Where the web page is (`[web]`).

use std::net::SocketAddr;

use toml::Spanned;

use super::file::WebSection;
use super::manage::{Manage, Metrics, address};
use super::source::Source;

/// Where the web page is: nowhere unless somebody says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Web {
    /// An address of the machine itself, since there is neither encryption nor password.
    pub listen: Option<SocketAddr>,
    /// Whether it is at `manage.listen` as well, for browsers that have a certificate.
    pub over_tls: bool,
}

pub(super) fn check(
    source: &mut Source<'_>,
    section: &Option<Spanned<WebSection>>,
    manage: &Manage,
    metrics: &Metrics,
) -> Web {
    let tls = manage.tls.as_ref().map(|files| files.listen);
    let Some(section) = section else { return Web::default() };
    let section = section.get_ref();
    let listen = section.listen.as_ref().and_then(|text| {
        let address = address(source, text, "[::1]:8080")?;
        if !address.ip().is_loopback() {
            let words = "is not an address of the machine itself ([::1] or 127.0.0.1), and the page has no password there; \
                         web.over_tls has it at manage.listen for browsers with a certificate";
            source.problem(&text.span(), words);
        }
        for (field, other) in [("manage.listen", tls), ("metrics.listen", metrics.listen)] {
            if other == Some(address) {
                source.problem(&text.span(), format!("is {field} as well"));
            }
        }
        Some(address)
    });
    let over_tls = section.over_tls.as_ref().is_some_and(|it| *it.get_ref());
    if let Some(text) = section.over_tls.as_ref().filter(|it| *it.get_ref() && tls.is_none()) {
        source.problem(&text.span(), "is at manage.listen, and there is none");
    }
    Web { listen, over_tls }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOOD, load};
    use super::*;

    fn with(sections: &str) -> Result<Web, Vec<String>> {
        load(&format!("{GOOD}\n{sections}\n")).map(|(site, _)| site.web)
    }

    #[test]
    fn the_page_is_nowhere_unless_asked_for_and_never_open_to_others() {
        assert_eq!(with("").unwrap(), Web::default());
        for local in ["[::1]:8080", "127.0.0.1:8080"] {
            let web = with(&format!("[web]\nlisten = \"{local}\"")).unwrap();
            assert_eq!((web.listen, web.over_tls), (Some(local.parse().unwrap()), false));
        }
        for open in ["[::]:8080", "0.0.0.0:80", "[2001:db8::1]:8080", "[::ffff:10.0.0.1]:8080"] {
            let problems = with(&format!("[web]\nlisten = \"{open}\"")).unwrap_err();
            assert!(problems[0].contains("web.listen: is not an address of the machine itself"), "{problems:?}");
        }
        let problems = with("[metrics]\nlisten = \"[::1]:8080\"\n[web]\nlisten = \"[::1]:8080\"").unwrap_err();
        assert!(problems[0].ends_with("web.listen: is metrics.listen as well"), "{problems:?}");
        let problems = with("[web]\nover_tls = true").unwrap_err();
        assert!(problems[0].ends_with("web.over_tls: is at manage.listen, and there is none"), "{problems:?}");
        let tls =
            "[manage]\nlisten = \"[2001:db8::1]:9465\"\ncertificate = \"c\"\nkey = \"k\"\nclients_read_ca = \"r\"\n";
        assert!(with(&format!("{tls}[web]\nover_tls = true")).unwrap().over_tls);
    }
}
