//! What commands do, and what they show.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser;
use margay_model::Key;
use margay_store::{Memory, Store};
use margayctl::cli::Cli;
use margayctl::{Streams, begin, run};
use serde_json::{Value, json};

/// A store and what was said last.
struct Session {
    store: Memory,
    warnings: String,
}

impl Session {
    fn new() -> Self {
        Self {
            store: Memory::new(),
            warnings: String::new(),
        }
    }

    /// Runs a command with this standard input; its output, or its error.
    async fn with_input(&mut self, line: &str, input: &str) -> Result<String, String> {
        let words = line.split(' ').map(|word| word.replace('\u{a0}', " "));
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut input = input.as_bytes();
        let mut streams = Streams {
            input: &mut input,
            out: &mut out,
            err: &mut err,
        };
        let result = match begin(cli.command, &mut streams).await {
            Ok(Some(command)) => run(&self.store, command, &mut streams).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.warnings = String::from_utf8(err).unwrap();
        let out = String::from_utf8(out).unwrap();
        match result {
            Ok(()) => Ok(out),
            Err(error) => Err(format!("{out}{error:#}")),
        }
    }

    async fn run(&mut self, line: &str) -> Result<String, String> {
        self.with_input(line, "").await
    }

    async fn apply(&mut self, text: &str) -> String {
        self.with_input("margayctl apply -f -", text).await.unwrap()
    }
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("margayctl-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("inner")).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const POOL: &str = "
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool-a}
spec: {cidr: 10.65.0.0/16, ipipMode: Never, vxlanMode: CrossSubnet, natOutgoing: true, nodeSelector: all()}
";

const NODES: &str = "
apiVersion: projectcalico.org/v3
kind: List
items:
- apiVersion: projectcalico.org/v3
  kind: Node
  metadata: {name: n1, labels: {rack: r1}}
  spec: {bgp: {ipv4Address: 10.0.0.1/24}}
- apiVersion: projectcalico.org/v3
  kind: Node
  metadata: {name: n2}
  spec: {bgp: {ipv4Address: 10.0.0.2/24, asNumber: 64513}}
";

const ENDPOINT: &str = "
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-k8s-web--0-eth0, namespace: prod}
spec: {orchestrator: k8s, node: n1, containerID: c1, pod: web-0, endpoint: eth0,
  ipNetworks: [10.65.0.0/32], interfaceName: cali1, profiles: [kns.prod, ksa.prod.default]}
";

#[tokio::test]
async fn messages_are_those_of_calicoctl() {
    let mut session = Session::new();
    let said = session
        .with_input("margayctl create -f -", POOL)
        .await
        .unwrap();
    assert_eq!(said, "Successfully created 1 'IPPool' resource(s)\n");
    let said = session
        .with_input("margayctl create -f -", POOL)
        .await
        .unwrap_err();
    assert_eq!(
        said,
        "Failed to create 'IPPool' resource: standard input, document 1: resource already exists: IPPool(pool-a)"
    );
    let said = session
        .with_input("margayctl create -f - --skip-exists", POOL)
        .await
        .unwrap();
    assert_eq!(said, "Successfully created 1 'IPPool' resource(s)\n");
    assert_eq!(
        session.apply(NODES).await,
        "Successfully applied 2 'Node' resource(s)\n"
    );
    let both = format!("{POOL}---{NODES}");
    assert_eq!(
        session.apply(&both).await,
        "Successfully applied 3 resource(s)\n"
    );
    let said = session
        .with_input("margayctl replace -f -", ENDPOINT)
        .await
        .unwrap_err();
    assert!(
        said.contains("Failed to replace 'WorkloadEndpoint' resource"),
        "{said}"
    );
    assert!(
        said.contains("does not exist: WorkloadEndpoint(prod/n1-k8s-web--0-eth0)"),
        "{said}"
    );
    let said = session
        .run("margayctl delete node n2 n3")
        .await
        .unwrap_err();
    assert_eq!(
        said,
        "Partial success: deleted 1 out of 2 'Node' resources\nHit error: resource does not exist: Node(n3)"
    );
    session.apply(NODES).await;
    let said = session
        .run("margayctl delete node n3 n2")
        .await
        .unwrap_err();
    assert!(
        said.starts_with("Partial success: deleted 1 out of 2"),
        "{said}"
    );
    let said = session
        .run("margayctl delete node n1 n3 --skip-not-exists")
        .await
        .unwrap();
    assert_eq!(said, "Successfully deleted 2 'Node' resource(s)\n");
    let said = session
        .with_input("margayctl apply -f -", "---\n")
        .await
        .unwrap_err();
    assert_eq!(said, "No resources specified in \"-\"");
    session
        .with_input("margayctl apply -f - --skip-empty", "---\n")
        .await
        .unwrap();
}

#[tokio::test]
async fn tables() {
    let mut session = Session::new();
    session
        .apply(&format!("{POOL}---{NODES}---{ENDPOINT}"))
        .await;
    for (line, table) in [
        (
            "margayctl get pool",
            "NAME     CIDR           SELECTOR\npool-a   10.65.0.0/16   all()\n",
        ),
        (
            "margayctl get ippools -o wide",
            "NAME     CIDR           NAT    IPIPMODE   VXLANMODE     DISABLED   DISABLEBGPEXPORT   SELECTOR   ASSIGNMENTMODE\n\
             pool-a   10.65.0.0/16   true   Never      CrossSubnet   false      false              all()      Automatic\n",
        ),
        ("margayctl get nodes", "NAME\nn1\nn2\n"),
        (
            "margayctl get node n2 -o wide",
            "NAME   ASN     IPV4          IPV6\nn2     64513   10.0.0.2/24\n",
        ),
        (
            "margayctl get wep -n prod",
            "WORKLOAD   NODE   NETWORKS       INTERFACE\nweb-0      n1     10.65.0.0/32   cali1\n",
        ),
        (
            "margayctl get wep",
            "WORKLOAD   NODE   NETWORKS   INTERFACE\n",
        ),
        (
            "margayctl get wep -A",
            "NAMESPACE   WORKLOAD   NODE   NETWORKS       INTERFACE\nprod        web-0      n1     10.65.0.0/32   cali1\n",
        ),
        (
            "margayctl get wep -n prod -o wide",
            "NAME                 WORKLOAD   NODE   NETWORKS       INTERFACE   PROFILES                    NATS\n\
             n1-k8s-web--0-eth0   web-0      n1     10.65.0.0/32   cali1       kns.prod,ksa.prod.default\n",
        ),
        (
            "margayctl get tier -o wide",
            "NAME            ORDER      DEFAULTACTION\ndefault         1000000    Deny\nkube-admin      1000       Pass\nkube-baseline   10000000   Pass\n",
        ),
        (
            "margayctl get profile",
            "NAME\nprojectcalico-default-allow\n",
        ),
        ("margayctl get node -o name", "node/n1\nnode/n2\n"),
    ] {
        assert_eq!(session.run(line).await.unwrap(), table, "{line}");
    }
    let said = session.run("margayctl get node n1 n9").await.unwrap_err();
    assert_eq!(said, "NAME\nn1\nresource does not exist: Node(n9)");
}

#[tokio::test]
async fn documents_can_be_read_back() {
    let mut session = Session::new();
    session.apply(&format!("{POOL}---{NODES}")).await;
    let yaml = session
        .run("margayctl get node n1 -o yaml --export")
        .await
        .unwrap();
    assert_eq!(
        yaml,
        "kind: Node\napiVersion: projectcalico.org/v3\nmetadata:\n  name: n1\n  labels:\n    rack: r1\nspec:\n  bgp:\n    ipv4Address: 10.0.0.1/24\nstatus: {}\n"
    );
    let json = session.run("margayctl get node -o json").await.unwrap();
    let list: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(list["kind"], "NodeList");
    assert!(list["items"][0]["metadata"]["resourceVersion"].is_string());
    for format in ["json", "yaml"] {
        let text = session
            .run(&format!("margayctl get node -o {format}"))
            .await
            .unwrap();
        let said = session.with_input("margayctl replace -f -", &text).await;
        assert_eq!(
            said.unwrap(),
            "Successfully replaced 2 'Node' resource(s)\n"
        );
    }
    let stale = json.replace("r1", "r2");
    session
        .run("margayctl label node n1 rack=r3 --overwrite")
        .await
        .unwrap();
    let said = session
        .with_input("margayctl replace -f -", &stale)
        .await
        .unwrap_err();
    assert!(said.contains("update conflict: Node(n1)"), "{said}");
    let said = session
        .with_input("margayctl get -f - -o name", NODES)
        .await
        .unwrap();
    assert_eq!(said, "node/n1\nnode/n2\n");
}

#[tokio::test]
async fn errors_say_which_document() {
    let mut session = Session::new();
    for (text, expected) in [
        ("a: [", "standard input"),
        (
            "kind: Nod\napiVersion: projectcalico.org/v3\n",
            "document 1: kind is \"Nod\"; allowed are BGPConfiguration,",
        ),
        (
            "kind: Node\napiVersion: v1\n",
            "document 1, Node: apiVersion is \"v1\"; allowed is \"projectcalico.org/v3\"",
        ),
        (
            "just text\n",
            "document 1: a resource with apiVersion, kind, metadata and spec is expected",
        ),
        (
            "---\nkind: List\nitems: [{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: {blockSize: x}}]\n",
            "document 1, item 1, IPPool \"p\": ",
        ),
    ] {
        let said = session
            .with_input("margayctl apply -f -", text)
            .await
            .unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    let misspelt = POOL.replace("natOutgoing", "natOutgoin");
    session.apply(&misspelt).await;
    assert_eq!(
        session.warnings,
        "warning: standard input, document 1, IPPool(pool-a): spec.natOutgoin is not a known field; it is kept as it is\n"
    );
}

#[tokio::test]
async fn folders() {
    let folder = Folder::new();
    folder.write("b.yaml", NODES);
    folder.write("a.yml", POOL);
    folder.write("notes.txt", "no resource");
    folder.write("inner/c.json", &json!({
        "apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "n3"}, "spec": {},
    }).to_string());
    let path = folder.0.display();
    let mut session = Session::new();
    let said = session
        .run(&format!("margayctl apply -f {path}"))
        .await
        .unwrap();
    assert_eq!(said, "Successfully applied 3 resource(s)\n");
    let said = session
        .run(&format!("margayctl apply -R -f {path}"))
        .await
        .unwrap();
    assert_eq!(said, "Successfully applied 4 resource(s)\n");
    let said = session
        .run(&format!("margayctl get -f {path} -o name"))
        .await
        .unwrap();
    assert_eq!(said, "ippool/pool-a\nnode/n1\nnode/n2\n");
    let missing = session
        .run(&format!("margayctl apply -f {path}/none"))
        .await
        .unwrap_err();
    assert!(missing.contains("none: No such file"), "{missing}");
}

#[tokio::test]
async fn patch_and_label() {
    let mut session = Session::new();
    session.apply(&format!("{POOL}---{NODES}")).await;
    let said = session
        .run("margayctl patch pool pool-a -p {\"spec\":{\"disabled\":true,\"natOutgoing\":null}}")
        .await;
    assert_eq!(said.unwrap(), "Successfully patched 1 'IPPool' resource\n");
    let key = Key::resource(margay_model::Kind::IPPool, "pool-a");
    let entry = session.store.get(&key).await.unwrap().unwrap();
    let pool: Value = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(pool["spec"]["disabled"], true);
    assert_eq!(pool["spec"].get("natOutgoing"), None);
    let said = session
        .run("margayctl label node n1 rack=r2")
        .await
        .unwrap_err();
    assert_eq!(
        said,
        "Node(n1) has label rack=r1; to change it add --overwrite"
    );
    let said = session
        .run("margayctl label node n2 rack=r2")
        .await
        .unwrap();
    assert_eq!(said, "Successfully set label rack on Node n2.\n");
    session
        .run("margayctl label node n1 rack --remove")
        .await
        .unwrap();
    let said = session
        .run("margayctl label node n1 rack --remove")
        .await
        .unwrap_err();
    assert_eq!(said, "Node(n1) has no label \"rack\"");
}

#[tokio::test]
async fn addresses() {
    let mut session = Session::new();
    session
        .apply(&format!("{POOL}---{NODES}---{ENDPOINT}"))
        .await;
    let free: Vec<u32> = (2..64).collect();
    let mut allocations = vec![json!(0), json!(1)];
    allocations.resize(64, Value::Null);
    let block = json!({
        "cidr": "10.65.0.0/26", "affinity": "host:n1", "allocations": allocations, "unallocated": free,
        "attributes": [
            {"handle_id": "h0", "secondary": {"node": "n1", "namespace": "prod", "pod": "web-0"}},
            {"handle_id": "h1", "secondary": {"node": "n2", "namespace": "prod", "pod": "gone"}},
        ],
        "sequenceNumber": 9, "sequenceNumberForAllocation": {"0": 7, "1": 8}, "deleted": false,
    });
    let ipam = "/calico/ipam/v2";
    session.store.put_raw(
        &format!("{ipam}/assignment/ipv4/block/10.65.0.0-26"),
        block.to_string().as_bytes(),
    );
    session.store.put_raw(
        &format!("{ipam}/host/n1/ipv4/block/10.65.0.0-26"),
        br#"{"state":"confirmed"}"#,
    );
    for handle in ["h0", "h1"] {
        session.store.put_raw(
            &format!("{ipam}/handle/{handle}"),
            br#"{"block":{"10.65.0.0/26":1},"deleted":false}"#,
        );
    }
    assert_eq!(
        session
            .run("margayctl ipam show --show-blocks")
            .await
            .unwrap(),
        "+----------+--------------+-----------+------------+--------------+\n\
         | GROUPING | CIDR         | IPS TOTAL | IPS IN USE | IPS FREE     |\n\
         +----------+--------------+-----------+------------+--------------+\n\
         | IP Pool  | 10.65.0.0/16 | 65536     | 2 (0%)     | 65534 (100%) |\n\
         | Block    | 10.65.0.0/26 | 64        | 2 (3%)     | 62 (97%)     |\n\
         +----------+--------------+-----------+------------+--------------+\n"
    );
    let borrowed = session
        .run("margayctl ipam show --show-borrowed")
        .await
        .unwrap();
    assert!(
        borrowed.contains(
            "| 10.65.0.1 | n2             | 10.65.0.0/26 | n1          | pod  | prod/gone    |"
        ),
        "{borrowed}"
    );
    assert_eq!(
        session
            .run("margayctl ipam show --ip=10.65.0.0")
            .await
            .unwrap(),
        "IP 10.65.0.0 is in use\nAttributes:\n  handle: h0\n  namespace: prod\n  node: n1\n  pod: web-0\n  used by: WorkloadEndpoint(prod/n1-k8s-web--0-eth0)\n"
    );
    assert_eq!(
        session
            .run("margayctl ipam show --ip=10.65.0.9")
            .await
            .unwrap(),
        "10.65.0.9 is not assigned; it lies in pool pool-a (10.65.0.0/16)\n"
    );
    let folder = Folder::new();
    let path = folder.0.join("report.json");
    let said = session
        .run(&format!(
            "margayctl ipam check --show-all-ips -o {}",
            path.display()
        ))
        .await;
    let said = said.unwrap_err();
    assert!(
        said.contains("10.65.0.1 is assigned (h1, n2), but nobody uses it"),
        "{said}"
    );
    assert!(
        said.contains("10.65.0.0 in use by WorkloadEndpoint(prod/n1-k8s-web--0-eth0)"),
        "{said}"
    );
    assert!(
        said.ends_with("Check complete; found 1 problems."),
        "{said}"
    );
    let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(report["datastoreLocked"], false);
    assert_eq!(report["findings"][0]["problem"], "notInUse");
    assert_eq!(report["allocations"][1]["sequence_number"], 8);
    let said = session
        .run("margayctl ipam release --ip=10.65.0.0")
        .await
        .unwrap_err();
    assert!(
        said.starts_with("10.65.0.0 is used by WorkloadEndpoint("),
        "{said}"
    );
    // What every report calls leaked goes, once, and only in the cluster that the report is of.
    let write = |name: &str, report: &Value| {
        let file = folder.0.join(name);
        std::fs::write(&file, report.to_string()).unwrap();
        file.display().to_string()
    };
    let mut changed = report.clone();
    changed["clusterGUID"] = "another".into();
    let elsewhere = write("elsewhere.json", &changed);
    let mut changed = report.clone();
    changed["findings"][0]["sequence_number"] = 7.into();
    let earlier = write("earlier.json", &changed);
    let now = path.display().to_string();
    let release = async |session: &mut Session, files: &[&str]| {
        let mut command = "margayctl ipam release".to_owned();
        for file in files {
            command.push_str(&format!(" --from-report={file}"));
        }
        session.run(&command).await
    };
    let said = release(&mut session, &[&now, &elsewhere])
        .await
        .unwrap_err();
    assert!(
        said.contains("elsewhere.json: the report is of another cluster"),
        "{said}"
    );
    for (files, told) in [
        (vec![&*now, &*earlier], "Released 0 of 0 addresses"),
        (vec![&*earlier], "Released 0 of 1 addresses"),
        (
            vec![&*now, &*now],
            "Successfully released IP address 10.65.0.1\nReleased 1 of 1 addresses",
        ),
        (vec![&*now], "Released 0 of 1 addresses"),
    ] {
        let said = release(&mut session, &files).await.unwrap();
        assert!(said.starts_with(told), "{files:?}: {said}");
    }
    let said = session
        .run("margayctl ipam release --ip=10.65.0.1")
        .await
        .unwrap_err();
    assert_eq!(said, "10.65.0.1 is not assigned");
    let said = session.run("margayctl ipam check").await.unwrap();
    assert!(
        said.ends_with("Check complete; found no problems.\n"),
        "{said}"
    );
    let said = session
        .run("margayctl ipam release --force --ip=10.65.0.0")
        .await;
    assert_eq!(
        said.unwrap(),
        "Successfully released IP address 10.65.0.0\n"
    );
}

#[tokio::test]
async fn configuring_the_allocator() {
    let mut session = Session::new();
    let said = session
        .run("margayctl ipam configure --max-blocks-per-host=4")
        .await
        .unwrap_err();
    assert!(said.contains("needs strict affinity"), "{said}");
    let said = session
        .run("margayctl ipam configure --strictaffinity=true --max-blocks-per-host=4")
        .await;
    assert_eq!(
        said.unwrap(),
        "Successfully set StrictAffinity to: true\nSuccessfully set MaxBlocksPerHost to: 4\n"
    );
    let entry = session.store.get(&Key::IpamConfig).await.unwrap().unwrap();
    assert_eq!(
        String::from_utf8(entry.value).unwrap(),
        r#"{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":4}"#
    );
    let shown = session
        .run("margayctl ipam show --show-configuration")
        .await
        .unwrap();
    assert!(shown.contains("| StrictAffinity     | true  |"), "{shown}");
}

#[tokio::test]
async fn the_agent_is_asked_first() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = Folder::new();
    let path = folder.0.join("agent.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let agent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        assert!(request[..length].starts_with(b"GET /status HTTP/1.1\r\n"));
        let body = json!({
            "node": "n1", "machine": "m", "ready": true,
            "blocks": [{"cidr": "10.65.0.0/26", "owner": "n1", "local": 3, "borrowed": 0}],
            "routes": [{"destination": "10.65.0.64/26", "via": "10.0.0.2", "interface": "eth0", "protocol": "80", "source": "store"}],
            "endpoints": [{"name": "web", "interface": "cali1", "addresses": ["10.65.0.0"], "state": "up"}],
            "bgp": {"peers": [{"name": "Mesh_10_0_0_2", "address": "10.0.0.2", "type": "node-to-node mesh",
                    "state": "Established", "since": "2026-11-23T08:25:00Z", "received": 4, "accepted": 3,
                    "advertised": 2},
                {"name": "Global_10_0_0_9", "address": "10.0.0.9", "type": "global", "state": "Active",
                    "since": "2026-11-23T08:25:00Z", "last_error": "TCP: no route to host"}],
                "problems": [{"object": "BGPPeer tor", "reason": "asNumber is missing"}]},
        })
        .to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    let mut session = Session::new();
    let line = format!("margayctl node status --socket {}", path.display());
    let (said, ()) = tokio::join!(session.run(&line), agent);
    let said = said.unwrap();
    assert!(
        said.starts_with("Margay is running on n1 and ready.\n"),
        "{said}"
    );
    assert!(
        said.contains("| 10.65.0.64/26 | 10.0.0.2 | eth0      | 80       | store  |"),
        "{said}"
    );
    for line in [
        "| PEER ADDRESS | PEER TYPE         | STATE | SINCE               | INFO        | RECEIVED | ACCEPTED | ADVERTISED |",
        "| 10.0.0.2     | node-to-node mesh | up    | 2026-11-23 08:25:00 | Established | 4        | 3        | 2          |",
        "| 10.0.0.9     | global            | start | 2026-11-23 08:25:00 | Active      | 0        | 0        | 0          |",
        "10.0.0.9: TCP: no route to host",
        "No IPv6 peers found.",
        "BGPPeer tor: asNumber is missing",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let line = format!(
        "margayctl node status --socket {}/none --node n1",
        folder.0.display()
    );
    let said = session.run(&line).await.unwrap_err();
    assert!(
        said.starts_with("Blocks of n1 in the datastore\n"),
        "{said}"
    );
    assert!(said.ends_with("does not answer"), "{said}");
    assert!(
        session.warnings.contains("No such file"),
        "{}",
        session.warnings
    );
}

#[tokio::test]
async fn versions() {
    let mut session = Session::new();
    let client = session.run("margayctl version --client").await.unwrap();
    assert_eq!(
        client,
        format!("Client Version:    {}\n", env!("CARGO_PKG_VERSION"))
    );
    let both = session.run("margayctl version").await.unwrap();
    assert!(both.ends_with("Cluster Version:   unknown: the datastore is not initialised\n"));
}
