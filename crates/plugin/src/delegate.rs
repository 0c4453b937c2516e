//! Running another plugin.
//!
//! A delegate gets a process group of its own, so that it and what it starts can be ended together.
//! It does not die with this process when that is killed: the signal for a parent's death can only
//! be asked for between fork and exec, which takes unsafe code.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use margay_cni::delegate::{self, Output};
use margay_cni::{Command, Error, Request, ResultDoc, code};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::call;
use crate::log::{self, Level, log};

/// Another plugin, found in `CNI_PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    plugin: String,
    program: PathBuf,
}

/// What a delegate is given where it differs from what this process was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    /// The network configuration.
    pub stdin: &'a [u8],
    /// `CNI_ARGS`; `None` leaves our own.
    pub args: Option<&'a str>,
}

impl Delegate {
    /// Finds the plugin that a configuration calls `plugin`.
    ///
    /// # Errors
    /// Code 7 when the name is none or no directory of `CNI_PATH` has such a program.
    pub fn find(plugin: &str, request: &Request) -> Result<Self, Error> {
        let program = delegate::find(plugin, &request.path, |file| {
            fs::metadata(file)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })?;
        Ok(Self {
            plugin: plugin.to_owned(),
            program,
        })
    }

    /// Calls ADD with our own stdin. When that fails, calls DEL and returns the error of ADD.
    ///
    /// # Errors
    /// The delegate's error with its code; 108 when it took too long; 107 when it cannot be run.
    pub fn add(&self, request: &Request) -> Result<ResultDoc, Error> {
        self.add_with(
            request,
            Input {
                stdin: &request.stdin,
                args: None,
            },
        )
    }

    /// As [`Delegate::add`] with another input.
    ///
    /// # Errors
    /// As [`Delegate::add`].
    pub fn add_with(&self, request: &Request, input: Input<'_>) -> Result<ResultDoc, Error> {
        self.call_with(request, Command::Add, input)
            .inspect_err(|_| {
                if let Err(error) = self.call_with(request, Command::Del, input) {
                    log(Level::Warning, &format!("DEL after a failed ADD: {error}"));
                }
            })
    }

    /// Calls a verb with our own stdin, byte for byte. The result is empty for all but ADD.
    ///
    /// # Errors
    /// As [`Delegate::add`].
    pub fn call(&self, request: &Request, command: Command) -> Result<ResultDoc, Error> {
        self.call_with(
            request,
            command,
            Input {
                stdin: &request.stdin,
                args: None,
            },
        )
    }

    /// As [`Delegate::call`] with another input.
    ///
    /// # Errors
    /// As [`Delegate::add`].
    pub fn call_with(
        &self,
        request: &Request,
        command: Command,
        input: Input<'_>,
    ) -> Result<ResultDoc, Error> {
        let limit = share(command, call::remaining());
        call::progress(format!(
            "waiting for the plugin {} to finish {command}",
            self.plugin
        ));
        let output = self.execute(command, input, limit);
        call::progress(format!("after {command} of the plugin {}", self.plugin));
        delegate::interpret(&self.plugin, command, &output?, request.conf.version())
    }

    /// Runs the program to its end, or for `limit`.
    fn execute(
        &self,
        command: Command,
        input: Input<'_>,
        limit: Duration,
    ) -> Result<Output, Error> {
        let until = Instant::now() + limit;
        let environment = delegate::environment(env::vars_os(), command, input.args);
        let mut running = Running(self.spawn(environment, until)?);
        let events = running
            .connect(input.stdin)
            .map_err(|source| self.fault("run", &source))?;
        let mut output = Output::default();
        let mut open = 2;
        let mut ended: Option<(ExitStatus, Instant)> = None;
        let mut pause = SHORT_PAUSE;
        loop {
            match events.recv_timeout(pause) {
                Ok(Event::Stdout(piece)) => append(&mut output.stdout, &piece, MAX_STDOUT),
                Ok(Event::Stderr(piece)) => append(&mut output.stderr, &piece, MAX_STDERR),
                Ok(Event::End) => {
                    open -= 1;
                    pause = SHORT_PAUSE;
                }
                Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(LONG_PAUSE),
                Err(RecvTimeoutError::Disconnected) => thread::sleep(pause),
            }
            if ended.is_none() {
                ended = running
                    .try_wait()
                    .map_err(|source| self.fault("wait for", &source))?
                    .map(|status| (status, Instant::now()));
            }
            // A daemon that the program left behind may hold its pipes open for ever.
            if let Some((status, at)) = ended
                && (open == 0 || at.elapsed() > PIPE_GRACE)
            {
                output.success = status.success();
                output.status = status.to_string();
                return Ok(output);
            }
            if ended.is_none() && Instant::now() >= until {
                // Dropping it ends its process group.
                return Err(Error::new(
                    code::DEADLINE,
                    format!(
                        "{}: {command} was not done after {} ms and was ended",
                        self.plugin,
                        limit.as_millis()
                    ),
                ));
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "delegation is what this room is for"
    )]
    fn spawn(
        &self,
        environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
        until: Instant,
    ) -> Result<Child, Error> {
        let mut program = process::Command::new(&self.program);
        program
            .env_clear()
            .envs(environment)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        loop {
            // Registered under the same lock, so that the watchdog misses no child.
            let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
            match program.spawn() {
                Ok(child) => {
                    groups.extend(group_of(&child));
                    return Ok(child);
                }
                // The program is just being replaced.
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy
                        && Instant::now() + BUSY_PAUSE < until =>
                {
                    drop(groups);
                    thread::sleep(BUSY_PAUSE);
                }
                Err(error) => return Err(self.fault("start", &error)),
            }
        }
    }

    fn fault(&self, verb: &str, source: &io::Error) -> Error {
        Error::kernel(
            format!("cannot {verb} the plugin {}", self.program.display()),
            source,
        )
    }
}

/// A started delegate; ended with its group when dropped before its end.
#[derive(Debug)]
struct Running(Child);

enum Event {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// One of the two is closed.
    End,
}

impl Running {
    /// Feeds stdin and reads stdout and stderr, each on a thread of its own.
    fn connect(&mut self, stdin: &[u8]) -> io::Result<Receiver<Event>> {
        let (sender, events) = mpsc::channel();
        if let Some(mut pipe) = self.0.stdin.take() {
            let bytes = stdin.to_vec();
            // A delegate need not read what it is told.
            thread::Builder::new().spawn(move || drop(pipe.write_all(&bytes)))?;
        }
        if let Some(pipe) = self.0.stdout.take() {
            let sender = sender.clone();
            thread::Builder::new().spawn(move || drain(pipe, &sender, Event::Stdout))?;
        }
        if let Some(pipe) = self.0.stderr.take() {
            thread::Builder::new().spawn(move || {
                drain(pipe, &sender, |piece| {
                    log::forward(&piece);
                    Event::Stderr(piece)
                });
            })?;
        }
        Ok(events)
    }

    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        // Under the lock no one can signal the group after its number is free for others.
        let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        let status = self.0.try_wait()?;
        if status.is_some() {
            let group = group_of(&self.0);
            groups.retain(|known| Some(*known) != group);
        }
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = group_of(&self.0);
        let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = group
            && groups.contains(&group)
        {
            kill(group);
            // Reaps it; it cannot refuse.
            let _ = self.0.wait();
            groups.retain(|known| *known != group);
        }
    }
}

/// Ends every delegate that still runs, for a process that is about to end itself.
pub(crate) fn kill_running() {
    // Whoever holds the lock may be the thread that hangs.
    if let Ok(groups) = GROUPS.try_lock() {
        groups.iter().copied().for_each(kill);
    }
}

fn kill(group: Pid) {
    // It may have ended by itself.
    let _ = killpg(group, Signal::SIGKILL);
}

fn group_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().map(Pid::from_raw)
}

/// The part of the remaining time that a delegate may take: after a failed ADD there must be time
/// for its DEL and for our own answer.
fn share(command: Command, remaining: Duration) -> Duration {
    if command == Command::Add {
        remaining * 3 / 4
    } else {
        remaining * 9 / 10
    }
}

fn drain(mut pipe: impl Read, sender: &Sender<Event>, event: impl Fn(Vec<u8>) -> Event) {
    let mut piece = vec![0; 16 << 10];
    loop {
        match pipe.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                if sender.send(event(piece[..count].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // Nobody listens once the program has ended.
    let _ = sender.send(Event::End);
}

fn append(kept: &mut Vec<u8>, piece: &[u8], limit: usize) {
    let room = limit.saturating_sub(kept.len());
    kept.extend_from_slice(&piece[..piece.len().min(room)]);
}

/// Process groups of the delegates that run.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Most bytes of an answer that are kept; a longer one cannot be parsed then.
const MAX_STDOUT: usize = 1 << 20;
/// Most bytes of stderr that are kept for an error's details.
const MAX_STDERR: usize = 4096;
const SHORT_PAUSE: Duration = Duration::from_millis(1);
const LONG_PAUSE: Duration = Duration::from_millis(20);
/// How long open pipes are waited for after the program's end.
const PIPE_GRACE: Duration = Duration::from_millis(100);
/// How long a program that is being written is waited for at a time.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l05_time_is_left_for_del_after_add() {
        let all = Duration::from_secs(40);
        let add = share(Command::Add, all);
        let del = share(Command::Del, all - add);
        assert!(add + del < all && del >= Duration::from_secs(5));
    }

    #[test]
    fn only_the_beginning_is_kept() {
        let mut kept = Vec::new();
        append(&mut kept, b"abc", 4);
        append(&mut kept, b"def", 4);
        append(&mut kept, b"ghi", 4);
        assert_eq!(kept, b"abcd");
    }
}
