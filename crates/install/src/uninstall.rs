//! Takes away what was installed: the configuration first, the programs last.

use std::path::{Path, PathBuf};

use crate::error::InstallError;
use crate::place::{Found, Place};
use crate::record::{self, Record};

/// What became of the files of an installation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Those that are gone now.
    pub removed: Vec<PathBuf>,
    /// Those that hold something else than was installed, and stay.
    pub changed: Vec<PathBuf>,
}

/// Removes the files that a record names, as far as they hold what was installed, and then the record.
///
/// # Errors
/// [`InstallError::Kept`] when a process would put them back at once; else the first file that could not be
/// removed: it and what comes after it is still recorded.
pub fn uninstall(record: &Path) -> Result<Removed, InstallError> {
    let mut done = Removed::default();
    if !record::parts(record)?.0.is_dir() {
        return Ok(done);
    }
    let _nobody_keeps = record::keeper(record)?;
    let mut record = Record::open(record)?;
    for entry in record.files() {
        let (folder, name) = record::parts(&entry.path)?;
        if folder.is_dir() {
            let place = Place::open_existing(folder)?;
            place.sweep(&name)?;
            match place.look(&name)? {
                Found::Nothing => {}
                Found::File { content, .. } if entry.is(&content) => {
                    place.remove(&name)?;
                    done.removed.push(entry.path.clone());
                }
                _ => done.changed.push(entry.path.clone()),
            }
        }
        record.forget(&entry.path)?;
    }
    record.remove()?;
    Ok(done)
}
