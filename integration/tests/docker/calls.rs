//! What single calls do, and what Docker never sends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use margay_integration::process::eventually;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::stage::{
    Stage, attach, create_network, creation, detach, id, joining, move_into, remove_network,
};

const V4: &str = "192.168.0.0/16";

fn pool(stage_subnet: &str, range: &str, options: Value) -> Value {
    json!({"AddressSpace": "CalicoLocalAddressSpace", "Pool": stage_subnet, "SubPool": range,
        "Options": options, "V6": false})
}

/// Whatever comes in, what goes out is an error in Docker's form, and the driver goes on.
#[test]
fn malformed_requests_are_refused_in_dockers_form() {
    let stage = Stage::new(1);
    let driver = stage.driver(1, &[]);
    let long = format!("{{\"NetworkID\": \"{}\"}}", "a".repeat(2 << 20));
    let network = id(1);
    for (call, body) in [
        ("NetworkDriver.CreateNetwork", "".to_owned()),
        ("NetworkDriver.CreateNetwork", "{".to_owned()),
        ("NetworkDriver.CreateNetwork", "[]".to_owned()),
        ("NetworkDriver.CreateNetwork", "{\"NetworkID\": 7}".to_owned()),
        ("NetworkDriver.CreateNetwork", "{}".to_owned()),
        ("NetworkDriver.CreateNetwork", long),
        ("NetworkDriver.CreateNetwork", "{\"NetworkID\": \"../../calico/x\"}".to_owned()),
        (
            "NetworkDriver.CreateNetwork",
            json!({"NetworkID": network, "IPv4Data": [{"AddressSpace": "CalicoLocalAddressSpace", "Pool": "x"}]})
                .to_string(),
        ),
        ("NetworkDriver.CreateEndpoint", json!({"NetworkID": network}).to_string()),
        (
            "NetworkDriver.CreateEndpoint",
            json!({"NetworkID": network, "EndpointID": id(2), "Interface": {"Address": "here"}}).to_string(),
        ),
        ("NetworkDriver.Join", "{\"EndpointID\": \"short\"}".to_owned()),
        ("NetworkDriver.Leave", "null".to_owned()),
        ("NetworkDriver.DeleteEndpoint", "{\"EndpointID\": \"a/b/c/d/e/f/g\"}".to_owned()),
        ("IpamDriver.RequestPool", "{\"AddressSpace\": \"Mars\"}".to_owned()),
        ("IpamDriver.RequestPool", pool("10.1.2.3.4/8", "", json!({})).to_string()),
        ("IpamDriver.RequestAddress", "{\"PoolID\": \"\"}".to_owned()),
        ("IpamDriver.RequestAddress", "{\"PoolID\": \"CalicoPoolIPv4\", \"Address\": \"x\"}".to_owned()),
        ("IpamDriver.ReleaseAddress", "{\"PoolID\": \"CalicoPoolIPv4\", \"Address\": \"\"}".to_owned()),
        ("IpamDriver.ReleasePool", "{\"PoolID\": \"a/b\"}".to_owned()),
    ] {
        let ipam = call.starts_with("IpamDriver");
        let (status, answer) = driver.send(ipam, call, "POST", body.as_bytes()).unwrap();
        let shown = &body[..body.len().min(100)];
        assert_eq!(status, 400, "{call} {shown}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(!answer["Err"].as_str().unwrap().is_empty(), "{call} {shown}");
    }
    for call in [
        "NetworkDriver.Explode",
        "VolumeDriver.Mount",
        "",
        "IpamDriver.RequestPool",
    ] {
        let (status, answer) = driver.send(false, call, "POST", b"{}").unwrap();
        assert!(
            status == 404 && answer.contains("Err"),
            "{call}: {status} {answer}"
        );
    }
    let (status, answer) = driver.send(false, "Plugin.Activate", "GET", b"").unwrap();
    assert!(status == 400 && answer.contains("POST"), "{answer}");
    create_network(&driver, &network, "");
    remove_network(&driver, &network);
    assert_eq!(stage.leftovers(), "");
}

#[test]
fn subnets_ranges_gateways_and_aux_addresses() {
    let stage = Stage::new(1);
    let driver = stage.driver(1, &[]);
    let told = driver.ok(
        "IpamDriver.RequestPool",
        &pool(V4, "192.168.3.0/28", json!({})),
    );
    assert_eq!(told["PoolID"], "default-ipv4-ippool/192.168.3.0/28");
    let within = driver.ok(
        "IpamDriver.RequestPool",
        &pool("192.168.5.0/24", "", json!({})),
    );
    assert_eq!(
        (&within["PoolID"], &within["Pool"]),
        (
            &json!("default-ipv4-ippool/192.168.5.0/24"),
            &json!("192.168.5.0/24")
        )
    );
    let named = driver.ok(
        "IpamDriver.RequestPool",
        &pool("", "", json!({"pool": "default-ipv4-ippool"})),
    );
    assert_eq!(named["PoolID"], "default-ipv4-ippool");
    for (request, words) in [
        (
            pool("10.9.0.0/16", "", json!({})),
            "no pool holds subnet 10.9.0.0/16",
        ),
        (
            pool("192.168.5.0/24", "192.168.6.0/28", json!({})),
            "does not lie within",
        ),
        (pool("", "", json!({"pool": "none"})), "no pool holds"),
    ] {
        let (status, answer) = driver.call("IpamDriver.RequestPool", &request);
        assert!(
            status == 500 && answer["Err"].as_str().unwrap().contains(words),
            "{answer}"
        );
    }

    let gateway = json!({"PoolID": told["PoolID"], "Address": "192.168.3.1",
        "Options": {"RequestAddressType": "com.docker.network.gateway"}});
    driver.ok("IpamDriver.RequestAddress", &gateway);
    let aux = json!({"PoolID": told["PoolID"], "Address": "192.168.3.2", "Options": null});
    driver.ok("IpamDriver.RequestAddress", &aux);
    let network = |number: usize| {
        json!({"NetworkID": id(number), "Options": {}, "IPv6Data": [],
            "IPv4Data": [{"AddressSpace": "CalicoLocalAddressSpace", "Gateway": "192.168.3.1/32", "Pool": V4,
                "AuxAddresses": {"router": "192.168.3.2/32"}}]})
    };
    driver.ok("NetworkDriver.CreateNetwork", &network(1));
    // The same network on another host keeps the same addresses.
    driver.ok("IpamDriver.RequestAddress", &gateway);
    driver.ok("NetworkDriver.CreateNetwork", &network(2));
    let any = json!({"PoolID": told["PoolID"], "Address": "", "Options": null});
    let mut given = std::collections::BTreeSet::new();
    for _ in 0..14 {
        let answer = driver.ok("IpamDriver.RequestAddress", &any);
        given.insert(answer["Address"].as_str().unwrap().to_owned());
    }
    assert_eq!(given.len(), 14, "{given:?}");
    assert!(
        given
            .iter()
            .all(|address| address.starts_with("192.168.3.")),
        "{given:?}"
    );
    assert!(!given.contains("192.168.3.1/32") && !given.contains("192.168.3.2/32"));
    let (status, answer) = driver.call("IpamDriver.RequestAddress", &any);
    assert!(
        status == 500
            && answer["Err"]
                .as_str()
                .unwrap()
                .contains("default-ipv4-ippool"),
        "{answer}"
    );
    for address in &given {
        let bare = address.split('/').next().unwrap();
        driver.ok(
            "IpamDriver.ReleaseAddress",
            &json!({"PoolID": told["PoolID"], "Address": bare}),
        );
    }
    for number in [1, 2] {
        let held = stage.ctl(&["ipam", "show", "--ip=192.168.3.1"], "");
        assert!(held.contains("in use"), "{number}: {held}");
        driver.ok(
            "NetworkDriver.DeleteNetwork",
            &json!({"NetworkID": id(number)}),
        );
    }
    assert_eq!(stage.leftovers(), "");
}

/// An address is assigned in the commit that records its endpoint: before it nothing is stored, after it everything.
#[test]
fn r1_addresses_belong_to_endpoints() {
    let stage = Stage::new(1);
    let driver = stage.driver(1, &[]);
    let (network, endpoint) = (id(1), id(2));
    create_network(&driver, &network, V4);
    let asked = json!({"PoolID": "default-ipv4-ippool", "Address": "192.168.7.7", "Options": null});
    let given = driver.ok("IpamDriver.RequestAddress", &asked);
    assert_eq!(given["Address"], "192.168.7.7/32");
    let held = || stage.ctl(&["ipam", "show", "--ip=192.168.7.7"], "");
    assert!(
        held().contains("not assigned") || held().contains("not in use"),
        "{}",
        held()
    );
    let made = driver.ok(
        "NetworkDriver.CreateEndpoint",
        &creation(&network, &endpoint, "192.168.7.7/32"),
    );
    let told = held();
    assert!(
        told.contains("in use") && told.contains(&format!("docker.{endpoint}")),
        "{told}"
    );
    // Docker repeats a call whose answer it did not hear.
    let again = driver.ok(
        "NetworkDriver.CreateEndpoint",
        &creation(&network, &endpoint, "192.168.7.7/32"),
    );
    assert_eq!(made, again);
    let [record] = &stage.endpoints()[..] else {
        panic!("{:?}", stage.endpoints());
    };
    assert_eq!(
        record["metadata"]["name"],
        format!("n1-libnetwork-libnetwork-{endpoint}")
    );
    assert_eq!(record["metadata"]["namespace"], "libnetwork");
    let spec = &record["spec"];
    for (key, value) in [
        ("orchestrator", "libnetwork"),
        ("workload", "libnetwork"),
        ("node", "n1"),
        ("endpoint", &endpoint),
        ("interfaceName", &format!("cali{}", &endpoint[..11])),
        ("mac", made["Interface"]["MacAddress"].as_str().unwrap()),
    ] {
        assert_eq!(spec[key], value, "{key}");
    }
    assert_eq!(spec["ipNetworks"], json!(["192.168.7.7/32"]));
    let other = driver.call(
        "NetworkDriver.CreateEndpoint",
        &creation(&network, &id(3), "192.168.7.7/32"),
    );
    assert!(
        other.0 == 500
            && other.1["Err"]
                .as_str()
                .unwrap()
                .contains("assigned already"),
        "{other:?}"
    );
    let (status, answer) = driver.call("IpamDriver.RequestAddress", &asked);
    assert!(
        status == 500 && answer["Err"].as_str().unwrap().contains("192.168.7.7"),
        "{answer}"
    );
    detach(&driver, &network, &endpoint, "192.168.7.7/32");
    remove_network(&driver, &network);
    assert_eq!(stage.leftovers(), "");
}

#[test]
fn r1_containers_that_start_at_once_get_different_addresses() {
    let stage = Stage::new(2);
    let drivers = [1, 2].map(|number| stage.driver(number, &["--scope", "global"]));
    create_network(&drivers[0], &id(1), "");
    let next = AtomicUsize::new(100);
    let given = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (driver, next, given) = (&drivers[worker % 2], &next, &given);
            scope.spawn(move || {
                for _ in 0..8 {
                    let endpoint = id(next.fetch_add(1, Ordering::Relaxed));
                    let address = attach(driver, &id(1), &endpoint, "");
                    given.lock().unwrap().push(address.clone());
                    if worker % 4 == 0 {
                        detach(driver, &id(1), &endpoint, &address);
                        given.lock().unwrap().retain(|one| *one != address);
                        let address = attach(driver, &id(1), &endpoint, "");
                        given.lock().unwrap().push(address);
                    }
                }
            });
        }
    });
    let mut given = given.into_inner().unwrap();
    given.sort();
    let count = given.len();
    given.dedup();
    assert_eq!((count, given.len()), (64, 64));
    assert_eq!(stage.endpoints().len(), 64);
}

/// The host's side is complete when Docker has moved the container's end.
#[test]
fn containers_reach_the_host_by_their_networks_next_hops() {
    let stage = Stage::new(1);
    let driver = stage.driver(1, &[]);
    let sandbox = stage.lab.pod();
    let node = stage.lab.node(1).ipv4().to_string();
    let mut addresses = Vec::new();
    for (network, endpoint, name) in [(id(1), id(11), "cali0"), (id(2), id(12), "cali1")] {
        create_network(&driver, &network, "");
        let address = attach(&driver, &network, &endpoint, "");
        let answer = driver.ok("NetworkDriver.Join", &joining(&network, &endpoint));
        let gateway = answer["Gateway"].as_str().unwrap().to_owned();
        move_into(&stage, 1, &endpoint, &sandbox.namespace, name);
        // Each network's next hop is another: the routes to both stand side by side.
        for line in [
            format!("ip addr add {address} dev {name}"),
            format!("ip link set {name} up"),
            format!("ip route add {gateway} dev {name}"),
            format!("ip route replace default via {gateway} dev {name}"),
        ] {
            let _ = sandbox.run(&line).ok();
        }
        assert!(
            sandbox.pings(&node, 2),
            "{}",
            sandbox.run("ip neigh").stdout
        );
        addresses.push(address);
    }
    // The next hop is never the host's own choice of a source.
    for address in addresses {
        let bare = address.split('/').next().unwrap();
        let chosen = stage.lab.node(1).run(&format!("ip route get {bare}")).ok();
        assert!(chosen.contains(&format!("src {node}")), "{chosen}");
    }
}

#[test]
fn published_ports_are_part_of_the_endpoint() {
    let stage = Stage::new(1);
    let driver = stage.driver(1, &[]);
    create_network(&driver, &id(1), "");
    let publish = |number: usize, host_port: u16| {
        let asked = json!({"PoolID": "CalicoPoolIPv4", "Address": "", "Options": null});
        let given = driver.ok("IpamDriver.RequestAddress", &asked);
        let mut request = creation(&id(1), &id(number), given["Address"].as_str().unwrap());
        request["Options"]["com.docker.network.portmap"] = json!([{"Proto": 6, "IP": "", "Port": 80,
            "HostIP": "", "HostPort": host_port, "HostPortEnd": host_port}]);
        driver.call("NetworkDriver.CreateEndpoint", &request)
    };
    assert_eq!(publish(2, 8080).0, 200);
    let ports = stage.endpoints()[0]["spec"]["ports"].clone();
    assert_eq!(
        (&ports[0]["hostPort"], &ports[0]["port"]),
        (&json!(8080), &json!(80))
    );
    let (status, answer) = publish(3, 8080);
    assert!(
        status == 500
            && answer["Err"]
                .as_str()
                .unwrap()
                .contains("8080/TCP is taken"),
        "{answer}"
    );
    assert_eq!(publish(4, 0).0, 200);
}

/// With the store away containers can still be removed; what they held comes back later.
#[test]
fn r4_endpoints_can_be_deleted_without_the_store() {
    let lab = margay_integration::Lab::new(1);
    let etcd = margay_integration::Etcd::start(&lab);
    let store = etcd.store();
    let _agent = margay_integration::Agent::start(lab.node(1), &store, &[]);
    let mut driver =
        margay_integration::Driver::start(lab.node(1), &store, &["--cleanup-grace", "1"]);
    create_network(&driver, &id(1), "");
    let address = attach(&driver, &id(1), &id(2), "");
    etcd.process.signal(Signal::SIGSTOP);
    detach(&driver, &id(1), &id(2), &address);
    assert_eq!(
        lab.node(1)
            .run("ip -o link show type veth")
            .ok()
            .matches("cali")
            .count(),
        0
    );
    let (status, answer) = driver.call(
        "IpamDriver.RequestAddress",
        &json!({"PoolID": "CalicoPoolIPv4"}),
    );
    assert!(
        status == 500 && answer["Err"].as_str().unwrap().contains("datastore"),
        "{answer}"
    );
    etcd.process.signal(Signal::SIGCONT);
    let left = || {
        let told = store.ctl(
            Some(&lab.node(1).namespace()),
            &["get", "workloadendpoints", "-A", "-o", "json"],
            "",
        );
        told.stdout.contains(&id(2))
    };
    eventually(
        "the endpoint is given back",
        Duration::from_secs(40),
        || !left(),
    );
    assert!(driver.process.is_running());
}

/// What Calico's plugin left is understood: a pool that names the network, an endpoint and an address without a
/// handle.
#[test]
fn what_calicos_plugin_made_is_taken_over() {
    let stage = Stage::new(1);
    let (network, endpoint) = (id(1), id(2));
    let pools = stage.ctl(&["get", "ippool", "default-ipv4-ippool", "-o", "json"], "");
    let mut pool: Value = serde_json::from_str(&pools).unwrap();
    pool["metadata"]["annotations"] = json!({"org.projectcalico.label.network.ID": network});
    stage.ctl(&["apply", "-f", "-"], &pool.to_string());
    // Assigned by another handle-less writer: margayctl has no such verb, so the record alone says it.
    let record = json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
        "metadata": {"namespace": "libnetwork", "name": format!("n1-libnetwork-libnetwork-{endpoint}")},
        "spec": {"orchestrator": "libnetwork", "workload": "libnetwork", "node": "n1", "endpoint": endpoint,
            "interfaceName": format!("cali{}", &endpoint[..11]), "ipNetworks": ["192.168.9.9/32"],
            "profiles": ["default-ipv4-ippool"]}});
    stage.ctl(&["apply", "-f", "-"], &record.to_string());
    let driver = stage.driver(1, &["--driver", "margay,calico"]);
    assert!(
        driver.sockets.join("calico-ipam.sock").exists()
            && driver.sockets.join("calico.sock").exists()
    );
    // A new container on the old network.
    let address = attach(&driver, &network, &id(3), "");
    let made = stage.endpoints();
    let mine = made
        .iter()
        .find(|one| one["spec"]["endpoint"] == id(3))
        .unwrap();
    assert_eq!(mine["spec"]["profiles"], json!(["default-ipv4-ippool"]));
    detach(&driver, &network, &id(3), &address);
    // The old container ends.
    detach(&driver, &network, &endpoint, "192.168.9.9/32");
    remove_network(&driver, &network);
    assert_eq!(stage.leftovers(), "");
}

#[test]
fn internal_networks_have_routes_to_their_pools_alone() {
    let stage = Stage::new(1);
    let driver = stage.driver(1, &[]);
    let data =
        json!({"AddressSpace": "CalicoLocalAddressSpace", "Gateway": "0.0.0.0/0", "Pool": V4});
    let options =
        json!({"com.docker.network.internal": true, "com.docker.network.generic": {"mtu": "1300"}});
    let request = json!({"NetworkID": id(1), "Options": options, "IPv4Data": [data]});
    driver.ok("NetworkDriver.CreateNetwork", &request);
    attach(&driver, &id(1), &id(2), "");
    let answer = driver.ok("NetworkDriver.Join", &joining(&id(1), &id(2)));
    assert!(
        answer.get("Gateway").is_none() && answer["DisableGatewayService"] == true,
        "{answer}"
    );
    let routes = answer["StaticRoutes"].as_array().unwrap();
    assert_eq!(
        (&routes[1]["Destination"], &routes[1]["RouteType"]),
        (&json!(V4), &json!(0)),
        "{answer}"
    );
    let hop = routes[1]["NextHop"].as_str().unwrap();
    assert_eq!(routes[0]["Destination"], format!("{hop}/32"));
    let link = stage
        .lab
        .node(1)
        .run(&format!("ip link show cali{}", &id(2)[..11]))
        .ok();
    assert!(link.contains("mtu 1300"), "{link}");
    // Docker's API does not answer here: the profile is named after the id.
    let profile = stage.ctl(
        &[
            "get",
            "profile",
            &format!("docker-{}", &id(1)[..12]),
            "-o",
            "json",
        ],
        "",
    );
    let profile: Value = serde_json::from_str(&profile).unwrap();
    let selector = &profile["spec"]["egress"][0]["destination"]["selector"];
    assert!(
        selector
            .as_str()
            .unwrap()
            .contains("margay.io/docker-network"),
        "{profile}"
    );
}

/// Interfaces and endpoints without each other are found and removed.
#[test]
fn r2_what_is_left_over_is_returned() {
    let stage = Stage::new(1);
    let driver = stage.driver(1, &["--cleanup-grace", "1"]);
    create_network(&driver, &id(1), "");
    let sandbox = stage.lab.pod();
    for number in [2, 3, 4] {
        attach(&driver, &id(1), &id(number), "");
    }
    // 2 lives; 3 was never moved into a sandbox; of 4 only the interface is left.
    move_into(&stage, 1, &id(2), &sandbox.namespace, "cali0");
    let name = format!("n1-libnetwork-libnetwork-{}", id(4));
    stage.ctl(
        &["delete", "workloadendpoint", &name, "-n", "libnetwork"],
        "",
    );
    eventually(
        "only the living endpoint is left",
        Duration::from_secs(20),
        || {
            let ids: Vec<Value> = stage
                .endpoints()
                .iter()
                .map(|one| one["spec"]["endpoint"].clone())
                .collect();
            ids == [json!(id(2))] && stage.interfaces(1) == [format!("cali{}", &id(2)[..11])]
        },
    );
    sandbox.delete();
    eventually("nothing is left", Duration::from_secs(20), || {
        stage.endpoints().is_empty()
    });
}
