//! The daemons that are measured, each configured as a reflector for 10.200.0.0/16.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use margay_bgp::{Families, PeerConfig, RangeConfig, RemoteAs, SpeakerConfig};
use margay_bgp_io::{Settings, start};
use margay_model::scalar::AsNumber;
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// A daemon that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Ours.
    Margay,
    /// BIRD 2.
    Bird,
    /// FRR's bgpd.
    Frr,
    /// GoBGP.
    Gobgp,
}

/// A daemon that runs; it ends with the value.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    _dir: TempDir,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Margay => "margay",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
        }
    }

    fn command(self, own: &Path, dir: &Path) -> Result<Command> {
        let file = |name: &str, text: &str| -> Result<String> {
            let path = dir.join(name);
            std::fs::write(&path, text).context("writing a configuration")?;
            Ok(path.display().to_string())
        };
        let path = |name: &str| dir.join(name).display().to_string();
        let mut command = match self {
            Self::Margay => Command::new(own),
            Self::Bird => Command::new("bird"),
            Self::Frr => Command::new("/usr/lib/frr/bgpd"),
            Self::Gobgp => Command::new("gobgpd"),
        };
        match self {
            Self::Margay => command.arg("reflect"),
            Self::Bird => command.args(["-f", "-c", &file("c", BIRD)?, "-s", &path("s")]),
            Self::Frr => command
                .args([
                    "-f",
                    &file("c", FRR)?,
                    "-i",
                    &path("pid"),
                    "--vty_socket",
                    &path(""),
                ])
                .args(["-l", "10.0.0.1", "-p", "1790", "-Z", "-S", "-P", "0"])
                .args(["-u", "root", "-g", "root"]),
            Self::Gobgp => {
                command.args(["-f", &file("c", GOBGP)?, "--api-hosts", "127.0.0.1:50051"])
            }
        };
        Ok(command)
    }
}

impl Daemon {
    /// Starts a daemon and waits until it listens.
    pub(crate) fn start(kind: Kind, own: &Path) -> Result<Self> {
        let dir = tempfile::tempdir().context("making a directory")?;
        let log = File::create(dir.path().join("log")).context("making a log")?;
        let child = kind
            .command(own, dir.path())?
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing a log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}; scripts/setup installs it", kind.name()))?;
        let daemon = Self { child, _dir: dir };
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(50));
            // Its own socket, not a connection that would be taken for a client.
            let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
            if sockets.contains(LISTENING) || sockets.contains(LISTENING_ANY) {
                return Ok(daemon);
            }
        }
        bail!("{} does not listen", kind.name())
    }

    /// Its CPU time so far, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .context("reading the daemon's times")?;
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks: f64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok())
            .sum();
        Ok(ticks / TICKS)
    }

    /// Its resident memory and the most it ever was, in MB.
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("reading the daemon's memory")?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        let kb = |name: &str| field(name).unwrap_or(f64::NAN) / 1024.0;
        Ok((kb("VmRSS:"), kb("VmHWM:")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Goes into a network namespace of its own, in which all addresses of 10.200.0.0/16 are local.
pub(crate) fn enter_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace; run as root")?;
    for line in [
        "link set lo up",
        "address add 10.0.0.1/32 dev lo",
        "route add local 10.200.0.0/16 dev lo",
    ] {
        let status = Command::new("ip")
            .args(line.split(' '))
            .status()
            .context("running ip")?;
        if !status.success() {
            bail!("ip {line}: {status}");
        }
    }
    Ok(())
}

/// Is a reflector of ours until the process ends.
pub(crate) fn reflect() -> Result<()> {
    let mut speaker = SpeakerConfig::new(AsNumber(64512), [10, 0, 0, 1].into());
    let template = PeerConfig {
        reflector_client: true,
        families: Families::V4,
        ..PeerConfig::new("0.0.0.0".parse()?, RemoteAs::Internal)
    };
    let range = RangeConfig {
        cidr: "10.200.0.0/16".parse()?,
        limit: 65536,
        template,
    };
    speaker.ranges = BTreeMap::from([("nodes".to_owned(), range)]);
    let listen = vec!["10.0.0.1:1790".parse()?];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let settings = Settings {
            listen,
            speaker,
            seed: 1,
            restarting: false,
        };
        let (_handle, mut news) = start(settings)?;
        while news.next().await.is_some() {}
        Ok(())
    })
}

const BIRD: &str = "router id 10.0.0.1; protocol device {}
protocol bgp clients {
    local 10.0.0.1 port 1790 as 64512; neighbor range 10.200.0.0/16 as 64512; strict bind yes;
    multihop; rr client; dynamic name \"c\"; ipv4 { import all; export all; };
}";
const FRR: &str = "router bgp 64512
 bgp router-id 10.0.0.1
 neighbor clients peer-group
 neighbor clients remote-as 64512
 neighbor clients passive
 bgp listen limit 5000
 bgp listen range 10.200.0.0/16 peer-group clients
 address-family ipv4 unicast
  neighbor clients route-reflector-client
 exit-address-family
";
const GOBGP: &str = "[global.config]
as = 64512
router-id = \"10.0.0.1\"
port = 1790
local-address-list = [\"10.0.0.1\"]
[[peer-groups]]
[peer-groups.config]
peer-group-name = \"clients\"
peer-as = 64512
[peer-groups.route-reflector.config]
route-reflector-client = true
route-reflector-cluster-id = \"10.0.0.1\"
[[dynamic-neighbors]]
[dynamic-neighbors.config]
prefix = \"10.200.0.0/16\"
peer-group = \"clients\"
";
/// 10.0.0.1:1790 in state LISTEN, as the kernel prints it on a little-endian machine.
const LISTENING: &str = "0100000A:06FE 00000000:0000 0A";
const LISTENING_ANY: &str = "00000000:06FE 00000000:0000 0A";
/// `USER_HZ`.
const TICKS: f64 = 100.0;
