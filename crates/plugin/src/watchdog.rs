//! The thread that ends the process when its time is over.

use std::thread;
use std::time::{Duration, Instant};

use margay_cni::Error;

use crate::answer::{self, Answer};
use crate::call;
use crate::delegate;
use crate::log::{Level, log};

/// Starts the thread.
pub(crate) fn start() -> Result<(), Error> {
    thread::Builder::new()
        .name("watchdog".into())
        .spawn(watch)
        .map(drop)
        .map_err(|source| Error::kernel("no thread for the watchdog", &source))
}

fn watch() {
    while Instant::now() < call::deadline() {
        thread::sleep(call::remaining());
    }
    let error = call::deadline_error();
    let error = if call::is_del() {
        error.for_del()
    } else {
        error
    };
    if let Some(answer) = Answer::claim() {
        // The process ends anyway; an answer that nobody takes changes nothing.
        let document = error.encode(call::version());
        let _ = answer.write(&document, Instant::now() + LAST_WORDS);
    } else {
        // The answer is being given, or an ADD that nobody heard of is being taken back.
        thread::sleep(UNDO_GRACE);
    }
    delegate::kill_running();
    log(Level::Error, &error.to_string());
    answer::leave()
}

/// Time for the answer.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Time for [`crate::Plugin::undo`].
const UNDO_GRACE: Duration = Duration::from_secs(10);
