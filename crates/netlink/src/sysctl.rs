//! Kernel settings below `/proc/sys/net`.
//!
//! `/proc/sys/net` shows the namespace of the task that opens the file, whatever process mounted
//! it; so a thread that has entered a namespace writes that namespace's settings.

use std::fs;
use std::io;
use std::path::Path;

use margay_endpoint::Sysctl;

use crate::error::{Error, Result};
use crate::namespace::Namespace;

impl Namespace {
    /// Writes kernel settings of this namespace, in order, and stops at the first failure.
    ///
    /// A value that is there already is as good as written, so a read-only `/proc/sys` need not
    /// be an obstacle.
    ///
    /// # Errors
    /// [`Error::Sysctl`], or that the namespace cannot be entered.
    pub fn write_sysctls(&self, sysctls: &[Sysctl]) -> Result<()> {
        if sysctls.is_empty() {
            return Ok(());
        }
        self.run_or_here(|| sysctls.iter().try_for_each(write))?
    }
}

fn write(sysctl: &Sysctl) -> Result<()> {
    let path = Path::new(ROOT).join(&sysctl.path);
    match fs::write(&path, &sysctl.value) {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::NotFound && sysctl.optional => Ok(()),
        Err(_) if fs::read_to_string(&path).is_ok_and(|now| now.trim() == sysctl.value) => Ok(()),
        Err(source) => Err(Error::Sysctl {
            path: sysctl.path.clone(),
            value: sysctl.value.clone(),
            source,
        }),
    }
}

const ROOT: &str = "/proc/sys";
