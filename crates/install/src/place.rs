//! A folder into which files are put, each whole.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use crate::error::InstallError;

/// A folder, opened once: what is done in it is done in this very folder, also when its path leads elsewhere
/// meanwhile.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    folder: OwnedFd,
}

/// What has a name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A regular file.
    File {
        /// What it holds.
        content: Vec<u8>,
        /// Its permissions, with the set-user-ID, set-group-ID and sticky bits.
        mode: u32,
    },
    /// A link, which is never followed, or a special file.
    Other,
}

impl Place {
    /// Opens a folder, and makes it where it is missing.
    ///
    /// # Errors
    /// It cannot be made or opened, or everybody may write to it.
    pub(crate) fn open(path: &Path) -> Result<Self, InstallError> {
        if !path.is_dir() {
            make(path).map_err(InstallError::file("make", path))?;
        }
        Self::open_existing(path)
    }

    /// Opens a folder that is there.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub(crate) fn open_existing(path: &Path) -> Result<Self, InstallError> {
        let failed = |errno: Errno| InstallError::file("open", path)(errno.into());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(path, flags, Mode::empty()).map_err(failed)?;
        let about = fstat(&folder).map_err(failed)?;
        let mode = Mode::from_bits_truncate(about.st_mode);
        if mode.contains(Mode::S_IWOTH) && !mode.contains(Mode::S_ISVTX) {
            return Err(InstallError::Open {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            folder,
        })
    }

    /// The path of a name.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What has this name.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub(crate) fn look(&self, name: &str) -> Result<Found, InstallError> {
        let failed = |error: io::Error| InstallError::file("read", self.path_of(name))(error);
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = match openat(&self.folder, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT) => return Ok(Found::Nothing),
            // A link, and a socket.
            Err(Errno::ELOOP | Errno::ENXIO) => return Ok(Found::Other),
            Err(errno) => return Err(failed(errno.into())),
        };
        let about = fstat(&file).map_err(|errno| failed(errno.into()))?;
        match SFlag::from_bits_truncate(about.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => {}
            SFlag::S_IFDIR => {
                let path = self.path_of(name);
                return Err(InstallError::NotFile { path });
            }
            _ => return Ok(Found::Other),
        }
        let mut content = Vec::new();
        File::from(file).read_to_end(&mut content).map_err(failed)?;
        Ok(Found::File {
            content,
            mode: about.st_mode & PERMISSIONS,
        })
    }

    /// Puts a file into place; readers see what was there before or the whole new file. `check` sees it while
    /// it still has the name of a draft, and may refuse it. When this returns the file survives a loss of power.
    ///
    /// # Errors
    /// What was there before is still there then.
    pub(crate) fn put(
        &self,
        name: &str,
        content: &[u8],
        mode: u32,
        check: impl FnOnce(&Path) -> Result<(), InstallError>,
    ) -> Result<(), InstallError> {
        let draft = draft_of(name);
        let path = self.path_of(name);
        let failed = |error: io::Error| InstallError::file("write", &path)(error);
        self.sweep(name)?;
        let written = self.write(&draft, content, mode).map_err(failed);
        let placed = written
            .and_then(|()| check(&self.path_of(&draft)))
            .and_then(|()| {
                renameat(&self.folder, &*draft, &self.folder, name)
                    .and_then(|()| fsync(&self.folder))
                    .map_err(|errno| failed(errno.into()))
            });
        if placed.is_err() {
            let _ = unlinkat(&self.folder, &*draft, UnlinkatFlags::NoRemoveDir);
        }
        placed
    }

    fn write(&self, draft: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.folder, draft, flags, OWNER)?);
        file.write_all(content)?;
        fchmod(&file, Mode::from_bits_truncate(mode))?;
        file.sync_all()
    }

    /// Changes the permissions of a file that is there.
    ///
    /// # Errors
    /// As the file system reports.
    pub(crate) fn set_mode(&self, name: &str, mode: u32) -> Result<(), InstallError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.folder, name, flags, Mode::empty())
            .and_then(|file| {
                fchmod(&file, Mode::from_bits_truncate(mode))?;
                fsync(&file)
            })
            .map_err(|errno| {
                InstallError::file("set the permissions of", self.path_of(name))(errno.into())
            })
    }

    /// Removes a file; false where there was none.
    ///
    /// # Errors
    /// As the file system reports.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, InstallError> {
        let failed = |errno: Errno| InstallError::file("remove", self.path_of(name))(errno.into());
        match unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => fsync(&self.folder).map(|()| true).map_err(failed),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Removes the draft that an interrupted call left for a name.
    ///
    /// # Errors
    /// As the file system reports.
    pub(crate) fn sweep(&self, name: &str) -> Result<(), InstallError> {
        let draft = draft_of(name);
        match unlinkat(&self.folder, &*draft, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(InstallError::file("remove", self.path_of(&draft))(
                errno.into(),
            )),
        }
    }
}

/// Makes a folder and those above it, so that they survive a loss of power.
fn make(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let above = path.parent().unwrap_or_else(|| Path::new("/"));
    make(above)?;
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(above)?.sync_all()
}

/// The name of a file before it is in place: hidden, and with an ending that no runtime reads.
pub(crate) fn draft_of(name: &str) -> String {
    format!(".{name}.margay-new")
}

/// Permissions while a file is being written.
const OWNER: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
/// The bits of a mode that are permissions.
pub(crate) const PERMISSIONS: u32 = 0o7777;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn put(place: &Place, name: &str, content: &str, mode: u32) {
        place
            .put(name, content.as_bytes(), mode, |_| Ok(()))
            .unwrap();
    }

    fn file(content: &str, mode: u32) -> Found {
        let content = content.as_bytes().to_vec();
        Found::File { content, mode }
    }

    #[test]
    fn a_file_is_replaced_by_another_and_never_written_into() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(place.look("x").unwrap(), Found::Nothing);
        put(&place, "x", "old", 0o755);
        let reader = File::open(place.path_of("x")).unwrap();
        let inode = reader.metadata().unwrap().ino();
        put(&place, "x", "new", 0o600);
        assert_eq!(place.look("x").unwrap(), file("new", 0o600));
        assert_ne!(fs::metadata(place.path_of("x")).unwrap().ino(), inode);
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path().join("a/b")).unwrap().count(), 1);
        assert!(place.remove("x").unwrap() && !place.remove("x").unwrap());
    }

    #[test]
    fn what_is_refused_leaves_the_old_file_and_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        put(&place, "x", "old", 0o644);
        let refused = place.put("x", b"new", 0o644, |draft| {
            assert!(draft.ends_with(".x.margay-new") && draft.exists());
            Err(InstallError::Open {
                path: draft.to_owned(),
            })
        });
        assert!(refused.is_err());
        assert_eq!(place.look("x").unwrap(), file("old", 0o644));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_are_replaced_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "victim").unwrap();
        let place = Place::open(&dir.path().join("net.d")).unwrap();
        symlink(&victim, place.path_of("x")).unwrap();
        // A draft that somebody planted.
        symlink(&victim, place.path_of(&draft_of("x"))).unwrap();
        assert_eq!(place.look("x").unwrap(), Found::Other);
        assert!(place.set_mode("x", 0o777).is_err());
        put(&place, "x", "ours", 0o644);
        assert_eq!(place.look("x").unwrap(), file("ours", 0o644));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "victim");
        assert_eq!(fs::read_dir(dir.path().join("net.d")).unwrap().count(), 1);
    }

    #[test]
    fn special_files_and_folders_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        nix::unistd::mkfifo(&place.path_of("pipe"), Mode::S_IRUSR).unwrap();
        assert_eq!(place.look("pipe").unwrap(), Found::Other);
        fs::create_dir(place.path_of("folder")).unwrap();
        let error = place.look("folder").unwrap_err().to_string();
        assert!(
            error.contains("folder") && error.contains("move it away"),
            "{error}"
        );
        put(&place, "pipe", "a file now", 0o600);
    }

    #[test]
    fn permissions_are_corrected_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        put(&place, "x", "text", 0o755);
        fs::set_permissions(place.path_of("x"), fs::Permissions::from_mode(0o6755)).unwrap();
        assert_eq!(place.look("x").unwrap(), file("text", 0o6755));
        place.set_mode("x", 0o755).unwrap();
        assert_eq!(place.look("x").unwrap(), file("text", 0o755));
    }

    #[test]
    fn a_folder_that_is_open_to_everybody_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Place::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("chmod o-w"), "{error}");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(Place::open(dir.path()).is_ok());
    }
}
