//! A network namespace with a loopback interface, programs that run in it, and speakers of ours.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use margay_bgp::{
    AddPath, BestRoute, Event, LocalRoute, PeerConfig, Policy, RemoteAs, SpeakerConfig, State,
};
use margay_bgp_io::{Handle, Settings, start};
use margay_model::Cidr;
use margay_model::scalar::AsNumber;
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// The port everybody listens on, each on an address of its own.
const PORT: u16 = 1790;

/// Where the programs of a test run; they end with it.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    children: Mutex<BTreeMap<String, Child>>,
}

/// A speaker of ours with what it told.
pub(crate) struct Node {
    pub(crate) handle: Handle,
    pub(crate) told: Arc<Mutex<Told>>,
}

#[derive(Default)]
pub(crate) struct Told {
    pub(crate) fib: BTreeMap<Cidr, Arc<BestRoute>>,
    pub(crate) events: Vec<Event>,
    /// How often a prefix lost its last route.
    pub(crate) losses: Vec<Cidr>,
    pub(crate) converged: bool,
}

/// Runs a test in a network namespace of its own, on a runtime of its own.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(Arc<Lab>) -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("the test runs as root");
        let lab = Arc::new(Lab {
            dir: tempfile::tempdir().unwrap(),
            children: Mutex::new(BTreeMap::new()),
        });
        lab.command("ip", &["link", "set", "lo", "up"]);
        for host in 1..=5 {
            lab.command(
                "ip",
                &["address", "add", &format!("10.0.0.{host}/32"), "dev", "lo"],
            );
            let address = format!("fd00::{host}/128");
            lab.command("ip", &["address", "add", &address, "dev", "lo", "nodad"]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(lab));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Lab {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a program to its end.
    pub(crate) fn output(&self, program: &str, args: &[&str]) -> Output {
        Command::new(program)
            .args(args)
            .output()
            .unwrap_or_else(|error| {
                panic!("{program}: {error}; scripts/setup installs it");
            })
    }

    pub(crate) fn command(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a program that runs until the test ends or [`Lab::kill`].
    pub(crate) fn spawn(&self, name: &str, program: &str, args: &[&str], env: &[(&str, &str)]) {
        let log = fs::File::create(self.path(&format!("{name}.log"))).unwrap();
        let child = Command::new(program)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; scripts/setup installs it"));
        self.children.lock().unwrap().insert(name.to_owned(), child);
    }

    /// Kills a program as a crash would.
    pub(crate) fn kill(&self, name: &str) {
        if let Some(mut child) = self.children.lock().unwrap().remove(name) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until what `ask` is answered to a question holds what is wanted.
    pub(crate) async fn shows(
        &self,
        daemon: &str,
        question: &str,
        wanted: &str,
        ask: impl Fn(&Self, &str) -> String,
    ) {
        eventually(&format!("{question}: {wanted}"), || {
            let shown = ask(self, question);
            if shown.contains(wanted) {
                Ok(())
            } else {
                Err(format!("{shown}\n{}", self.log(daemon)))
            }
        })
        .await;
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self.children.lock().unwrap().values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A configuration of ours, at 10.0.0.HOST.
pub(crate) fn config(asn: u32, host: u8) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(AsNumber(asn), [10, 0, 0, host].into());
    config.address_v6 = Some(format!("fd00::{host}").parse().unwrap());
    config
}

/// A peer at an address, ours being `source`; everything is taken and told.
pub(crate) fn peer(address: &str, source: &str, asn: u32) -> PeerConfig {
    let mut peer = PeerConfig::new(address.parse().unwrap(), RemoteAs::Is(AsNumber(asn)));
    peer.port = PORT;
    peer.source = Some(source.parse().unwrap());
    peer.timers.connect_retry = Duration::from_secs(1);
    peer.import = Some(Policy::accept_all());
    peer.export = Some(Policy::accept_all());
    peer
}

impl Node {
    pub(crate) fn start(host: u8, config: SpeakerConfig, restarting: bool) -> Self {
        let listen = [
            format!("10.0.0.{host}:{PORT}"),
            format!("[fd00::{host}]:{PORT}"),
        ];
        let listen = listen.map(|address| address.parse().unwrap()).to_vec();
        let settings = Settings {
            listen,
            speaker: config,
            seed: u64::from(host),
            restarting,
        };
        let (handle, mut news) = start(settings).unwrap();
        let told: Arc<Mutex<Told>> = Arc::default();
        let notes = Arc::clone(&told);
        tokio::spawn(async move {
            while let Some(news) = news.next().await {
                let mut told = notes.lock().unwrap();
                assert!(
                    news.password_errors.is_empty(),
                    "{:?}",
                    news.password_errors
                );
                for (prefix, best) in news.best {
                    match best {
                        Some(best) => {
                            told.fib.insert(prefix, best);
                        }
                        None => {
                            told.fib.remove(&prefix);
                            told.losses.push(prefix);
                        }
                    }
                }
                told.events.extend(news.events);
                told.converged |= news.converged;
            }
        });
        Self { handle, told }
    }

    pub(crate) async fn announce(&self, prefixes: &[&str]) {
        let routes = prefixes
            .iter()
            .map(|prefix| LocalRoute::new(prefix.parse().unwrap()));
        self.handle.announce(routes.collect()).await.unwrap();
    }

    pub(crate) async fn status(&self, name: &str) -> margay_bgp::PeerStatus {
        let peers = self.handle.peers().await.unwrap().peers;
        peers.into_iter().find(|peer| &*peer.name == name).unwrap()
    }

    /// Waits for the session with a peer.
    pub(crate) async fn up(&self, name: &str) {
        for _ in 0..PATIENCE {
            if self.status(name).await.state == State::Established {
                return;
            }
            sleep(PAUSE).await;
        }
        let events = &self.told.lock().unwrap().events;
        panic!("{name} is not up: {events:#?}");
    }

    /// The next hops of a prefix.
    pub(crate) fn next_hops(&self, prefix: &str) -> Option<Vec<String>> {
        let told = self.told.lock().unwrap();
        let best = told.fib.get(&prefix.parse().unwrap())?;
        Some(best.next_hops.iter().map(ToString::to_string).collect())
    }

    /// Waits for a prefix to have these next hops.
    pub(crate) async fn learns(&self, prefix: &str, next_hops: &[&str]) {
        eventually(&format!("{prefix} via {next_hops:?}"), || {
            let found = self.next_hops(prefix);
            if found.as_deref().is_some_and(|found| found == next_hops) {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
    }

    pub(crate) async fn loses(&self, prefix: &str) {
        eventually(&format!("{prefix} gone"), || match self.next_hops(prefix) {
            None => Ok(()),
            found => Err(format!("{found:?}")),
        })
        .await;
    }
}

/// A reflector of ours at 10.0.0.1 with three clients, told and asked for several paths: the daemon of this name at
/// 10.0.0.2, and speakers of ours at 10.0.0.3 and 10.0.0.4, which both announce 10.96.0.1/32. The reflector and those two.
pub(crate) async fn reflecting(daemon: &str) -> (Node, Vec<Node>) {
    let mut reflector = config(64512, 1);
    for (name, address) in [(daemon, "10.0.0.2"), ("n3", "10.0.0.3"), ("n4", "10.0.0.4")] {
        let mut client = peer(address, "10.0.0.1", 64512);
        client.reflector_client = true;
        client.add_path = AddPath {
            receive: true,
            send: 8,
        };
        reflector.peers.insert(name.into(), client);
    }
    let reflector = Node::start(1, reflector, false);
    let mut nodes = Vec::new();
    for host in [3, 4] {
        let mut ours = config(64512, host);
        let far = peer("10.0.0.1", &format!("10.0.0.{host}"), 64512);
        ours.peers.insert("rr".into(), far);
        let node = Node::start(host, ours, false);
        node.announce(&["10.96.0.1/32"]).await;
        nodes.push(node);
    }
    (reflector, nodes)
}

/// Three clients of ours of the daemon at 10.0.0.2, a reflector with the cluster id 2.2.2.2: what two of them announce
/// reaches the third by both paths.
pub(crate) async fn reflected_by(daemon: &str) {
    let mut nodes = Vec::new();
    for host in [1, 3, 4] {
        let mut ours = config(64512, host);
        ours.multipath = NonZeroUsize::new(4).unwrap();
        let mut far = peer("10.0.0.2", &format!("10.0.0.{host}"), 64512);
        far.add_path.receive = true;
        ours.peers.insert(daemon.into(), far);
        nodes.push(Node::start(host, ours, false));
    }
    nodes[1].announce(&["10.96.0.1/32"]).await;
    nodes[2].announce(&["10.96.0.1/32"]).await;
    let both = ["10.0.0.3", "10.0.0.4"];
    nodes[0].learns("10.96.0.1/32", &both).await;
    let told = nodes[0].told.lock().unwrap();
    let best = &told.fib[&"10.96.0.1/32".parse().unwrap()].attributes;
    assert_eq!(
        best.cluster_list,
        ["2.2.2.2".parse::<std::net::Ipv4Addr>().unwrap()]
    );
}

/// Waits until a check succeeds; fails with its last complaint.
pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    loop {
        match check() {
            Ok(()) => return,
            Err(found) if start.elapsed() > PAUSE * PATIENCE => {
                panic!("waited in vain for {what}; found {found}");
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

const PAUSE: Duration = Duration::from_millis(100);
const PATIENCE: u32 = 400;
