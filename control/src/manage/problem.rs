//! How the API says that something did not work: a problem document (RFC 9457).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::{ErrorKind, ErrorView};

/// Its media type.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// A problem document (RFC 9457 §3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Which kind of problem, for programs: `/problems/` and one of the names in docs/operations.md.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same in words.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What is wrong in this case, for people; may have several lines.
    pub detail: String,
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $status:literal $kind:literal $title:literal;)*) => {
        /// What may be wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind { $($(#[$meta])* $name),* }

        impl Kind {
            /// All of them.
            #[cfg(test)]
            pub(super) const ALL: &[Kind] = &[$(Kind::$name),*];

            /// Status, name and title.
            pub(super) const fn parts(self) -> (u16, &'static str, &'static str) {
                match self { $(Kind::$name => ($status, $kind, $title)),* }
            }
        }
    };
}

kinds! {
    /// The request cannot be understood.
    NotUnderstood = 400 "not-understood" "The request cannot be understood";
    /// It would change something, and the socket is for reading.
    ReadOnly = 403 "read-only" "This door is for looking only";
    /// A browser sent it, perhaps for somebody else's page.
    FromBrowser = 403 "from-browser" "Browsers give no orders";
    /// There is no such place, or nothing of that name.
    NotFound = 404 "not-found" "There is no such thing";
    /// The place is there, for another method.
    WrongMethod = 405 "wrong-method" "This is asked for in another way";
    /// The body did not come in time.
    TooSlow = 408 "too-slow" "The request did not arrive in time";
    /// The box says no.
    Refused = 409 "refused" "The box does not do that";
    /// The body is longer than any order.
    TooLong = 413 "too-long" "The request is too long";
    /// The page was asked for under a name that is not this machine's.
    WrongHost = 421 "wrong-host" "This is not asked for under that name";
    /// The answer could not be made.
    Broken = 500 "broken" "The answer could not be made";
    /// Too many ask at the same time.
    Busy = 503 "busy" "Too many connections";
    /// The engine did not answer.
    NoEngine = 504 "no-engine" "The engine did not answer";
}

impl Kind {
    /// A document.
    pub(super) fn because(self, detail: impl Into<String>) -> Problem {
        let (status, name, title) = self.parts();
        Problem { kind: format!("/problems/{name}"), title: title.to_owned(), status, detail: detail.into() }
    }
}

impl From<ErrorView> for Problem {
    fn from(error: ErrorView) -> Problem {
        let kind = match error.kind {
            ErrorKind::Refused => Kind::Refused,
            ErrorKind::NotFound => Kind::NotFound,
        };
        kind.because(error.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_problem_is_in_the_handbook() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
        let text = std::fs::read_to_string(path).expect("docs/operations.md");
        for kind in Kind::ALL {
            let (status, name, title) = kind.parts();
            assert!(text.contains(&format!("| {status} | `{name}` | {title} |")), "docs/operations.md lacks {name}");
        }
    }
}
