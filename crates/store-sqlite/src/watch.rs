//! Watches: the file is polled for a new revision, and history is read when there is one.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use margay_store::{Changes, Revision, StoreError, Watch};
use tokio::sync::{mpsc, watch};

use crate::Sqlite;
use crate::file::File;

impl Sqlite {
    pub(crate) async fn start_watch(
        &self,
        prefix: String,
        after: Revision,
    ) -> Result<Watch, StoreError> {
        // Opening the file here makes the caller see what is wrong with it.
        let revision = self.read("watch", |tables| Ok(tables.revision())).await?;
        let news = self.file.news.subscribe();
        self.file.announce(revision);
        self.poll();
        let (sender, watch) = Watch::channel(CHANNEL);
        tokio::spawn(feed(self.clone(), prefix, after, news, sender));
        Ok(watch)
    }

    /// Starts the task that notices what other processes write, unless it runs. It ends with the last
    /// watch, or with the last client.
    fn poll(&self) {
        let mut polling = self
            .file
            .polling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *polling, true) {
            tokio::spawn(poll(Arc::downgrade(&self.file)));
        }
    }
}

async fn poll(file: Weak<File>) {
    loop {
        tokio::time::sleep(POLL).await;
        let Some(file) = file.upgrade() else { return };
        {
            let mut polling = file.polling.lock().unwrap_or_else(PoisonError::into_inner);
            if file.news.receiver_count() == 0 {
                *polling = false;
                return;
            }
        }
        let client = Sqlite { file };
        match client.read("watch", |tables| Ok(tables.revision())).await {
            Ok(revision) => client.file.announce(revision),
            // Each watch reads for itself, and tells its owner the error.
            Err(_) => client.file.news.send_modify(|_| {}),
        }
    }
}

async fn feed(
    client: Sqlite,
    prefix: String,
    after: Revision,
    mut news: watch::Receiver<Revision>,
    sender: mpsc::Sender<Result<Changes, StoreError>>,
) {
    let prefix: Arc<str> = prefix.into();
    let mut done = after;
    loop {
        let newest = *news.borrow_and_update();
        loop {
            let range = Arc::clone(&prefix);
            let read = client
                .read("watch", move |tables| tables.changes(&range, done))
                .await;
            let (found, until) = match read {
                Ok(read) => read,
                Err(error) => {
                    // A reader that is gone needs no error.
                    sender.send(Err(error)).await.ok();
                    return;
                }
            };
            if until < done {
                let error = StoreError::Unavailable {
                    target: client.path().display().to_string(),
                    reason: format!("its revision went back from {done} to {until}"),
                };
                sender.send(Err(error)).await.ok();
                return;
            }
            for changes in found {
                if sender.send(Ok(changes)).await.is_err() {
                    return;
                }
            }
            done = until;
            if done >= newest {
                break;
            }
        }
        while tokio::time::timeout(READER_CHECK, news.changed())
            .await
            .is_err()
        {
            if sender.is_closed() {
                return;
            }
        }
    }
}

/// How often the file is asked for its revision while a watch runs.
const POLL: Duration = Duration::from_millis(50);

/// How often an idle watch looks whether its reader is still there.
const READER_CHECK: Duration = Duration::from_secs(1);

/// Revisions that a watch's reader may be late before history is read no further.
const CHANNEL: usize = 64;
