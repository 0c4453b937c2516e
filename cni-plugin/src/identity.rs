//! Who a call is about: the workload, its labels, profiles and handle.

use std::collections::BTreeMap;

use margay_cni::Request;
use margay_cni::error::{Error, code};
use margay_endpoint::{DEFAULT_PREFIX, Mark, Workload, host_interface};
use margay_journal::{Attachment, Endpoint, Release};
use margay_model::names::EndpointName;
use margay_model::{Key, Kind};

/// The identity of one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Parts of the endpoint's name.
    pub(crate) name: EndpointName,
    /// Namespace of the endpoint.
    pub(crate) namespace: String,
    /// Name of the endpoint as stored.
    pub(crate) stored_name: String,
    /// Labels, forced ones included.
    pub(crate) labels: BTreeMap<String, String>,
    /// The network's profile, which the endpoint lists unless Kubernetes describes it.
    pub(crate) profile: String,
    /// The container's id.
    pub(crate) container_id: String,
    /// The handle of the container's addresses.
    pub(crate) handle: String,
    /// A handle that old versions used for the same container.
    pub(crate) legacy_handle: String,
    /// The host interface's mark.
    pub(crate) mark: Mark,
    pod: Option<(String, String)>,
}

impl Identity {
    /// The identity behind a call on `node`.
    ///
    /// # Errors
    /// Code 7 when the parts make no valid endpoint name.
    pub(crate) fn of(call: &Request, node: &str) -> Result<Self, Error> {
        let network = call.conf.name();
        let pod = call
            .args
            .pod()
            .map(|(namespace, pod)| (namespace.to_owned(), pod.to_owned()));
        let mut labels = BTreeMap::new();
        let mut namespace = DEFAULT_NAMESPACE.to_owned();
        for (key, value) in call
            .conf
            .mesos()
            .map(|info| info.labels)
            .unwrap_or_default()
        {
            if key == NAMESPACE_LABEL {
                namespace = sanitised(&value);
            } else {
                labels.insert(sanitised(&key), sanitised(&value));
            }
        }
        let (orchestrator, workload) = match &pod {
            Some((of_pod, pod)) => {
                namespace.clone_from(of_pod);
                ("k8s", pod.clone())
            }
            None => ("cni", call.container_id.clone()),
        };
        labels.insert(NAMESPACE_LABEL.to_owned(), namespace.clone());
        labels.insert(ORCHESTRATOR_LABEL.to_owned(), orchestrator.to_owned());
        let legacy_handle = match &pod {
            Some((namespace, pod)) => format!("{namespace}.{pod}"),
            None => call.container_id.clone(),
        };
        let name = EndpointName {
            node: node.to_owned(),
            orchestrator: orchestrator.to_owned(),
            workload,
            endpoint: call.ifname.clone(),
        };
        let stored_name = name
            .encode()
            .map_err(|error| Error::new(code::INVALID_CONFIG, error.to_string()))?;
        Ok(Self {
            name,
            namespace,
            stored_name,
            labels,
            profile: network.to_owned(),
            container_id: call.container_id.clone(),
            handle: format!("{network}.{}", call.container_id),
            legacy_handle,
            mark: Mark::new(network, &call.container_id, &call.ifname),
            pod,
        })
    }

    /// The container behind an alias on this pod's host interface, where it is another one: that interface's
    /// name depends on the pod alone.
    pub(crate) fn earlier_container<'a>(&self, alias: &'a str) -> Option<&'a str> {
        self.pod.as_ref()?;
        Mark::container_of(alias, &self.profile, &self.name.endpoint)
            .filter(|id| *id != self.container_id)
    }

    /// The mark of another container's interface of the same network and name.
    pub(crate) fn mark_of(&self, container_id: &str) -> Mark {
        Mark::new(&self.profile, container_id, &self.name.endpoint)
    }

    /// The handle of another container's addresses in the same network.
    pub(crate) fn handle_of(&self, container_id: &str) -> String {
        format!("{}.{container_id}", self.profile)
    }

    /// The endpoint's key.
    pub(crate) fn endpoint_key(&self) -> Key {
        Key::namespaced(Kind::WorkloadEndpoint, &*self.namespace, &*self.stored_name)
    }

    /// Names for the host interface, in order of preference: Calico's, and one that depends on the whole
    /// container id, for containers whose ids begin alike.
    ///
    /// # Errors
    /// Code 4 when the prefix (`FELIX_INTERFACEPREFIX`) makes no interface name.
    pub(crate) fn host_interfaces(&self, prefix: Option<&str>) -> Result<[String; 2], Error> {
        let prefix = prefix
            .and_then(|list| {
                list.split(',')
                    .map(str::trim)
                    .find(|prefix| !prefix.is_empty())
            })
            .unwrap_or(DEFAULT_PREFIX);
        let id = self.container_id.as_str();
        let workload = match &self.pod {
            Some((namespace, name)) => Workload::Pod {
                namespace,
                name,
                id,
            },
            None => Workload::Container { id },
        };
        let named = |workload: &Workload<'_>, ifname: &str| {
            host_interface(prefix, workload, ifname).map_err(|error| {
                Error::new(
                    code::INVALID_ENVIRONMENT,
                    format!("FELIX_INTERFACEPREFIX: {error}"),
                )
            })
        };
        // A name the first rule never gives: it hashes the interface only where that is not eth0.
        let whole = format!("{}#{}", self.name.endpoint, self.handle);
        Ok([
            named(&workload, &self.name.endpoint)?,
            named(&Workload::Container { id }, &whole)?,
        ])
    }

    /// What a DEL gives back; `interfaces` are the names that the host interface may have had.
    pub(crate) fn release(&self, interfaces: Vec<String>) -> Release {
        Release {
            attachment: Attachment {
                network: self.profile.clone(),
                container_id: self.container_id.clone(),
                ifname: self.name.endpoint.clone(),
            },
            node: Some(self.name.node.clone()),
            handle: self.handle.clone(),
            legacy_handle: Some(self.legacy_handle.clone()),
            endpoint: Some(Endpoint {
                namespace: self.namespace.clone(),
                orchestrator: self.name.orchestrator.clone(),
                workload: self.name.workload.clone(),
            }),
            interfaces,
            mark: Some(self.mark.as_str().to_owned()),
            when: String::new(),
            why: String::new(),
        }
    }

    /// The pod, where the runtime named one.
    pub(crate) fn pod(&self) -> Option<&str> {
        self.pod.as_ref().map(|(_, pod)| pod.as_str())
    }
}

/// A label as Calico makes it from one of Mesos: `/` becomes `.`, other forbidden characters `-`; runs of
/// dots and dashes become one dot, and none stays at an end.
fn sanitised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut run = String::new();
    for char in text.chars() {
        let char = match char {
            '/' => '.',
            char if char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_') => char,
            _ => '-',
        };
        if matches!(char, '.' | '-') {
            run.push(char);
            continue;
        }
        if !out.is_empty() && !run.is_empty() {
            out.push_str(if run.len() == 1 { &run } else { "." });
        }
        run.clear();
        out.push(char);
    }
    out.trim_matches('_').to_owned()
}

const DEFAULT_NAMESPACE: &str = "default";
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";

#[cfg(test)]
mod tests {
    use super::*;

    fn call(env: &[(&str, &str)], conf: &str) -> Request {
        let env: BTreeMap<String, String> = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "cnitool-bad930507234c0c08a40"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/bin"),
        ]
        .iter()
        .chain(env)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
        Request::parse(|name| env.get(name).cloned(), conf.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_container_is_named_as_recorded() {
        let call = call(
            &[],
            r#"{"cniVersion":"1.0.0","name":"calinet","type":"margay"}"#,
        );
        let identity = Identity::of(&call, "cp-h1").unwrap();
        assert_eq!(
            identity.endpoint_key().path(),
            "/calico/resources/v3/projectcalico.org/workloadendpoints/default/\
             cp--h1-cni-cnitool--bad930507234c0c08a40-eth0"
        );
        assert_eq!(identity.handle, "calinet.cnitool-bad930507234c0c08a40");
        let [first, second] = identity.host_interfaces(None).unwrap();
        assert_eq!(first, "calicnitool-bad");
        assert_ne!(first, second);
        assert!(identity.host_interfaces(Some("tap,cali")).unwrap()[0].starts_with("tap"));
    }

    #[test]
    fn mesos_labels_become_labels() {
        let call = call(
            &[],
            r#"{"name":"calinet","type":"margay","args":{"org.apache.mesos":{"network_info":{"name":"calinet",
                "labels":{"labels":[{"key":"app/tier","value":"a b"},{"key":"x"},
                {"key":"projectcalico.org/namespace","value":"team"}]}}}}}"#,
        );
        let identity = Identity::of(&call, "n1").unwrap();
        assert_eq!(identity.namespace, "team");
        assert_eq!(identity.labels["app.tier"], "a-b");
        assert_eq!(identity.labels["x"], "");
        assert_eq!(identity.labels[NAMESPACE_LABEL], "team");
    }

    #[test]
    fn pods_keep_their_names() {
        let call = call(
            &[(
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0",
            )],
            r#"{"cniVersion":"1.0.0","name":"net","type":"margay"}"#,
        );
        let identity = Identity::of(&call, "n1").unwrap();
        assert_eq!(identity.stored_name, "n1-k8s-web--0-eth0");
        assert_eq!(identity.namespace, "prod");
        assert_eq!(identity.legacy_handle, "prod.web-0");
    }

    #[test]
    fn labels_are_sanitised() {
        for (given, made) in [
            ("a/b", "a.b"),
            ("a--b", "a.b"),
            ("-a.", "a"),
            ("a b", "a-b"),
            ("", ""),
        ] {
            assert_eq!(sanitised(given), made, "{given}");
        }
    }
}
