//! ADDs that are being carried out: a file for each attachment, locked by the ADD that has it.
//!
//! A runtime may give up on an ADD and send DEL while the ADD's process lives on. The file tells the two
//! of each other. An ADD makes and locks it before anything else. A DEL marks it, before anything else and
//! without waiting; and an ADD whose file is marked at its end takes back everything before it lets go of
//! the file. Until then a later ADD of the attachment waits, so that what is taken back is never the
//! later one's. No clock is asked. The mark is the file's mode, since changing it needs no space on a disk
//! that is full.
//!
//! The lock ends with its process. A file that nobody has locked was left by an ADD that was killed; the
//! agent locks it for itself while it gives back what the file says.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Attachment, Journal, JournalError, failed};

/// The ADDs of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adding {
    directory: PathBuf,
    /// What the names of its files end in.
    suffix: &'static str,
}

/// One ADD that is being carried out, until it is done or its process ends.
#[derive(Debug)]
pub struct Fence {
    file: File,
    path: PathBuf,
}

/// An assignment that an ADD is about to make and nobody but this ADD will be told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// For which attachment.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// The node's name.
    pub node: String,
    /// The handle of the addresses.
    pub handle: String,
    /// The timestamp in the addresses' owner facts, by which they are told from those of other ADDs.
    pub timestamp: String,
}

/// A file whose ADDs were all killed. No ADD of the attachment begins while this lives.
#[derive(Debug)]
pub struct Abandoned {
    fence: Fence,
    /// What tells the file from a later one of the same attachment.
    pub inode: u64,
    /// What they may have assigned.
    pub assignments: Vec<Assignment>,
}

impl Adding {
    /// The ADDs of network plugins with this state directory.
    pub fn below(state_dir: &Path) -> Self {
        Self {
            directory: state_dir.join(DIRECTORY),
            suffix: "",
        }
    }

    /// The ADDs of IPAM plugins with this state directory. One may be started by the network plugin, for the same
    /// attachment, while that carries out its own.
    pub fn of_addresses(state_dir: &Path) -> Self {
        Self {
            suffix: ADDRESSES,
            ..Self::below(state_dir)
        }
    }

    /// The ADDs of the plugins that write this journal.
    pub fn beside(journal: &Journal) -> Self {
        let state_dir = journal.directory().parent();
        Self::below(state_dir.unwrap_or_else(|| Path::new(".")))
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Begins an ADD. `None` while another ADD of the attachment, or the agent, has the file: to be asked again.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn begin(&self, attachment: &Attachment) -> Result<Option<Fence>, JournalError> {
        let path = self.file(attachment);
        for _ in 0..ATTEMPTS {
            let file = self.open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
            }
            let found = file.metadata().map_err(failed("read", &path))?;
            // Whoever had it before may just have removed it.
            if found.nlink() == 0 {
                continue;
            }
            // A DEL marked it for an ADD that was killed.
            if is_marked(found.mode()) {
                let unmarked = Permissions::from_mode(UNMARKED);
                file.set_permissions(unmarked)
                    .map_err(failed("unmark", &path))?;
            }
            return Ok(Some(Fence { file, path }));
        }
        Ok(None)
    }

    /// Makes an ADD of the attachment that has begun and not ended find out, at its end, that a DEL came.
    /// Returns whether there is a file.
    ///
    /// # Errors
    /// The file cannot be marked.
    pub fn overtake(&self, attachment: &Attachment) -> Result<bool, JournalError> {
        let path = self.file(attachment);
        match fs::set_permissions(&path, Permissions::from_mode(MARKED)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("mark", &path)(error)),
        }
    }

    /// Removes the file of an attachment whose ADD was killed, when a DEL has given everything back.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn clear(&self, attachment: &Attachment) -> Result<(), JournalError> {
        match Fence::of_nobody(self.file(attachment)) {
            Some((fence, _)) => fence.end(),
            None => Ok(()),
        }
    }

    /// Files of ADDs that were killed.
    ///
    /// # Errors
    /// The directory exists and cannot be read.
    pub fn abandoned(&self) -> Result<Vec<Abandoned>, JournalError> {
        let listing = match fs::read_dir(&self.directory) {
            Ok(listing) => listing,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &self.directory)(error)),
        };
        let mut found = Vec::new();
        for entry in listing {
            let path = entry.map_err(failed("read", &self.directory))?.path();
            let Some((mut fence, inode)) = Fence::of_nobody(path) else {
                continue;
            };
            let mut text = String::new();
            let read = fence.file.read_to_string(&mut text);
            read.map_err(failed("read", &fence.path))?;
            // The last line of an ADD that was killed while it wrote assigned nothing.
            let assignments = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            found.push(Abandoned {
                assignments: assignments.collect(),
                fence,
                inode,
            });
        }
        Ok(found)
    }

    fn file(&self, attachment: &Attachment) -> PathBuf {
        let name = attachment.digest() + self.suffix;
        self.directory.join(name)
    }

    fn open(&self, path: &Path) -> Result<File, JournalError> {
        let mut options = File::options();
        options.read(true).append(true).create(true).mode(UNMARKED);
        options
            .open(path)
            .or_else(|error| {
                if error.kind() != ErrorKind::NotFound {
                    return Err(error);
                }
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(0o700);
                builder.create(&self.directory)?;
                options.open(path)
            })
            .map_err(failed("make", path))
    }
}

impl Fence {
    /// Notes what is about to be assigned, so that the agent gives it back should this process be killed.
    ///
    /// # Errors
    /// It cannot be noted.
    pub fn assigning(&mut self, assignment: &Assignment) -> Result<(), JournalError> {
        let noted = serde_json::to_vec(assignment)
            .map_err(io::Error::other)
            .and_then(|mut line| {
                line.push(b'\n');
                self.file.write_all(&line)
            });
        noted.map_err(failed("write", &self.path))
    }

    /// Whether a DEL came since the ADD began. Asked when everything is done, this decides.
    ///
    /// # Errors
    /// The file cannot be asked.
    pub fn is_overtaken(&self) -> Result<bool, JournalError> {
        let found = self.file.metadata();
        let found = found.map_err(failed("read", &self.path))?;
        Ok(is_marked(found.mode()))
    }

    /// Ends the ADD, which is done or taken back: the next one may begin.
    ///
    /// # Errors
    /// The file can be neither removed nor emptied; the agent would give back what the ADD assigned, so it
    /// must not be answered well.
    pub fn end(self) -> Result<(), JournalError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => self
                .file
                .set_len(0)
                .map_err(|_| failed("remove", &self.path)(error)),
            _ => Ok(()),
        }
    }

    /// The file at this path, and its inode, where it is there and nobody has it.
    fn of_nobody(path: PathBuf) -> Option<(Self, u64)> {
        let file = File::options().read(true).append(true).open(&path).ok()?;
        file.try_lock().ok()?;
        let found = file.metadata().ok()?;
        (found.nlink() > 0).then_some((Self { file, path }, found.ino()))
    }
}

impl Abandoned {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.fence.path
    }

    /// Removes the file, when everything is given back.
    ///
    /// # Errors
    /// As [`Fence::end`].
    pub fn remove(self) -> Result<(), JournalError> {
        self.fence.end()
    }
}

fn is_marked(mode: u32) -> bool {
    mode & 0o777 == MARKED
}

/// What the names of IPAM plugins' files end in.
const ADDRESSES: &str = "-ipam";
/// Name of the directory below a state directory.
const DIRECTORY: &str = "adding";
/// Modes of a file without and with the mark of a DEL.
const UNMARKED: u32 = 0o600;
const MARKED: u32 = 0o400;
const ATTEMPTS: u32 = 16;
