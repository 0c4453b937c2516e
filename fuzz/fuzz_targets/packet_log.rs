//! Messages of nfnetlink_log and the packets in them: whatever arrives is read or passed over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_netlink::netfilter::{log::message, wire};

fuzz_target!(|bytes: &[u8]| {
    for found in wire::messages(bytes).filter_map(message::decode) {
        if let Some(packet) = found.packet {
            assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
        }
    }
});
