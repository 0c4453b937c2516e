//! The store's word, from wherever it is to the task that owns the state.

use margay_store::Store;
use margay_store::follow::{Event, Follower, Options};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::state::State;

/// Follows what matters and hands it on, until nobody listens. Each change of `accept` is the
/// operator's word that the store is right as it is.
pub async fn follow<S: Store + 'static>(
    store: S,
    seed: u64,
    told: mpsc::Sender<Event>,
    mut accept: watch::Receiver<u64>,
) {
    let options = Options {
        seed,
        ..Options::default()
    };
    let mut follower = Follower::new(store, State::prefixes(), options);
    loop {
        tokio::select! {
            event = follower.next() => {
                say(&event);
                if told.send(event).await.is_err() {
                    return;
                }
            }
            () = told.closed() => return,
            changed = accept.changed() => {
                if changed.is_err() {
                    return;
                }
                follower.accept();
            }
        }
    }
}

fn say(event: &Event) {
    match event {
        Event::Synced { revision, updates } => {
            info!(%revision, updates = updates.len(), "the datastore is followed");
        }
        Event::Changed { .. } => {}
        Event::Lost(error) => {
            warn!(%error, "the datastore is lost; what it said last stays in force");
        }
        Event::Regressed { .. } | Event::Replaced { .. } | Event::Shrunk { .. } => {
            error!(
                "{}; what it said before stays in force until it is right again, or SIGUSR1 tells this \
                 process that it is right as it is",
                held(event).unwrap_or_default()
            );
        }
    }
}

/// Why the store's word is not taken, where it is not.
pub fn held(event: &Event) -> Option<String> {
    match event {
        Event::Regressed { known, found } => Some(format!(
            "the datastore went back from revision {known} to {found}, as after a restored backup"
        )),
        Event::Replaced { lacking } => Some(format!(
            "another datastore answers than the one that was followed, as after a restored backup, and it lacks \
             {lacking} of the objects that were there"
        )),
        Event::Shrunk {
            prefix,
            before,
            after,
        } => Some(format!(
            "of {before} objects below {prefix} the datastore has only {after} left"
        )),
        Event::Synced { .. } | Event::Changed { .. } | Event::Lost(_) => None,
    }
}
