//! An ADD and the DEL that may overtake it: the runtime gave up on the ADD, but its process lives on.

use std::path::Path;
use std::time::{Duration, Instant};

use margay_cni::Request;
use margay_cni::error::{Error, code};
use margay_journal::{Adding as Directory, Assignment, Attachment, Fence, JournalError};
use margay_plugin::{Level, log, progress, remaining};

use crate::hints::state_dir;

/// An ADD that is being carried out.
#[derive(Debug)]
pub struct Adding {
    attachment: Attachment,
    /// `None` where no file can be made; then no DEL can overtake.
    fence: Option<Fence>,
    has_assignment: bool,
}

impl Adding {
    /// Begins an ADD, before anything is read or done. Waits for an earlier ADD of the attachment to end.
    ///
    /// # Errors
    /// Code 11 when that takes too long.
    pub async fn begin(call: &Request, directory: &Directory) -> Result<Self, Error> {
        let attachment = attachment(call);
        let until = Instant::now() + remaining() / 2;
        let fence = loop {
            match directory.begin(&attachment) {
                Ok(Some(fence)) => break Some(fence),
                Ok(None) if Instant::now() < until => {
                    progress("waiting for an earlier ADD of this container to end");
                    tokio::time::sleep(POLL).await;
                }
                Ok(None) => {
                    return Err(Error::new(
                        code::TRY_AGAIN_LATER,
                        format!(
                            "an earlier ADD of {} is still under way, or being taken back",
                            attachment.container_id
                        ),
                    ));
                }
                Err(error) => {
                    log(
                        Level::Warning,
                        &format!("no DEL can overtake this ADD: {error}; check key \"state_dir\""),
                    );
                    break None;
                }
            }
        };
        Ok(Self {
            attachment,
            fence,
            has_assignment: false,
        })
    }

    /// Notes what is about to be assigned and nobody but this call's answer will tell of.
    ///
    /// # Errors
    /// Code 5 when it cannot be noted.
    pub fn assigning(&mut self, node: &str, handle: &str, timestamp: &str) -> Result<(), Error> {
        let Some(fence) = &mut self.fence else {
            return Ok(());
        };
        self.has_assignment = true;
        let assignment = Assignment {
            attachment: self.attachment.clone(),
            node: node.to_owned(),
            handle: handle.to_owned(),
            timestamp: timestamp.to_owned(),
        };
        fence
            .assigning(&assignment)
            .map_err(|error| from_journal(&error))
    }

    /// Ends the ADD, and takes it back by `take_back` where a DEL came in between.
    ///
    /// # Errors
    /// What `done` is; code 112 where a DEL came, 5 where that cannot be told.
    pub async fn end<T>(
        self,
        done: Result<T, Error>,
        take_back: impl AsyncFn() -> Result<(), Error>,
    ) -> Result<T, Error> {
        let Some(fence) = self.fence else {
            return done;
        };
        let refused = match fence.is_overtaken() {
            Ok(false) => None,
            Ok(true) => Some(overtaken(&self.attachment)),
            Err(error) => Some(from_journal(&error)),
        };
        let done = match refused {
            None => done,
            Some(refused) => {
                let error = done.err().unwrap_or(refused);
                Err(taken_back(error, take_back().await))
            }
        };
        // Whether the store did what it was asked is not known: the agent will look.
        if self.has_assignment && done.as_ref().is_err_and(is_unsure) {
            return done;
        }
        match fence.end() {
            Ok(()) => done,
            Err(error) if done.is_ok() => Err(taken_back(from_journal(&error), take_back().await)),
            Err(_) => done,
        }
    }
}

/// Carries out a DEL by `remove`, telling every ADD of the attachment that is under way that it came.
///
/// # Errors
/// What `remove` says.
pub async fn overtaking(
    call: &Request,
    directory: &Directory,
    remove: impl AsyncFnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let attachment = attachment(call);
    let overtake = || match directory.overtake(&attachment) {
        Ok(found) => found,
        Err(error) => {
            log(
                Level::Warning,
                &format!("an ADD that is still under way may go on: {error}"),
            );
            false
        }
    };
    let before = overtake();
    let done = remove().await;
    // Also one that began meanwhile, and may have seen its first half removed.
    let after = overtake();
    if done.is_ok()
        && (before || after)
        && let Err(error) = directory.clear(&attachment)
    {
        log(Level::Warning, &error.to_string());
    }
    done
}

/// Which attachment a call is about.
pub fn attachment(call: &Request) -> Attachment {
    Attachment {
        network: call.conf.name().to_owned(),
        container_id: call.container_id.clone(),
        ifname: call.ifname.clone(),
    }
}

/// Where network plugins' ADDs are noted.
pub fn adding(call: &Request) -> Directory {
    Directory::below(Path::new(state_dir(call.conf.raw())))
}

/// Where IPAM plugins' ADDs are noted.
pub fn adding_addresses(call: &Request) -> Directory {
    Directory::of_addresses(Path::new(state_dir(call.conf.raw())))
}

fn overtaken(attachment: &Attachment) -> Error {
    Error::new(
        code::OVERTAKEN,
        format!(
            "a DEL of {} came while this ADD was under way; nothing is left of it",
            attachment.container_id
        ),
    )
}

fn taken_back(error: Error, taken: Result<(), Error>) -> Error {
    let Err(failed) = taken else {
        return error;
    };
    log(
        Level::Warning,
        &format!("taking the ADD back: {failed}; what is left of it the next DEL removes"),
    );
    let details = format!("taking the ADD back: {failed}");
    Error::new(error.code, error.msg).with_details(details)
}

fn from_journal(error: &JournalError) -> Error {
    Error::new(code::IO, format!("{error}; check key \"state_dir\""))
}

fn is_unsure(error: &Error) -> bool {
    matches!(error.code, code::DATASTORE_UNREACHABLE | code::DEADLINE)
}

const POLL: Duration = Duration::from_millis(5);
