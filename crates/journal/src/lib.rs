//! What plugins leave on a node's disk for each other and its agent: releases that could not be finished, ADDs
//! that are being carried out, and addresses that were given back lately.
//!
//! The journal is a directory with one file a release. A file is there whole and durable, or not at all; its name
//! follows from the attachment, so that a repeated DEL writes the same file. There is no lock: writers
//! replace by rename, and whoever has finished a release removes its file.
//!
//! It must never lose a release that was reported as written, and one damaged file must never keep the
//! others from being read.

mod adding;
mod quarantine;
mod release;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime};

pub use adding::{Abandoned, Adding, Assignment, Fence};
pub use quarantine::Quarantine;
pub use release::{Attachment, Endpoint, Release};

/// The journal of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    directory: PathBuf,
}

/// One writing of a release: a later one of the same attachment has the same path, but is another file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filed {
    /// The file.
    pub path: PathBuf,
    inode: u64,
}

/// A release with the file that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file.
    pub filed: Filed,
    /// The release.
    pub release: Release,
}

/// What a journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The releases, in order of their files' names.
    pub entries: Vec<Entry>,
    /// Files that make no sense, with the reason.
    pub damaged: Vec<(PathBuf, String)>,
    /// Drafts that a killed writer left an hour ago or earlier.
    pub stale: Vec<PathBuf>,
}

/// What went wrong with a file of the journal.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {source}", path = path.display())]
pub struct JournalError {
    /// What was tried.
    pub action: &'static str,
    /// With which file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl Journal {
    /// The journal in this directory, which need not exist yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// The journal below a plugin's state directory.
    pub fn below(state_dir: &Path) -> Self {
        Self::new(state_dir.join(DIRECTORY))
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of an attachment's release, whether it exists or not.
    pub fn file(&self, attachment: &Attachment) -> PathBuf {
        self.directory.join(format!("{}.json", attachment.digest()))
    }

    /// The file of an attachment's release, where one waits.
    pub fn waiting(&self, attachment: &Attachment) -> Option<Filed> {
        Filed::at(self.file(attachment))
    }

    /// Writes a release; when this returns it survives a loss of power. An earlier one of the same
    /// attachment is replaced.
    ///
    /// # Errors
    /// Nothing has been written then.
    pub fn write(&self, release: &Release) -> Result<PathBuf, JournalError> {
        let path = self.file(&release.attachment);
        self.make_directory()?;
        let mut text = serde_json::to_vec(release)
            .map_err(|error| failed("encode", &path)(io::Error::other(error)))?;
        text.push(b'\n');
        let draft = self.draft(&path)?;
        let written = File::options()
            .write(true)
            .open(&draft)
            .and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_all()
            });
        let placed = written
            .and_then(|()| fs::rename(&draft, &path))
            .and_then(|()| sync_directory(&self.directory));
        if let Err(source) = placed {
            let _ = fs::remove_file(&draft);
            return Err(failed("write", &path)(source));
        }
        Ok(path)
    }

    /// Everything that waits. Changes nothing.
    ///
    /// # Errors
    /// The directory exists and cannot be read.
    pub fn read(&self) -> Result<Content, JournalError> {
        let mut content = Content::default();
        let listing = match fs::read_dir(&self.directory) {
            Ok(listing) => listing,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(content),
            Err(error) => return Err(failed("read", &self.directory)(error)),
        };
        for file in listing {
            let path = file.map_err(failed("read", &self.directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                content.stale.extend(is_stale(&path).then_some(path));
            } else if name.ends_with(".json") {
                match read_release(&path) {
                    Ok(Some(entry)) => content.entries.push(entry),
                    Ok(None) => {}
                    Err(reason) => content.damaged.push((path, reason)),
                }
            }
        }
        content
            .entries
            .sort_by(|a, b| a.filed.path.cmp(&b.filed.path));
        Ok(content)
    }

    /// Sets damaged files aside under the ending `.damaged`, for people, and removes stale drafts. A file with
    /// which that fails is found again by the next reading, and blocks nothing.
    pub fn tidy(&self, content: &Content) {
        for (path, _) in &content.damaged {
            let _ = fs::rename(path, path.with_extension(DAMAGED));
        }
        for path in &content.stale {
            let _ = fs::remove_file(path);
        }
    }

    /// Number of files that were set aside as damaged and still lie there.
    pub fn damaged(&self) -> usize {
        let Ok(listing) = fs::read_dir(&self.directory) else {
            return 0;
        };
        listing
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|it| it == DAMAGED))
            .count()
    }

    /// Removes a release that is finished. One that is gone already, or was written anew since, is left as
    /// it is.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(&self, filed: &Filed) -> Result<(), JournalError> {
        if !filed.still_waits() {
            return Ok(());
        }
        match fs::remove_file(&filed.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(failed("remove", &filed.path)(error))
            }
            _ => Ok(()),
        }
    }

    fn make_directory(&self) -> Result<(), JournalError> {
        if self.directory.is_dir() {
            return Ok(());
        }
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory);
        made.map_err(failed("make", &self.directory))?;
        // The directory's own name must survive, too.
        if let Some(parent) = self.directory.parent() {
            sync_directory(parent).map_err(failed("sync", parent))?;
        }
        Ok(())
    }

    /// An empty file beside `path` that nobody else writes to.
    fn draft(&self, path: &Path) -> Result<PathBuf, JournalError> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut attempt = 0;
        loop {
            let draft = self
                .directory
                .join(format!(".{name}.{}.{attempt}", process::id()));
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&draft);
            match made {
                Ok(_) => return Ok(draft),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => return Err(failed("make", &draft)(error)),
            }
        }
    }
}

impl Filed {
    fn at(path: PathBuf) -> Option<Self> {
        let inode = fs::metadata(&path).ok()?.ino();
        Some(Self { path, inode })
    }

    /// Whether the release still waits, in this very file.
    pub fn still_waits(&self) -> bool {
        // A writer makes its file before it replaces the old one, so the two never share an inode.
        fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError {
        action,
        path,
        source,
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// `None` where the file went away meanwhile.
fn read_release(path: &Path) -> Result<Option<Entry>, String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.read_to_end(&mut text)?;
        file.metadata()
    });
    let inode = match read {
        Ok(found) => found.ino(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let release: Release = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let digest = release.attachment.digest();
    if path.file_stem().is_none_or(|stem| *stem != *digest) {
        return Err("its name is not that of the attachment it holds".to_owned());
    }
    let path = path.to_owned();
    let filed = Filed { path, inode };
    Ok(Some(Entry { filed, release }))
}

fn is_stale(path: &Path) -> bool {
    let age = fs::metadata(path)
        .and_then(|found| found.modified())
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age > STALE)
}

/// Name of the journal's directory below a state directory.
pub const DIRECTORY: &str = "releases";

const DAMAGED: &str = "damaged";
const ATTEMPTS: u32 = 16;
const STALE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn release(container: &str) -> Release {
        Release {
            attachment: Attachment {
                network: "net".to_owned(),
                container_id: container.to_owned(),
                ifname: "eth0".to_owned(),
            },
            node: Some("n1".to_owned()),
            handle: format!("net.{container}"),
            legacy_handle: Some(container.to_owned()),
            endpoint: Some(Endpoint {
                namespace: "default".to_owned(),
                orchestrator: "cni".to_owned(),
                workload: container.to_owned(),
            }),
            interfaces: vec!["cali1".to_owned()],
            mark: Some(format!("margay:net/{container}/eth0")),
            when: "2026-11-23T00:26:06Z".to_owned(),
            why: "the datastore cannot be reached".to_owned(),
        }
    }

    #[test]
    fn d05_a_release_is_read_as_it_was_written_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::below(&dir.path().join("a/b"));
        assert_eq!(journal.read().unwrap(), Content::default());
        let path = journal.write(&release("c1")).unwrap();
        journal.write(&release("c2")).unwrap();
        let content = journal.read().unwrap();
        assert_eq!(content.entries.len(), 2);
        let first = journal.waiting(&release("c1").attachment).unwrap();
        assert_eq!(first.path, path);
        assert!(content.entries.contains(&Entry {
            filed: first.clone(),
            release: release("c1")
        }));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        journal.remove(&first).unwrap();
        journal.remove(&first).unwrap();
        assert!(journal.waiting(&release("c1").attachment).is_none());
        let left = journal.read().unwrap().entries.remove(0);
        assert_eq!(left.release, release("c2"));
    }

    #[test]
    fn a_release_written_anew_is_not_removed_with_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        journal.write(&release("c1")).unwrap();
        let old = journal.read().unwrap().entries.remove(0).filed;
        assert!(old.still_waits());
        journal.write(&release("c1")).unwrap();
        assert!(!old.still_waits());
        journal.remove(&old).unwrap();
        assert_eq!(journal.read().unwrap().entries.len(), 1);
    }

    #[test]
    fn d01_repeats_coincide_and_others_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        let first = journal.write(&release("c1")).unwrap();
        assert_eq!(journal.write(&release("c1")).unwrap(), first);
        let mut other = release("c1");
        other.attachment.ifname = "eth1".to_owned();
        assert_ne!(journal.write(&other).unwrap(), first);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn damaged_files_are_set_aside_and_block_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        let good = journal.write(&release("good")).unwrap();
        fs::write(dir.path().join("torn.json"), "{\"network\":\"n").unwrap();
        // A copy under another name would be released twice, the second time without its fence.
        fs::copy(&good, dir.path().join("copy.json")).unwrap();
        fs::write(dir.path().join(".draft.1.0"), "").unwrap();
        fs::write(dir.path().join("README"), "").unwrap();
        let content = journal.read().unwrap();
        assert_eq!(content.entries.len(), 1);
        assert_eq!(content.damaged.len(), 2, "{:?}", content.damaged);
        journal.tidy(&content);
        let again = journal.read().unwrap();
        assert_eq!((again.entries.len(), again.damaged.len()), (1, 0));
        assert_eq!(journal.damaged(), 2);
    }

    #[test]
    fn a_draft_of_a_killed_writer_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path());
        let digest = release("c1").attachment.digest();
        let leftover = dir.path().join(format!(".{digest}.{}.0", process::id()));
        fs::write(&leftover, "half").unwrap();
        journal.write(&release("c1")).unwrap();
        assert_eq!(journal.read().unwrap().entries.len(), 1);
        journal.tidy(&journal.read().unwrap());
        assert!(leftover.exists(), "it may still be in use");
        let old = SystemTime::now() - STALE * 2;
        let file = File::options().write(true).open(&leftover).unwrap();
        file.set_modified(old).unwrap();
        journal.tidy(&journal.read().unwrap());
        assert!(!leftover.exists());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let journal = Journal::below(&dir.path().join("file"));
        let error = journal.write(&release("c1")).unwrap_err();
        assert!(error.to_string().contains("file/releases"), "{error}");
        assert!(journal.read().is_err());
    }

    #[test]
    fn fields_of_later_versions_do_no_harm() {
        let text = serde_json::to_string(&release("c1")).unwrap();
        let more = text.replacen('{', "{\"novel\":{\"x\":1},", 1);
        let read: Release = serde_json::from_str(&more).unwrap();
        assert_eq!(read, release("c1"));
        let least = r#"{"network":"n","containerID":"c","ifname":"e","handle":"n.c"}"#;
        let read: Release = serde_json::from_str(least).unwrap();
        assert_eq!(read.attachment.container_id, "c");
        assert!(read.endpoint.is_none() && read.node.is_none());
    }
}
