//! What etcd's errors mean for a call: try elsewhere, give up, or find out.

use std::error::Error as _;
use std::io;

use etcd_client::Error;
use tonic::{Code, ConnectError, Status};

/// Why one attempt failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// No connection: nothing was sent.
    Unreached(String),
    /// No answer, or none that says what happened; the request may have been applied.
    Unanswered(String),
    /// The member answered that it cannot serve at the moment; the request may have been applied.
    Busy(String),
    /// The revision is compacted.
    Compacted,
    /// What was named does not exist.
    Missing(String),
    /// Not allowed, or not known.
    Denied(String),
    /// Nothing that another member or time would cure.
    Refused(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => Self::of_status(&status),
            Error::TransportError(error) => Self::Refused(chain(&error)),
            Error::IoError(error) => Self::Unanswered(error.to_string()),
            Error::WatchError(reason)
            | Error::LeaseKeepAliveError(reason)
            | Error::EndpointError(reason)
            | Error::Internal(reason) => Self::Unanswered(reason),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl Fault {
    /// Whether another endpoint may do better.
    pub(crate) fn elsewhere(&self) -> bool {
        matches!(
            self,
            Self::Unreached(_) | Self::Unanswered(_) | Self::Busy(_)
        )
    }

    /// What was said.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Unreached(reason)
            | Self::Unanswered(reason)
            | Self::Busy(reason)
            | Self::Missing(reason)
            | Self::Denied(reason)
            | Self::Refused(reason) => reason,
            Self::Compacted => "the revision is compacted",
        }
    }

    fn of_status(status: &Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            _ if unconnected(status) => Self::Unreached(chain(status)),
            Code::OutOfRange if message.contains("compacted") => Self::Compacted,
            Code::NotFound => Self::Missing(message),
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(message),
            Code::InvalidArgument | Code::FailedPrecondition if about_users(&message) => {
                Self::Denied(message)
            }
            Code::ResourceExhausted if message.contains("space exceeded") => Self::Refused(
                format!("{message}; compact and defragment etcd, then disarm its alarm"),
            ),
            Code::ResourceExhausted if message.starts_with("etcdserver") => Self::Busy(message),
            Code::Unavailable if message.starts_with("etcdserver") => Self::Busy(message),
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::Internal
            | Code::Unknown => Self::Unanswered(chain(status)),
            _ => Self::Refused(message),
        }
    }
}

fn about_users(message: &str) -> bool {
    ["authentication", "user name", "auth"]
        .iter()
        .any(|word| message.contains(word))
}

/// Whether no connection came about, so that nothing was sent.
fn unconnected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        // The connect time-out; one of an open connection would be the system's.
        let timed_out = |error: &io::Error| {
            error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none()
        };
        if error.downcast_ref().is_some_and(timed_out) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The message with its causes, each once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let fault = |code, text: &str| Fault::of_status(&Status::new(code, text));
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert!(matches!(
            fault(Code::OutOfRange, compacted),
            Fault::Compacted
        ));
        let future = "etcdserver: mvcc: required revision is a future revision";
        assert!(matches!(fault(Code::OutOfRange, future), Fault::Refused(_)));
        let leaderless = fault(Code::Unavailable, "etcdserver: no leader");
        assert!(matches!(leaderless, Fault::Busy(_)) && leaderless.elsewhere());
        let broken = fault(Code::Unavailable, "connection reset");
        assert!(matches!(broken, Fault::Unanswered(_)) && broken.elsewhere());
        let password = "etcdserver: authentication failed, invalid user ID or password";
        assert!(matches!(
            fault(Code::InvalidArgument, password),
            Fault::Denied(_)
        ));
        let full = fault(
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
        );
        let Fault::Refused(reason) = full else {
            panic!("{full:?}")
        };
        assert!(reason.contains("defragment"));
        let large = fault(Code::InvalidArgument, "etcdserver: request is too large");
        assert!(matches!(large, Fault::Refused(_)));
    }
}
