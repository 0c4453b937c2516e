//! A plugin process: reads its request, keeps its deadline, answers exactly once; runs delegates.
//!
//! A program implements [`Plugin`] and returns [`run`] from `main`. `run` owns the process: stdin,
//! stdout, the panic hook and a watchdog. While it runs, file descriptor 1 leads to stderr and the
//! real stdout is held privately, so that nothing can write to it but the one answer; which of
//! normal end, panic and watchdog gives that answer is decided by one latch.
//!
//! What `run` cannot answer for: a stack overflow, memory exhaustion or SIGKILL ends the process
//! without an answer, and a stdout that the caller *closed* (instead of breaking its pipe) is
//! replaced by `/dev/null` before `main` begins, so that an answer into it counts as delivered.
//!
//! It never touches namespaces, interfaces or a store; that is the plugin's part.

mod answer;
mod call;
pub mod delegate;
mod log;
mod netns;
mod stdin;
mod watchdog;

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use margay_cni::{Command, Error, Request, ResultDoc, Version};
use serde_json::Value;

pub use call::{deadline, progress, remaining};
pub use delegate::Delegate;
pub use log::{Level, log};

use crate::answer::Answer;

/// What a CNI plugin does for each verb. Every method runs on the process's first thread.
pub trait Plugin {
    /// The program's name, for log lines.
    fn name(&self) -> &str;

    /// What the program says of itself to a person who calls it without `CNI_COMMAND`.
    fn about(&self) -> String;

    /// Attaches a container.
    ///
    /// # Errors
    /// What the runtime is told. Own effects are undone by then.
    fn add(&self, request: &Request) -> Result<ResultDoc, Error>;

    /// Takes back a successful [`Plugin::add`] whose answer nobody could be given. Has ten seconds.
    fn undo(&self, request: &Request);

    /// Detaches a container. [`Request::netns`] is `None` when it names the plugin's own namespace.
    ///
    /// # Errors
    /// What the runtime is told.
    fn del(&self, request: &Request) -> Result<(), Error>;

    /// Verifies an attachment.
    ///
    /// # Errors
    /// What the runtime is told.
    fn check(&self, request: &Request) -> Result<(), Error>;

    /// Removes what belongs to no listed attachment.
    ///
    /// # Errors
    /// What the runtime is told.
    fn gc(&self, request: &Request) -> Result<(), Error>;

    /// Tells whether an ADD would succeed now.
    ///
    /// # Errors
    /// What the runtime is told.
    fn status(&self, request: &Request) -> Result<(), Error>;
}

/// Serves the one call for which the process was started. To be called once, from `main`.
pub fn run(plugin: &impl Plugin) -> ExitCode {
    let verb = env::var("CNI_COMMAND").unwrap_or_default();
    if verb.is_empty() {
        let supported = Version::list();
        log::to_stderr(&format!("{}\nCNI versions: {supported}\n", plugin.about()));
        return ExitCode::SUCCESS;
    }
    let command = verb.parse::<Command>();
    if let Err(error) = call::begin(plugin.name(), command.as_ref().ok().copied()) {
        // Without a private stdout there is nobody to answer to.
        log(Level::Error, &error.to_string());
        return ExitCode::FAILURE;
    }
    answer::install_panic_hook();
    if let Err(error) = watchdog::start() {
        // A DEL that might hang is better than one that was not tried.
        if !matches!(command, Ok(Command::Del)) {
            return refuse(&error);
        }
        log(Level::Warning, &error.to_string());
    }
    match command {
        Ok(Command::Version) => conclude(&Version::report(&stdin::read_patiently(PATIENCE))),
        Ok(command) => serve(plugin, command),
        Err(error) => {
            call::set_version(Version::of_answer(&stdin::read_patiently(PATIENCE)));
            refuse(&error)
        }
    }
}

/// Serves a verb that needs its configuration.
fn serve(plugin: &impl Plugin, command: Command) -> ExitCode {
    let mut request = match read_request() {
        Ok(request) => request,
        Err(error) => return refuse(&error),
    };
    call::set_container(&request.container_id);
    if let Err(error) = guard_namespace(&mut request) {
        return refuse(&error);
    }
    progress("working on it");
    let done = match command {
        Command::Add => return add(plugin, &request),
        Command::Del => plugin.del(&request).map_err(Error::for_del),
        Command::Check => plugin.check(&request),
        Command::Gc => plugin.gc(&request),
        Command::Status => plugin.status(&request),
        Command::Version => Ok(()),
    };
    match done {
        Ok(()) => {
            // Taking the latch without writing: success of these verbs is silence.
            claim();
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

fn read_request() -> Result<Request, Error> {
    progress("waiting for the end of stdin");
    let stdin = stdin::read_to_end()?;
    call::set_version(Version::of_answer(&stdin));
    let request = Request::parse(environment, stdin)?;
    log::set_level_from(&request.conf);
    for key in &request.args.duplicates {
        log(
            Level::Warning,
            &format!("CNI_ARGS has {key} more than once; the last one counts"),
        );
    }
    Ok(request)
}

/// The plugin must not work on its own namespace (P16). A DEL goes on without one: a process id in
/// `CNI_NETNS` may have passed to a process of the node, and the release must not depend on it.
fn guard_namespace(request: &mut Request) -> Result<(), Error> {
    let Some(path) = request.netns.as_deref().filter(|_| !request.netns_override) else {
        return Ok(());
    };
    if !netns::is_own(path) {
        return Ok(());
    }
    let error = netns::own_namespace(path);
    if request.command == Command::Del {
        log(
            Level::Warning,
            &format!("{}; going on without it", error.msg),
        );
        request.netns = None;
        return Ok(());
    }
    Err(error)
}

fn add(plugin: &impl Plugin, request: &Request) -> ExitCode {
    let result = match plugin.add(request) {
        Ok(result) => result,
        Err(error) => return refuse(&error),
    };
    let document = match result.encode(request.conf.version()) {
        Ok(document) => document,
        Err(error) => {
            progress("taking the ADD back");
            plugin.undo(request);
            return refuse(&error);
        }
    };
    match claim().write(&document, write_limit()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(
                Level::Error,
                &format!("stdout: {error}; taking the ADD back"),
            );
            plugin.undo(request);
            ExitCode::FAILURE
        }
    }
}

/// Answers with an error.
fn refuse(error: &Error) -> ExitCode {
    if let Err(fault) = claim().write(&error.encode(call::version()), write_limit()) {
        log(Level::Error, &format!("stdout: {fault}"));
    }
    log(Level::Error, &error.to_string());
    ExitCode::FAILURE
}

/// Answers with a document that has no effect behind it.
fn conclude(document: &Value) -> ExitCode {
    match claim().write(document, write_limit()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(Level::Error, &format!("stdout: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The right to answer. When another thread has it, that one ends the process.
fn claim() -> Answer {
    Answer::claim().unwrap_or_else(|| answer::wait_for_the_end())
}

/// Until when an answer may take to be written: the deadline, but never less than a moment.
fn write_limit() -> Instant {
    deadline().max(Instant::now() + MOMENT)
}

/// A variable of the environment. What is not UTF-8 is made so, and then fails its own check.
fn environment(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// How long VERSION waits for a stdin that stays open.
const PATIENCE: Duration = Duration::from_millis(200);
/// Least time for writing an answer.
const MOMENT: Duration = Duration::from_millis(200);
