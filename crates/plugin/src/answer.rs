//! The one document on stdout.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use margay_cni::{Error, code};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::call;
use crate::delegate;
use crate::log::{Level, log};

/// The right to answer, of which a process has one.
#[derive(Debug)]
pub(crate) struct Answer(());

impl Answer {
    /// Takes the right; `None` when it is taken.
    pub(crate) fn claim() -> Option<Self> {
        if CLAIMED.swap(true, Ordering::SeqCst) {
            return None;
        }
        if let Ok(mut owner) = OWNER.lock() {
            *owner = Some(thread::current().id());
        }
        Some(Self(()))
    }

    /// Writes the answer.
    ///
    /// # Errors
    /// When the document could not be written whole before `until`. Part of it may have been.
    pub(crate) fn write(self, document: &Value, until: Instant) -> io::Result<()> {
        let Some(stdout) = call::stdout() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut bytes = document.to_string().into_bytes();
        bytes.push(b'\n');
        write_until(stdout, &bytes, until)
    }
}

/// Makes a panic on any thread end the process with an error object, whether the program unwinds
/// or aborts on panic.
pub(crate) fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let error = Error::new(code::INTERNAL, describe(info));
        let error = if call::is_del() {
            error.for_del()
        } else {
            error
        };
        end(&error)
    }));
}

/// Answers with `error`, unless there is an answer already, and ends the process with status 1.
pub(crate) fn end(error: &Error) -> ! {
    match Answer::claim() {
        Some(answer) => {
            // The process ends anyway; an answer that nobody takes changes nothing.
            let _ = answer.write(&error.encode(call::version()), Instant::now() + LAST_WORDS);
        }
        None if is_mine() => {}
        // Ending now might cut an answer, or the undoing of an ADD.
        None => wait_for_the_end(),
    }
    delegate::kill_running();
    log(Level::Error, &error.to_string());
    leave()
}

/// Leaves the end of the process to the thread that claimed the answer, or to the watchdog.
pub(crate) fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

/// Ends the process with status 1.
#[expect(
    clippy::exit,
    reason = "neither a panic hook nor a watchdog can return to main"
)]
pub(crate) fn leave() -> ! {
    process::exit(1)
}

/// Writes all of `bytes` without ever blocking beyond `until`.
pub(crate) fn write_until(mut file: &File, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        wait_writable(file, until)?;
        // After POLLOUT a pipe takes this much without blocking.
        let piece = &bytes[..bytes.len().min(PIPE_BUF)];
        match file.write(piece) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until `file` takes bytes, or its reader is gone, which the next write tells.
pub(crate) fn wait_writable(file: impl AsFd, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], left) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn is_mine() -> bool {
    OWNER
        .try_lock()
        .is_ok_and(|owner| *owner == Some(thread::current().id()))
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let said = info.payload_as_str().unwrap_or("unknown cause");
    match info.location() {
        Some(at) => format!("internal error at {}:{}: {said}", at.file(), at.line()),
        None => format!("internal error: {said}"),
    }
}

static CLAIMED: AtomicBool = AtomicBool::new(false);
static OWNER: Mutex<Option<ThreadId>> = Mutex::new(None);

/// Time for the answer of a process that ends in disorder.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most bytes that a pipe takes in one piece once it is writable.
const PIPE_BUF: usize = 4096;

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn p14_a_pipe_without_reader_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let file = File::from(OwnedFd::from(writer));
        let error = write_until(&file, b"x", Instant::now() + LAST_WORDS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn p14_a_full_pipe_is_an_error_in_time() {
        let (_reader, writer) = io::pipe().unwrap();
        let file = File::from(OwnedFd::from(writer));
        let begin = Instant::now();
        let more_than_fits = vec![b'x'; 1 << 21];
        let error =
            write_until(&file, &more_than_fits, begin + Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_slow_reader_gets_everything() {
        use std::io::Read;
        let (mut reader, writer) = io::pipe().unwrap();
        let file = File::from(OwnedFd::from(writer));
        let sent: Vec<u8> = (0..=250u8).cycle().take(300_000).collect();
        let copy = sent.clone();
        let writing = thread::spawn(move || {
            write_until(&file, &copy, Instant::now() + Duration::from_secs(20))
        });
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        writing.join().unwrap().unwrap();
        assert!(got == sent);
    }
}
