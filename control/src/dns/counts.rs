//! Everything that is counted or told.

use std::fmt;
use std::mem::discriminant;
use std::net::Ipv6Addr;
use std::time::Duration;

use super::Socket;
use crate::time::Instant;

/// Time between two lines of the same kind.
const SILENCE: Duration = Duration::from_secs(10);

/// Declares what is counted, with names and meanings.
macro_rules! events {
    ($($variant:ident $name:literal $meaning:literal,)*) => {
        /// Something worth counting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the meanings below say it")]
        pub enum Event { $($variant),* }

        /// Every count of DNS and what it means; `docs/counters.md` says the same.
        pub const MEANINGS: &[(&str, &str)] = &[$((concat!("dns_", $name), $meaning)),*];
    };
}

events! {
    Questions "questions" "Questions of hosts.",
    QuestionsCached "questions_cached" "Questions answered from the cache.",
    QuestionsZone "questions_zone" "Questions about the site's own names.",
    QuestionsJoined "questions_joined" "Questions that wait for the same answer as others before them.",
    QuestionsMalformed "questions_malformed" "Questions that cannot be read; told so if they have a header.",
    QuestionsRefused "questions_refused" "Questions of a kind that is not passed on: other operations, classes and meta types.",
    QuestionsWaiting "questions_waiting" "Questions dropped because as many wait as may, or as many of the host.",
    QuestionsFull "questions_full" "Questions to upstream servers not sent because as many are on their way as may be.",
    QuestionsUnanswered "questions_unanswered" "Questions that no upstream server answered, or none could be reached.",
    Rewritten "rewritten" "Answers made with a CMULA in the place of locators.",
    Rehinted "rehinted" "Service records whose address hints were replaced by CMULAs.",
    AWithheld "a_withheld" "Answers from which IPv4 addresses were left out, since the peer answers at the CMULA its name has.",
    AUnreached "a_unreached" "Answers with IPv4 addresses that are not left out because the peer does not answer at its CMULA, or not in time.",
    AUnknown "a_unknown" "Answers with IPv4 addresses that are not left out because nobody could tell whether the name has a CMULA.",
    Passed "passed" "Answers of upstream servers passed through.",
    UlidUnknown "ulid_unknown" "Addresses passed through because nobody could tell whether there is a ULID record.",
    UlidInvalid "ulid_invalid" "ULID records that hold no identifier, or one nobody outside may have.",
    AnswersTruncated "answers_truncated" "Truncated answers of upstream servers, asked again over TCP.",
    AnswersFailure "answers_failure" "Answers of upstream servers that say they do not know (SERVFAIL, REFUSED and the like).",
    AnswersMalformed "answers_malformed" "Answers of upstream servers that cannot be read.",
    AnswersUnasked "answers_unasked" "Answers of upstream servers with records nobody asked for.",
    AnswersSpoofed "answers_spoofed" "Answers with another address, identifier or question than was sent.",
    AnswersLetters "answers_letters" "Answers that are right but for the case of letters, asked again over TCP.",
    AnswersLate "answers_late" "Answers nobody waits for.",
    ServersDown "servers_down" "Times an upstream server was left alone because it did not answer.",
    ReverseLookups "reverse_lookups" "Identifiers looked up backwards because nobody had asked for them.",
    ReverseFound "reverse_found" "Of these, those whose name leads back to them.",
    ReverseFailed "reverse_failed" "Of these, those that lead nowhere.",
    ReverseAstray "reverse_astray" "Names that identifiers point to, and whose ULID records do not point back.",
    ReverseRemembered "reverse_remembered" "Identifiers not looked up because that failed lately.",
    ReverseFull "reverse_full" "Identifiers not looked up because as many are as may be.",
}

/// Something an operator may want to read about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An answer that was not to be believed, from where and why.
    Spoofed(Socket, &'static str),
    /// A server's answer that cannot be read.
    Malformed(Ipv6Addr),
    /// A server's answer has records nobody asked for, for this name.
    Unasked(String),
    /// A host's question cannot be read.
    Unreadable(Ipv6Addr),
    /// A host has more questions waiting than it may.
    TooMany(Ipv6Addr),
    /// A server does not answer and is left alone for a while.
    ServerDown(Ipv6Addr),
    /// The cache had to forget what could still be used.
    CacheFull(usize),
    /// A name that an identifier points to does not point back.
    Astray(Ipv6Addr, String),
    /// A ULID record holds what is no identifier, at this name.
    Invalid(String),
}

impl fmt::Display for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Spoofed((address, port), why) => {
                write!(out, "answer from [{address}]:{port} not believed: it came {why}")
            }
            Note::Malformed(server) => write!(out, "server {server} sent an answer that cannot be read"),
            Note::Unasked(name) => write!(out, "answer for {name} not passed on: it has records nobody asked for"),
            Note::Unreadable(host) => write!(out, "host {host} sent a question that cannot be read"),
            Note::TooMany(host) => write!(out, "question of host {host} dropped: too many wait for an answer"),
            Note::ServerDown(server) => write!(out, "server {server} does not answer; others are asked for a while"),
            Note::CacheFull(entries) => write!(out, "cache full with {entries} entries: the least used make room"),
            Note::Astray(address, name) => {
                write!(out, "{address} points to {name}, which has no ULID record with it: not used")
            }
            Note::Invalid(name) => write!(out, "ULID record of {name} holds no identifier others may have: not used"),
        }
    }
}

/// What happened so far, and what was told lately.
#[derive(Debug)]
pub struct Counted {
    counts: [u64; MEANINGS.len()],
    told: Vec<(std::mem::Discriminant<Note>, Instant)>,
}

impl Default for Counted {
    fn default() -> Counted {
        Counted { counts: [0; MEANINGS.len()], told: Vec::new() }
    }
}

impl Counted {
    /// Counts one event.
    pub fn count(&mut self, event: Event) {
        self.counts[event as usize] += 1;
    }

    /// How often something happened.
    pub fn of(&self, event: Event) -> u64 {
        self.counts[event as usize]
    }

    /// All names and counts.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        MEANINGS.iter().zip(self.counts).map(|((name, _), count)| (*name, count))
    }

    /// Whether a line may be written: whoever floods does not fill the log too.
    pub(super) fn tells(&mut self, now: Instant, note: &Note) -> bool {
        let kind = discriminant(note);
        match self.told.iter_mut().find(|(told, _)| *told == kind) {
            Some((_, at)) if now.since(*at) < SILENCE => false,
            Some((_, at)) => {
                *at = now;
                true
            }
            None => {
                self.told.push((kind, now));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_its_line_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/counters.md");
        let text = std::fs::read_to_string(path).expect("docs/counters.md");
        for (name, help) in MEANINGS {
            assert!(text.contains(&format!("| `{name}` | {help} |")), "docs/counters.md lacks `{name}`");
        }
    }

    #[test]
    fn one_line_of_a_kind_is_told_in_a_while() {
        let mut counted = Counted::default();
        let note = |last| Note::Unreadable(Ipv6Addr::from_bits(last));
        let mut told = |seconds, last| counted.tells(Instant(Duration::from_secs(seconds)), &note(last));
        assert_eq!([told(0, 1), told(9, 2), told(10, 3), told(11, 3)], [true, false, true, false]);
        assert!(counted.tells(Instant::START, &Note::CacheFull(1)), "another kind");
    }
}
