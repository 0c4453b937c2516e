//! What the fuzz targets share.

use std::path::PathBuf;
use std::sync::OnceLock;

/// A folder of this process, below the one for temporary files.
///
/// # Panics
/// The folder cannot be made.
pub fn scratch() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("margay-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        folder
    })
}
