//! What was installed, written down before it is placed.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::InstallError;
use crate::place::{Found, Place};

/// The record, held alone by this process as long as it is open.
#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
    place: Place,
    name: String,
    content: Content,
    _lock: Flock<File>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    files: Vec<Entry>,
}

/// A file that was installed, or was about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Where.
    pub(crate) path: PathBuf,
    /// What it is for.
    pub(crate) kind: Kind,
    /// SHA-256 of what it may hold, in hexadecimal: two while one is being replaced.
    pub(crate) sha256: Vec<String>,
}

/// What a file is for. The order is that of installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A program.
    Program,
    /// What a configuration names: a kubeconfig, a certificate, a key.
    Secret,
    /// A CNI configuration.
    Configuration,
}

impl Record {
    /// Opens the record of a path, and waits until no other process has it open. It need not exist.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub(crate) fn open(path: &Path) -> Result<Self, InstallError> {
        let (folder, name) = parts(path)?;
        let place = Place::open(folder)?;
        // The folder itself is what is locked: there is no file for it that could be taken away meanwhile.
        let lock = flock(
            folder,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            FlockArg::LockExclusive,
        )?;
        let content = match place.look(&name)? {
            Found::File { content, .. } => {
                serde_json::from_slice(&content).map_err(|error| InstallError::Record {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?
            }
            _ => Content::default(),
        };
        Ok(Self {
            path: path.to_owned(),
            place,
            name,
            content,
            _lock: lock,
        })
    }

    /// The files, last installed first.
    pub(crate) fn files(&self) -> Vec<Entry> {
        let mut files = self.content.files.clone();
        files.sort_by_key(|entry| std::cmp::Reverse(entry.kind));
        files
    }

    /// Writes down that a file is about to hold this, or what it held.
    ///
    /// # Errors
    /// The record cannot be written: then the file must not be placed.
    pub(crate) fn intend(
        &mut self,
        path: &Path,
        kind: Kind,
        content: &[u8],
    ) -> Result<(), InstallError> {
        let digest = digest(content);
        match self.entry(path) {
            Some(entry) if entry.sha256.contains(&digest) => return Ok(()),
            Some(entry) => entry.sha256.push(digest),
            None => self.content.files.push(Entry {
                path: path.to_owned(),
                kind,
                sha256: vec![digest],
            }),
        }
        self.write()
    }

    /// Writes down that a file holds this and nothing else.
    ///
    /// # Errors
    /// The record cannot be written.
    pub(crate) fn settle(
        &mut self,
        path: &Path,
        kind: Kind,
        content: &[u8],
    ) -> Result<(), InstallError> {
        let only = vec![digest(content)];
        match self.entry(path) {
            Some(entry) if entry.sha256 == only => return Ok(()),
            Some(entry) => entry.sha256 = only,
            None => self.content.files.push(Entry {
                path: path.to_owned(),
                kind,
                sha256: only,
            }),
        }
        self.write()
    }

    /// Forgets a file that is gone, or is not ours any more.
    ///
    /// # Errors
    /// The record cannot be written.
    pub(crate) fn forget(&mut self, path: &Path) -> Result<(), InstallError> {
        self.content.files.retain(|entry| entry.path != path);
        self.write()
    }

    /// Removes the record, after all its files.
    ///
    /// # Errors
    /// As the file system reports.
    pub(crate) fn remove(self) -> Result<(), InstallError> {
        // The record goes last: a removal that was interrupted is found by its repetition.
        self.place.remove(&format!("{}.{KEEPER}", self.name))?;
        self.place.sweep(&self.name)?;
        self.place.remove(&self.name)?;
        Ok(())
    }

    fn entry(&mut self, path: &Path) -> Option<&mut Entry> {
        let mut files = self.content.files.iter_mut();
        files.find(|entry| entry.path == path)
    }

    fn write(&self) -> Result<(), InstallError> {
        let mut text = serde_json::to_vec_pretty(&self.content)
            .map_err(|error| InstallError::file("encode", &self.path)(error.into()))?;
        text.push(b'\n');
        self.place.put(&self.name, &text, 0o600, |_| Ok(()))
    }
}

impl Entry {
    /// Whether this is what was installed.
    pub(crate) fn is(&self, content: &[u8]) -> bool {
        self.sha256.contains(&digest(content))
    }
}

/// Folder and name of a file.
pub(crate) fn parts(path: &Path) -> Result<(&Path, String), InstallError> {
    match (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) {
        (Some(folder), Some(name)) => Ok((folder, name.to_owned())),
        _ => Err(InstallError::NotFile {
            path: path.to_owned(),
        }),
    }
}

/// Takes the right to keep an installation, at once or not at all; the kernel gives it back when the process
/// ends, however it ends.
pub(crate) fn keeper(record: &Path) -> Result<Flock<File>, InstallError> {
    let mut path = record.as_os_str().to_owned();
    path.push(".");
    path.push(KEEPER);
    let how = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW;
    flock(Path::new(&path), how, FlockArg::LockExclusiveNonblock)
}

fn flock(path: &Path, how: OFlag, lock: FlockArg) -> Result<Flock<File>, InstallError> {
    let flags = how | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(|errno| InstallError::file("open", path)(errno.into()))?;
    Flock::lock(File::from(file), lock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => InstallError::Kept {
            path: path.to_owned(),
        },
        errno => InstallError::file("lock", path)(errno.into()),
    })
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Ending of the file whose lock is the right to keep an installation.
const KEEPER: &str = "keeper";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_knows_old_and_new_until_the_new_is_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/install.json");
        let conf = Path::new("/etc/cni/net.d/10-x.conflist");
        let mut record = Record::open(&path).unwrap();
        record
            .intend(Path::new("/opt/cni/bin/x"), Kind::Program, b"x")
            .unwrap();
        record.intend(conf, Kind::Configuration, b"one").unwrap();
        record.settle(conf, Kind::Configuration, b"one").unwrap();
        record.intend(conf, Kind::Configuration, b"two").unwrap();
        drop(record);
        let mut record = Record::open(&path).unwrap();
        let [first, last] = &*record.files() else {
            panic!("{:?}", record.files());
        };
        assert_eq!(
            (first.kind, last.kind),
            (Kind::Configuration, Kind::Program)
        );
        assert!(first.is(b"one") && first.is(b"two") && !first.is(b"three"));
        record.settle(conf, Kind::Configuration, b"two").unwrap();
        assert!(!record.files()[0].is(b"one"));
        record.forget(conf).unwrap();
        record.remove().unwrap();
        assert_eq!(
            std::fs::read_dir(dir.path().join("state")).unwrap().count(),
            0
        );
    }

    #[test]
    fn sha256_is_sha256() {
        // FIPS 180-4's example.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc"), abc);
    }

    #[test]
    fn a_damaged_record_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("install.json");
        std::fs::write(&path, "{").unwrap();
        let error = Record::open(&path).unwrap_err().to_string();
        assert!(error.contains("by hand"), "{error}");
    }
}
