//! What others have in the folders of an installation.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::wanted::ENDINGS;

/// Configurations that sort before ours: containerd takes the first, others the first that they can use.
pub(crate) fn before(net_dir: &Path, name: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(net_dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|other| ENDINGS.iter().any(|ending| other.ends_with(ending)))
        .filter(|other| other.as_str() < name)
        .collect();
    names.sort();
    names
}

/// Programs that a configuration names and none of the folders has.
pub(crate) fn missing(bin_dirs: &[PathBuf], programs: Vec<String>) -> Vec<String> {
    let is_there = |name: &str| {
        let mut paths = bin_dirs.iter().map(|dir| dir.join(name));
        paths.any(|path| fs::metadata(path).is_ok_and(|found| found.is_file()))
    };
    let mut programs = programs;
    programs.retain(|name| !is_there(name));
    programs
}

/// Programs of Calico's installer that run with their owner's rights, whoever starts them (CVE-2024-33522).
pub(crate) fn privileged(bin_dirs: &[PathBuf]) -> Vec<PathBuf> {
    let paths = bin_dirs
        .iter()
        .flat_map(|dir| CALICO.iter().map(move |name| dir.join(name)));
    paths
        .filter(|path| {
            let about = fs::symlink_metadata(path);
            about.is_ok_and(|about| {
                about.is_file() && is_privileged(about.permissions().mode(), about.uid())
            })
        })
        .collect()
}

fn is_privileged(mode: u32, owner: u32) -> bool {
    mode & SET_ID != 0 && owner == 0
}

const CALICO: [&str; 3] = ["install", "calico", "calico-ipam"];
/// The set-user-ID and set-group-ID bits.
pub(crate) const SET_ID: u32 = 0o6000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_before_ours_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "00-x.conf",
            "05-y.conflist",
            "10-margay.conflist",
            "20-z.json",
            ".hidden.tmp",
            "0.txt",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(
            before(dir.path(), "10-margay.conflist"),
            ["00-x.conf", "05-y.conflist"]
        );
        assert!(before(&dir.path().join("absent"), "x").is_empty());
    }

    #[test]
    fn programs_are_looked_for_in_every_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("portmap")).unwrap();
        fs::write(dir.path().join("margay"), "").unwrap();
        let dirs = [PathBuf::from("/nowhere"), dir.path().to_owned()];
        let wanted = vec!["margay".to_owned(), "portmap".to_owned()];
        assert_eq!(missing(&dirs, wanted), ["portmap"]);
    }

    #[test]
    fn calicos_installer_with_roots_rights_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        let file = dir.path().join("install");
        fs::write(&file, "").unwrap();
        assert!(privileged(&dirs).is_empty());
        assert!(is_privileged(0o4755, 0) && is_privileged(0o2755, 0));
        assert!(!is_privileged(0o755, 0) && !is_privileged(0o4755, 1000));
    }
}
