//! Hosts, policy and the site's key of boxes that share a store: what one box is told the others take over.
//!
//! Each box has them as files, so it has them whatever becomes of the store. A file that was changed here goes into the store
//! with the reload that takes it over; what comes from the store is written into the file and taken over by a reload, which
//! takes all of it or nothing. Who was first is right: a change that came second is put aside.

use std::path::PathBuf;

use rand::Rng;
use tracing::{error, info, warn};

use super::{Control, RunError};
use crate::config::Configuration;
use crate::config::documents::{Share, wrap_key};
use crate::manage::api::SharedView;
use crate::store::shared::{Document, NONCE_OCTETS, Seal, TEXT_MAX, may_be_shared};

/// One of the files.
struct One {
    share: Share,
    file: PathBuf,
    /// What the store is known to say of it: version, who wrote it, and the text in the clear.
    known: Option<(u64, String, Option<String>)>,
    /// What this box goes by: what the file said when it was last taken over.
    loaded: Option<String>,
    /// What is here although the store says otherwise, which was not good here.
    kept: Option<Option<String>>,
    /// That is a change of ours for which there was no place elsewhere, so nothing may be written over it yet.
    is_only_here: bool,
}

impl One {
    fn begin(share: Share, file: PathBuf) -> One {
        let loaded = share.read(&file).ok().flatten();
        // Refused by a process before this one, and as it was then.
        let kept = loaded.clone().filter(|text| share.is_refusal(&file, text)).map(Some);
        One { share, file, known: None, loaded, kept, is_only_here: false }
    }

    /// What the store says is not good here: this goes on, and is no change of ours.
    fn keep(&mut self, text: Option<String>) {
        let noted = text.as_ref().map_or(Ok(()), |text| self.share.note_refusal(&self.file, text));
        if let Err(reason) = noted {
            error!(file = %self.file.display(), %reason, "that the store's version was refused cannot be noted");
        }
        self.kept = Some(text);
    }

    /// What was kept, which is over.
    fn yields(&mut self) -> Option<Option<String>> {
        if let Err(reason) = self.share.forget_refusal(&self.file) {
            error!(file = %self.file.display(), %reason, "that the store's version was refused cannot be forgotten");
        }
        self.is_only_here = false;
        self.kept.take()
    }
}

/// The files, and what seals the one that needs it.
pub(super) struct Sharing {
    files: Vec<One>,
    seal: Option<Seal>,
}

/// A file that was changed because the store says so.
struct Taken {
    at: usize,
    before: Option<String>,
}

impl Sharing {
    /// With what the store said last, as far as the box had heard of it.
    pub(super) fn begin(configuration: &Configuration, known: Vec<Document>) -> Result<Option<Sharing>, RunError> {
        let site = &configuration.site;
        let Some(cluster) = site.cluster.as_ref().filter(|cluster| !cluster.share.is_empty()) else { return Ok(None) };
        let octets = cluster.wrap_key.as_deref().map(wrap_key).transpose();
        let octets = octets.map_err(|problem| RunError::Policy(problem.to_string()))?;
        let seal = octets.and_then(|octets| Seal::new(&octets));
        let files = cluster.share.iter().filter_map(|share| Some(One::begin(*share, share.file(site)?))).collect();
        Ok(Some(Sharing { files, seal }.knowing(known)))
    }

    fn knowing(mut self, known: Vec<Document>) -> Sharing {
        for document in known {
            if let Some((at, text)) = self.opened(&document) {
                self.files[at].known = Some((document.version, document.by, text));
            }
        }
        self
    }

    /// For the operator.
    pub(super) fn view(&self) -> Vec<SharedView> {
        let one = |it: &One| {
            let (version, by, _) = it.known.as_ref()?;
            let (name, by) = (it.share.name().to_owned(), by.clone());
            Some(SharedView { name, version: *version, by, refused: it.kept.is_some() })
        };
        self.files.iter().filter_map(one).collect()
    }

    /// Which of the files a document is, and what it says in the clear.
    fn opened(&self, document: &Document) -> Option<(usize, Option<String>)> {
        let at = self.files.iter().position(|it| it.share.name() == document.name)?;
        let text = match (&document.text, self.files[at].share) {
            (Some(sealed), Share::Key) => {
                let opened = self.seal.as_ref().and_then(|seal| seal.open(&document.name, sealed));
                if opened.is_none() {
                    error!(
                        version = document.version,
                        by = document.by,
                        "the site's key in the store was not sealed with ours"
                    );
                    return None;
                }
                opened
            }
            (text, _) => text.clone(),
        };
        Some((at, text))
    }

    /// The store says this. What was changed by it, if anything was.
    fn receive(&mut self, document: Document) -> Option<Taken> {
        let (at, text) = self.opened(&document)?;
        let one = &mut self.files[at];
        let (name, file) = (one.share.name(), one.file.clone());
        let file = &file;
        let fails = |reason: std::io::Error| error!(file = %file.display(), %reason, "what boxes share cannot be kept");
        let before = one.share.read(file).map_err(fails).ok()?;
        let is_own = before.is_some() && one.known.as_ref().is_none_or(|(.., known)| *known != before);
        let is_only_here = one.is_only_here;
        let was_kept = one.yields().is_some_and(|kept| kept == before) && !is_only_here;
        one.known = Some((document.version, document.by.clone(), text.clone()));
        if before == text {
            return None;
        }
        if let Some(own) = before.as_ref().filter(|_| is_own && !was_kept) {
            let aside = match one.share.put_aside(file, own) {
                Ok(aside) => aside,
                Err(reason) => {
                    fails(reason);
                    // Told to the others it would take the place of what was first.
                    one.keep(before);
                    one.is_only_here = true;
                    return None;
                }
            };
            warn!(name, version = document.version, by = document.by, ours = %aside.display(), "another box was first; what this one had is put aside");
        }
        if let Err(reason) = one.share.write(file, text.as_deref()) {
            fails(reason);
            // What is here still is not what anybody wants to tell the others.
            one.keep(before);
            return None;
        }
        one.loaded = text;
        info!(name, version = document.version, by = document.by, "taken from the store");
        Some(Taken { at, before })
    }

    /// What came from the store cannot be obeyed here: the files are as they were.
    fn undo(&mut self, taken: Vec<Taken>) {
        for Taken { at, before } in taken {
            let one = &mut self.files[at];
            if let Err(reason) = one.share.write(&one.file, before.as_deref()) {
                error!(file = %one.file.display(), %reason, "cannot be put back");
            }
            one.loaded.clone_from(&before);
            one.keep(before);
        }
    }

    /// The files were taken over as they are now.
    fn reloaded(&mut self) {
        for one in &mut self.files {
            let Ok(now) = one.share.read(&one.file) else { continue };
            // Somebody has made it as the store wants it, and it is good now.
            if one.kept.is_some() && one.known.as_ref().is_some_and(|(.., known)| *known == now) {
                one.yields();
            }
            one.loaded = now;
        }
    }

    /// What was changed here and the store does not say: names and texts as they go there. A file that is not there is no change:
    /// what all boxes have does not end because one has lost it.
    fn changed(&mut self, rng: &mut dyn Rng) -> Vec<(&'static str, Option<String>)> {
        let mut changed = Vec::new();
        for one in &self.files {
            let Some(now) = one.loaded.clone().map(Some) else { continue };
            let known = one.known.as_ref().and_then(|(.., text)| text.clone());
            if now == known || one.kept.as_ref() == Some(&now) {
                continue;
            }
            if now.as_ref().is_some_and(|text| !may_be_shared(text)) {
                error!(file = %one.file.display(), most = TEXT_MAX, "is too long to be shared");
                continue;
            }
            let text = match (now, one.share, &self.seal) {
                (Some(text), Share::Key, Some(seal)) => {
                    let mut nonce = [0; NONCE_OCTETS];
                    rng.fill_bytes(&mut nonce);
                    seal.close(one.share.name(), &text, nonce)
                }
                // A key is not taken from others because one box has lost it.
                (_, Share::Key, _) => continue,
                (text, ..) => text,
            };
            changed.push((one.share.name(), text));
        }
        changed
    }
}

impl Control {
    /// Takes over what came from the store, and gives it what was changed here while it could not be asked.
    pub(super) fn follow_store(&mut self) {
        let Some(leases) = &mut self.leases else { return };
        let (documents, back) = leases.documents();
        if documents.is_empty() && !back {
            return;
        }
        let Some(sharing) = &mut self.sharing else { return };
        let taken: Vec<Taken> = documents.into_iter().filter_map(|document| sharing.receive(document)).collect();
        if !taken.is_empty() {
            match self.reload() {
                Ok(view) => info!(hosts = view.hosts, "reloaded what came from the store"),
                Err(problems) => {
                    error!("what came from the store cannot be obeyed here: {problems}");
                    if let Some(sharing) = &mut self.sharing {
                        sharing.undo(taken);
                    }
                }
            }
        }
        if back {
            self.tell_store();
        }
    }

    /// Gives the store what was changed here and has just been taken over.
    pub(super) fn share(&mut self) {
        if let Some(sharing) = &mut self.sharing {
            sharing.reloaded();
        }
        self.tell_store();
    }

    fn tell_store(&mut self) {
        let Control { sharing: Some(sharing), leases: Some(leases), rng, .. } = self else { return };
        for (name, text) in sharing.changed(rng) {
            leases.share(name, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, files: &str) -> (Sharing, PathBuf) {
        let folder = std::env::temp_dir().join(format!("pshim6-sharing-{}-{files}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(name);
        let share = if name == "key" { Share::Key } else { Share::Hosts };
        let files = vec![One::begin(share, file.clone())];
        (Sharing { files, seal: Seal::new(&[5; 32]) }, file)
    }

    /// The next process, which finds files as they are and knows what the store said last.
    fn again(sharing: &Sharing, known: Document) -> Sharing {
        let files = sharing.files.iter().map(|one| One::begin(one.share, one.file.clone())).collect();
        Sharing { files, seal: Seal::new(&[5; 32]) }.knowing(vec![known])
    }

    fn document(name: &str, version: u64, text: &str) -> Document {
        Document { name: name.into(), version, by: "other".into(), text: Some(text.into()) }
    }

    fn read(file: &PathBuf) -> String {
        std::fs::read_to_string(file).unwrap()
    }

    #[test]
    fn a_file_follows_the_store_and_what_was_changed_here_goes_there() {
        let (mut sharing, file) = one("hosts", "follow");
        let rng: &mut dyn Rng = &mut <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        assert_eq!(sharing.changed(rng), [], "there is no file");
        assert!(sharing.receive(document("hosts", 1, "one")).is_some());
        assert_eq!((read(&file).as_str(), sharing.changed(rng)), ("one", vec![]));
        // Its own words come back and change nothing.
        std::fs::write(&file, "two").unwrap();
        assert_eq!(sharing.changed(rng), [], "nobody has taken it over");
        sharing.reloaded();
        assert_eq!(sharing.changed(rng), [("hosts", Some("two".to_owned()))]);
        assert!(sharing.receive(document("hosts", 2, "two")).is_none());
        assert_eq!(sharing.changed(rng), []);
        // Another box was first.
        std::fs::write(&file, "ours").unwrap();
        assert!(sharing.receive(document("hosts", 3, "theirs")).is_some());
        assert_eq!((read(&file).as_str(), read(&file.with_file_name("hosts.lost")).as_str()), ("theirs", "ours"));
        // What cannot be obeyed is undone, and not told as if it were a change of ours.
        let taken = sharing.receive(document("hosts", 4, "bad")).unwrap();
        sharing.undo(vec![taken]);
        assert_eq!((read(&file).as_str(), sharing.changed(rng)), ("theirs", vec![]));
        assert!(sharing.view()[0].refused && sharing.view()[0].version == 4);
        assert!(sharing.receive(document("hosts", 5, "good")).is_some());
        assert!(!sharing.view()[0].refused);
        assert_eq!(read(&file), "good");
        assert!(sharing.receive(document("nothing-of-ours", 1, "x")).is_none());
        // A file that somebody has taken away is not taken away from all.
        std::fs::remove_file(&file).unwrap();
        sharing.reloaded();
        assert_eq!(sharing.changed(rng), []);
        let _ = std::fs::remove_dir_all(file.parent().unwrap());
    }

    #[test]
    fn what_a_process_has_refused_the_next_one_does_not_undo_for_all() {
        let (mut sharing, file) = one("hosts", "refused");
        let rng: &mut dyn Rng = &mut <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        assert!(sharing.receive(document("hosts", 1, "good")).is_some());
        let bad = document("hosts", 2, "bad here");
        let taken = sharing.receive(bad.clone()).unwrap();
        sharing.undo(vec![taken]);
        for _ in 0..2 {
            sharing = again(&sharing, bad.clone());
            assert_eq!(sharing.changed(rng), [], "the older version is told as a newer one");
            assert!(sharing.view()[0].refused);
            sharing.reloaded();
            assert_eq!(sharing.changed(rng), []);
        }
        // What the operator changes afterwards is a change, before and after a restart.
        std::fs::write(&file, "better").unwrap();
        sharing = again(&sharing, bad.clone());
        assert_eq!(sharing.changed(rng), [("hosts", Some("better".to_owned()))]);
        // Made as the store wants it, it is refused no longer.
        std::fs::write(&file, "good").unwrap();
        sharing = again(&sharing, bad.clone());
        std::fs::write(&file, "bad here").unwrap();
        sharing.reloaded();
        assert!(!sharing.view()[0].refused);
        assert_eq!(sharing.changed(rng), []);
        // The next version, which is good, ends it; what was kept is not put aside as if it were ours.
        let taken = sharing.receive(document("hosts", 3, "bad too")).unwrap();
        sharing.undo(vec![taken]);
        sharing = again(&sharing, document("hosts", 3, "bad too"));
        assert!(sharing.receive(document("hosts", 4, "fine")).is_some());
        assert_eq!((read(&file).as_str(), sharing.changed(rng)), ("fine", vec![]));
        let names: Vec<_> =
            std::fs::read_dir(file.parent().unwrap()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["hosts"]);
        let _ = std::fs::remove_dir_all(file.parent().unwrap());
    }

    #[test]
    fn a_change_that_came_second_and_cannot_be_put_aside_stays_here_and_goes_to_nobody() {
        let (mut sharing, file) = one("hosts", "aside");
        let rng: &mut dyn Rng = &mut <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        assert!(sharing.receive(document("hosts", 1, "one")).is_some());
        std::fs::write(&file, "ours").unwrap();
        sharing.reloaded();
        let aside = file.with_file_name("hosts.lost");
        std::fs::create_dir_all(aside.join("in the way")).unwrap();
        assert!(sharing.receive(document("hosts", 2, "theirs")).is_none());
        assert_eq!((read(&file).as_str(), sharing.changed(rng)), ("ours", vec![]), "who was first is right");
        assert!(sharing.view()[0].refused);
        sharing.reloaded();
        assert_eq!(sharing.changed(rng), []);
        // Nor does the next version put an end to it before it is elsewhere.
        assert!(sharing.receive(document("hosts", 3, "theirs too")).is_none());
        assert_eq!((read(&file).as_str(), sharing.changed(rng)), ("ours", vec![]));
        std::fs::remove_dir_all(&aside).unwrap();
        assert!(sharing.receive(document("hosts", 4, "fine")).is_some());
        assert_eq!((read(&file).as_str(), read(&aside).as_str()), ("fine", "ours"));
        assert!(!sharing.view()[0].refused);
        let _ = std::fs::remove_dir_all(file.parent().unwrap());
    }

    #[test]
    fn the_key_is_sealed_on_its_way_and_a_strangers_is_not_taken() {
        let (mut sharing, file) = one("key", "sealed");
        let rng: &mut dyn Rng = &mut <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        std::fs::write(&file, "secret").unwrap();
        sharing.reloaded();
        let changed = sharing.changed(rng);
        let [("key", Some(sealed))] = &changed[..] else { panic!("{changed:?}") };
        assert!(!sealed.contains("secret"));
        let stranger = Seal::new(&[6; 32]).unwrap().close("key", "evil", [1; NONCE_OCTETS]).unwrap();
        for text in ["evil", &stranger] {
            assert!(sharing.receive(document("key", 2, text)).is_none());
            assert_eq!(read(&file), "secret");
        }
        let (mut other, copy) = one("key", "other");
        assert!(other.receive(document("key", 1, sealed)).is_some());
        assert_eq!(read(&copy), "secret");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&copy).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        // A box that has lost its key takes it from nobody.
        std::fs::remove_file(&copy).unwrap();
        other.reloaded();
        assert_eq!(other.changed(rng), []);
        for file in [file, copy] {
            let _ = std::fs::remove_dir_all(file.parent().unwrap());
        }
    }
}
