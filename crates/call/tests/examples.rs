//! Every file in `conf-examples/` is a configuration that the plugins accept.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use margay_call::Settings;
use margay_cni::NetConf;
use serde_json::Value;

/// The configurations that a runtime would send for this file, in order.
fn sent(file: &Value) -> Vec<Value> {
    let Some(plugins) = file.get("plugins").and_then(Value::as_array) else {
        return vec![file.clone()];
    };
    plugins
        .iter()
        .map(|plugin| {
            let mut plugin = plugin.clone();
            plugin["name"] = file["name"].clone();
            plugin["cniVersion"] = file["cniVersion"].clone();
            plugin
        })
        .collect()
}

#[test]
fn all_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf-examples");
    let mut seen = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if !path
            .extension()
            .is_some_and(|ext| ext == "conf" || ext == "conflist")
        {
            continue;
        }
        let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for conf in sent(&file) {
            if conf["type"] != "margay" {
                continue;
            }
            let conf = NetConf::parse(conf.to_string().as_bytes()).unwrap();
            let read = Settings::read(&conf, &|_| None);
            assert!(read.is_ok(), "{}: {read:?}", path.display());
            assert!(conf.ipam().unwrap().is_some(), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} configurations were found");
}

/// Every key that Calico's network plugin reads, each with a value that it may have; the last line is Windows'.
#[test]
fn every_key_of_calico_is_accepted() {
    let conf = r#"{
        "cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "calico",
        "ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "false",
            "ipv4_pools": ["10.0.0.0/24", "default-ipv4-ippool"], "ipv6_pools": []},
        "include_default_routes": true, "mtu": 0, "num_queues": 1, "require_mtu_file": false,
        "nodename": "n1", "nodename_file": "/var/lib/calico/nodename", "nodename_file_optional": true,
        "hostname": "n1", "datastore_type": "etcdv3", "etcd_endpoints": "https://10.0.0.1:2379",
        "etcd_discovery_srv": "", "etcd_scheme": "", "etcd_authority": "", "etcd_key_file": "/k",
        "etcd_cert_file": "/c", "etcd_ca_cert_file": "/ca", "ipam_lock_file": "/var/lock/ipam",
        "log_level": "WARNING", "log_file_path": "/var/log/calico/cni/cni.log", "log_file_max_size": 100,
        "log_file_max_age": 30, "log_file_max_count": 10,
        "policy": {"type": "k8s", "k8s_api_root": "https://10.96.0.1:443", "k8s_auth_token": "t",
            "k8s_client_certificate": "", "k8s_client_key": "", "k8s_certificate_authority": ""},
        "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig", "k8s_api_root": "", "node_name": "n1"},
        "qps": 100, "burst": 200, "calico_api_group": "",
        "container_settings": {"allow_ip_forwarding": true},
        "feature_control": {"ip_addrs_no_ipam": true, "floating_ips": true},
        "args": {"org.apache.mesos": {"network_info": {"name": "n",
            "labels": {"labels": [{"key": "k", "value": "v"}]}}}},
        "device_type": "veth", "dataplane_options": {}, "readiness_gates": [],
        "policy_setup_timeout_seconds": 0, "endpoint_status_dir": "/var/run/calico/endpoint-status",
        "mode": "vxlan", "vxlan_mac_prefix": "0E-2A", "vxlan_vni": 4096, "windows_use_single_network": true
    }"#;
    let conf = NetConf::parse(conf.as_bytes()).unwrap();
    let read = Settings::read(&conf, &|_| None);
    assert!(read.is_ok(), "{read:?}");
}
