//! The configuration list that is written where no template is given.

use serde_json::{Map, Value, json};

/// What a configuration list is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conflist {
    /// The network's name, with which handles of addresses begin.
    pub network: String,
    /// Keys of the network plugin: where the datastore is, where the node's files are.
    pub keys: Map<String, Value>,
    /// Keys of `ipam` beside its type.
    pub ipam: Map<String, Value>,
    /// What Kubernetes is asked, where it is.
    pub kubernetes: Option<Kubernetes>,
    /// Whether the reference plugin `portmap` follows.
    pub portmap: bool,
}

/// How the network plugin reaches the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// The kubeconfig, as the runtime's host sees it.
    pub kubeconfig: String,
}

impl Conflist {
    /// The text of the file.
    pub fn text(&self) -> String {
        let mut plugin = json!({"type": "margay"});
        let mut ipam = json!({"type": "margay-ipam"});
        if let (Some(plugin), Some(ipam)) = (plugin.as_object_mut(), ipam.as_object_mut()) {
            plugin.extend(self.keys.clone());
            ipam.extend(self.ipam.clone());
        }
        plugin["ipam"] = ipam;
        if let Some(kubernetes) = &self.kubernetes {
            plugin["policy"] = json!({"type": "k8s"});
            plugin["kubernetes"] = json!({"kubeconfig": kubernetes.kubeconfig});
        }
        let mut plugins = vec![plugin];
        if self.portmap {
            plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
        }
        let list = json!({
            "cniVersion": VERSION,
            "cniVersions": VERSIONS,
            "name": self.network,
            "loadOnlyInlinedPlugins": true,
            "plugins": plugins,
        });
        format!("{list:#}\n")
    }
}

/// For runtimes that do not know `cniVersions`, some of which cannot read results of 1.1.0.
const VERSION: &str = "1.0.0";
/// For those that do: they take the highest that they know.
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_runtimes_of_all_versions_can_use() {
        let keys = json!({"etcd_endpoints": "https://a:2379", "mtu": 1400});
        let list = Conflist {
            network: "k8s-pod-network".to_owned(),
            keys: keys.as_object().unwrap().clone(),
            ipam: json!({"assign_ipv6": "true"}).as_object().unwrap().clone(),
            kubernetes: Some(Kubernetes {
                kubeconfig: "/etc/cni/net.d/margay-kubeconfig".to_owned(),
            }),
            portmap: true,
        };
        let text = list.text();
        assert!(
            text.starts_with("{\n  \"cniVersion\": \"1.0.0\",\n") && text.ends_with("}\n"),
            "{text}"
        );
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read,
            json!({
                "cniVersion": "1.0.0",
                "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
                "name": "k8s-pod-network",
                "loadOnlyInlinedPlugins": true,
                "plugins": [
                    {
                        "type": "margay",
                        "etcd_endpoints": "https://a:2379",
                        "mtu": 1400,
                        "ipam": {"type": "margay-ipam", "assign_ipv6": "true"},
                        "policy": {"type": "k8s"},
                        "kubernetes": {"kubeconfig": "/etc/cni/net.d/margay-kubeconfig"},
                    },
                    {"type": "portmap", "capabilities": {"portMappings": true}},
                ],
            })
        );
        crate::Configuration::new("10-margay.conflist", text, false).unwrap();
    }

    #[test]
    fn without_kubernetes_nobody_is_asked() {
        let list = Conflist {
            network: "margay".to_owned(),
            ..Conflist::default()
        };
        let read: Value = serde_json::from_str(&list.text()).unwrap();
        let plugins = read["plugins"].as_array().unwrap();
        assert_eq!(plugins.len(), 1);
        assert!(plugins[0].get("policy").is_none() && plugins[0].get("kubernetes").is_none());
    }
}
