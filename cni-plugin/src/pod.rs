//! A pod as Kubernetes' API server describes it, where the configuration asks for that.

use std::collections::BTreeMap;

use margay_call::{Kubernetes, from_kube};
use margay_cni::error::{Error, code};
use margay_cni::{NetConf, Request, RequestedAddress};
use margay_kube::{Container, Namespace, ObjectMeta, Pod as KubePod};
use margay_model::Family;
use margay_model::resource::endpoint::WorkloadPort;
use margay_model::scalar::Protocol;
use margay_plugin::progress;
use serde_json::{Map, Value, json};

use crate::annotations::Wishes;
use crate::config::Ipam;

/// What of a pod goes into its endpoint, and what it asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pod {
    /// Labels, without those that every endpoint has.
    pub(crate) labels: BTreeMap<String, String>,
    /// The prefix that its name was made from.
    pub(crate) generate_name: Option<String>,
    /// Its service account.
    pub(crate) service_account: Option<String>,
    /// Profiles of its namespace and its service account.
    pub(crate) profiles: Vec<String>,
    /// Ports that have a name or are forwarded by the host.
    pub(crate) ports: Vec<WorkloadPort>,
    /// Labels of its namespace, which pools select by.
    pub(crate) namespace_labels: BTreeMap<String, String>,
    /// What its annotations ask for.
    pub(crate) wishes: Wishes,
}

impl Pod {
    /// Asks the API server for the pod of a call. `None`, with nobody asked, unless `policy.type` is `k8s` and
    /// the call names a pod and its namespace.
    ///
    /// # Errors
    /// What the API server refused, and annotations that cannot be used (code 7).
    pub(crate) async fn of(call: &Request, settings: &Kubernetes) -> Result<Option<Self>, Error> {
        let Some((namespace, name)) = call.args.pod().filter(|_| settings.describes_pods) else {
            return Ok(None);
        };
        let mut client = settings.client()?;
        progress("waiting for the Kubernetes API server");
        let described = async {
            let of_namespace = client.namespace(namespace).await?;
            Ok((of_namespace, client.pod(namespace, name).await?))
        };
        let (of_namespace, pod) = described.await.map_err(|error| from_kube(&error))?;
        if let Some(uid) = call.args.pod_uid.as_deref() {
            same(&pod.metadata, uid).map_err(|held| {
                Error::new(
                    code::TRY_AGAIN_LATER,
                    format!(
                        "pod {namespace}/{name} has been created anew: K8S_POD_UID is {uid}, and the pod of that \
                         name is {held} now; this call is too late"
                    ),
                )
            })?;
        }
        Self::read(namespace, of_namespace, pod, settings).map(Some)
    }

    fn read(
        name: &str,
        namespace: Namespace,
        pod: KubePod,
        settings: &Kubernetes,
    ) -> Result<Self, Error> {
        let wishes = Wishes::read(
            &namespace.metadata.annotations,
            &pod.metadata.annotations,
            settings,
        )?;
        let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        let ports = containers.flat_map(ports).collect();
        let account = Some(pod.spec.service_account_name).filter(|account| !account.is_empty());
        let mut labels = pod.metadata.labels;
        let mut profiles = vec![format!("kns.{name}")];
        if let Some(account) = &account {
            // A name may be longer than the value of a label.
            if account.len() <= LONGEST_LABEL {
                labels.insert(ACCOUNT_LABEL.to_owned(), account.clone());
            }
            profiles.push(format!("ksa.{name}.{account}"));
        }
        Ok(Self {
            labels,
            generate_name: Some(pod.metadata.generate_name).filter(|prefix| !prefix.is_empty()),
            service_account: account,
            profiles,
            ports,
            namespace_labels: namespace.metadata.labels,
            wishes,
        })
    }

    /// The call as it would be if its configuration asked for what the pod asks for.
    ///
    /// # Errors
    /// Code 7 when another plugin assigns the addresses, and cannot be asked for certain ones.
    pub(crate) fn adjust(&self, call: &Request, ipam: &Ipam) -> Result<Request, Error> {
        let wishes = &self.wishes;
        let mut call = call.clone();
        if let Some(mac) = wishes.mac {
            call.args.mac = Some(mac);
        }
        if let Ipam::Delegate(plugin) = ipam {
            if !wishes.addresses.is_empty() {
                return Err(Error::new(
                    code::INVALID_CONFIG,
                    format!(
                        "annotation cni.projectcalico.org/ipAddrs needs \"ipam.type\": \"margay-ipam\"; {plugin} \
                         is not asked for certain addresses"
                    ),
                ));
            }
            return Ok(call);
        }
        let requested = wishes.addresses.iter().map(|address| RequestedAddress {
            address: *address,
            prefix: None,
        });
        if !wishes.addresses.is_empty() {
            call.args.ips = requested.collect();
        }
        let mut changes = Map::new();
        if let Some(pools) = &wishes.ipv4_pools {
            changes.insert("ipv4_pools".to_owned(), json!(pools));
        }
        if let Some(pools) = &wishes.ipv6_pools {
            changes.insert("ipv6_pools".to_owned(), json!(pools));
        }
        if let Some(families) = &wishes.families {
            let switch = |family| json!(families.contains(&family).to_string());
            changes.insert("assign_ipv4".to_owned(), switch(Family::V4));
            changes.insert("assign_ipv6".to_owned(), switch(Family::V6));
        }
        if changes.is_empty() {
            return Ok(call);
        }
        let mut conf = call.conf.raw().clone();
        if let Some(Value::Object(ipam)) = conf.get_mut("ipam") {
            ipam.extend(changes);
        }
        reconfigure(&call, conf)
    }
}

/// Whether a call is for this pod, not for an earlier one of the same name; else the UID that it has now. A
/// kubelet's own pods have in the API server mirrors with a UID of theirs, and an annotation with the pod's.
fn same(metadata: &ObjectMeta, uid: &str) -> Result<(), String> {
    let own = [Some(&metadata.uid), metadata.annotations.get(OWN_UID)];
    let mut known = own.into_iter().flatten().filter(|known| !known.is_empty());
    if known.clone().next().is_none() || known.any(|known| known == uid) {
        return Ok(());
    }
    Err(metadata.uid.clone())
}

/// The call with another configuration.
///
/// # Errors
/// Code 999: the configuration is a changed copy of one that was read.
pub(crate) fn reconfigure(call: &Request, conf: Map<String, Value>) -> Result<Request, Error> {
    let stdin = Value::Object(conf).to_string().into_bytes();
    Ok(Request {
        conf: NetConf::parse(&stdin)?,
        stdin,
        ..call.clone()
    })
}

fn ports(container: &Container) -> impl Iterator<Item = WorkloadPort> + '_ {
    container.ports.iter().filter_map(|port| {
        let named = !port.name.is_empty() || port.host_port != 0;
        let protocol = match port.protocol.as_str() {
            "" | "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return None,
        };
        (named && port.container_port != 0).then(|| WorkloadPort {
            name: port.name.clone(),
            protocol: Some(protocol),
            port: port.container_port,
            host_port: port.host_port,
            host_ip: port.host_ip.clone(),
            ..WorkloadPort::default()
        })
    })
}

/// What the kubelet writes at the mirror of a pod of its own (kubernetes, pkg/kubelet/types).
const OWN_UID: &str = "kubernetes.io/config.hash";
const ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";
const LONGEST_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn settings() -> Kubernetes {
        let conf = json!({"policy": {"type": "k8s"}});
        Kubernetes::read(conf.as_object().unwrap())
    }

    fn pod(value: Value) -> Pod {
        let namespace = json!({"metadata": {"labels": {"team": "a"}}});
        let namespace = serde_json::from_value(namespace).unwrap();
        let pod = serde_json::from_value(value).unwrap();
        Pod::read("prod", namespace, pod, &settings()).unwrap()
    }

    fn call(ipam: Value) -> Request {
        let env = HashMap::from([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/bin"),
        ]);
        let conf = json!({"name": "n", "type": "margay", "ipam": ipam, "mtu": 1400});
        let read = |name: &str| env.get(name).map(|value| (*value).to_owned());
        Request::parse(read, conf.to_string().into_bytes()).unwrap()
    }

    #[test]
    fn ports_are_those_with_a_name_or_a_host_port() {
        let pod = pod(json!({"spec": {
            "containers": [{"ports": [
                {"name": "http", "containerPort": 8080},
                {"containerPort": 8081, "protocol": "TCP"},
                {"containerPort": 53, "protocol": "UDP", "hostPort": 5353, "hostIP": "192.0.2.1"},
                {"name": "odd", "containerPort": 9, "protocol": "ICMP"},
            ]}],
            "initContainers": [{"ports": [{"name": "side", "containerPort": 9, "protocol": "SCTP"}]}, {}],
        }}));
        let ports: Vec<_> = pod
            .ports
            .iter()
            .map(|port| (port.name.as_str(), port.port, port.host_port))
            .collect();
        assert_eq!(ports, [("http", 8080, 0), ("", 53, 5353), ("side", 9, 0)]);
        assert_eq!(pod.ports[1].host_ip, "192.0.2.1");
        assert_eq!(pod.ports[2].protocol, Some(Protocol::Sctp));
    }

    #[test]
    fn a_service_account_makes_a_label_and_a_profile() {
        let bare = pod(json!({"metadata": {"labels": {"app": "web"}}}));
        assert_eq!(bare.profiles, ["kns.prod"]);
        assert_eq!((bare.labels.len(), bare.generate_name), (1, None));
        assert_eq!(bare.namespace_labels["team"], "a");
        let pod = pod(
            json!({"spec": {"serviceAccountName": "sa1"}, "metadata": {"generateName": "web-"}}),
        );
        assert_eq!(pod.profiles, ["kns.prod", "ksa.prod.sa1"]);
        assert_eq!(pod.labels[ACCOUNT_LABEL], "sa1");
        assert_eq!(pod.generate_name.as_deref(), Some("web-"));
    }

    #[test]
    fn a_call_for_an_earlier_pod_of_the_same_name_is_known() {
        let metadata = |value: Value| -> ObjectMeta { serde_json::from_value(value).unwrap() };
        let pod = metadata(json!({"uid": "b"}));
        assert_eq!(same(&pod, "b"), Ok(()));
        assert_eq!(same(&pod, "a"), Err("b".to_owned()));
        let mirror = metadata(json!({"uid": "m", "annotations": {OWN_UID: "0a1b"}}));
        assert_eq!(
            (same(&mirror, "0a1b"), same(&mirror, "m")),
            (Ok(()), Ok(()))
        );
        assert_eq!(same(&mirror, "a"), Err("m".to_owned()));
        // A server that gives none says nothing of it.
        assert_eq!(same(&metadata(json!({})), "a"), Ok(()));
    }

    #[test]
    fn wishes_become_settings_of_the_call() {
        let annotated = pod(json!({"metadata": {"annotations": {
            "cni.projectcalico.org/ipv4pools": "[\"a\"]",
            "cni.projectcalico.org/ipFamilies": "[\"IPv6\"]",
            "cni.projectcalico.org/ipAddrs": "[\"fd00::7\"]",
            "cni.projectcalico.org/hwAddr": "02:00:00:00:00:07",
        }}}));
        let given =
            call(json!({"type": "margay-ipam", "ipv4_pools": ["b"], "assign_ipv4": "true"}));
        let call = annotated.adjust(&given, &Ipam::Own).unwrap();
        let ipam = &call.conf.raw()["ipam"];
        assert_eq!(ipam["ipv4_pools"], json!(["a"]));
        assert_eq!(
            (&ipam["assign_ipv4"], &ipam["assign_ipv6"]),
            (&json!("false"), &json!("true"))
        );
        assert_eq!(call.conf.raw()["mtu"], 1400);
        assert_eq!(
            call.requested_addresses().unwrap()[0].address.to_string(),
            "fd00::7"
        );
        assert!(call.args.mac.is_some());
        let delegate = Ipam::Delegate("host-local".to_owned());
        let error = annotated.adjust(&given, &delegate).unwrap_err();
        assert!(
            error.msg.contains("ipAddrs") && error.msg.contains("host-local"),
            "{error}"
        );
    }
}
