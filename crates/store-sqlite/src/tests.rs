use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use margay_model::{Key, Prefix};
use margay_store::{Batch, Outcome, Revision, Store, StoreError, Write};
use rusqlite::Connection;

use crate::{KEPT_REVISIONS, Sqlite};

fn handle(number: usize) -> Key {
    Key::Handle(format!("h{number}"))
}

fn put(number: usize, value: Vec<u8>) -> Batch {
    Batch::of([Write::put(handle(number), value)])
}

fn reason(error: &StoreError) -> String {
    error.to_string()
}

async fn commit(store: &Sqlite, batch: Batch) -> Revision {
    match store.commit(&batch).await {
        Ok(Outcome::Committed(revision)) => revision,
        other => panic!("not committed: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_made_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/store.db");
    commit(&Sqlite::new(&path, PATIENCE), put(1, vec![])).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path) & 0o777, 0o600);
    assert_eq!(mode(&path.with_extension("db-wal")) & 0o777, 0o600);
    assert_eq!(mode(path.parent().unwrap()) & 0o777, 0o700);
}

#[tokio::test]
async fn commits_outlive_their_client() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let revision = commit(&Sqlite::new(&path, PATIENCE), put(1, b"kept".to_vec())).await;
    let entry = Sqlite::new(&path, PATIENCE)
        .get(&handle(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (entry.value.as_slice(), entry.revision),
        (b"kept".as_slice(), revision)
    );
}

#[tokio::test]
async fn the_log_stays_short_though_every_process_writes_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut longest = 0;
    for number in 0..300 {
        commit(
            &Sqlite::new(&path, PATIENCE),
            put(number % 3, vec![7; 2048]),
        )
        .await;
        longest = longest.max(path.with_extension("db-wal").metadata().unwrap().len());
    }
    // What one commit writes comes on top of the length at which the log is copied back.
    assert!(longest < 512 << 10, "the log grew to {longest} bytes");
    let last = Sqlite::new(&path, PATIENCE).get(&handle(2)).await.unwrap();
    assert_eq!(last.unwrap().value.len(), 2048);
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("notes.txt");
    std::fs::write(&text, "no database at all, ".repeat(100)).unwrap();
    let theirs = directory.path().join("theirs.db");
    Connection::open(&theirs)
        .unwrap()
        .execute("CREATE TABLE t(x)", [])
        .unwrap();
    for (path, word) in [(&text, "no SQLite file"), (&theirs, "another program")] {
        let before = std::fs::read(path).unwrap();
        let error = Sqlite::new(path, PATIENCE)
            .list(&Prefix::Ipam)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
        assert!(reason(&error).contains(word), "{error}");
        assert!(reason(&error).contains(path.to_str().unwrap()), "{error}");
        if path == &text {
            assert_eq!(std::fs::read(path).unwrap(), before);
        }
    }
    let tables: i64 = Connection::open(&theirs)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn another_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    commit(&Sqlite::new(&path, PATIENCE), put(1, vec![])).await;
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 9)
        .unwrap();
    let error = Sqlite::new(&path, PATIENCE)
        .list(&Prefix::Ipam)
        .await
        .unwrap_err();
    assert!(reason(&error).contains("version 9"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_reported_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = Sqlite::new(&path, PATIENCE);
    for number in 0..50 {
        commit(&store, put(number, vec![7; 2000])).await;
    }
    Connection::open(&path)
        .unwrap()
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0xaa);
    std::fs::write(&path, bytes).unwrap();
    let error = Sqlite::new(&path, PATIENCE)
        .list(&Prefix::Ipam)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    assert!(reason(&error).contains("backup"), "{error}");
}

#[tokio::test]
async fn places_that_cannot_be_written_are_reported() {
    for (path, expected) in [
        ("/sys/margay/store.db", "set store_path"),
        ("/dev/null/store.db", "/dev/null/store.db"),
    ] {
        let error = Sqlite::new(path, PATIENCE)
            .list(&Prefix::Ipam)
            .await
            .unwrap_err();
        let kind = matches!(
            error,
            StoreError::Denied { .. } | StoreError::Unavailable { .. }
        );
        assert!(kind, "{error:?}");
        assert!(reason(&error).contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_full_disk_applies_nothing_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::new(directory.path().join("store.db"), PATIENCE);
    let kept = commit(&store, put(1, vec![])).await;
    let until = Instant::now() + PATIENCE;
    let pages = |pages: i64| {
        let set = store.file.with(until, |connection, _| {
            Ok(connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?)
        });
        set.unwrap();
    };
    pages(1);
    let error = store.commit(&put(2, vec![7; 100_000])).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    assert!(reason(&error).contains("free space"), "{error}");
    let all = store.list(&Prefix::Handles).await.unwrap();
    assert_eq!((all.revision, all.entries.len()), (kept, 1));
    pages(1_000_000);
    commit(&store, put(2, vec![7; 100_000])).await;
}

#[tokio::test]
async fn a_writer_that_blocks_costs_no_more_than_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = Sqlite::new(&path, Duration::from_millis(300));
    commit(&store, put(1, vec![])).await;
    let blocker = Connection::open(&path).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Instant::now();
    let error = store.commit(&put(2, vec![])).await.unwrap_err();
    assert!(matches!(error, StoreError::Deadline { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(
        store.list(&Prefix::Handles).await.unwrap().entries.len(),
        1,
        "reads go on"
    );
    blocker.execute_batch("ROLLBACK").unwrap();
    commit(&store, put(2, vec![])).await;
}

#[tokio::test]
async fn a_replaced_file_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = Sqlite::new(&path, PATIENCE);
    for number in 0..5 {
        commit(&store, put(number, vec![])).await;
    }
    let before = store.list(&Prefix::Handles).await.unwrap();
    let now = before.revision;
    let mut watch = store.watch(&Prefix::Handles, now).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", path.display())).unwrap();
    }
    let told = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
    assert!(
        matches!(told, Some(Err(StoreError::Unavailable { .. }))),
        "{told:?}"
    );
    let after = store.list(&Prefix::Handles).await.unwrap();
    assert!(after.entries.is_empty());
    assert_ne!(before.store, after.store);
}

#[tokio::test]
async fn history_is_kept_so_far_and_no_further() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = Sqlite::new(&path, PATIENCE);
    let first = commit(&store, put(1, b"1".to_vec())).await;
    let second = commit(&store, put(2, b"2".to_vec())).await;
    // As if many commits had been made since.
    let later = second.0 + 2 * KEPT_REVISIONS;
    let connection = Connection::open(&path).unwrap();
    connection
        .execute("UPDATE meta SET revision = ?1", [later])
        .unwrap();
    let newest = commit(&store, put(1, b"3".to_vec())).await;
    let gone = store
        .list_page(&Prefix::Handles, None, 9, Some(first))
        .await;
    assert!(
        matches!(gone, Err(StoreError::Compacted { .. })),
        "{gone:?}"
    );
    let kept = Revision(newest.0 - KEPT_REVISIONS);
    let page = store
        .list_page(&Prefix::Handles, None, 9, Some(kept))
        .await
        .unwrap();
    let values: Vec<_> = page.entries.into_iter().map(|entry| entry.value).collect();
    assert_eq!(values, [b"1", b"2"]);
}

#[tokio::test]
async fn watches_see_what_other_clients_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let (reader, writer) = (Sqlite::new(&path, PATIENCE), Sqlite::new(&path, PATIENCE));
    let now = reader.list(&Prefix::Handles).await.unwrap().revision;
    let mut watch = reader.watch(&Prefix::Handles, now).await.unwrap();
    for number in 0..3 {
        let revision = commit(&writer, put(number, vec![])).await;
        let told = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
        assert_eq!(told.unwrap().unwrap().revision, revision);
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
