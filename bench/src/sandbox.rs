//! Where everything happens: namespaces of this process's own, which end with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// The process in a network and a mount namespace of its own, with two folders: in memory and on disk.
#[derive(Debug)]
pub struct Sandbox {
    disk: TempDir,
    memory: PathBuf,
}

impl Sandbox {
    /// Leaves the machine's namespaces for good. To be called while the process has one thread.
    pub fn enter(disk: &Path) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .context("own namespaces; run as root")?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NOTHING, "/", NOTHING, private, NOTHING).context("own mounts")?;
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()?;
        ensure!(up.success(), "the loopback cannot be brought up");

        let disk = tempfile::Builder::new()
            .prefix("margay-bench-")
            .tempdir_in(disk)
            .with_context(|| format!("a folder in {}", disk.display()))?;
        let memory = disk.path().join("memory");
        fs::create_dir(&memory)?;
        mount(
            Some("tmpfs"),
            &memory,
            Some("tmpfs"),
            MsFlags::empty(),
            NOTHING,
        )
        .context("a tmpfs")?;
        Ok(Self { disk, memory })
    }

    /// A folder in memory, which is made.
    pub fn in_memory(&self, name: &str) -> Result<PathBuf> {
        folder(&self.memory, name)
    }

    /// A folder on disk, which is made.
    pub fn on_disk(&self, name: &str) -> Result<PathBuf> {
        folder(self.disk.path(), name)
    }

    /// Makes network namespaces for containers; their paths.
    pub fn containers(&self, count: usize) -> Result<Vec<String>> {
        let folder = self.in_memory("netns")?;
        let paths = (0..count).map(|number| folder.join(number.to_string()));
        paths.map(|path| make_namespace(&path)).collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // With all that is mounted within, so that the folder can be removed.
        let _ = umount2(&self.memory, MntFlags::MNT_DETACH);
    }
}

fn folder(parent: &Path, name: &str) -> Result<PathBuf> {
    let folder = parent.join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A thread enters a new namespace and ends; the mount keeps the namespace.
fn make_namespace(path: &Path) -> Result<String> {
    File::create(path)?;
    let make = || -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = Some("/proc/thread-self/ns/net");
        mount(own, path, NOTHING, MsFlags::MS_BIND, NOTHING)?;
        Ok(())
    };
    let made = thread::scope(|scope| scope.spawn(make).join());
    made.map_err(|_| anyhow::anyhow!("the thread that makes a namespace ended badly"))?
        .with_context(|| format!("the namespace {}", path.display()))?;
    Ok(path.display().to_string())
}

const NOTHING: Option<&str> = None;
