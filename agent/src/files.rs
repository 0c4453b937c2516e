//! The files that other programs of the node read: `nodename` and `mtu`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Writes a file as a whole: readers see the old text or the new one. Nothing is written when the
/// text is there already. Returns whether it was written.
///
/// # Errors
/// As the file system reports.
pub fn write(path: &Path, text: &str) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|now| now == text.as_bytes()) {
        return Ok(false);
    }
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "no file name");
    let name = path.file_name().ok_or_else(no_name)?;
    let parent = path.parent().ok_or_else(no_name)?;
    fs::create_dir_all(parent)?;
    // Hidden, so that a reader who lists the directory passes over it.
    let mut draft_name = std::ffi::OsString::from(".");
    draft_name.push(name);
    draft_name.push(format!(".{}", std::process::id()));
    let draft = parent.join(draft_name);
    let written = fs::File::create(&draft).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let placed = written.and_then(|()| fs::rename(&draft, path));
    if placed.is_err() {
        let _ = fs::remove_file(&draft);
    }
    placed.map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_and_only_when_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/mtu");
        assert!(write(&path, "1500").unwrap());
        assert!(!write(&path, "1500").unwrap());
        assert!(write(&path, "1450").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "1450");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(write(&dir.path().join("file/mtu"), "1500").is_err());
    }
}
