//! Recordings of boxes in these worlds, and their replay.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::{Hosts, Site};
use crate::engine::{Engine, Keys, PortSetup};
use crate::manage::api::ContextFilter;
use crate::tape::{Beginning, Inputs, Recorder, Replay, ReplayError, Source, Tape};
use crate::time::Instant;

/// What a world's tape may be long.
const OCTETS_MAX: u64 = 1 << 30;

/// A box that is recorded.
pub(super) struct Taped {
    recorder: Recorder,
    octets: Arc<Mutex<Vec<u8>>>,
    configurations: Vec<(Site, Hosts)>,
    /// What others draw: the box's own numbers are the engine's alone.
    pub(super) others: StdRng,
}

/// A recording, and what the box was like at its end.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The tape.
    pub octets: Vec<u8>,
    /// Configurations that it names by their numbers.
    pub configurations: Vec<(Site, Hosts)>,
    /// The time of its end.
    pub now: Instant,
    /// [`look`] then.
    pub looks: String,
}

impl Taped {
    /// Begins: the engine that is made now, and the numbers it draws from here on.
    pub(super) fn begin(
        keys: &Keys,
        setups: &[PortSetup],
        known: (&Site, &Hosts),
        rng: &mut StdRng,
    ) -> (Taped, Beginning) {
        let (mut seed, mut others) = ([0; 32], [0; 32]);
        rng.fill_bytes(&mut seed);
        rng.fill_bytes(&mut others);
        *rng = StdRng::from_seed(seed);
        let octets = Arc::new(Mutex::new(Vec::new()));
        let written = octets.clone();
        let sink = move |piece: Vec<u8>| {
            written.lock().unwrap_or_else(PoisonError::into_inner).extend(piece);
            Ok(())
        };
        let recorder = Recorder::new(OCTETS_MAX, Box::new(sink));
        let beginning = Beginning {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed,
            keys: keys.clone(),
            ports: setups.iter().map(|setup| (setup.mac.0, setup.mtu)).collect(),
            source: Source::Numbered(0),
            found: Vec::new(),
            now: 0,
            unix: 0,
        };
        let configurations = vec![(known.0.clone(), known.1.clone())];
        (Taped { recorder, octets, configurations, others: StdRng::from_seed(others) }, beginning)
    }

    /// The engine has begun.
    pub(super) fn begun(&mut self, beginning: &Beginning, engine: &mut Engine) {
        self.recorder.begin(beginning);
        engine.note_signatures();
        engine.next_signatures().into_iter().for_each(|made| self.recorder.signed(made.into()));
    }

    /// A configuration that may be taken over, and its number.
    pub(super) fn note(&mut self, new: &(Site, Hosts)) -> u64 {
        self.configurations.push(new.clone());
        self.configurations.len() as u64 - 1
    }

    /// What there is so far.
    pub(super) fn recording(&mut self, engine: &Engine, now: Instant) -> Recording {
        self.recorder.rest();
        let octets = self.octets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Recording { octets, configurations: self.configurations.clone(), now, looks: look(engine, now) }
    }
}

/// The way into an engine that may be recorded.
pub(super) fn inputs<'a>(engine: &'a mut Engine, rng: &'a mut StdRng, taped: &'a mut Option<Box<Taped>>) -> Inputs<'a> {
    let tape: Option<&mut dyn Tape> = match taped {
        Some(taped) => Some(&mut taped.recorder),
        None => None,
    };
    Inputs::new(engine, rng, tape)
}

impl Recording {
    /// Replays it.
    ///
    /// # Errors
    /// What cannot be read.
    ///
    /// # Panics
    /// Where it decides otherwise than was recorded.
    pub fn replay(&self) -> Result<u64, ReplayError> {
        let numbered = |number: u64| self.configurations.get(number as usize).cloned();
        let mut replay = Replay::open(&self.octets, &numbered)?;
        let mut steps = 0;
        while let Some(step) = replay.step()? {
            steps = step.number;
            if let Some(difference) = &step.difference {
                let at = step.effects.get(difference.at().wrapping_sub(1));
                panic!("input {steps} at {:?}, {:?}: {difference}: {at:?}", step.now, step.input);
            }
        }
        let (then, now) = (&self.looks, look(replay.core(), self.now));
        let differs = then.lines().zip(now.lines()).find(|(then, now)| then != now);
        assert_eq!(differs, None, "the box is another one at the end");
        assert_eq!(then.len(), now.len(), "the box is another one at the end");
        Ok(steps)
    }
}

/// A box as its operator sees it, in lines.
pub fn look(engine: &Engine, now: Instant) -> String {
    let mut lines = Vec::new();
    lines.extend(engine.tally().iter().map(|(name, _, value)| format!("{name} {value}")));
    let mut filter = ContextFilter { limit: Some(u32::MAX), ..ContextFilter::default() };
    while let Ok(view) = engine.contexts_view(now, &filter) {
        lines.extend(view.contexts.iter().map(|it| format!("{it:?}")));
        filter.after = view.next;
        if filter.after.is_none() {
            break;
        }
    }
    lines.push(format!("{:?}", engine.paths_view(now)));
    lines.push(format!("{:?}", engine.providers_view()));
    lines.push(format!("{:?}", engine.hosts_view(now)));
    lines.push(format!("{:?}", engine.leftovers()));
    lines.push(format!("{:?}", engine.deadline()));
    lines.join("\n")
}
