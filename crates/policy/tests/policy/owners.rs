//! Whose an address is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use margay_model::Kind;
use margay_policy::Calculator;
use serde_json::json;

use crate::common::world::workload;
use crate::common::{Change, resource, take};

#[test]
fn the_nearest_owner_of_an_address_is_named() {
    let mut calculator = Calculator::new("n1");
    let set = |kind, namespace, name: &str, nets: &[&str]| {
        resource(kind, namespace, name, json!({}), json!({"nets": nets}))
    };
    let host = json!({"node": "n2", "interfaceName": "eth0", "expectedIPs": ["172.31.0.2"]});
    let changes = [
        workload("n1", "a", "web", "10.65.0.2", json!({}), json!({})),
        workload("n2", "b", "db", "fd00::2", json!({}), json!({})),
        resource(Kind::HostEndpoint, None, "node", json!({}), host),
        set(
            Kind::GlobalNetworkSet,
            None,
            "all",
            &["0.0.0.0/0", "10.65.0.2/32"],
        ),
        set(Kind::NetworkSet, Some("a"), "office", &["172.31.0.0/16"]),
    ];
    for change in &changes {
        take(&mut calculator, change);
    }
    let owners = |calculator: &Calculator, addresses: &[&str]| -> Vec<String> {
        let addresses: BTreeSet<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let owners = calculator.owners(&addresses).into_iter();
        owners
            .map(|(address, key)| {
                format!(
                    "{address} {}",
                    key.path()
                        .replace("/calico/resources/v3/projectcalico.org/", "")
                )
            })
            .collect()
    };
    let asked = [
        "10.65.0.2",
        "172.31.0.2",
        "172.31.9.9",
        "8.8.8.8",
        "fd00::2",
        "fd00::3",
    ];
    assert_eq!(
        owners(&calculator, &asked),
        [
            "8.8.8.8 globalnetworksets/all",
            "10.65.0.2 workloadendpoints/a/n1-k8s-web-eth0",
            "172.31.0.2 hostendpoints/node",
            "172.31.9.9 networksets/a/office",
            "fd00::2 workloadendpoints/b/n2-k8s-db-eth0",
        ]
    );
    let Change::Put(web, _) = &changes[0] else {
        unreachable!("it is put");
    };
    take(&mut calculator, &Change::Delete(web.clone()));
    assert_eq!(
        owners(&calculator, &asked[..1]),
        ["10.65.0.2 globalnetworksets/all"]
    );
}
