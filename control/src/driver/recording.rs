//! Recordings of everything the control core is told ([`crate::tape`]).
//!
//! A thread writes; the control thread gives it pieces and never waits. When the disk does not keep up, or the file is as long
//! as it may be, the recording ends with a line that says so, and the box goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use rand::Rng;
use tracing::{error, info, warn};

use super::{Clock, Control, RunError};
use crate::config::Configuration;
use crate::config::uplink::Found;
use crate::engine::{Keys, PortSetup};
use crate::manage::api::{RecordRequest, RecordingView, Response};
use crate::tape::{self, Beginning, CarriedFound, Core, Recorder, Source, Tape, Texts};

/// Pieces that may wait for the disk: some megabytes.
const AHEAD: usize = 128;
/// Octets of a recording in millions, unless said otherwise.
pub const MEGABYTES: u32 = 256;
/// How long somebody who stops waits for the last of them.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a recording's thread and others know of it.
#[derive(Debug, Default)]
struct Shared {
    /// Octets on disk.
    written: AtomicU64,
    /// Why it ends.
    reason: Mutex<Option<String>>,
}

impl Shared {
    fn end(&self, reason: &str) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
    }

    fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A recording there is, or the last there was.
pub(super) struct Recording {
    file: PathBuf,
    most: u64,
    shared: Arc<Shared>,
    /// Says by its end that all is written.
    done: Receiver<()>,
    over: Option<String>,
}

impl Recording {
    /// Makes the file, which nobody else may read, and what writes to it. A file that is there is kept under another name.
    fn begin(file: &Path, most: u64) -> std::io::Result<(Recording, Recorder)> {
        if file.exists() {
            let mut kept = file.as_os_str().to_owned();
            kept.push(".old");
            std::fs::rename(file, kept)?;
        }
        let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        Recording::to(file, out, most)
    }

    /// The same with a file that is open.
    fn to(file: &Path, out: File, most: u64) -> std::io::Result<(Recording, Recorder)> {
        let shared = Arc::new(Shared::default());
        let (pieces, to_write) = bounded::<Vec<u8>>(AHEAD);
        let (ends, done) = bounded(0);
        let of_thread = shared.clone();
        let write = move || {
            write(out, &to_write, &of_thread);
            drop::<Sender<()>>(ends);
        };
        thread::Builder::new().name("recording".into()).spawn(write)?;
        let of_sink = shared.clone();
        let sink = move |piece| match pieces.try_send(piece) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err("the disk does not keep up".to_owned()),
            Err(TrySendError::Disconnected(_)) => Err(of_sink.reason().unwrap_or_default()),
        };
        let recorder = Recorder::new(most, Box::new(sink));
        Ok((Recording { file: file.to_path_buf(), most, shared, done, over: None }, recorder))
    }
}

/// The thread: writes what comes, and at the end why it is the end.
fn write(mut out: File, pieces: &Receiver<Vec<u8>>, shared: &Shared) {
    // The first is no piece but what the file begins with.
    let mut count = 0_u64;
    for piece in pieces {
        if let Err(error) = out.write_all(&piece) {
            return shared.end(&format!("the file cannot be written: {error}"));
        }
        shared.written.fetch_add(piece.len() as u64, Ordering::Relaxed);
        count += 1;
    }
    let reason = shared.reason().unwrap_or_else(|| "the box stopped".to_owned());
    let last = tape::last_piece(count.saturating_sub(1), &reason);
    if out.write_all(&last).is_ok() {
        shared.written.fetch_add(last.len() as u64, Ordering::Relaxed);
    }
}

/// What an engine begins with, besides what its devices say.
#[cfg_attr(not(feature = "dpdk"), allow(dead_code, reason = "only boxes with devices begin"))]
pub(super) struct Start {
    source: Source,
    found: Vec<CarriedFound>,
    recorder: Option<Recorder>,
}

impl Start {
    /// For a box with this configuration, of whose providers this was found out before. A box that cannot be recorded runs all
    /// the same.
    pub(super) fn begin(
        record: Option<&(PathBuf, u64)>,
        configuration: &Configuration,
        carried: &[Found],
        clock: Clock,
    ) -> (Option<Recording>, Start) {
        let begin = |(file, most): &(PathBuf, u64)| match refusal(configuration) {
            Some(reason) => Err(format!("the configuration has {reason}")),
            None => Recording::begin(file, *most).map_err(|error| format!("{}: {error}", file.display())),
        };
        let (recording, recorder) = match record.map(begin).transpose() {
            Ok(begun) => begun.unzip(),
            Err(reason) => {
                error!("not recorded: {reason}");
                (None, None)
            }
        };
        if let Some(recording) = &recording {
            let (file, at) = (recording.file.display(), clock.now().0);
            info!(%file, octets_max = recording.most, ?at, "everything the control core is told is recorded");
        }
        let source = if recorder.is_some() { source(configuration) } else { Source::Before };
        (recording, Start { source, found: CarriedFound::all(carried), recorder })
    }

    /// The engine, of a configuration with what was found out of providers.
    #[cfg_attr(not(feature = "dpdk"), allow(dead_code, reason = "only boxes with devices begin"))]
    pub(super) fn core(
        self,
        known: &Configuration,
        setups: &[PortSetup],
        keys: Keys,
        clock: Clock,
        rng: &mut dyn Rng,
    ) -> Result<Core, RunError> {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let beginning = Beginning {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed,
            keys,
            ports: setups.iter().map(|setup| (setup.mac.0, setup.mtu)).collect(),
            source: self.source,
            found: self.found,
            now: u64::try_from(clock.now().0.as_nanos()).unwrap_or(u64::MAX),
            unix,
        };
        let tape = self.recorder.map(|recorder| Box::new(recorder) as Box<dyn Tape>);
        Ok(Core::begin(&beginning, &known.site, &known.hosts, tape)?)
    }
}

/// Whether a new file can be made there; none is left.
fn try_to_create(file: &Path) -> io::Result<()> {
    File::options().write(true).create_new(true).open(file)?;
    fs::remove_file(file)
}

/// Why a box with this configuration cannot be recorded.
fn refusal(configuration: &Configuration) -> Option<&'static str> {
    let site = &configuration.site;
    let reasons = [
        (site.publish.is_some(), "[publish]: what it sends is signed with a key that must not be on a tape"),
        (site.cluster.is_some(), "a shared store: what other boxes write there is not recorded yet"),
        (site.sync.is_some(), "[sync]: what other boxes tell is not recorded yet"),
        (site.bmp.is_some(), "[bmp]: what routers tell is not recorded yet"),
    ];
    reasons.into_iter().find(|(there, _)| *there).map(|(_, reason)| reason)
}

/// The files of a configuration. The private key is not among them.
pub(super) fn source(configuration: &Configuration) -> Source {
    Source::Texts(Box::new(Texts {
        file: configuration.file.display().to_string(),
        site: configuration.texts.site.clone(),
        hosts: configuration.texts.hosts.clone(),
        key: configuration.hosts.key().map(|key| key.public_key_der().to_vec()),
    }))
}

impl Control {
    /// The operator wants a recording: by another process, since it has to know what everything began with.
    pub(super) fn start_recorded(&mut self, asked: &RecordRequest) -> Response {
        let file = Path::new(&asked.file);
        if let Some(reason) = refusal(&self.configuration) {
            return Response::error(format!("not recorded: the configuration has {reason}"));
        }
        if self.engine.is_recorded() {
            return Response::error("the box is recorded already");
        }
        // Whoever asks may be elsewhere, and no file that is there shall be moved because of that.
        if !file.is_absolute() || file.exists() {
            return Response::error(format!("{}: not an absolute path of a file that does not exist", asked.file));
        }
        // The process to come says what it cannot write only in its log; so this one tries.
        if let Err(error) = try_to_create(file) {
            return Response::error(format!("{}: {error}", asked.file));
        }
        let megabytes = u64::from(asked.megabytes.unwrap_or(MEGABYTES).max(1));
        self.upgrade(Some(&(file.to_path_buf(), megabytes * 1_000_000)))
    }

    /// How it stands.
    pub(super) fn recording(&self) -> RecordingView {
        let Some(recording) = &self.recording else { return RecordingView::default() };
        RecordingView {
            running: self.engine.is_recorded(),
            file: Some(recording.file.display().to_string()),
            octets: recording.shared.written.load(Ordering::Relaxed),
            octets_max: recording.most,
            ended: recording.over.clone(),
        }
    }

    /// Lets go of what was recorded in a turn.
    pub(super) fn tend_recording(&mut self) {
        if self.engine.is_recorded()
            && let Some(reason) = self.engine.rest()
        {
            self.note_end(&reason);
        }
    }

    /// Nothing is recorded from now on.
    pub(super) fn end_recording(&mut self, reason: &str) {
        if !self.engine.is_recorded() {
            return;
        }
        // What was given before is written; why it ended follows.
        let reason = self.engine.rest().unwrap_or_else(|| reason.to_owned());
        self.note_end(&reason);
        if let Some(recording) = &self.recording {
            // An end is all it ever says.
            let _ = recording.done.recv_timeout(PATIENCE);
        }
    }

    fn note_end(&mut self, reason: &str) {
        if let Some(recording) = &mut self.recording {
            let text = recording.shared.reason().unwrap_or_else(|| reason.to_owned());
            recording.shared.end(&text);
            warn!(file = %recording.file.display(), "the recording has ended: {text}");
            recording.over = Some(text);
        }
        self.engine.stop_recording();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::manage::api::Steering;
    use crate::tape::Input;
    use crate::time::Instant;

    fn room(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pshim6-recording-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn say(recorder: &mut Recorder, octets: usize) {
        recorder.input(Instant::START, &Input::Steer("x".repeat(octets), Steering::Normal));
        recorder.rest();
    }

    #[test]
    fn a_recording_is_for_its_owner_alone_and_keeps_the_one_before() {
        let room = room("owner");
        let file = room.join("tape");
        std::fs::write(&file, "of yesterday").unwrap();
        let (recording, mut recorder) = Recording::begin(&file, 1 << 20).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(room.join("tape.old")).unwrap(), "of yesterday");
        say(&mut recorder, 100);
        recording.shared.end("that was enough");
        drop(recorder);
        // All is written when that is heard.
        assert!(recording.done.recv_timeout(Duration::from_secs(20)).is_err());
        let octets = std::fs::read(&file).unwrap();
        assert_eq!(octets.len() as u64, recording.shared.written.load(Ordering::Relaxed));
        assert!(octets.windows(15).any(|window| window == b"that was enough"));
        assert!(Recording::begin(&room.join("no/such/folder"), 1).is_err());
        let _ = std::fs::remove_dir_all(&room);
    }

    #[test]
    fn a_disk_that_does_not_keep_up_ends_the_recording_and_nobody_waits() {
        let room = room("disk");
        let file = room.join("pipe");
        // Nobody reads what is written there, and there is room for 64 kB.
        pipe(&file);
        let reader = std::fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
        let out = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        let (recording, mut recorder) = Recording::to(&file, out, u64::MAX).unwrap();
        let began = std::time::Instant::now();
        let mut said = 0;
        while recorder.is_over().is_none() {
            say(&mut recorder, 10_000);
            said += 1;
            assert!(said < 10 * AHEAD, "it never ends");
        }
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(recorder.is_over().as_deref(), Some("the disk does not keep up"));
        drop((recorder, reader));
        drop(recording);
        let _ = std::fs::remove_dir_all(&room);
    }

    /// A file that takes so much and no more until somebody reads.
    fn pipe(file: &Path) {
        let done = std::process::Command::new("mkfifo").arg(file).status().unwrap();
        assert!(done.success());
    }
}
