//! Nodes with an agent and our driver, and what is left on them.

use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use margay_integration::{Agent, Driver, Lab, StoreKind, process::run};
use serde_json::{Value, json};

/// Nodes with agents over one SQLite file, and pools of both families.
pub(crate) struct Stage {
    agents: Mutex<Vec<Agent>>,
    pub(crate) store: StoreKind,
    pub(crate) lab: Lab,
}

impl Stage {
    pub(crate) fn new(nodes: usize) -> Self {
        let lab = Lab::new(nodes);
        let store = StoreKind::Sqlite(lab.dir().join("store.db"));
        let stage = Self {
            agents: Mutex::default(),
            store,
            lab,
        };
        for number in 1..=nodes {
            stage.start_agent(number);
        }
        stage
    }

    /// Starts the agent of a node (again).
    pub(crate) fn start_agent(&self, number: usize) {
        let pools = [
            ("CALICO_IPV6POOL_CIDR", "fd80:24e2:f998:72d6::/64"),
            ("FELIX_IPV6SUPPORT", "true"),
            ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Accept"),
            ("IP6", "autodetect"),
        ];
        let agent = Agent::start(self.lab.node(number), &self.store, &pools);
        self.agents.lock().unwrap().push(agent);
    }

    /// Ends all agents at once.
    pub(crate) fn kill_agents(&self) {
        self.agents.lock().unwrap().clear();
    }

    pub(crate) fn driver(&self, number: usize, more: &[&str]) -> Driver {
        Driver::start(self.lab.node(number), &self.store, more)
    }

    pub(crate) fn ctl(&self, arguments: &[&str], stdin: &str) -> String {
        let namespace = self.lab.node(1).namespace();
        self.store.ctl(Some(&namespace), arguments, stdin).ok()
    }

    /// Docker's endpoints, as stored.
    pub(crate) fn endpoints(&self) -> Vec<Value> {
        let all = self.ctl(&["get", "workloadendpoints", "-A", "-o", "json"], "");
        let all: Value = serde_json::from_str(&all).unwrap();
        all["items"].as_array().cloned().unwrap_or_default()
    }

    /// Names of a node's interfaces of ours.
    pub(crate) fn interfaces(&self, number: usize) -> Vec<String> {
        let links = self.lab.node(number).run("ip -o link").ok();
        let names = links
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        names
            .map(|name| {
                name.trim_end_matches(':')
                    .split('@')
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .filter(|name| name.starts_with("cali") || name.starts_with("temp"))
            .collect()
    }

    /// What is wrong with a stage on which nothing should be left of Docker's. The kernel may still be removing
    /// interfaces, for some time.
    pub(crate) fn leftovers(&self) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = self.found();
            if left.is_empty() || Instant::now() > until {
                return left;
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn found(&self) -> String {
        let mut left = String::new();
        for node in self.lab.nodes() {
            for interface in self.interfaces(node.number) {
                left += &format!("{} on {}\n", interface, node.name());
            }
        }
        for endpoint in self.endpoints() {
            left += &format!("endpoint {}\n", endpoint["metadata"]["name"]);
        }
        let held = self.ctl(&["ipam", "check", "--show-all-ips"], "");
        if !held.contains("Found 0 allocated addresses, 0 addresses in use")
            || !held.contains("found no problems")
            || !held.contains(" 0 handles")
        {
            left += &held;
        }
        left
    }
}

/// An id as Docker makes them.
pub(crate) fn id(number: usize) -> String {
    format!("{number:011x}{:053x}", number + 7)
}

/// The calls of `docker network create`.
pub(crate) fn create_network(driver: &Driver, network: &str, subnet: &str) {
    let pool = driver.ok(
        "IpamDriver.RequestPool",
        &json!({"AddressSpace": "CalicoLocalAddressSpace", "Pool": subnet, "SubPool": "", "Options": {},
            "V6": false}),
    );
    let data = json!({"AddressSpace": "CalicoLocalAddressSpace", "Gateway": "0.0.0.0/0", "Pool": pool["Pool"]});
    let options =
        json!({"com.docker.network.enable_ipv6": false, "com.docker.network.generic": {}});
    let request =
        json!({"NetworkID": network, "Options": options, "IPv4Data": [data], "IPv6Data": []});
    driver.ok("NetworkDriver.CreateNetwork", &request);
}

/// The calls of `docker network rm`.
pub(crate) fn remove_network(driver: &Driver, network: &str) {
    let pool = json!({"PoolID": "CalicoPoolIPv4"});
    let gateway = json!({"PoolID": "CalicoPoolIPv4", "Address": "0.0.0.0"});
    driver.ok("IpamDriver.ReleaseAddress", &gateway);
    driver.ok("IpamDriver.ReleasePool", &pool);
    driver.ok(
        "NetworkDriver.DeleteNetwork",
        &json!({"NetworkID": network}),
    );
}

/// The calls of `docker run`, up to the move into a sandbox; the address.
pub(crate) fn attach(driver: &Driver, network: &str, endpoint: &str, wanted: &str) -> String {
    let asked = json!({"PoolID": "CalicoPoolIPv4", "Address": wanted, "Options": null});
    let given = driver.ok("IpamDriver.RequestAddress", &asked);
    let address = given["Address"].as_str().unwrap().to_owned();
    driver.ok(
        "NetworkDriver.CreateEndpoint",
        &creation(network, endpoint, &address),
    );
    driver.ok("NetworkDriver.Join", &joining(network, endpoint));
    address
}

pub(crate) fn creation(network: &str, endpoint: &str, address: &str) -> Value {
    json!({"NetworkID": network, "EndpointID": endpoint,
        "Interface": {"Address": address, "AddressIPv6": "", "MacAddress": ""},
        "Options": {"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []}})
}

pub(crate) fn joining(network: &str, endpoint: &str) -> Value {
    json!({"NetworkID": network, "EndpointID": endpoint, "SandboxKey": "/run/docker/netns/x", "Options": {}})
}

/// The calls of `docker rm -f`.
pub(crate) fn detach(driver: &Driver, network: &str, endpoint: &str, address: &str) {
    let both = json!({"NetworkID": network, "EndpointID": endpoint});
    for call in ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"] {
        driver.ok(&format!("NetworkDriver.{call}"), &both);
    }
    let bare = address.split('/').next().unwrap();
    driver.ok(
        "IpamDriver.ReleaseAddress",
        &json!({"PoolID": "CalicoPoolIPv4", "Address": bare}),
    );
}

/// As Docker does with the container's end: into a sandbox, where it gets its name, address and routes.
pub(crate) fn move_into(stage: &Stage, number: usize, endpoint: &str, sandbox: &str, name: &str) {
    let node = stage.lab.node(number).namespace();
    let interface = format!("temp{}", &endpoint[..11]);
    let mut command = std::process::Command::new("ip");
    command.args([
        "-n", &node, "link", "set", &interface, "netns", sandbox, "name", name,
    ]);
    let _ = run(&mut command, b"").ok();
}

const PATIENCE: Duration = Duration::from_secs(20);
