//! Endpoint-status files: how network plugins and others learn that an endpoint works.
//!
//! One file an endpoint, in the form that Calico's agent writes; there as long as the endpoint's
//! routes are in the kernel.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::files;
use crate::state::Endpoint;

/// The directory, and what was written there.
///
/// The directory is locked as long as this lives, so that plugins know that there is an agent to wait for.
#[derive(Debug)]
pub struct StatusFiles {
    dir: PathBuf,
    lock: Option<File>,
    written: BTreeMap<String, String>,
    swept: bool,
}

/// The content of a file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    iface_name: String,
    mac: String,
    ipv4_nets: Vec<String>,
    ipv6_nets: Vec<String>,
}

impl StatusFiles {
    /// Files in a directory, which is made at the first [`StatusFiles::set`].
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            lock: None,
            written: BTreeMap::new(),
            swept: false,
        }
    }

    /// Makes the directory hold exactly the files of these endpoints; what one operation meets does
    /// not keep the others from being tried. The first time, files of earlier runs are swept.
    ///
    /// # Errors
    /// What could not be done, by file.
    pub fn set<'e>(
        &mut self,
        endpoints: impl IntoIterator<Item = &'e Endpoint>,
    ) -> Result<(), Vec<(PathBuf, io::Error)>> {
        let wanted: BTreeMap<String, String> = endpoints
            .into_iter()
            .map(|endpoint| (file_name(endpoint), content(endpoint)))
            .collect();
        if !self.swept {
            // Unknown content: whatever is there counts as written with another content.
            let found = self
                .list()
                .map_err(|error| vec![(self.dir.clone(), error)])?;
            self.written
                .extend(found.into_iter().map(|name| (name, String::new())));
            self.swept = true;
        }
        let mut failures = Vec::new();
        if self.lock.is_none() {
            match self.locked() {
                Ok(lock) => self.lock = lock,
                Err(error) => failures.push((self.dir.clone(), error)),
            }
        }
        for (name, text) in &wanted {
            if self.written.get(name) == Some(text) {
                continue;
            }
            let path = self.dir.join(name);
            match files::write(&path, text) {
                Ok(_) => {
                    self.written.insert(name.clone(), text.clone());
                }
                Err(error) => failures.push((path, error)),
            }
        }
        let dir = &self.dir;
        self.written.retain(|name, _| {
            if wanted.contains_key(name) {
                return true;
            }
            let path = dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    failures.push((path, error));
                    true
                }
                _ => false,
            }
        });
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures)
        }
    }

    /// The directory, locked; `None` while an agent that has not ended yet has it.
    fn locked(&self) -> io::Result<Option<File>> {
        fs::create_dir_all(&self.dir)?;
        let dir = File::open(&self.dir)?;
        match dir.try_lock() {
            Ok(()) => Ok(Some(dir)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// `<orchestrator> <namespace>%2F<workload> <endpoint>`, each part escaped as a URL's path segment.
pub fn file_name(endpoint: &Endpoint) -> String {
    let workload = format!("{}/{}", endpoint.namespace, endpoint.name.workload);
    [
        &endpoint.name.orchestrator,
        &workload,
        &endpoint.name.endpoint,
    ]
    .map(|part| escape(part))
    .join(" ")
}

fn content(endpoint: &Endpoint) -> String {
    let of = |keep: fn(&IpAddr) -> bool, length: u8| {
        let addresses = endpoint.addresses.iter().filter(|address| keep(address));
        addresses
            .map(|address| format!("{address}/{length}"))
            .collect()
    };
    let status = Status {
        iface_name: endpoint.interface.clone(),
        mac: endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        ipv4_nets: of(IpAddr::is_ipv4, 32),
        ipv6_nets: of(IpAddr::is_ipv6, 128),
    };
    serde_json::json!(status).to_string()
}

/// As Go's `url.PathEscape`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b'$'
            | b'&'
            | b'+'
            | b'='
            | b':'
            | b'@' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use margay_model::names::EndpointName;

    use super::*;

    fn endpoint(workload: &str, addresses: &[&str]) -> Endpoint {
        Endpoint {
            name: EndpointName {
                node: "n1".to_owned(),
                orchestrator: "cni".to_owned(),
                workload: workload.to_owned(),
                endpoint: "eth0".to_owned(),
            },
            namespace: "default".to_owned(),
            interface: "cali1".to_owned(),
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            labels: BTreeMap::new(),
            bandwidth: Default::default(),
        }
    }

    #[test]
    fn names_and_contents_are_those_of_calico() {
        let one = endpoint("c1", &["192.168.0.1", "fd65::1"]);
        assert_eq!(file_name(&one), "cni default%2Fc1 eth0");
        assert_eq!(
            file_name(&endpoint("a b%ü;", &[])),
            "cni default%2Fa%20b%25%C3%BC%3B eth0"
        );
        assert_eq!(
            content(&one),
            r#"{"ifaceName":"cali1","mac":"02:00:00:00:00:01","ipv4Nets":["192.168.0.1/32"],"ipv6Nets":["fd65::1/128"]}"#
        );
    }

    #[test]
    fn the_directory_holds_exactly_what_is_wanted() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("endpoint-status");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cni default%2Fstale eth0"), "{}").unwrap();
        let mut files = StatusFiles::new(dir.clone());
        let names = || {
            let mut names: Vec<_> = fs::read_dir(&dir)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let (a, b) = (endpoint("a", &["192.168.0.1"]), endpoint("b", &[]));
        files.set([&a, &b]).unwrap();
        assert_eq!(names(), ["cni default%2Fa eth0", "cni default%2Fb eth0"]);
        let moved = endpoint("a", &["192.168.0.9"]);
        files.set([&moved]).unwrap();
        assert_eq!(names(), ["cni default%2Fa eth0"]);
        assert!(
            fs::read_to_string(dir.join("cni default%2Fa eth0"))
                .unwrap()
                .contains("0.9/32")
        );
        files.set([]).unwrap();
        assert!(names().is_empty());
        let held = || File::open(&dir).unwrap().try_lock_shared().is_err();
        assert!(held());
        drop(files);
        assert!(!held());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_reported() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("file"), "").unwrap();
        let mut files = StatusFiles::new(top.path().join("file/endpoint-status"));
        assert!(files.set([&endpoint("a", &[])]).is_err());
    }
}
