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

/// Writes settings inside a namespace, in order.
pub(crate) fn write_all(namespace: &Namespace, sysctls: &[Sysctl]) -> Result<()> {
    if sysctls.is_empty() {
        return Ok(());
    }
    namespace.run_or_here(|| sysctls.iter().try_for_each(write))?
}

fn write(sysctl: &Sysctl) -> Result<()> {
    let path = Path::new(ROOT).join(&sysctl.path);
    match fs::write(&path, &sysctl.value) {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::NotFound && sysctl.optional => Ok(()),
        // A read-only /proc/sys is no obstacle if the value is already there.
        Err(_) if fs::read_to_string(&path).is_ok_and(|now| now.trim() == sysctl.value) => Ok(()),
        Err(source) => Err(Error::Sysctl {
            path: sysctl.path.clone(),
            value: sysctl.value.clone(),
            source,
        }),
    }
}

const ROOT: &str = "/proc/sys";
