//! Reading stdin.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use margay_cni::{Error, MAX_STDIN, code};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

/// Reads to the end, but no more than one byte beyond what is allowed; that the limit is exceeded
/// is told by whoever parses it.
pub(crate) fn read_to_end() -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let limit = MAX_STDIN as u64 + 1;
    io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| {
            Error::new(code::IO, "stdin cannot be read").with_details(source.to_string())
        })?;
    Ok(bytes)
}

/// Reads until the end, a complete JSON document, or `patience` is over (P08: VERSION must not wait
/// for a stdin that nobody closes). What cannot be read is taken for absent.
pub(crate) fn read_patiently(patience: Duration) -> Vec<u8> {
    let until = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    while bytes.len() <= MAX_STDIN && is_readable(until) {
        match io::stdin().lock().read(&mut piece) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        if serde_json::from_slice::<Value>(&bytes).is_ok() {
            break;
        }
    }
    bytes
}

fn is_readable(until: Instant) -> bool {
    let stdin = io::stdin();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(
            &mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(ready) => return ready > 0,
            Err(Errno::EINTR) if !left.is_zero() => {}
            Err(_) => return false,
        }
    }
}
