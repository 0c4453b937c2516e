//! Several processes open a file that does not exist yet, and add to one number at the same time.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use margay_model::{Key, Prefix};
use margay_store::{Batch, Condition, Outcome, Store, Write};
use margay_store_sqlite::Sqlite;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    if let [_, role, path] = arguments.as_slice()
        && role == CHILD
    {
        return runtime.block_on(add(Path::new(path)));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made").join("store.db");
    #[expect(clippy::disallowed_methods, reason = "the test is about processes")]
    let start = |_| {
        Command::new(std::env::current_exe().unwrap())
            .arg(CHILD)
            .arg(&path)
            .spawn()
    };
    let children: Vec<_> = (0..PROCESSES).map(start).collect();
    for child in children {
        assert!(child.unwrap().wait().unwrap().success());
    }
    let store = Sqlite::new(&path, PATIENCE);
    let found = runtime.block_on(store.list(&Prefix::Handles)).unwrap();
    assert_eq!(found.entries.len(), 1);
    assert_eq!(
        found.entries[0].value,
        (PROCESSES * EACH).to_string().into_bytes()
    );
    let commits = i64::try_from(PROCESSES * EACH).unwrap();
    assert_eq!(found.revision.0, 1 + commits, "each addition is one commit");
}

async fn add(path: &Path) {
    let key = Key::Handle("number".to_owned());
    for _ in 0..EACH {
        // As the plugins do: the file is opened for each call.
        let store = Sqlite::new(path, PATIENCE);
        let mut entry = store.get(&key).await.unwrap();
        loop {
            let (count, condition) = match &entry {
                None => (0, Condition::Absent),
                Some(entry) => {
                    let text = std::str::from_utf8(&entry.value).unwrap();
                    (
                        text.parse::<usize>().unwrap(),
                        Condition::At(entry.revision),
                    )
                }
            };
            let write = Write {
                condition,
                ..Write::put(key.clone(), (count + 1).to_string().into_bytes())
            };
            match store.commit(&Batch::of([write])).await.unwrap() {
                Outcome::Committed(_) => break,
                Outcome::Conflict(found) => entry = found.into_iter().next().unwrap(),
            }
        }
    }
}

const CHILD: &str = "add";
const PROCESSES: usize = 6;
const EACH: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);
