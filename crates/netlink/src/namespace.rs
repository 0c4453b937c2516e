//! Network namespaces: opened once, entered by short-lived threads only.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use netns_rs::NetNs;
use nix::errno::Errno;
use nix::sys::statfs::{FsType, NSFS_MAGIC, fstatfs, statfs};

use crate::error::{Error, Result};

/// An open network namespace.
///
/// The path is resolved once; from then on the descriptor stands for the namespace, so a path that
/// is removed or reused cannot mislead. Clones share the descriptor.
#[derive(Debug, Clone)]
pub struct Namespace {
    inner: Arc<NetNs>,
    id: NamespaceId,
}

/// Device and inode of a namespace file: equal exactly for one namespace.
type NamespaceId = (u64, u64);

impl Namespace {
    /// Opens a namespace by a path such as `/run/netns/example` or `/proc/1234/ns/net`.
    ///
    /// # Errors
    /// [`Error::NamespaceAbsent`] if nothing is there, [`Error::NotNamespace`] if it is something
    /// else, [`Error::OpenNamespace`] if the kernel refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // Before opening: a FIFO would block, a device would act.
        let fs_type = statfs(path)
            .map_err(|errno| absent_or(errno.into(), path))?
            .filesystem_type();
        if !may_hold_namespaces(fs_type) {
            return Err(Error::NotNamespace {
                path: path.to_owned(),
            });
        }
        let inner = netns_rs::get_from_path(path).map_err(|source| match source {
            netns_rs::Error::OpenNsError(_, source) => absent_or(source, path),
            source => Error::EnterNamespace { source },
        })?;
        Self::verified(inner, path)
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::OpenNamespace`] if `/proc` is not at hand.
    pub fn current() -> Result<Self> {
        let path = PathBuf::from(CURRENT);
        let inner = netns_rs::get_from_path(&path).map_err(|source| Error::OpenNamespace {
            path: path.clone(),
            source: io_error(source),
        })?;
        Self::verified(inner, &path)
    }

    /// Whether two handles are of one namespace.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Runs a closure inside the namespace and returns its result.
    ///
    /// The closure runs on a thread of its own, which ends with it: the caller's thread never
    /// changes its namespace, not even by a panic. The caller is blocked meanwhile (about 30 µs
    /// beyond the closure's own time); keep the closure short.
    ///
    /// # Errors
    /// [`Error::Thread`] and [`Error::EnterNamespace`].
    ///
    /// # Panics
    /// If the closure does.
    pub fn run<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || {
            self.inner
                .enter()
                .map_err(|source| Error::EnterNamespace { source })?;
            Ok(closure())
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, inside)
                .map_err(|source| Error::Thread { source })?;
            thread
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }

    /// Runs a closure inside the namespace: at once if the calling thread is there already, else
    /// as [`Namespace::run`] does.
    pub(crate) fn run_or_here<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> Result<T> {
        if self.is_current() {
            Ok(closure())
        } else {
            self.run(closure)
        }
    }

    fn is_current(&self) -> bool {
        std::fs::metadata(CURRENT).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id)
    }

    fn verified(inner: NetNs, path: &Path) -> Result<Self> {
        let refused = |source| Error::OpenNamespace {
            path: path.to_owned(),
            source,
        };
        let file = inner.file();
        let in_nsfs = fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC);
        if !in_nsfs || namespace_type(file).map_err(|errno| refused(errno.into()))? != CLONE_NEWNET
        {
            return Err(Error::NotNamespace {
                path: path.to_owned(),
            });
        }
        let meta = file.metadata().map_err(refused)?;
        Ok(Self {
            inner: Arc::new(inner),
            id: (meta.dev(), meta.ino()),
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.file().as_fd()
    }
}

/// `statfs` on a bind mount answers nsfs; on `/proc/<pid>/ns/net` it follows the link to nsfs too.
fn may_hold_namespaces(fs_type: FsType) -> bool {
    fs_type == NSFS_MAGIC
}

fn absent_or(source: io::Error, path: &Path) -> Error {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NamespaceAbsent { path },
        _ => Error::OpenNamespace { path, source },
    }
}

fn io_error(error: netns_rs::Error) -> io::Error {
    match error {
        netns_rs::Error::OpenNsError(_, source) => source,
        other => io::Error::other(other),
    }
}

fn namespace_type(file: &File) -> Result<i32, Errno> {
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours; the descriptor is
    // open for as long as `file` is borrowed.
    #[expect(unsafe_code, reason = "there is no safe wrapper of this ioctl")]
    unsafe {
        ns_get_nstype(file.as_raw_fd())
    }
}

mod ioctl {
    // ioctl_nsfs(2): _IO(NSIO, 0x3).
    nix::ioctl_none!(ns_get_nstype, 0xb7, 0x3);
}
use ioctl::ns_get_nstype;

const CLONE_NEWNET: i32 = 0x4000_0000;
const CURRENT: &str = "/proc/thread-self/ns/net";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_namespace_opens_by_path_too() {
        let current = Namespace::current().unwrap();
        let by_path = Namespace::open("/proc/self/ns/net").unwrap();
        assert!(current.is_same(&by_path) && current.is_current());
        assert_eq!(current.run(|| 7).unwrap(), 7);
    }

    #[test]
    fn absent_and_wrong_paths_are_told_apart() {
        let open = |path: &str| Namespace::open(path).unwrap_err();
        assert!(matches!(
            open("/run/netns/no/such"),
            Error::NamespaceAbsent { .. }
        ));
        assert!(matches!(
            open("/proc/self/status/x"),
            Error::NamespaceAbsent { .. }
        ));
        assert!(matches!(
            open("/proc/self/status"),
            Error::NotNamespace { .. }
        ));
        assert!(matches!(open("/dev/null"), Error::NotNamespace { .. }));
        // A namespace, but of another type.
        assert!(matches!(
            open("/proc/self/ns/uts"),
            Error::NotNamespace { .. }
        ));
    }

    #[test]
    #[should_panic(expected = "inside")]
    fn a_panic_inside_reaches_the_caller() {
        let _ = Namespace::current().unwrap().run(|| panic!("inside"));
    }
}
