//! Notices when somebody changes the folders of an installation.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Watches folders. It can be polled: when it is readable something has changed.
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

    /// Takes what has been noticed; whether that was anything.
    ///
    /// # Errors
    /// As the kernel reports.
    pub fn drain(&self) -> io::Result<bool> {
        let mut noticed = false;
        loop {
            match self.0.read_events() {
                Ok(events) => noticed |= !events.is_empty(),
                Err(Errno::EAGAIN) => return Ok(noticed),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn changes_are_noticed_and_reading_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new().unwrap();
        watch.add(dir.path()).unwrap();
        watch.add(&dir.path().join("absent")).unwrap();
        assert!(!watch.drain().unwrap());
        let file = dir.path().join("x");
        fs::write(&file, "x").unwrap();
        assert!(watch.drain().unwrap());
        watch.add(dir.path()).unwrap();
        fs::read(&file).unwrap();
        assert!(!watch.drain().unwrap());
        fs::remove_file(&file).unwrap();
        assert!(watch.drain().unwrap());
    }
}
