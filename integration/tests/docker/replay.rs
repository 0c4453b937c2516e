//! Recorded conversations of real Docker engines with a driver, replayed against ours, answer by answer.

use std::collections::BTreeMap;
use std::path::Path;

use margay_integration::Driver;
use serde_json::{Value, json};

use crate::stage::Stage;

/// A recorded call.
#[derive(Clone, Debug)]
struct Entry {
    time: f64,
    ipam: bool,
    call: String,
    request: Value,
    refused: bool,
    response: Value,
}

fn recorded(name: &str) -> Vec<Entry> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/docker");
    let text = std::fs::read_to_string(folder.join(format!("{name}.jsonl"))).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line.get("call").is_some())
        .map(|line| Entry {
            time: line["t"].as_f64().unwrap(),
            ipam: line["socket"] == "calico-ipam",
            call: line["call"].as_str().unwrap().to_owned(),
            request: line["request"].clone(),
            refused: line["response"].get("Err").is_some(),
            response: line["response"].clone(),
        })
        .collect()
}

/// What has been said so far. Addresses and MAC addresses are the driver's own choice, so those of the recording
/// stand for those that ours chose.
#[derive(Default)]
struct Conversation {
    ours: BTreeMap<String, String>,
    gateways: BTreeMap<String, Value>,
    refused: Vec<String>,
}

impl Conversation {
    /// The request with our own addresses in place of the recorded ones.
    fn request(&self, recorded: &Value) -> Value {
        match recorded {
            Value::String(text) => {
                let (address, length) = match text.split_once('/') {
                    Some((address, length)) => (address, format!("/{length}")),
                    None => (text.as_str(), String::new()),
                };
                let ours = self.ours.get(address);
                ours.map_or_else(|| recorded.clone(), |ours| json!(format!("{ours}{length}")))
            }
            Value::Array(items) => items.iter().map(|item| self.request(item)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter();
                Value::Object(
                    fields
                        .map(|(key, value)| (key.clone(), self.request(value)))
                        .collect(),
                )
            }
            other => other.clone(),
        }
    }

    fn say(&mut self, stage: &Stage, number: usize, driver: &Driver, entry: &Entry) {
        let request = match entry.call.as_str() {
            // A subnet is no address of a container.
            "IpamDriver.RequestPool" | "NetworkDriver.CreateNetwork" => entry.request.clone(),
            _ => self.request(&entry.request),
        };
        let (status, answer) = driver
            .call_on(entry.ipam, &entry.call, &request)
            .unwrap_or_else(|| panic!("no answer: {}", driver.process.log()));
        let context = format!("{} {request}: {status} {answer}", entry.call);
        let network = request["NetworkID"].as_str().unwrap_or_default().to_owned();
        match entry.call.as_str() {
            "Plugin.Activate"
            | "IpamDriver.GetCapabilities"
            | "IpamDriver.GetDefaultAddressSpaces" => {
                // The recorded driver asked for more than ours in one experiment.
                let plain = entry.response.get("RequiresMACAddress").is_none();
                assert!(!plain || answer == entry.response, "{context}");
            }
            "NetworkDriver.GetCapabilities" => {
                for key in ["Scope", "ConnectivityScope"] {
                    assert_eq!(answer[key], entry.response[key], "{context}");
                }
            }
            "IpamDriver.RequestPool" => check_pool(&request, entry, status, &answer, &context),
            "IpamDriver.RequestAddress" => {
                self.check_address(&request, entry, status, &answer, &context)
            }
            "NetworkDriver.CreateNetwork" => {
                let generic = &request["Options"]["com.docker.network.generic"];
                let foreign = request["IPv4Data"][0]["AddressSpace"] == "LocalDefault";
                if foreign || generic.get("foo").is_some() {
                    // The recorded driver let everything pass; ours says what it cannot do.
                    let word = if foreign {
                        "--ipam-driver margay-ipam"
                    } else {
                        "\"foo\" is not known"
                    };
                    assert_eq!(status, 500, "{context}");
                    assert!(answer["Err"].as_str().unwrap().contains(word), "{context}");
                    self.refused.push(network);
                } else {
                    assert_eq!((status, &answer), (200, &json!({})), "{context}");
                }
            }
            "NetworkDriver.CreateEndpoint" => {
                assert_eq!(status, 200, "{context}");
                let asked = request["Interface"]["MacAddress"].as_str().unwrap();
                let given = answer["Interface"].get("MacAddress");
                assert_eq!(given.is_some(), asked.is_empty(), "{context}");
            }
            "NetworkDriver.Join" => {
                assert_eq!(status, 200, "{context}");
                self.check_join(&network, entry, &answer, &context);
                let interface = answer["InterfaceName"]["SrcName"].as_str().unwrap();
                let there = stage.interfaces(number);
                assert!(
                    there.iter().any(|name| name == interface),
                    "{there:?} {context}"
                );
            }
            "NetworkDriver.EndpointOperInfo" => {
                assert_eq!(
                    answer["Value"]["margay.io/node"],
                    format!("n{number}"),
                    "{context}"
                );
            }
            _ => assert_eq!((status, &answer), (200, &json!({})), "{context}"),
        }
    }

    fn check_address(
        &mut self,
        request: &Value,
        entry: &Entry,
        status: u16,
        answer: &Value,
        context: &str,
    ) {
        // The recorded driver knew no gateways.
        assert_eq!(status, 200, "{context}");
        let ours = answer["Address"].as_str().unwrap();
        let (address, length) = ours.split_once('/').unwrap();
        assert_eq!(
            length,
            if address.contains(':') { "128" } else { "32" },
            "{context}"
        );
        let asked = request["Address"].as_str().unwrap();
        if !asked.is_empty() {
            assert_eq!(address, asked, "{context}");
            return;
        }
        let recorded = entry.response["Address"].as_str().unwrap();
        let recorded = recorded.split('/').next().unwrap();
        self.ours.insert(recorded.to_owned(), address.to_owned());
    }

    /// Names are as recorded; the next hop is the network's, another for each, and on the link.
    fn check_join(&mut self, network: &str, entry: &Entry, answer: &Value, context: &str) {
        assert_eq!(
            answer["InterfaceName"]["SrcName"], entry.response["InterfaceName"]["SrcName"],
            "{context}"
        );
        assert_eq!(answer["InterfaceName"]["DstPrefix"], "cali", "{context}");
        let mut on_link = Vec::new();
        for (key, length) in [("Gateway", 32), ("GatewayIPv6", 128)] {
            if let Some(gateway) = answer.get(key).and_then(Value::as_str) {
                let destination = format!("{gateway}/{length}");
                on_link.push(json!({"Destination": destination, "RouteType": 1, "NextHop": ""}));
            }
        }
        let internal = answer.get("DisableGatewayService").is_some();
        if !internal {
            assert_eq!(answer["StaticRoutes"], Value::Array(on_link), "{context}");
            let gateway = answer["Gateway"].clone();
            assert!(
                gateway.as_str().unwrap().starts_with("169.254."),
                "{context}"
            );
            let before = self
                .gateways
                .entry(network.to_owned())
                .or_insert_with(|| gateway.clone());
            assert_eq!(*before, gateway, "{context}");
        }
        let different: std::collections::BTreeSet<String> =
            self.gateways.values().map(Value::to_string).collect();
        assert_eq!(different.len(), self.gateways.len(), "{:?}", self.gateways);
    }
}

fn check_pool(request: &Value, entry: &Entry, status: u16, answer: &Value, context: &str) {
    if request["Options"].get("x").is_some() {
        // The recorded driver let everything pass.
        assert_eq!(status, 500, "{context}");
        let error = answer["Err"].as_str().unwrap();
        assert!(error.contains("\"x\" is not known"), "{context}");
        return;
    }
    assert_eq!(status, 200, "{context}");
    let (pool, range) = (
        request["Pool"].as_str().unwrap(),
        request["SubPool"].as_str().unwrap(),
    );
    let v6 = request["V6"] == true;
    let id = match (pool, range) {
        ("", _) if v6 => "CalicoPoolIPv6".to_owned(),
        ("", _) => "CalicoPoolIPv4".to_owned(),
        (_, "") if v6 => "default-ipv6-ippool".to_owned(),
        (_, "") => "default-ipv4-ippool".to_owned(),
        (_, range) => format!("default-ipv4-ippool/{range}"),
    };
    assert_eq!(answer["PoolID"], id, "{context}");
    // The recorded driver knew no ranges.
    if !entry.refused {
        assert_eq!(answer["Pool"], entry.response["Pool"], "{context}");
        assert_eq!(answer["Data"], entry.response["Data"], "{context}");
    }
}

/// Replays a recording on one node; nothing is left.
fn replay(name: &str) -> usize {
    let stage = Stage::new(1);
    let driver = stage.driver(1, &[]);
    let mut conversation = Conversation::default();
    let entries = recorded(name);
    for entry in &entries {
        conversation.say(&stage, 1, &driver, entry);
    }
    clear(&stage, &driver, &entries);
    entries.len()
}

/// What a recording leaves behind because it ends in the middle.
fn clear(stage: &Stage, driver: &Driver, entries: &[Entry]) {
    let mut networks: Vec<&Value> = entries
        .iter()
        .filter(|entry| entry.call == "NetworkDriver.CreateNetwork")
        .map(|entry| &entry.request["NetworkID"])
        .collect();
    for entry in entries {
        if entry.call == "NetworkDriver.DeleteNetwork" {
            networks.retain(|network| **network != entry.request["NetworkID"]);
        }
    }
    for endpoint in stage.endpoints() {
        let id = &endpoint["spec"]["endpoint"];
        let network = &endpoint["metadata"]["annotations"]["margay.io/docker-network-id"];
        let both = json!({"NetworkID": network, "EndpointID": id});
        driver.ok("NetworkDriver.Leave", &both);
        driver.ok("NetworkDriver.DeleteEndpoint", &both);
    }
    for network in networks {
        driver.ok(
            "NetworkDriver.DeleteNetwork",
            &json!({"NetworkID": network}),
        );
    }
    assert_eq!(stage.leftovers(), "");
}

#[test]
fn docker_20_10_with_local_scope() {
    assert!(replay("local-scope-h1") > 240);
}

#[test]
fn an_engine_that_gives_mac_addresses() {
    assert!(replay("ipam-caps-mac-replay-h1") > 40);
}

#[test]
fn several_networks_on_one_container() {
    assert!(replay("per-network-nexthop-multi-attach-h1") > 30);
}

#[test]
fn a_current_engine() {
    assert!(replay("moby-v2beta24-h1") > 40);
    assert!(replay("moby-v2beta24-h2") > 15);
}

/// The second host is never told of the network; both conversations as they were interleaved.
#[test]
fn docker_20_10_with_global_scope_on_two_hosts() {
    let stage = Stage::new(2);
    let drivers = [1, 2].map(|number| stage.driver(number, &["--scope", "global"]));
    let mut conversation = Conversation::default();
    let mut both: Vec<(usize, Entry)> = Vec::new();
    for number in [1, 2] {
        let entries = recorded(&format!("global-scope-cluster-store-h{number}"));
        both.extend(entries.into_iter().map(|entry| (number, entry)));
    }
    both.sort_by(|(_, one), (_, other)| one.time.total_cmp(&other.time));
    for (number, entry) in &both {
        conversation.say(&stage, *number, &drivers[number - 1], entry);
    }
    assert_eq!(stage.leftovers(), "");
}

/// After a restart Docker names a network that it made before, and does not say so again.
#[test]
fn a_network_is_known_after_a_restart() {
    let stage = Stage::new(1);
    let driver = stage.driver(1, &[]);
    let entries = recorded("daemon-restart-h1");
    let first = entries
        .iter()
        .find(|entry| entry.call == "NetworkDriver.CreateEndpoint");
    let network = first.unwrap().request["NetworkID"]
        .as_str()
        .unwrap()
        .to_owned();
    crate::stage::create_network(&driver, &network, "");
    drop(driver);
    let driver = stage.driver(1, &[]);
    let mut conversation = Conversation::default();
    for entry in &entries {
        conversation.say(&stage, 1, &driver, entry);
    }
    assert_eq!(stage.endpoints().len(), 1);
    clear(&stage, &driver, &entries);
    driver.ok(
        "NetworkDriver.DeleteNetwork",
        &json!({"NetworkID": network}),
    );
}
