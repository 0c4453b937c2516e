//! Routers between racks: BIRD on two top-of-rack routers in each of two racks, and on a spine.
//!
//! [`Router::on`] and [`Frr`] are single ones, wherever a test wants them.
//!
//! Rack R is subnet R of a [`Lab`]. Its routers have 172.31.R.253 and 172.31.R.252 there, are of AS
//! 65001 + R, and take BGP sessions with any node of the rack that is of another AS. The spine is of
//! AS 65000.

use std::path::PathBuf;
use std::time::Duration;

use crate::lab::{Lab, batch, in_namespace};
use crate::process::{Running, eventually, inside, run};

/// The routers of a lab, while they run.
#[derive(Debug)]
pub struct Routers {
    routers: Vec<Router>,
}

/// One of them.
#[derive(Debug)]
pub struct Router {
    /// Its namespace.
    pub namespace: String,
    /// The rack; `None` for the spine.
    pub rack: Option<usize>,
    bird: Option<Running>,
    control: PathBuf,
}

impl Routers {
    /// Makes them and waits until they know each other.
    pub fn start(lab: &Lab) -> Self {
        let spine = format!("{}-spine", lab.unique());
        let mut names = String::new();
        for name in ["spine", "t0a", "t0b", "t1a", "t1b"] {
            names += &format!("netns add {}-{name}\n", lab.unique());
        }
        batch(None, &names);
        batch(Some(&spine), "link set lo up\n");
        let mut spine_protocols = String::new();
        let mut routers = Vec::new();
        for (number, (name, rack, last)) in TORS.into_iter().enumerate() {
            let namespace = format!("{}-{name}", lab.unique());
            let up = format!("10.255.{number}.0");
            let down = format!("10.255.{number}.1");
            batch(
                Some(&spine),
                &format!(
                    "link add {name} type veth peer name spine netns {namespace}\n\
                     addr add {up}/31 dev {name}\nlink set {name} up\n"
                ),
            );
            batch(
                Some(&lab.fabric()),
                &format!(
                    "link add {name} type veth peer name rack netns {namespace}\n\
                     link set {name} master br{rack} up\n"
                ),
            );
            batch(
                Some(&namespace),
                &format!(
                    "link set lo up\naddr add {down}/31 dev spine\nlink set spine up\n\
                     addr add 172.31.{rack}.{last}/24 dev rack\nlink set rack up\n"
                ),
            );
            let own_as = 65001 + rack;
            spine_protocols += &format!(
                "protocol bgp {name} {{ local {up} as 65000; neighbor {down} as {own_as}; {TIMES} {CHANNEL} }}\n"
            );
            let configuration = format!(
                "{}\nprotocol bgp spine {{ local {down} as {own_as}; neighbor {up} as 65000; {TIMES} {CHANNEL} }}\n\
                 protocol bgp nodes {{ local 172.31.{rack}.{last} as {own_as}; \
                 neighbor range 172.31.{rack}.0/24 external; dynamic name \"node\"; passive on; {TIMES} {CHANNEL} }}\n",
                base(&down)
            );
            routers.push(Router::start(lab, &namespace, Some(rack), &configuration));
        }
        let configuration = format!("{}\n{spine_protocols}", base("10.254.0.1"));
        routers.push(Router::start(lab, &spine, None, &configuration));
        let routers = Self { routers };
        for router in &routers.routers {
            eventually(
                &format!("{} knows the others", router.namespace),
                Duration::from_secs(30),
                || router.established() > 0,
            );
        }
        routers
    }

    /// The routers of a rack.
    pub fn of_rack(&mut self, rack: usize) -> Vec<&mut Router> {
        let own = self.routers.iter_mut();
        own.filter(|router| router.rack == Some(rack)).collect()
    }

    /// Addresses of a rack's routers.
    pub fn addresses(rack: usize) -> [String; 2] {
        [253, 252].map(|last| format!("172.31.{rack}.{last}"))
    }
}

/// FRR's bgpd, without zebra: it forwards nothing, and only speaks.
#[derive(Debug)]
pub struct Frr {
    /// Its namespace.
    pub namespace: String,
    /// Its process.
    pub process: Running,
    sockets: PathBuf,
}

impl Frr {
    /// Starts it on a subnet of a lab, with such addresses and lines of `router bgp`.
    pub fn on(lab: &Lab, subnet: usize, name: &str, addresses: &[&str], lines: &str) -> Self {
        let namespace = attached(lab, subnet, name, addresses);
        let dir = lab.dir().join(&namespace);
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("bgpd.conf");
        std::fs::write(&file, format!("hostname {name}\n{lines}\n")).unwrap();
        let mut bgpd = inside(&namespace, "/usr/lib/frr/bgpd");
        bgpd.arg("-f")
            .arg(&file)
            .arg("-i")
            .arg(dir.join("bgpd.pid"));
        bgpd.arg("--vty_socket").arg(&dir);
        bgpd.args("-Z -S -P 0 -u root -g root --log stdout".split(' '));
        Self {
            process: Running::start(&mut bgpd, &dir.join("bgpd.log")),
            namespace,
            sockets: dir,
        }
    }

    /// What `vtysh` answers.
    pub fn vtysh(&self, words: &str) -> String {
        let mut vtysh = inside(&self.namespace, "vtysh");
        vtysh.arg("--vty_socket").arg(&self.sockets);
        vtysh.args(["-d", "bgpd", "-c", words]);
        run(&mut vtysh, b"").stdout
    }
}

/// Makes a namespace with addresses on a subnet of a lab.
fn attached(lab: &Lab, subnet: usize, name: &str, addresses: &[&str]) -> String {
    let namespace = format!("{}-{name}", lab.unique());
    batch(None, &format!("netns add {namespace}\n"));
    batch(
        Some(&lab.fabric()),
        &format!(
            "link add {name} type veth peer name rack netns {namespace}\n\
             link set {name} master br{subnet} up\n"
        ),
    );
    let mut lines = String::from("link set lo up\nlink set rack up\n");
    for address in addresses {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        lines += &format!("addr add {address} dev rack{nodad}\n");
    }
    batch(Some(&namespace), &lines);
    namespace
}

impl Router {
    /// Starts BIRD on a subnet of a lab, with such addresses and configuration.
    pub fn on(
        lab: &Lab,
        subnet: usize,
        name: &str,
        addresses: &[&str],
        configuration: &str,
    ) -> Self {
        let namespace = attached(lab, subnet, name, addresses);
        Self::start(lab, &namespace, None, configuration)
    }

    /// Gives BIRD another configuration.
    pub fn configure(&self, configuration: &str) {
        let file = self.control.with_file_name("bird.conf");
        std::fs::write(&file, configuration).unwrap();
        let told = self.birdc("configure");
        assert!(told.contains("Reconfigur"), "{told}");
    }

    fn start(lab: &Lab, namespace: &str, rack: Option<usize>, configuration: &str) -> Self {
        for setting in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.fib_multipath_hash_policy=1",
        ] {
            let _ = in_namespace(namespace, &format!("sysctl -qw {setting}")).ok();
        }
        let dir = lab.dir().join(namespace);
        std::fs::create_dir_all(&dir).unwrap();
        let (file, control) = (dir.join("bird.conf"), dir.join("bird.ctl"));
        std::fs::write(&file, configuration).unwrap();
        let mut bird = inside(namespace, "bird");
        bird.arg("-f").arg("-c").arg(&file).arg("-s").arg(&control);
        bird.arg("-P").arg(dir.join("bird.pid"));
        let bird = Running::start(&mut bird, &dir.join("bird.log"));
        Self {
            namespace: namespace.to_owned(),
            rack,
            bird: Some(bird),
            control,
        }
    }

    /// What `birdc` answers.
    pub fn birdc(&self, words: &str) -> String {
        let control = self.control.display();
        in_namespace(&self.namespace, &format!("birdc -s {control} {words}")).stdout
    }

    /// How many of its BGP sessions are established.
    pub fn established(&self) -> usize {
        let shown = self.birdc("show protocols");
        shown
            .lines()
            .filter(|line| line.contains("Established"))
            .count()
    }

    /// Its routes in the kernel.
    pub fn routes(&self) -> String {
        in_namespace(&self.namespace, "ip route").ok()
    }

    /// Power off: the process is gone and the links are down, and nobody is told.
    pub fn die(&mut self) {
        for link in ["rack", "spine"] {
            let _ = in_namespace(&self.namespace, &format!("ip link set {link} down"));
        }
        if let Some(mut bird) = self.bird.take() {
            bird.kill();
        }
    }
}

fn base(router_id: &str) -> String {
    format!(
        "router id {router_id};\nlog stderr all;\nprotocol device {{ scan time 1; }}\n\
         protocol direct {{ ipv4; interface \"rack\"; }}\n\
         protocol kernel {{ merge paths on; ipv4 {{ import none; export where source != RTS_DEVICE; }}; }}"
    )
}

const TORS: [(&str, usize, u8); 4] = [
    ("t0a", 0, 253),
    ("t0b", 0, 252),
    ("t1a", 1, 253),
    ("t1b", 1, 252),
];
const TIMES: &str = "hold time 9; keepalive time 3; connect delay time 1; connect retry time 1; error wait time 1, 2;";
const CHANNEL: &str = "ipv4 { import all; export all; next hop self; };";
