//! Why connections are made or not, on a store in memory and on one in a file.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use clap::Parser;
use margay_datastore::{Config, Datastore};
use margay_model::Key;
use margay_store::{Batch, Memory, Store, Write};
use margayctl::cli::Cli;
use margayctl::{Streams, begin, run};
use serde_json::{Value, json};

async fn ask<S: Store>(store: &S, line: &str, input: &str) -> Result<String, String> {
    let cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut input = input.as_bytes();
    let mut streams = Streams {
        input: &mut input,
        out: &mut out,
        err: &mut err,
    };
    let result = match begin(cli.command, &mut streams).await {
        Ok(Some(command)) => run(store, command, &mut streams).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    result.map_err(|error| format!("{error:#}"))?;
    Ok(String::from_utf8(out).unwrap())
}

async fn apply<S: Store>(store: &S, text: &str) {
    ask(store, "margayctl apply -f -", text).await.unwrap();
}

async fn why<S: Store>(store: &S, question: &str) -> Value {
    let line = format!("margayctl why {question} -o json");
    serde_json::from_str(&ask(store, &line, "").await.unwrap()).unwrap()
}

/// The last step of the first stage that denies; of the last stage where none does.
fn decisive(answer: &Value) -> String {
    let stages = answer["stages"].as_array().unwrap();
    let denies = |stage: &&Value| stage["verdict"] == "Deny";
    let Some(stage) = stages.iter().find(denies).or_else(|| stages.last()) else {
        return String::new();
    };
    let steps = stage["steps"].as_array().unwrap();
    let last = steps.last().and_then(Value::as_str).unwrap_or_default();
    format!(
        "{} {}: {last}",
        stage["node"].as_str().unwrap(),
        stage["direction"].as_str().unwrap()
    )
}

#[tokio::test]
async fn what_decides_is_named() {
    let store = Memory::new();
    apply(&store, SCENE).await;
    for (question, verdict, decides) in [
        (
            "prod/web prod/db tcp 5432",
            "Allow",
            "n2 ingress: tier default: rule 1 of NetworkPolicy/prod/db: Allow",
        ),
        // By the endpoint's stored name, and by address.
        (
            "n1-k8s-web-eth0 10.65.1.1 tcp 5432",
            "Allow",
            "n2 ingress: tier default: rule 1 of NetworkPolicy/prod/db: Allow",
        ),
        (
            "prod/web prod/db tcp 80",
            "Deny",
            "n2 ingress: tier default: no rule matches, end of tier: Deny",
        ),
        (
            "prod/web prod/db udp 53",
            "Deny",
            "n2 ingress: tier security: no rule matches, end of tier: Deny",
        ),
        (
            "prod/web office tcp 443",
            "Deny",
            "n1 egress: tier security: rule 0 of GlobalNetworkPolicy/base: Deny",
        ),
        (
            "prod/web 198.51.100.1 tcp 443",
            "Allow",
            "n1 egress: profile kns.prod: rule 0: Allow",
        ),
        (
            "office n2 tcp 22",
            "Allow",
            "n2 ingress: failsafe port: Allow",
        ),
        (
            "office n2/* tcp 80",
            "Deny",
            "n2 ingress: no policy and no profile has decided",
        ),
        (
            "prod/web n1 tcp 80",
            "Deny",
            "n1 ingress: defaultEndpointToHostAction: Drop",
        ),
        ("n1 prod/web icmp", "Allow", ""),
        (
            "prod/db prod/web 99",
            "Deny",
            "n1 ingress: tier security: no rule matches, end of tier: Deny",
        ),
    ] {
        let answer = why(&store, question).await;
        assert_eq!(answer["verdict"], verdict, "{question}: {answer:#}");
        assert_eq!(decisive(&answer), decides, "{question}: {answer:#}");
        let advised = answer["advice"]
            .as_str()
            .is_some_and(|advice| !advice.is_empty());
        assert!(advised || verdict == "Allow", "{question}: {answer:#}");
    }
}

#[tokio::test]
async fn staged_policies_would() {
    let store = Memory::new();
    apply(&store, SCENE).await;
    let answer = why(&store, "prod/web prod/db tcp 5432").await;
    assert_eq!(answer["verdict"], "Allow");
    let staged = &answer["stages"][1]["staged"];
    assert_eq!(staged["verdict"], "Deny");
    let last = staged["steps"].as_array().unwrap().last().unwrap();
    assert_eq!(
        last,
        "would: tier default: rule 0 of StagedNetworkPolicy/prod/db: Deny"
    );
    assert!(answer["stages"][0].get("staged").is_none(), "{answer:#}");
}

#[tokio::test]
async fn settings_of_the_node_count() {
    let store = Memory::new();
    apply(&store, SCENE).await;
    apply(&store, FELIX).await;
    let answer = why(&store, "prod/web n1 tcp 80").await;
    assert_eq!(answer["verdict"], "Allow", "{answer:#}");
    // The node's own list takes the place of the usual one.
    let answer = why(&store, "office n2 tcp 22").await;
    assert_eq!(answer["verdict"], "Deny", "{answer:#}");
    let answer = why(&store, "office n2 tcp 2222").await;
    assert_eq!(answer["verdict"], "Allow", "{answer:#}");
}

#[tokio::test]
async fn the_way_is_told() {
    let store = Memory::new();
    apply(&store, SCENE).await;
    let block = json!({"cidr": "10.65.1.0/26", "affinity": "host:n2", "allocations": vec![Value::Null; 64],
        "unallocated": (0..64).collect::<Vec<_>>(), "attributes": []});
    let key = Key::Block("10.65.1.0/26".parse().unwrap());
    let value = serde_json::to_vec(&block).unwrap();
    store
        .commit(&Batch::of([Write::put(key, value)]))
        .await
        .unwrap();
    let answer = why(&store, "prod/web prod/db tcp 5432").await;
    let route = &answer["route"];
    assert_eq!(route["pool"], "pool-a", "{route:#}");
    assert_eq!(route["block"], "10.65.1.0/26", "{route:#}");
    assert_eq!(route["blockOwner"], "n2", "{route:#}");
    // The nodes are of different networks.
    assert_eq!(route["encapsulation"], "VXLAN", "{route:#}");
    assert_eq!(route["mtu"]["overhead"], 50, "{route:#}");
    assert_eq!(answer["advice"], Value::Null, "{answer:#}");
    let answer = why(&store, "prod/web 198.51.100.1 tcp 443").await;
    assert_eq!(answer["route"]["natOutgoing"], true, "{answer:#}");
    let answer = why(&store, "prod/web 10.65.1.9 tcp 443").await;
    let advice = answer["advice"].as_str().unwrap();
    assert!(advice.contains("no endpoint has 10.65.1.9"), "{advice}");
}

#[tokio::test]
async fn questions_without_sense_are_refused() {
    let store = Memory::new();
    apply(&store, SCENE).await;
    for (question, part) in [
        ("nobody prod/db tcp 1", "nothing is named \"nobody\""),
        ("prod/web prod/db tcp", "needs a destination port"),
        ("prod/web prod/db tcp 0", "is no port"),
        ("prod/web prod/db icmp x", "is no type of ICMP"),
        ("prod/web prod/db icmpv6", "no addresses of one family"),
        ("prod/web prod/db carrier-pigeon 1", "is no protocol"),
        ("prod/web prod/db 99 5", "has no ports"),
        ("prod/web fd00::1 tcp 5", "no addresses of one family"),
    ] {
        let error = ask(&store, &format!("margayctl why {question}"), "")
            .await
            .unwrap_err();
        assert!(error.contains(part), "{question}: {error}");
    }
}

#[tokio::test]
async fn a_store_in_a_file_and_a_policy_that_cannot_be_understood() {
    let folder = std::env::temp_dir().join(format!("margayctl-why-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("store.db").display().to_string();
    let env = |name: &str| match name {
        "DATASTORE_TYPE" => Some("sqlite".to_owned()),
        "MARGAY_STORE_PATH" => Some(path.clone()),
        _ => None,
    };
    let store = Datastore::open(&Config::from_env(&env).unwrap()).unwrap();
    apply(&store, SCENE).await;
    let policy = json!({"kind": "GlobalNetworkPolicy", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "broken"},
        "spec": {"tier": "default", "order": 1, "selector": "all()", "types": ["Egress"],
            "egress": [{"action": "Perhaps"}]}});
    let key = Key::resource(margay_model::Kind::GlobalNetworkPolicy, "broken");
    let value = serde_json::to_vec(&policy).unwrap();
    store
        .commit(&Batch::of([Write::put(key, value)]))
        .await
        .unwrap();
    let said = ask(&store, "margayctl why prod/web prod/db tcp 5432", "").await;
    drop(store);
    std::fs::remove_dir_all(&folder).unwrap();
    let said = said.unwrap();
    assert!(said.contains("Verdict: Deny\n"), "{said}");
    assert!(
        said.contains("GlobalNetworkPolicy/broken cannot be understood: Deny"),
        "{said}"
    );
    assert!(
        said.contains("To do: correct GlobalNetworkPolicy/broken"),
        "{said}"
    );
    assert!(
        said.contains("n2, ingress of workload prod/n2-k8s-db-eth0: Allow (not reached)"),
        "{said}"
    );
    assert!(
        said.contains("Note: ") && said.contains("Perhaps"),
        "{said}"
    );
}

const FELIX: &str = "
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {defaultEndpointToHostAction: Accept}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: node.n2}
spec: {failsafeInboundHostPorts: [{protocol: TCP, port: 2222}]}
";

const SCENE: &str = "
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool-a}
spec: {cidr: 10.65.0.0/16, ipipMode: Never, vxlanMode: CrossSubnet, natOutgoing: true, nodeSelector: all()}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 10.0.0.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n2}
spec: {bgp: {ipv4Address: 10.0.1.2/24}}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.prod}
spec:
  egress: [{action: Allow}]
  ingress: [{action: Allow}]
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-k8s-web-eth0, namespace: prod, labels: {app: web}}
spec: {orchestrator: k8s, node: n1, containerID: c1, pod: web, endpoint: eth0, ipNetworks: [10.65.0.1/32], interfaceName: cali1, profiles: [kns.prod]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n2-k8s-db-eth0, namespace: prod, labels: {app: db}}
spec: {orchestrator: k8s, node: n2, containerID: c2, pod: db, endpoint: eth0, ipNetworks: [10.65.1.1/32], interfaceName: cali2, profiles: [kns.prod]}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 10}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: base}
spec:
  tier: security
  order: 1
  selector: all()
  types: [Ingress, Egress]
  ingress: [{action: Pass, protocol: TCP}]
  egress: [{action: Deny, destination: {nets: [192.0.2.0/24]}}, {action: Pass}]
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: prod}
spec:
  selector: app == 'db'
  types: [Ingress]
  ingress:
  - {action: Log}
  - {action: Allow, protocol: TCP, source: {selector: app == 'web'}, destination: {ports: [5432]}}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: db, namespace: prod}
spec:
  selector: app == 'db'
  types: [Ingress]
  ingress:
  - {action: Deny}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n2-all, labels: {host: n2}}
spec: {node: n2, interfaceName: '*'}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: office}
spec: {nets: [192.0.2.0/24]}
";
