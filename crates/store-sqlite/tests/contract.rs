//! The contract, kept by clients that share one file.

#![expect(
    clippy::unwrap_used,
    reason = "outside of test functions too, a test may panic"
)]

use std::time::Duration;

use margay_store::contract::Harness;
use margay_store::{Revision, Store};
use margay_store_sqlite::Sqlite;
use rusqlite::Connection;
use tempfile::TempDir;

struct Fresh {
    directory: TempDir,
}

impl Fresh {
    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("made").join("store.db")
    }
}

impl Harness for Fresh {
    type Store = Sqlite;

    fn client(&self) -> Sqlite {
        Sqlite::new(self.path(), Duration::from_secs(20))
    }

    async fn put_raw(&self, path: &str, value: &[u8]) {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
        connection
            .execute("UPDATE meta SET revision = revision + 1", [])
            .unwrap();
        let revision: i64 = connection
            .query_row("SELECT revision FROM meta", [], |row| row.get(0))
            .unwrap();
        connection
            .execute(
                "INSERT INTO kv VALUES (?1, ?2, ?3, ?3, NULL)",
                (path, value, revision),
            )
            .unwrap();
        connection
            .execute(
                "INSERT INTO log VALUES (?1, 0, ?2, ?3, NULL)",
                (revision, path, value),
            )
            .unwrap();
    }

    async fn compact(&self, revision: Revision) {
        self.client().compact(revision).await.unwrap();
    }

    async fn elapse(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

async fn fresh() -> Fresh {
    let fresh = Fresh {
        directory: tempfile::tempdir().unwrap(),
    };
    fresh.client().read_many(&[]).await.unwrap();
    fresh
}

margay_store::contract_tests!(fresh);
