//! The clock and the random numbers of a call.

use std::fs::File;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use margay_cni::error::{Error, code};
use margay_model::time::Timestamp;

/// The time.
pub fn now() -> Timestamp {
    Timestamp::from_epoch(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// Random bytes of the kernel.
///
/// # Errors
/// Code 5 when `/dev/urandom` cannot be read.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let filled = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    filled.map_err(|error: io::Error| {
        Error::new(code::IO, format!("reading /dev/urandom: {error}"))
    })?;
    Ok(bytes)
}
