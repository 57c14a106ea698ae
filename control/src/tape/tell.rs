//! A replay as people and programs want to read it.

use std::fmt::Debug;
use std::net::Ipv6Addr;

use dataplane::wire::shim6::ControlPacket;
use dataplane::wire::{ContextTag, ethernet, ipv6};

use super::digest::{self, KINDS};
use super::input::{Heard, Input};
use super::replay::{Ending, Replay, ReplayError, Step};
use crate::config::{Hosts, Site};
use crate::engine::{Effect, Engine};
use crate::manage::api::{ContextFilter, CountersView};
use crate::manage::verbs::{Look, ReplayArgs, ReplayLine, Say, VerbError};
use crate::time::Instant;

/// What is told of something that has more to say.
const TEXT_MAX: usize = 400;

/// Replays a tape and says what was asked for. False if it is not decided as it was, or cannot be read to its end.
///
/// # Errors
/// What keeps it from beginning, and what `say` returns.
pub fn tell(octets: &[u8], asked: &ReplayArgs, say: Say<'_>) -> Result<bool, VerbError> {
    let wanted = Wanted::of(asked)?;
    let none = |_: u64| -> Option<(Site, Hosts)> { None };
    let words = |error: ReplayError| VerbError::Words(error.to_string());
    let mut replay = Replay::open(octets, &none).map_err(words)?;
    let beginning = replay.beginning();
    say(ReplayLine::Recording {
        version: beginning.version.clone(),
        name: replay.configuration().0.node.name.clone(),
        at_s: replay.now().0.as_secs_f64(),
        unix: beginning.unix,
    })?;
    let (mut inputs, mut differences, mut stopped) = (0, 0, false);
    let ended = loop {
        let step = match replay.step() {
            Ok(Some(step)) => step,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        inputs = step.number;
        wanted.say(&step, say)?;
        if let Some(difference) = step.difference.as_ref().filter(|it| !wanted.ignores(&it.recorded, &it.replayed)) {
            differences += 1;
            let at = difference.at();
            let now = at.checked_sub(1).and_then(|at| step.effects.get(at)).map(effect_text);
            let (number, at_s) = (step.number, step.now.0.as_secs_f64());
            let input = format!("{} {}", step.input.name(), input_text(&step.input));
            say(ReplayLine::Difference { number, at_s, input, text: difference.to_string(), now })?;
        }
        let until = asked.until.is_some_and(|until| step.now.0.as_secs_f64() >= until);
        if until || asked.stop.is_some_and(|stop| step.number >= stop) || (differences > 0 && !asked.keep_going) {
            stopped = true;
            break Ok(());
        }
    };
    let text = match (&ended, replay.ending()) {
        (Err(error), _) => error.to_string(),
        (Ok(()), _) if stopped => "stopped here".to_owned(),
        (Ok(()), Some(Ending::Said(reason))) => format!("the recording ends here: {reason}"),
        (Ok(()), Some(Ending::CutOff(octet))) => format!("the recording is cut off after octet {octet}"),
        (Ok(()), _) => "the recording ends here without a word".to_owned(),
    };
    let now = replay.now();
    say(ReplayLine::End { inputs, at_s: now.0.as_secs_f64(), differences, text })?;
    for look in &asked.show {
        show(*look, replay.core(), now, say)?;
    }
    Ok(ended.is_ok() && differences == 0)
}

/// What is to be told.
struct Wanted<'a> {
    asked: &'a ReplayArgs,
    kinds: Vec<&'static str>,
    ignored: Vec<&'static str>,
    about: Option<About>,
}

/// Something by which lines are chosen.
struct About {
    /// As it looks in text.
    text: String,
    /// As it looks in a packet.
    octets: Vec<u8>,
}

impl<'a> Wanted<'a> {
    fn of(asked: &'a ReplayArgs) -> Result<Wanted<'a>, VerbError> {
        let kinds = match asked.effects.is_empty() {
            true => vec!["story"],
            false => kinds(&asked.effects)?,
        };
        let about = asked.about.as_ref().map(|text| About::of(text)).transpose()?;
        Ok(Wanted { asked, kinds, ignored: kinds_or_none(&asked.ignore)?, about })
    }

    fn say(&self, step: &Step<'_>, say: Say<'_>) -> Result<(), VerbError> {
        let (number, at_s) = (step.number, step.now.0.as_secs_f64());
        if self.asked.since.is_some_and(|since| at_s < since) {
            return Ok(());
        }
        if self.asked.inputs && self.is_about_input(&step.input) {
            say(ReplayLine::Input { number, at_s, kind: step.input.name(), text: input_text(&step.input) })?;
        }
        for effect in &step.effects {
            let kind = digest::kind_of(effect);
            if self.kinds.contains(&kind) && self.is_about_effect(effect) {
                say(ReplayLine::Effect { number, at_s, kind, text: effect_text(effect) })?;
            }
        }
        Ok(())
    }

    fn is_about_input(&self, input: &Input<'_>) -> bool {
        self.about.as_ref().is_none_or(|about| match input {
            Input::Notice(Heard::Punt(_, _, frame) | Heard::Unresolved(_, _, frame)) => about.is_in(frame),
            Input::FromSystem(_, frame) => about.is_in(frame),
            other => about.is_named(other),
        })
    }

    fn is_about_effect(&self, effect: &Effect) -> bool {
        self.about.as_ref().is_none_or(|about| match effect {
            Effect::Transmit(_, frame)
            | Effect::TransmitBy(_, _, frame)
            | Effect::Plain(_, frame)
            | Effect::System(_, frame) => about.is_in(frame),
            other => about.is_named(other),
        })
    }

    /// Whether what differs is of kinds that may.
    fn ignores(&self, recorded: &[u32], replayed: &[u32]) -> bool {
        let kept = |digests: &[u32]| -> Vec<u32> {
            let kept = |digest: &&u32| !self.ignored.contains(&digest::kind(**digest));
            digests.iter().filter(kept).copied().collect()
        };
        kept(recorded) == kept(replayed)
    }
}

impl About {
    fn of(text: &str) -> Result<About, VerbError> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(About { text: address.to_string(), octets: address.octets().to_vec() });
        }
        let tag = u64::from_str_radix(text, 16).ok().and_then(ContextTag::new);
        let tag =
            tag.ok_or_else(|| VerbError::Words(format!("{text} is no address and no tag of up to 12 hex digits")))?;
        let [_, _, octets @ ..] = tag.value().to_be_bytes();
        Ok(About { text: tag.to_string(), octets: octets.to_vec() })
    }

    fn is_in(&self, frame: &[u8]) -> bool {
        frame.windows(self.octets.len()).any(|window| window == self.octets)
    }

    /// Whether it is named there, and not part of something longer.
    fn is_named(&self, value: &dyn Debug) -> bool {
        let text = format!("{value:?}");
        let part = |letter: char| letter.is_ascii_hexdigit() || letter == ':';
        text.match_indices(&self.text).any(|(at, found)| {
            let before = text[..at].chars().next_back().is_some_and(part);
            !before && !text[at + found.len()..].chars().next().is_some_and(part)
        })
    }
}

fn kinds(names: &[String]) -> Result<Vec<&'static str>, VerbError> {
    if names.iter().any(|name| name == "all") {
        return Ok(KINDS.to_vec());
    }
    let kind = |name: &String| {
        let known = KINDS.iter().find(|kind| *kind == name).copied();
        known.ok_or_else(|| VerbError::Words(format!("{name} is no kind of effect: {}", KINDS.join(", "))))
    };
    names.iter().map(kind).collect()
}

fn kinds_or_none(names: &[String]) -> Result<Vec<&'static str>, VerbError> {
    if names.is_empty() { Ok(Vec::new()) } else { kinds(names) }
}

fn input_text(input: &Input<'_>) -> String {
    match input {
        Input::Notice(Heard::Punt(port, _, frame)) => format!("port {port}: {}", frame_text(frame)),
        Input::Notice(Heard::Unresolved(port, next_hop, frame)) => {
            format!("port {port}, next hop {next_hop}: {}", frame_text(frame))
        }
        Input::FromSystem(port, frame) => format!("port {port}: {}", frame_text(frame)),
        Input::Expire => String::new(),
        other => shortened(format!("{other:?}")),
    }
}

fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::Transmit(port, frame) => format!("port {}: {}", port.0, frame_text(frame)),
        Effect::TransmitBy(worker, port, frame) => format!("worker {worker}, port {}: {}", port.0, frame_text(frame)),
        Effect::Plain(port, frame) | Effect::System(port, frame) => format!("port {}: {}", port.0, frame_text(frame)),
        Effect::Publish(snapshot) => format!("{} hosts, {:?}", snapshot.hosts.len(), snapshot.providers),
        Effect::Story(story) => format!("{story:?}"),
        other => shortened(format!("{other:?}")),
    }
}

fn frame_text(frame: &[u8]) -> String {
    let packet = frame.get(ethernet::HEADER_LEN..).unwrap_or_default();
    let Ok(view) = ipv6::View::new(packet) else { return format!("{} octets", frame.len()) };
    let ends = format!("{} octets, {} > {}", packet.len(), view.source(), view.target());
    match ControlPacket::parse(packet) {
        Ok(parsed) => shortened(format!("{ends}: {:?}", parsed.message)),
        Err(_) => format!("{ends}, next header {}", view.next_header()),
    }
}

fn shortened(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(at);
        text.push_str(" …");
    }
    text
}

fn show(look: Look, engine: &Engine, now: Instant, say: Say<'_>) -> Result<(), VerbError> {
    match look {
        Look::Contexts => {
            let mut filter = ContextFilter { limit: Some(u32::MAX), ..ContextFilter::default() };
            while let Ok(view) = engine.contexts_view(now, &filter) {
                filter.after = view.next;
                say(ReplayLine::Contexts(view))?;
                if filter.after.is_none() {
                    break;
                }
            }
        }
        Look::Paths => say(ReplayLine::Paths(engine.paths_view(now)))?,
        Look::Counters => {
            let mut view = CountersView::default();
            for (name, help, value) in engine.tally().iter().chain(engine.name_counts()) {
                view.counters.insert(name.to_owned(), value);
                view.descriptions.insert(name.to_owned(), help.to_owned());
            }
            say(ReplayLine::Counters(view))?;
        }
        Look::Providers => say(ReplayLine::Providers(engine.providers_view()))?,
        Look::Hosts => say(ReplayLine::Hosts(engine.hosts_view(now)))?,
    }
    Ok(())
}
