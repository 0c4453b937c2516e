//! Puts everything in place: programs, what the configuration names, the configuration.

use std::fs;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;

use crate::error::InstallError;
use crate::foreign::{self, SET_ID};
use crate::place::{Found, Place};
use crate::program;
use crate::record::{self, Kind, Record};
use crate::wanted::{Configuration, Wanted};

/// What one pass did, and what people should know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Files that were placed, corrected or removed.
    pub changed: Vec<PathBuf>,
    /// Why the configuration is not in place yet.
    pub waiting: Option<String>,
    /// Configurations of others that sort before ours.
    pub before: Vec<String>,
    /// Programs that the configuration names and that are not there.
    pub missing: Vec<String>,
    /// Programs of Calico's installer that have root's rights, whoever starts them.
    pub privileged: Vec<PathBuf>,
}

/// The right to keep an installation in place; one process has it at a time, until it ends.
#[derive(Debug)]
pub struct Keeper {
    _lock: Flock<fs::File>,
}

impl Keeper {
    /// Takes the right for the installation of this record.
    ///
    /// # Errors
    /// [`InstallError::Kept`]: another process has it.
    pub fn take(record: &Path) -> Result<Self, InstallError> {
        let (folder, _) = record::parts(record)?;
        Place::open(folder)?;
        let lock = record::keeper(record)?;
        Ok(Self { _lock: lock })
    }
}

/// Puts in place what is not: nothing is written that is right already, and what is there and right is kept
/// whatever `ready` says. A configuration that is missing or different is written when `ready` agrees.
///
/// # Errors
/// The first thing that failed; what comes after it in order has not been touched, so that no configuration
/// names what is not there.
pub fn apply(
    wanted: &Wanted,
    ready: &dyn Fn() -> Result<(), String>,
) -> Result<Done, InstallError> {
    let mut pass = Pass {
        record: Record::open(&wanted.record)?,
        done: Done::default(),
    };
    for dir in &wanted.bin_dirs {
        pass.programs(wanted, &Place::open(dir)?)?;
    }
    for secret in &wanted.secrets {
        let (folder, name) = record::parts(&secret.path)?;
        let place = Place::open(folder)?;
        let wanted = File {
            name: &name,
            kind: Kind::Secret,
            content: &secret.content,
            mode: 0o600,
        };
        pass.file(&place, &wanted, |_| Ok(()))?;
    }
    if let Some(configuration) = &wanted.configuration {
        pass.configuration(wanted, configuration, ready)?;
        let named = configuration.programs();
        pass.done.missing = foreign::missing(&wanted.bin_dirs, named);
        pass.done.before = foreign::before(&wanted.net_dir, configuration.name());
    }
    pass.done.privileged = foreign::privileged(&wanted.bin_dirs);
    Ok(pass.done)
}

/// A file that is to be in place.
#[derive(Debug)]
struct File<'a> {
    name: &'a str,
    kind: Kind,
    content: &'a [u8],
    mode: u32,
}

#[derive(Debug)]
struct Pass {
    record: Record,
    done: Done,
}

impl Pass {
    fn programs(&mut self, wanted: &Wanted, place: &Place) -> Result<(), InstallError> {
        for program in &wanted.programs {
            let content =
                fs::read(&program.source).map_err(InstallError::file("read", &program.source))?;
            let file = File {
                name: &program.name,
                kind: Kind::Program,
                content: &content,
                mode: 0o755,
            };
            if !wanted.update_programs
                && let Found::File {
                    content: held,
                    mode,
                } = place.look(&program.name)?
                && held != content
            {
                // It stays, but not with root's rights for everybody.
                if mode & SET_ID != 0 {
                    place.set_mode(&program.name, mode & !SET_ID)?;
                    self.done.changed.push(place.path_of(&program.name));
                }
                continue;
            }
            self.file(place, &file, program::check)?;
        }
        Ok(())
    }

    fn configuration(
        &mut self,
        wanted: &Wanted,
        configuration: &Configuration,
        ready: &dyn Fn() -> Result<(), String>,
    ) -> Result<(), InstallError> {
        let place = Place::open(&wanted.net_dir)?;
        let file = File {
            name: configuration.name(),
            kind: Kind::Configuration,
            content: configuration.text().as_bytes(),
            mode: configuration.mode(),
        };
        match place.look(file.name)? {
            // In other words, but the same: it is kept as it is.
            Found::File { content, mode } if configuration.is_said_by(&content) => {
                let held = File {
                    content: &content,
                    ..file
                };
                self.keep(&place, &held, mode)?;
            }
            _ => match ready() {
                Ok(()) => self.file(&place, &file, |_| Ok(()))?,
                Err(reason) => {
                    self.done.waiting = Some(reason);
                    return Ok(());
                }
            },
        }
        let mut outdated: Vec<PathBuf> = Vec::new();
        let ours = place.path_of(configuration.name());
        for entry in self.record.files() {
            if entry.kind != Kind::Configuration || entry.path == ours {
                continue;
            }
            // One of an earlier name. What others made of it is theirs.
            if fs::read(&entry.path).is_ok_and(|content| entry.is(&content)) {
                outdated.push(entry.path);
            } else {
                self.record.forget(&entry.path)?;
            }
        }
        let told = wanted.old_name.iter().map(|name| place.path_of(name));
        outdated.extend(told.filter(|path| *path != ours));
        for path in outdated {
            let (folder, name) = record::parts(&path)?;
            if Place::open_existing(folder)?.remove(&name)? {
                self.done.changed.push(path.clone());
            }
            self.record.forget(&path)?;
        }
        Ok(())
    }

    /// Brings one file into place.
    fn file(
        &mut self,
        place: &Place,
        file: &File<'_>,
        check: impl FnOnce(&Path) -> Result<(), InstallError>,
    ) -> Result<(), InstallError> {
        let path = place.path_of(file.name);
        if let Found::File { content, mode } = place.look(file.name)?
            && content == file.content
        {
            return self.keep(place, file, mode);
        }
        self.record.intend(&path, file.kind, file.content)?;
        place.put(file.name, file.content, file.mode, check)?;
        self.record.settle(&path, file.kind, file.content)?;
        self.done.changed.push(path);
        Ok(())
    }

    /// A file that holds what it should stays, with the right permissions.
    fn keep(&mut self, place: &Place, file: &File<'_>, mode: u32) -> Result<(), InstallError> {
        let path = place.path_of(file.name);
        place.sweep(file.name)?;
        self.record.settle(&path, file.kind, file.content)?;
        if mode != file.mode {
            place.set_mode(file.name, file.mode)?;
            self.done.changed.push(path);
        }
        Ok(())
    }
}
