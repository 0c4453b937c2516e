//! Notices when somebody changes the folders of an installation.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Watches folders.
pub struct Watch(Inotify);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.0.as_fd()).finish()
    }
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The kernel gives no more of them.
    pub fn new() -> io::Result<Self> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        Ok(Self(Inotify::init(flags)?))
    }

    /// Watches a folder, whether it is watched already or not; one that does not exist is passed over.
    ///
    /// # Errors
    /// The kernel watches no more.
    pub fn add(&self, folder: &Path) -> io::Result<()> {
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        match self.0.add_watch(folder, changes) {
            Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A descriptor that is readable when something has changed. What is read from it are the kernel's events
    /// (inotify(7)); reading does not block.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;

    use super::*;

    fn noticed(watch: &Watch) -> bool {
        let mut events = [0; 4096];
        let read = File::from(watch.descriptor().unwrap()).read(&mut events);
        match read {
            Ok(bytes) => bytes > 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn changes_are_noticed_and_reading_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new().unwrap();
        watch.add(dir.path()).unwrap();
        watch.add(&dir.path().join("absent")).unwrap();
        assert!(!noticed(&watch));
        let file = dir.path().join("x");
        fs::write(&file, "x").unwrap();
        assert!(noticed(&watch));
        watch.add(dir.path()).unwrap();
        fs::read(&file).unwrap();
        assert!(!noticed(&watch));
        fs::remove_file(&file).unwrap();
        assert!(noticed(&watch));
    }
}
