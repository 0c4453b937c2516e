//! The file: where it is, how it is opened, made and checked.

use std::collections::hash_map::DefaultHasher;
use std::fs::{DirBuilder, Metadata, OpenOptions};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use margay_store::{Revision, StoreError, StoreId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::watch;

use crate::error::Fault;

/// One file, with the connection of this client once a call needed it.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    pub(crate) deadline: Duration,
    open: Mutex<Option<Open>>,
    /// The newest revision this client knows, for its watches; and how many of them run.
    pub(crate) news: watch::Sender<Revision>,
    pub(crate) polling: Mutex<bool>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    /// To notice that another file took the path.
    identity: Identity,
}

/// Device, inode, and when the file was made where the file system knows: numbers of inodes are used again.
type Identity = (u64, u64, Option<SystemTime>);

impl File {
    pub(crate) fn new(path: PathBuf, deadline: Duration) -> Self {
        Self {
            path,
            deadline,
            open: Mutex::new(None),
            news: watch::Sender::new(Revision(0)),
            polling: Mutex::new(false),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn failed(&self, operation: &'static str, reason: String) -> StoreError {
        Fault::Refused(reason).into_error(&self.path, operation, self.deadline)
    }

    /// Runs `act` on the connection, which is opened when there is none or the file was replaced. Waits
    /// for other processes until `until`.
    pub(crate) fn with<T>(
        &self,
        until: Instant,
        act: impl FnOnce(&mut Connection, StoreId) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = slot.take().filter(|open| {
            std::fs::metadata(&self.path).is_ok_and(|found| identity(&found) == open.identity)
        });
        let mut open = match kept {
            Some(open) => {
                open.connection.busy_timeout(left(until)?)?;
                open
            }
            None => self.open(until)?,
        };
        let id = store_id(open.identity);
        let result = act(&mut open.connection, id);
        // A connection that met a broken file is not kept: the file may be repaired or replaced.
        if !matches!(&result, Err(Fault::Sqlite(error)) if broken(error)) {
            *slot = Some(open);
        }
        result
    }

    fn open(&self, until: Instant) -> Result<Open, Fault> {
        let found = match std::fs::metadata(&self.path) {
            Ok(found) => found,
            Err(_) => self.create()?,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(left(until)?)?;
        // The log is copied back every so many bytes, by `copy_back`: not by whoever leaves last, and not by
        // SQLite itself, which forgets what it has copied when the last process leaves, and starts over.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // Both numbers as of one moment: another process may be making the tables.
        let schema = |connection: &mut Connection| -> rusqlite::Result<(i32, i32)> {
            let moment = connection.transaction()?;
            let number = |name| moment.pragma_query_value(None, name, |row| row.get(0));
            Ok((number("application_id")?, number("user_version")?))
        };
        match schema(&mut connection)? {
            (APPLICATION_ID, VERSION) => {}
            (0, 0) => initialize(&mut connection, until)?,
            found => check(found)?,
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        Ok(Open {
            connection,
            identity: identity(&found),
        })
    }

    /// Copies the log back into the file and empties it once it is long, so that a process that opens the
    /// file has little to recover. While others read or write, the log stays as it is: a later commit comes
    /// back to it. A disk that refuses is not this call's failure, for what it wrote is in the log.
    pub(crate) fn copy_back(&self, connection: &Connection) {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let long = |log: Metadata| log.len() > LOG_BYTES;
        if std::fs::metadata(log).is_ok_and(long) {
            let tried = connection.busy_timeout(Duration::ZERO).and_then(|()| {
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            });
            drop(tried);
        }
    }

    /// Makes the directory and an empty file that others cannot read.
    fn create(&self) -> Result<Metadata, Fault> {
        if let Some(parent) = self.path.parent().filter(|parent| !parent.exists()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.map_err(|error| Fault::Io("its directory cannot be made", error))?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&self.path);
        file.and_then(|file| file.metadata())
            .map_err(|error| Fault::Io("the file cannot be made", error))
    }
}

/// Makes the tables of an empty file; of several processes that try at once one does it.
fn initialize(connection: &mut Connection, until: Instant) -> Result<(), Fault> {
    // SQLite does not wait for others when it changes the journal's mode.
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Ok(()) => break,
            Err(error) if busy(&error) && left(until).is_ok() => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error.into()),
        }
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |name| transaction.pragma_query_value(None, name, |row| row.get(0));
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION_ID, VERSION) => return Ok(()),
        (0, 0) => {}
        found => return check(found),
    }
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 {
        return check((0, 0));
    }
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Says what is wrong with a file of another kind or version.
fn check((application, version): (i32, i32)) -> Result<(), Fault> {
    if application != APPLICATION_ID {
        return Err(Fault::Foreign(
            "it is another program's SQLite file; set another store_path".to_owned(),
        ));
    }
    if version != VERSION {
        return Err(Fault::Foreign(format!(
            "its schema is version {version}, this program knows {VERSION}; use programs of one release"
        )));
    }
    Ok(())
}

fn left(until: Instant) -> Result<Duration, Fault> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(Fault::Late)
    } else {
        Ok(left)
    }
}

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino(), file.created().ok())
}

/// A backup that takes the file's place is another file.
fn store_id(identity: Identity) -> StoreId {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    StoreId(hasher.finish())
}

fn busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

fn broken(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, SystemIoFailure};
    matches!(
        error.sqlite_error_code(),
        Some(CannotOpen | DatabaseCorrupt | NotADatabase | SystemIoFailure)
    )
}

/// `Marg`, in the file's header.
const APPLICATION_ID: i32 = 0x4d61_7267;
const VERSION: i32 = 1;

/// Length of the log after which a commit copies it back: what some ten pods write.
const LOG_BYTES: u64 = 256 << 10;

/// `kv` is what is there now, `log` every version since the revision compacted to (a null value is a
/// deletion), and for each key the newest version before it.
const SCHEMA: &str = "
CREATE TABLE meta(
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    compacted INTEGER NOT NULL,
    last_lease INTEGER NOT NULL
);
INSERT INTO meta VALUES (1, 1, 0, 0);
CREATE TABLE kv(
    key TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL,
    create_rev INTEGER NOT NULL,
    mod_rev INTEGER NOT NULL,
    lease INTEGER
);
CREATE INDEX kv_lease ON kv(lease) WHERE lease IS NOT NULL;
CREATE TABLE log(
    rev INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB,
    lease INTEGER,
    PRIMARY KEY (rev, seq)
);
CREATE INDEX log_key ON log(key, rev);
CREATE TABLE lease(
    id INTEGER PRIMARY KEY,
    expires_at_unix_ms INTEGER NOT NULL,
    ttl_ms INTEGER NOT NULL
);
CREATE INDEX lease_end ON lease(expires_at_unix_ms);
";
