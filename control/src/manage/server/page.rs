//! The web page: files that are part of the program, and what a browser is told of them.

use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

/// Place, media type, text.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("../page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("../page/page.js")),
    ("/words.js", "text/javascript; charset=utf-8", include_str!("../page/words.js")),
    ("/icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
    ("/chart.js", "text/javascript; charset=utf-8", include_str!("../page/chart.js")),
];

/// What the page asks.
const ASKS: &[&str] = &["/v1/metrics", "/v1/policy", "/v1/counters", "/v1/history"];

/// Nothing from anywhere but here, nothing written into the page but by the page's own files, and no page around it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The file at a place.
pub(super) fn file(path: &str) -> Option<(&'static str, &'static str)> {
    FILES.iter().find(|(place, ..)| *place == path).map(|(_, media_type, text)| (*media_type, *text))
}

/// Whether the page asks what is at a place.
pub(super) fn asks(path: &str) -> bool {
    ASKS.contains(&path)
}

/// What every answer says to a browser, whatever it is an answer to.
pub(super) fn guard(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let same = HeaderValue::from_static("same-origin");
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), same.clone());
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), same);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::{Method, OPERATIONS, Role};

    #[test]
    fn the_page_asks_nothing_that_changes_something() {
        for place in ASKS {
            let here: Vec<_> = OPERATIONS.iter().filter(|it| it.path == *place).collect();
            assert!(!here.is_empty(), "{place}");
            assert!(here.iter().all(|it| (it.method, it.role) == (Method::Get, Role::Read)), "{place}");
        }
    }

    // Names in answers are others': peers' prefixes, classes of a policy. None of them may become part of the page's structure.
    #[test]
    fn nothing_is_written_into_the_page_but_text() {
        for (place, _, text) in FILES {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "javascript:",
            ] {
                assert!(!text.contains(word), "{place}: {word}");
            }
            for word in ["http:", "https:", "//cdn", "style=", "onclick=", "onload="] {
                let own = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!own.contains(word), "{place}: {word}");
            }
        }
        let html = file("/").unwrap().1;
        assert!(!html.contains("<style") && html.matches("<script").count() == html.matches("<script src=\"/").count());
        for (place, ..) in &FILES[1..] {
            assert!(html.contains(&format!("\"{place}\"")), "{place} is not used");
        }
    }
}
