//! Every request byte by byte, against the kernel's headers (little-endian machines).
//!
//! Each line is a field or a group of fields in hexadecimal, and after `#` what it says. The first
//! 16 bytes are `struct nlmsghdr`: length, type, flags, sequence number, port. Flags: 1 request,
//! 0x100 replace, 0x200 exclusive, 0x400 create. Attributes (`struct nlattr`) are length and type,
//! then the value, padded to four bytes.

#![cfg(target_endian = "little")]

use std::os::fd::AsFd;

use margay_endpoint::shaping::TokenBucket;
use margay_endpoint::{Address, Mark, VethPair};
use margay_route::{
    FdbEntry, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, Mac, Neighbour, NextHop, PROTOCOL,
    PROTOCOL_BOOT, Route, Scope, TABLE_MAIN, VXLAN_V4, Vxlan,
};

use super::*;

#[track_caller]
fn assert_bytes(mut request: Request, expected: &str) {
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let fields = expected.lines().filter_map(|line| line.split('#').next());
    let expected: String = fields.flat_map(str::split_whitespace).collect();
    assert_eq!(found, expected);
}

fn net(text: &str) -> ipnetwork::IpNetwork {
    text.parse().unwrap()
}

fn hop(gateway: &str, onlink: bool, weight: u16) -> NextHop {
    let gateway = Some(gateway.parse().unwrap());
    NextHop {
        gateway,
        interface: "up0".to_owned(),
        onlink,
        weight,
    }
}

#[test]
fn create_veth_makes_the_peer_in_the_other_namespace() {
    let pair = VethPair {
        host_name: "cali1".to_owned(),
        host_mac: GATEWAY_MAC,
        container_name: "eth0".to_owned(),
        container_mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: Some(1450),
        queues: 1,
        mark: Mark::new("n", "c", "eth0"),
    };
    // Standard input stands for the namespace: its descriptor is always 0.
    let expected = "
        b0000000 1000 0106 00000000 00000000  # 176 bytes, RTM_NEWLINK, request|create|exclusive
        00 00 0000 00000000 00000000 00000000 # ifinfomsg: unspec, index 0, flags, change mask
        0a00 0300 63616c6931 00 0000          # IFLA_IFNAME cali1
        0a00 0100 eeeeeeeeeeee 0000           # IFLA_ADDRESS
        0800 1f00 01000000                    # IFLA_NUM_TX_QUEUES 1
        0800 2000 01000000                    # IFLA_NUM_RX_QUEUES 1
        0800 0400 aa050000                    # IFLA_MTU 1450
        6000 1200                             # IFLA_LINKINFO, 96 bytes
        0900 0100 7665746800 000000           #   IFLA_INFO_KIND veth
        5000 0200                             #   IFLA_INFO_DATA, 80 bytes
        4c00 0100                             #     VETH_INFO_PEER, 76 bytes
        00 00 0000 00000000 00000000 00000000 #       ifinfomsg
        0900 0300 6574683000 000000           #       IFLA_IFNAME eth0
        0a00 0100 020000000001 0000           #       IFLA_ADDRESS
        0800 1f00 01000000                    #       IFLA_NUM_TX_QUEUES 1
        0800 2000 01000000                    #       IFLA_NUM_RX_QUEUES 1
        0800 0400 aa050000                    #       IFLA_MTU 1450
        0800 1c00 00000000                    #       IFLA_NET_NS_FD 0";
    assert_bytes(create_veth(&pair, std::io::stdin().as_fd()), expected);
}

#[test]
fn set_up_brings_up_and_names_the_owner() {
    let expected = "
        34000000 1300 0100 00000000 00000000  # 52 bytes, RTM_SETLINK, request
        00 00 0000 07000000 01000000 01000000 # ifinfomsg: index 7, IFF_UP, change mask IFF_UP
        1400 1400                             # IFLA_IFALIAS
        6d61726761793a6e2f632f65746830 00     #   margay:n/c/eth0";
    assert_bytes(set_up(7, Some("margay:n/c/eth0")), expected);
    let expected = "
        20000000 1300 0100 00000000 00000000
        00 00 0000 01000000 01000000 01000000";
    assert_bytes(set_up(1, None), expected);
}

#[test]
fn set_down_clears_one_flag() {
    let expected = "
        20000000 1300 0100 00000000 00000000  # 32 bytes, RTM_SETLINK, request
        00 00 0000 07000000 00000000 01000000 # ifinfomsg: index 7, no flag, change mask IFF_UP";
    assert_bytes(set_down(7), expected);
}

#[test]
fn links_are_asked_for_without_statistics() {
    let expected = "
        34000000 1200 0100 00000000 00000000  # 52 bytes, RTM_GETLINK, request
        00 00 0000 00000000 00000000 00000000 # ifinfomsg, zero under strict checking
        0a00 0300 63616c6931 00 0000          # IFLA_IFNAME cali1
        0800 1d00 08000000                    # IFLA_EXT_MASK RTEXT_FILTER_SKIP_STATS";
    assert_bytes(get_link("cali1"), expected);
    let expected = "
        28000000 1200 0100 00000000 00000000
        00 00 0000 00000000 00000000 00000000
        0800 1d00 08000000";
    assert_bytes(list_links(), expected);
}

#[test]
fn delete_link_goes_by_index() {
    let expected = "
        20000000 1100 0100 00000000 00000000  # 32 bytes, RTM_DELLINK, request
        00 00 0000 07000000 00000000 00000000 # ifinfomsg: index 7";
    assert_bytes(delete_link(7), expected);
}

#[test]
fn add_address_of_either_family() {
    let v4 = Address {
        network: net("10.65.0.2/32"),
        scope: Scope::Universe,
        nodad: false,
    };
    let expected = "
        28000000 1400 0106 00000000 00000000 # 40 bytes, RTM_NEWADDR, request|create|exclusive
        02 20 00 00 02000000                 # ifaddrmsg: AF_INET, /32, flags, universe, index 2
        0800 0200 0a410002                   # IFA_LOCAL 10.65.0.2
        0800 0100 0a410002                   # IFA_ADDRESS, the same: no point-to-point peer";
    assert_bytes(add_address(2, &v4), expected);
    let network = net("fe80::ecee:eeff:feee:eeee/64");
    let v6 = Address {
        network,
        scope: Scope::Link,
        nodad: true,
    };
    let expected = "
        40000000 1400 0106 00000000 00000000        # 64 bytes
        0a 40 02 fd 07000000                        # AF_INET6, /64, IFA_F_NODAD, link, index 7
        1400 0200 fe80000000000000 eceeeefffeeeeeee # IFA_LOCAL
        1400 0100 fe80000000000000 eceeeefffeeeeeee # IFA_ADDRESS";
    assert_bytes(add_address(7, &v6), expected);
}

#[test]
fn list_addresses_of_one_interface() {
    let expected = "
        18000000 1600 0100 00000000 00000000 # 24 bytes, RTM_GETADDR, request
        00 00 00 00 07000000                 # ifaddrmsg: any family, index 7";
    assert_bytes(list_addresses(Some(7)), expected);
}

#[test]
fn the_containers_routes() {
    let gateway = Route::on_link(net("169.254.1.1/32"), "eth0", PROTOCOL_BOOT);
    let expected = "
        2c000000 1800 0106 00000000 00000000 # 44 bytes, RTM_NEWROUTE, request|create|exclusive
        02 20 00 00 fe 03 fd 01 00000000     # rtmsg: AF_INET, /32, main, boot, link, unicast
        0800 0100 a9fe0101                   # RTA_DST 169.254.1.1
        0800 0400 02000000                   # RTA_OIF 2";
    assert_bytes(put_route(&gateway, &[2], Put::Add), expected);
    let default = Route::via(net("0.0.0.0/0"), GATEWAY_V4.into(), "eth0", PROTOCOL_BOOT);
    let expected = "
        2c000000 1800 0106 00000000 00000000
        02 00 00 00 fe 03 00 01 00000000     # /0 without RTA_DST, scope universe
        0800 0400 02000000                   # RTA_OIF 2
        0800 0500 a9fe0101                   # RTA_GATEWAY 169.254.1.1";
    assert_bytes(put_route(&default, &[2], Put::Add), expected);
    let default = Route::via(net("::/0"), GATEWAY_V6.into(), "eth0", PROTOCOL_BOOT);
    let expected = "
        40000000 1800 0106 00000000 00000000
        0a 00 00 00 fe 03 00 01 00000000            # AF_INET6
        0800 0600 00040000                          # RTA_PRIORITY 1024, IPv6's default
        0800 0400 02000000                          # RTA_OIF 2
        1400 0500 fe80000000000000 eceeeefffeeeeeee # RTA_GATEWAY";
    assert_bytes(put_route(&default, &[2], Put::Add), expected);
}

#[test]
fn a_blackhole_has_no_way_out() {
    let route = Route::blackhole(net("10.65.0.0/26"), PROTOCOL);
    let expected = "
        24000000 1800 0105 00000000 00000000 # 36 bytes, request|create|replace
        02 1a 00 00 fe 50 00 06 00000000     # /26, main, protocol 80, universe, blackhole
        0800 0100 0a410000                   # RTA_DST 10.65.0.0";
    assert_bytes(put_route(&route, &[], Put::Replace), expected);
}

#[test]
fn large_tables_sources_and_onlink_gateways() {
    let route = Route {
        table: 1000,
        src: Some("192.0.2.1".parse().unwrap()),
        ..Route::multipath(
            net("10.65.0.0/26"),
            vec![hop("192.0.2.2", true, 1)],
            PROTOCOL,
        )
    };
    let expected = "
        44000000 1800 0105 00000000 00000000 # 68 bytes
        02 1a 00 00 00 50 00 01 04000000     # table 0: see RTA_TABLE; RTNH_F_ONLINK
        0800 0f00 e8030000                   # RTA_TABLE 1000
        0800 0100 0a410000                   # RTA_DST
        0800 0700 c0000201                   # RTA_PREFSRC 192.0.2.1
        0800 0400 04000000                   # RTA_OIF 4
        0800 0500 c0000202                   # RTA_GATEWAY 192.0.2.2";
    assert_bytes(put_route(&route, &[4], Put::Replace), expected);
}

#[test]
fn several_next_hops_are_one_route() {
    let hops = vec![hop("192.0.2.2", false, 1), hop("192.0.2.3", true, 3)];
    let route = Route::multipath(net("10.65.0.0/26"), hops, PROTOCOL);
    let expected = "
        48000000 1800 0105 00000000 00000000 # 72 bytes
        02 1a 00 00 fe 50 00 01 00000000
        0800 0100 0a410000                   # RTA_DST
        2400 0900                            # RTA_MULTIPATH, 36 bytes
        1000 00 00 04000000                  #   rtnexthop: 16 bytes, flags, weight-1, index 4
        0800 0500 c0000202                   #     RTA_GATEWAY 192.0.2.2
        1000 04 02 05000000                  #   RTNH_F_ONLINK, weight 3, index 5
        0800 0500 c0000203                   #     RTA_GATEWAY 192.0.2.3";
    assert_bytes(put_route(&route, &[4, 5], Put::Replace), expected);
}

#[test]
fn delete_route_names_one_route() {
    let route = Route {
        metric: 7,
        ..Route::on_link(net("10.65.0.2/32"), "cali1", PROTOCOL)
    };
    let expected = "
        2c000000 1900 0100 00000000 00000000 # 44 bytes, RTM_DELROUTE, request
        02 20 00 00 fe 50 fd 01 00000000     # /32, main, protocol 80, link, unicast
        0800 0100 0a410002                   # RTA_DST
        0800 0600 07000000                   # RTA_PRIORITY 7";
    assert_bytes(delete_route(&route), expected);
}

#[test]
fn list_routes_filters_in_the_kernel() {
    let expected = "
        2c000000 1a00 0100 00000000 00000000 # 44 bytes, RTM_GETROUTE, request
        02 00 00 00 00 00 00 00 00000000     # AF_INET
        0800 0f00 fe000000                   # RTA_TABLE main
        0800 0400 07000000                   # RTA_OIF 7";
    assert_bytes(list_routes(true, Some(TABLE_MAIN), Some(7)), expected);
}

#[test]
fn neighbours_are_permanent_or_proxies() {
    let gateway = Neighbour::permanent(GATEWAY_V4.into(), GATEWAY_MAC, "eth0");
    let expected = "
        30000000 1c00 0105 00000000 00000000 # 48 bytes, RTM_NEWNEIGH, request|create|replace
        02 000000 02000000 8000 00 00        # ndmsg: AF_INET, index 2, NUD_PERMANENT, flags, type
        0800 0100 a9fe0101                   # NDA_DST 169.254.1.1
        0a00 0200 eeeeeeeeeeee 0000          # NDA_LLADDR";
    assert_bytes(set_neighbour(&gateway, 2), expected);
    let proxy = Neighbour::proxy("2001:db8::2".parse().unwrap(), "up0");
    let expected = "
        30000000 1c00 0105 00000000 00000000
        0a 000000 07000000 8000 08 00               # AF_INET6, index 7, NTF_PROXY
        1400 0100 20010db800000000 0000000000000002 # NDA_DST 2001:db8::2";
    assert_bytes(set_neighbour(&proxy, 7), expected);
    let expected = "
        24000000 1d00 0100 00000000 00000000 # 36 bytes, RTM_DELNEIGH, request
        02 000000 02000000 0000 00 00
        0800 0100 a9fe0101                   # NDA_DST";
    assert_bytes(delete_neighbour(&gateway, 2), expected);
}

#[test]
fn list_neighbours_of_the_cache_and_of_the_proxies() {
    let expected = "
        24000000 1e00 0100 00000000 00000000 # 36 bytes, RTM_GETNEIGH, request
        02 000000 00000000 0000 00 00        # AF_INET
        0800 0800 07000000                   # NDA_IFINDEX 7";
    assert_bytes(list_neighbours(true, false, Some(7)), expected);
    let expected = "
        1c000000 1e00 0100 00000000 00000000 # 28 bytes
        0a 000000 00000000 0000 08 00        # AF_INET6, NTF_PROXY; no filter is taken";
    assert_bytes(list_neighbours(false, true, Some(7)), expected);
}

fn vxlan(local: &str) -> Vxlan {
    Vxlan {
        name: VXLAN_V4.to_owned(),
        vni: 4096,
        port: 4789,
        parent: "up0".to_owned(),
        local: local.parse().unwrap(),
        mac: Mac([0x66, 1, 2, 3, 4, 5]),
        mtu: 1450,
        address: "10.65.0.1".parse().unwrap(),
    }
}

#[test]
fn a_vxlan_device_is_born_up_and_does_not_learn() {
    let expected = "
        84000000 1000 0106 00000000 00000000       # 132 bytes, RTM_NEWLINK, request|create|exclusive
        00 00 0000 00000000 01000000 01000000      # ifinfomsg: IFF_UP, change mask IFF_UP
        1100 0300 76786c616e2e63616c69636f00 000000 # IFLA_IFNAME vxlan.calico
        0a00 0100 660102030405 0000                # IFLA_ADDRESS
        0800 0400 aa050000                         # IFLA_MTU 1450
        3c00 1200                                  # IFLA_LINKINFO, 60 bytes
        0a00 0100 76786c616e00 0000                #   IFLA_INFO_KIND vxlan
        2c00 0200                                  #   IFLA_INFO_DATA, 44 bytes
        0800 0100 00100000                         #     IFLA_VXLAN_ID 4096
        0800 0300 04000000                         #     IFLA_VXLAN_LINK 4
        0800 0400 c0000201                         #     IFLA_VXLAN_LOCAL 192.0.2.1
        0500 0700 00 000000                        #     IFLA_VXLAN_LEARNING 0
        0600 0f00 12b5 0000                        #     IFLA_VXLAN_PORT 4789, big-endian";
    assert_bytes(create_vxlan(&vxlan("192.0.2.1"), 4), expected);
    let expected = "
        90000000 1000 0106 00000000 00000000
        00 00 0000 00000000 01000000 01000000
        1100 0300 76786c616e2e63616c69636f00 000000
        0a00 0100 660102030405 0000
        0800 0400 aa050000
        4800 1200
        0a00 0100 76786c616e00 0000
        3800 0200
        0800 0100 00100000
        0800 0300 04000000
        1400 1100 20010db800000000 0000000000000001 #     IFLA_VXLAN_LOCAL6 2001:db8::1
        0500 0700 00 000000
        0600 0f00 12b5 0000";
    assert_bytes(create_vxlan(&vxlan("2001:db8::1"), 4), expected);
}

#[test]
fn links_are_amended_and_addresses_deleted() {
    let expected = "
        34000000 1300 0100 00000000 00000000  # 52 bytes, RTM_SETLINK, request
        00 00 0000 07000000 01000000 01000000 # index 7, IFF_UP, change mask IFF_UP
        0a00 0100 660102030405 0000           # IFLA_ADDRESS
        0800 0400 aa050000                    # IFLA_MTU 1450";
    let mac = Mac([0x66, 1, 2, 3, 4, 5]);
    assert_bytes(amend_link(7, Some(mac), 1450), expected);
    let expected = "
        28000000 1300 0100 00000000 00000000  # 40 bytes, RTM_SETLINK, request
        00 00 0000 07000000 00000000 00000000 # index 7, no flag is changed
        0800 0400 aa050000                    # IFLA_MTU 1450";
    assert_bytes(set_mtu(7, 1450), expected);
    let expected = "
        20000000 1500 0100 00000000 00000000 # 32 bytes, RTM_DELADDR, request
        02 20 00 00 07000000                 # ifaddrmsg: AF_INET, /32, index 7
        0800 0200 0a410001                   # IFA_LOCAL 10.65.0.1";
    assert_bytes(delete_address(7, net("10.65.0.1/32")), expected);
}

#[test]
fn forwarding_entries_are_the_devices_own() {
    let entry = FdbEntry {
        interface: VXLAN_V4.to_owned(),
        mac: Mac([0x66, 1, 2, 3, 4, 5]),
        destination: "192.0.2.2".parse().unwrap(),
    };
    let expected = "
        30000000 1c00 0105 00000000 00000000 # 48 bytes, RTM_NEWNEIGH, request|create|replace
        07 000000 07000000 8000 02 00        # ndmsg: AF_BRIDGE, index 7, NUD_PERMANENT, NTF_SELF
        0a00 0200 660102030405 0000          # NDA_LLADDR
        0800 0100 c0000202                   # NDA_DST 192.0.2.2";
    assert_bytes(set_fdb(&entry, 7), expected);
    let expected = "
        30000000 1d00 0100 00000000 00000000 # 48 bytes, RTM_DELNEIGH, request
        07 000000 07000000 0000 02 00
        0a00 0200 660102030405 0000
        0800 0100 c0000202";
    assert_bytes(delete_fdb(&entry, 7), expected);
    let expected = "
        1c000000 1e00 0100 00000000 00000000 # 28 bytes, RTM_GETNEIGH, request
        07 000000 07000000 0000 00 00        # ndmsg: AF_BRIDGE, index 7";
    assert_bytes(list_fdb(7), expected);
}

#[test]
fn a_namespaces_number_is_asked_by_descriptor() {
    let expected = "
        1c000000 5a00 0100 00000000 00000000 # 28 bytes, RTM_GETNSID, request
        00 000000                            # rtgenmsg: unspec
        0800 0300 00000000                   # NETNSA_FD 0, standard input's";
    assert_bytes(get_nsid(std::io::stdin().as_fd()), expected);
}

#[test]
fn devices_for_redirected_packets_are_created_up() {
    let expected = "
        44000000 1000 0106 00000000 00000000  # 68 bytes, RTM_NEWLINK, request|create|exclusive
        00 00 0000 00000000 01000000 01000000 # ifinfomsg: unspec, index 0, IFF_UP, change mask IFF_UP
        0e00 0300 627763616c69666f6f00 0000   # IFLA_IFNAME bwcalifoo
        0800 0400 aa050000                    # IFLA_MTU 1450
        0c00 1200                             # IFLA_LINKINFO, 12 bytes
        0800 0100 69666200                    #   IFLA_INFO_KIND ifb";
    assert_bytes(create_ifb("bwcalifoo", 1450), expected);
}

#[test]
fn token_buckets_have_their_bursts_in_bytes() {
    let mut bucket = TokenBucket {
        rate: 1_250_000,
        burst: 64_000,
        limit: 131_072,
        peak: None,
    };
    let expected = "
        6c000000 2400 0105 00000000 00000000  # 108 bytes, RTM_NEWQDISC, request|create|replace
        00 00 0000 07000000                   # tcmsg: unspec, index 7
        0000674d ffffffff 00000000            #   handle 4d67:0, parent TC_H_ROOT, info
        0800 0100 74626600                    # TCA_KIND tbf
        4000 0200                             # TCA_OPTIONS, 64 bytes
        2800 0100                             #   TCA_TBF_PARMS, 40 bytes
        00 01 0000 0000 0000 d0121300         #     rate: ethernet, 1250000
        00 00 0000 0000 0000 00000000         #     peakrate: none
        00000200 00000000 00000000            #     limit 131072, buffer and mtu in ticks: not given
        0c00 0400 d012130000000000            #   TCA_TBF_RATE64 1250000
        0800 0600 00fa0000                    #   TCA_TBF_BURST 64000";
    assert_bytes(put_token_bucket(7, &bucket), expected);
    bucket.rate = 5_000_000_000;
    bucket.peak = Some((6_000_000_000, 1_514));
    let expected = "
        80000000 2400 0105 00000000 00000000
        00 00 0000 07000000 0000674d ffffffff 00000000
        0800 0100 74626600
        5400 0200
        2800 0100
        00 01 0000 0000 0000 ffffffff         # as much as 32 bits hold
        00 01 0000 0000 0000 ffffffff
        00000200 00000000 00000000
        0c00 0400 00f2052a01000000            # TCA_TBF_RATE64 5000000000
        0800 0600 00fa0000
        0c00 0500 00bca06501000000            # TCA_TBF_PRATE64 6000000000
        0800 0700 ea050000                    # TCA_TBF_PBURST 1514";
    assert_bytes(put_token_bucket(7, &bucket), expected);
    let expected = "
        24000000 2500 0100 00000000 00000000  # 36 bytes, RTM_DELQDISC, request
        00 00 0000 07000000 0000674d ffffffff 00000000";
    assert_bytes(delete_token_bucket(7), expected);
}

#[test]
fn what_comes_in_is_redirected_by_a_filter_that_matches_everything() {
    let expected = "
        30000000 2400 0106 00000000 00000000  # 48 bytes, RTM_NEWQDISC, request|create|exclusive
        00 00 0000 07000000                   # tcmsg: index 7
        0000ffff f1ffffff 00000000            #   handle ffff:0, parent TC_H_INGRESS
        0c00 0100 696e677265737300            # TCA_KIND ingress";
    assert_bytes(create_ingress(7), expected);
    let expected = "
        8c000000 2c00 0106 00000000 00000000  # 140 bytes, RTM_NEWTFILTER, request|create|exclusive
        00 00 0000 07000000                   # tcmsg: index 7
        00000000 f2ffffff 00030100            #   parent ffff:fff2, priority 1, ETH_P_ALL
        0800 0100 75333200                    # TCA_KIND u32
        6000 0200                             # TCA_OPTIONS, 96 bytes
        3800 0700                             #   TCA_U32_ACT, 56 bytes
        3400 0100                             #     the first action, 52 bytes
        0b00 0100 6d697272656400 00           #       TCA_ACT_KIND mirred
        2400 0200                             #       TCA_ACT_OPTIONS, 36 bytes
        2000 0200                             #         TCA_MIRRED_PARMS, 32 bytes
        00000000 00000000 04000000            #           index, capabilities, TC_ACT_STOLEN
        00000000 00000000                     #           counts
        01000000 08000000                     #           TCA_EGRESS_REDIR, interface 8
        2400 0500                             #   TCA_U32_SEL, 36 bytes
        01 00 01 00 0000 0000                 #     terminal, 1 key
        0000 0000 00000000
        00000000 00000000 00000000 00000000   #     the key: no bits of the first word";
    assert_bytes(create_redirect(7, 8), expected);
    let expected = "
        24000000 2d00 0100 00000000 00000000  # 36 bytes, RTM_DELTFILTER, request
        00 00 0000 07000000 00000000 f2ffffff 00030100";
    assert_bytes(delete_redirect(7), expected);
    let expected = "
        24000000 2500 0100 00000000 00000000  # 36 bytes, RTM_DELQDISC, request
        00 00 0000 07000000 0000ffff f1ffffff 00000000";
    assert_bytes(delete_ingress(7), expected);
}
