//! Passwords of sessions, out of files.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use margay_bgp::Password;
use margay_model::resource::bgp::SecretKeyRef;

/// Passwords, each read again only when its file is another than it was.
#[derive(Debug)]
pub struct Secrets {
    directory: PathBuf,
    /// What was read and asked for, by path.
    read: BTreeMap<PathBuf, Secret>,
    /// What was read before, and was not asked for since.
    earlier: BTreeMap<PathBuf, Secret>,
}

/// What a file said.
#[derive(Debug)]
struct Secret {
    /// The file as it was; `None` where there was none.
    stamp: Option<Stamp>,
    /// Whether any later change shows in the stamp.
    settled: bool,
    password: Result<Password, String>,
}

/// What is another wherever the content is: a mounted secret changes by a link to another file, an
/// editor writes another file or the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Secrets {
    /// Passwords below a directory; nothing is read yet.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            read: BTreeMap::new(),
            earlier: BTreeMap::new(),
        }
    }

    /// Whether a file that was asked for may say something else by now.
    pub fn stale(&self) -> bool {
        let mut read = self.read.iter();
        read.any(|(path, secret)| !secret.holds(path))
    }

    /// From now on passwords are asked for anew; what nobody asks for until this is called again is forgotten.
    pub fn begin(&mut self) {
        self.earlier = std::mem::take(&mut self.read);
    }

    /// The password that a reference names: the content of `<directory>/<name>/<key>`, as a mounted secret
    /// looks, without the line's end.
    ///
    /// # Errors
    /// Why there is none, in words that name the file and never what is in it.
    pub fn password(&mut self, reference: &SecretKeyRef) -> Result<Password, String> {
        let (name, key) = (reference.name.as_str(), reference.key.as_str());
        let plain =
            |part: &str| !part.is_empty() && part != ".." && part != "." && !part.contains('/');
        if !plain(name) || !plain(key) {
            return Err(format!(
                "secret {name:?} with key {key:?} is no file's name"
            ));
        }
        let path = self.directory.join(name).join(key);
        let earlier = &mut self.earlier;
        let secret = self.read.entry(path).or_insert_with_key(|path| {
            let earlier = earlier.remove(path);
            let earlier = earlier.filter(|secret| secret.holds(path));
            earlier.unwrap_or_else(|| Secret::read(path))
        });
        secret.password.clone()
    }
}

impl Secret {
    fn read(path: &Path) -> Self {
        // Before the content: a change between the two shows at the next look.
        let stamp = Stamp::of(path);
        Self {
            stamp,
            settled: stamp.is_none_or(Stamp::is_settled),
            password: read(path),
        }
    }

    /// Whether the file is as it was.
    fn holds(&self, path: &Path) -> bool {
        self.settled && Stamp::of(path) == self.stamp
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether the last change is so long ago that another one bears another time.
    fn is_settled(self) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or_default();
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(changed);
        let age = SystemTime::now().duration_since(changed);
        age.is_ok_and(|age| age >= SETTLED)
    }
}

fn read(path: &Path) -> Result<Password, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!(
            "{}: {error}; put the password there, or mount the secret",
            path.display()
        )
    })?;
    Password::new(text.trim_end_matches(['\r', '\n']))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// The kernel's clock for files is coarse; some file systems' is coarser.
const SETTLED: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str, key: &str) -> SecretKeyRef {
        SecretKeyRef {
            name: name.to_owned(),
            key: key.to_owned(),
            ..SecretKeyRef::default()
        }
    }

    #[test]
    fn passwords_are_files_below_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bgp")).unwrap();
        std::fs::write(directory.path().join("bgp/tor"), "secret\n").unwrap();
        std::fs::write(directory.path().join("bgp/empty"), "\n").unwrap();
        let read =
            |name: &str, key: &str| Secrets::new(directory.path()).password(&reference(name, key));
        assert_eq!(read("bgp", "tor").unwrap().as_bytes(), b"secret");
        for (name, key, hint) in [
            ("bgp", "lost", "bgp/lost"),
            ("bgp", "empty", "1 to 80"),
            ("..", "tor", "no file's name"),
            ("bgp", "../bgp/tor", "no file's name"),
            ("", "tor", "no file's name"),
        ] {
            let reason = read(name, key).unwrap_err();
            assert!(
                reason.contains(hint) && !reason.contains("secret\n"),
                "{reason}"
            );
        }
    }

    #[test]
    fn a_file_is_read_again_when_it_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bgp/tor");
        std::fs::create_dir(directory.path().join("bgp")).unwrap();
        let tor = reference("bgp", "tor");
        let mut secrets = Secrets::new(directory.path());
        assert!(!secrets.stale());
        let ask = |secrets: &mut Secrets| {
            secrets.begin();
            let password = secrets.password(&tor).ok();
            password.map(|password| password.as_bytes().to_vec())
        };
        assert_eq!(ask(&mut secrets), None);
        // One that is not there is another once it is.
        assert!(!secrets.stale());
        std::fs::write(&path, "first").unwrap();
        assert!(secrets.stale());
        assert_eq!(ask(&mut secrets), Some(b"first".to_vec()));
        // What changed a moment ago may change again without showing it.
        assert!(secrets.stale());
        std::fs::write(&path, "other").unwrap();
        assert_eq!(ask(&mut secrets), Some(b"other".to_vec()));
        // As if that had been long ago.
        let settle = |secrets: &mut Secrets| {
            let secrets = secrets.read.values_mut();
            secrets.for_each(|secret| secret.settled = true);
        };
        settle(&mut secrets);
        assert!(!secrets.stale());
        let swapped = directory.path().join("bgp/new");
        std::fs::write(&swapped, "third").unwrap();
        std::fs::rename(&swapped, &path).unwrap();
        assert!(secrets.stale());
        assert_eq!(ask(&mut secrets), Some(b"third".to_vec()));
        settle(&mut secrets);
        std::fs::remove_file(&path).unwrap();
        assert!(secrets.stale());
        assert_eq!(ask(&mut secrets), None);
        // What nobody asks for is forgotten.
        secrets.begin();
        secrets.begin();
        assert!(secrets.read.is_empty() && secrets.earlier.is_empty());
    }
}
