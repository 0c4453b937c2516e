//! One call of a plugin: its verb, its variables, its stdin.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::args::{Args, RequestedAddress};
use crate::conf::NetConf;
use crate::error::{Error, code, quoted};
use crate::version::Version;

/// What the runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach a container.
    Del,
    /// Verify an attachment.
    Check,
    /// Remove what belongs to no listed attachment.
    Gc,
    /// Tell whether an ADD would succeed now.
    Status,
    /// Tell the supported versions.
    Version,
}

/// A parsed call.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID`; empty for verbs that have none (GC, STATUS, VERSION).
    pub container_id: String,
    /// `CNI_NETNS` as given; `None` when absent or empty.
    pub netns: Option<String>,
    /// `CNI_IFNAME`; empty for verbs that have none.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: Args,
    /// `CNI_PATH`, split; without empty entries.
    pub path: Vec<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: the namespace may be the plugin's own.
    pub netns_override: bool,
    /// The network configuration.
    pub conf: NetConf,
    /// Stdin byte for byte, as a delegate must get it.
    pub stdin: Vec<u8>,
}

impl Command {
    /// The verb as `CNI_COMMAND` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// Whether the verb concerns one attachment.
    pub fn has_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }

    /// The oldest version of the specification that has the verb.
    fn since(self) -> Version {
        match self {
            Self::Add | Self::Del | Self::Version => Version::V0_1_0,
            Self::Check => Version::V0_4_0,
            Self::Gc | Self::Status => Version::V1_1_0,
        }
    }
}

impl FromStr for Command {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [
            Self::Add,
            Self::Del,
            Self::Check,
            Self::Gc,
            Self::Status,
            Self::Version,
        ]
        .into_iter()
        .find(|command| command.as_str() == text)
        .ok_or_else(|| {
            Error::new(
                code::INVALID_ENVIRONMENT,
                format!(
                    "CNI_COMMAND {} is none of ADD, DEL, CHECK, GC, STATUS, VERSION",
                    quoted(text)
                ),
            )
        })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Request {
    /// Reads a call from the environment and the bytes of stdin.
    ///
    /// VERSION has no configuration to check; it is answered with [`Version::report`] instead.
    /// An absent `CNI_COMMAND` is an error here; a program that wants to explain itself to a person
    /// looks for it first (P02).
    ///
    /// # Errors
    /// Code 4 for variables, naming all that are wrong; 6 and 7 for the configuration; 1 for its
    /// version, or a verb that this version does not have.
    pub fn parse(env: impl Fn(&str) -> Option<String>, stdin: Vec<u8>) -> Result<Self, Error> {
        let command: Command = env("CNI_COMMAND").unwrap_or_default().parse()?;
        let variables = Variables::read(command, env)?;
        if stdin.len() > MAX_STDIN {
            return Err(Error::new(
                code::DECODE,
                format!("network configuration is larger than {MAX_STDIN} bytes"),
            ));
        }
        let conf = NetConf::parse(&stdin)?;
        if conf.version() < command.since() {
            return Err(Error::new(
                code::INCOMPATIBLE_VERSION,
                format!("{command} needs cniVersion {} or newer", command.since()),
            )
            .with_details(format!(
                "configuration is {}, supported are {}",
                conf.version(),
                Version::list()
            )));
        }
        Ok(Self {
            command,
            container_id: variables.container_id,
            netns: variables.netns,
            ifname: variables.ifname,
            args: variables.args,
            path: variables.path,
            netns_override: variables.netns_override,
            conf,
            stdin,
        })
    }

    /// The addresses asked for: by the capability `ips`, else by `args.cni.ips`, else by
    /// `CNI_ARGS` (I08).
    ///
    /// # Errors
    /// Code 7 naming the key whose value is no list of addresses.
    pub fn requested_addresses(&self) -> Result<Vec<RequestedAddress>, Error> {
        let capability = self.conf.runtime_config()?.ips;
        if !capability.is_empty() {
            return Ok(capability);
        }
        let args = self.conf.args_ips()?;
        Ok(if args.is_empty() {
            self.args.ips.clone()
        } else {
            args
        })
    }
}

/// The variables of a call, checked.
struct Variables {
    container_id: String,
    netns: Option<String>,
    ifname: String,
    args: Args,
    path: Vec<PathBuf>,
    netns_override: bool,
}

impl Variables {
    fn read(command: Command, env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let given = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut faults = Vec::new();
        let mut required = |name: &str, wanted: bool, check: fn(&str) -> Result<(), String>| {
            let value = wanted.then(|| given(name)).flatten();
            match &value {
                None if wanted => faults.push(format!("{name} is missing")),
                Some(text) => {
                    if let Err(fault) = check(text) {
                        faults.push(format!("{name} {}: {fault}", quoted(text)));
                    }
                }
                None => {}
            }
            value.unwrap_or_default()
        };

        let attachment = command.has_attachment();
        let container_id = required("CNI_CONTAINERID", attachment, check_container_id);
        let ifname = required("CNI_IFNAME", attachment, check_ifname);
        let needs_netns = matches!(command, Command::Add | Command::Check);
        required("CNI_NETNS", needs_netns, check_netns);
        required("CNI_PATH", command == Command::Gc, |_| Ok(()));

        let text = given("CNI_ARGS").filter(|_| attachment).unwrap_or_default();
        let args = if command == Command::Del {
            Args::parse_lenient(&text)
        } else {
            Args::parse(&text).unwrap_or_else(|fault| {
                faults.push(format!("CNI_ARGS: {fault}"));
                Args::default()
            })
        };
        if !faults.is_empty() {
            let names: Vec<_> = faults
                .iter()
                .filter_map(|fault| fault.split([' ', ':']).next())
                .collect();
            let error = if let [fault] = faults.as_slice() {
                Error::new(code::INVALID_ENVIRONMENT, fault.as_str())
            } else {
                // The names come first so that no cut can lose one.
                Error::new(
                    code::INVALID_ENVIRONMENT,
                    format!("invalid {}: {}", names.join(", "), faults.join("; ")),
                )
            };
            return Err(error.with_details(faults.join("; ")));
        }
        Ok(Self {
            container_id,
            netns: given("CNI_NETNS").filter(|_| attachment),
            ifname,
            args,
            path: given("CNI_PATH")
                .unwrap_or_default()
                .split(':')
                .filter(|entry| !entry.is_empty())
                .map(PathBuf::from)
                .collect(),
            netns_override: given("CNI_NETNS_OVERRIDE")
                .is_some_and(|flag| matches!(flag.to_ascii_lowercase().as_str(), "1" | "true")),
        })
    }
}

/// Whether `text` is a name as the specification wants it for container ids and networks.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn check_container_id(text: &str) -> Result<(), String> {
    if text.len() > MAX_CONTAINER_ID {
        return Err(format!("longer than {MAX_CONTAINER_ID} bytes"));
    }
    if !is_name(text) {
        return Err("give letters, digits, '_', '.', '-', beginning with a letter or digit".into());
    }
    Ok(())
}

fn check_ifname(text: &str) -> Result<(), String> {
    if text.len() > MAX_IFNAME {
        return Err(format!("longer than {MAX_IFNAME} bytes"));
    }
    if matches!(text, "." | "..") {
        return Err("not a name".into());
    }
    // '%' makes the kernel take the name for a template.
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%');
    match text.chars().find(|&c| bad(c)) {
        Some(c) => Err(format!("contains {c:?}")),
        None => Ok(()),
    }
}

fn check_netns(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        Err("contains a NUL".into())
    } else {
        Ok(())
    }
}

/// Most bytes that stdin may hold.
pub const MAX_STDIN: usize = 1 << 20;
/// Longest container id, in bytes: it becomes part of keys and file names.
const MAX_CONTAINER_ID: usize = 512;
/// Longest interface name, in bytes (the kernel's IFNAMSIZ without its NUL).
const MAX_IFNAME: usize = 15;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONF: &str = r#"{"cniVersion":"1.1.0","name":"net","type":"margay"}"#;

    fn call(pairs: &[(&str, &str)]) -> Result<Request, Error> {
        call_with(pairs, CONF)
    }

    fn call_with(pairs: &[(&str, &str)], conf: &str) -> Result<Request, Error> {
        let env = |name: &str| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Request::parse(env, conf.as_bytes().to_vec())
    }

    fn add(changes: &[(&'static str, &'static str)]) -> Result<Request, Error> {
        let mut pairs = changes.to_vec();
        pairs.extend([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin::/usr/lib/cni"),
        ]);
        call(&pairs)
    }

    #[test]
    fn p01_unknown_command_is_code_4() {
        for command in ["", "add", "UPDATE"] {
            let error = add(&[("CNI_COMMAND", command)]).unwrap_err();
            assert_eq!(error.code, code::INVALID_ENVIRONMENT, "{command}");
        }
    }

    #[test]
    fn p03_add_reads_every_variable() {
        let request = add(&[("CNI_NETNS_OVERRIDE", "true")]).unwrap();
        assert_eq!(request.netns.as_deref(), Some("/run/netns/x"));
        assert_eq!(
            request.path,
            [PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")]
        );
        assert!(request.netns_override);
        assert_eq!(request.stdin, CONF.as_bytes());
    }

    #[test]
    fn p03_del_needs_no_netns() {
        let pairs = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
        ];
        assert_eq!(call(&pairs).unwrap().netns, None);
        let mut pairs = pairs.to_vec();
        pairs.push(("CNI_NETNS", ""));
        assert_eq!(call(&pairs).unwrap().netns, None);
    }

    #[test]
    fn p03_gc_needs_path_and_status_does_not() {
        let error = call(&[("CNI_COMMAND", "GC")]).unwrap_err();
        assert!(error.msg.contains("CNI_PATH"));
        assert!(call(&[("CNI_COMMAND", "GC"), ("CNI_PATH", "/x")]).is_ok());
        assert!(call(&[("CNI_COMMAND", "STATUS")]).is_ok());
    }

    #[test]
    fn p04_all_offending_variables_are_named() {
        let error = call(&[("CNI_COMMAND", "ADD"), ("CNI_ARGS", "x")]).unwrap_err();
        assert_eq!(error.code, code::INVALID_ENVIRONMENT);
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
            assert!(error.msg.contains(name), "{name} in {}", error.msg);
        }
        let long = "x".repeat(300);
        let pairs = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", &*long),
            ("CNI_IFNAME", &*long),
        ];
        let msg = call(&pairs).unwrap_err().encode(Version::LATEST)["msg"].to_string();
        for name in ["CNI_NETNS", "CNI_IFNAME"] {
            assert!(msg.contains(name), "{name} in {msg}");
        }
    }

    #[test]
    fn p05_container_id() {
        for good in ["a", "0", "a..b", "A_b-c.d", "pod-1"] {
            assert!(check_container_id(good).is_ok(), "{good}");
        }
        for bad in ["..", "-a", ".a", "a/b", "a b", "ä", "a\n", &"a".repeat(513)] {
            assert!(check_container_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn p06_ifname() {
        for good in ["eth0", "a", "123456789012345", "eth0.100", "wlp3s0@x"] {
            assert!(check_ifname(good).is_ok(), "{good}");
        }
        for bad in [
            ".",
            "..",
            "1234567890123456",
            "a/b",
            "a:b",
            "a b",
            "a\u{a0}b",
            "eth%d",
            "a\0",
        ] {
            assert!(check_ifname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn p08_oversize_and_bad_json_are_code_6() {
        let status = [("CNI_COMMAND", "STATUS")];
        for conf in [
            "",
            "{",
            "[]",
            "null",
            "{} {}",
            &format!("{{}}{}", " ".repeat(MAX_STDIN)),
        ] {
            assert_eq!(call_with(&status, conf).unwrap_err().code, code::DECODE);
        }
    }

    #[test]
    fn v05_verbs_need_their_version() {
        let conf = |version: &str| format!(r#"{{"cniVersion":"{version}","name":"n"}}"#);
        let check = [
            ("CNI_COMMAND", "CHECK"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/x"),
        ];
        assert_eq!(call_with(&check, &conf("0.3.1")).unwrap_err().code, 1);
        assert!(call_with(&check, &conf("0.4.0")).is_ok());
        for verb in [
            [("CNI_COMMAND", "STATUS"), ("", "")],
            [("CNI_COMMAND", "GC"), ("CNI_PATH", "/")],
        ] {
            assert_eq!(call_with(&verb, &conf("1.0.0")).unwrap_err().code, 1);
            assert!(call_with(&verb, &conf("1.1.0")).is_ok());
        }
    }

    #[test]
    fn d04_del_passes_over_bad_args() {
        let pairs = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "junk;FOO=1;K8S_POD_NAME=p"),
        ];
        assert_eq!(call(&pairs).unwrap().args.pod_name.as_deref(), Some("p"));
    }

    #[test]
    fn i08_capability_precedes_args_precedes_variable() {
        let pairs = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/x"),
            ("CNI_ARGS", "IP=10.0.0.3"),
        ];
        let asked = |rest: &str| {
            let conf = format!(r#"{{"name":"n"{rest}}}"#);
            let asked = call_with(&pairs, &conf)
                .unwrap()
                .requested_addresses()
                .unwrap();
            asked.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let args = r#","args":{"cni":{"ips":["10.0.0.2"]}}"#;
        assert_eq!(asked(""), ["10.0.0.3"]);
        assert_eq!(asked(args), ["10.0.0.2"]);
        assert_eq!(
            asked(&format!(
                r#"{args},"runtimeConfig":{{"ips":["10.0.0.1/24"]}}"#
            )),
            ["10.0.0.1/24"]
        );
    }

    proptest! {
        #[test]
        fn any_input_is_read_or_refused(
            command in "ADD|DEL|CHECK|GC|STATUS|VERSION|.*",
            id: Option<String>, ifname: Option<String>, args: Option<String>,
            stdin in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let env = |name: &str| match name {
                "CNI_COMMAND" => Some(command.clone()),
                "CNI_CONTAINERID" => id.clone(),
                "CNI_IFNAME" => ifname.clone(),
                "CNI_ARGS" => args.clone(),
                _ => Some("/x".to_owned()),
            };
            if let Ok(request) = Request::parse(env, stdin.clone()) {
                prop_assert_eq!(request.stdin, stdin);
            }
        }
    }
}
