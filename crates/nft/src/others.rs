//! What others have in nftables that can drop workloads' packets: read, never changed.

use margay_netlink::RequestError;
use margay_netlink::netfilter::Connection;
use margay_netlink::netfilter::wire::{Encoder, Header, NLM_F_DUMP, NLM_F_REQUEST};
use margay_netlink::netfilter::{Error, Result};
use margay_ruleset::others::ForeignChain;

use crate::encode;
use crate::protocol::*;

/// Every chain of the namespace. Rules that `iptables-legacy` has made are not in nftables.
pub(crate) fn chains(connection: &mut Connection) -> Result<Vec<ForeignChain>> {
    let what = || "listing the chains of all tables".to_owned();
    for _ in 0..ATTEMPTS {
        let sequence = connection.sequences(1);
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let header = Header {
            family: NFPROTO_UNSPEC,
            ..encode::header(NFT_MSG_GETCHAIN, flags, sequence)
        };
        let mut request = Encoder::default();
        request.message(header, |_| {});
        let mut found = Vec::new();
        let complete = connection.dump(request.as_bytes(), sequence, what, |message| {
            let family = message.family();
            let known = FAMILIES.iter().find(|(number, _)| Some(*number) == family);
            let attributes = message.attributes();
            if let Some((_, family)) = known
                && let Some(table) = attributes.text(NFTA_CHAIN_TABLE)
                && let Some(chain) = attributes.text(NFTA_CHAIN_NAME)
            {
                let hook = attributes.nested(NFTA_CHAIN_HOOK);
                let number = hook.and_then(|hook| hook.be32(NFTA_HOOK_HOOKNUM));
                let filters = attributes.text(NFTA_CHAIN_TYPE).as_deref() == Some("filter");
                found.push(ForeignChain {
                    family,
                    table,
                    chain,
                    forward: filters && number == Some(NF_INET_FORWARD),
                    drops: attributes.be32(NFTA_CHAIN_POLICY) == Some(NF_DROP),
                });
            }
        })?;
        if complete.is_some() {
            return Ok(found);
        }
    }
    Err(Error::Request {
        what: what(),
        source: RequestError::Interrupted,
    })
}

const ATTEMPTS: usize = 8;
const FAMILIES: [(u8, &str); 4] = [
    (NFPROTO_INET, "inet"),
    (2, "ip"),
    (7, "bridge"),
    (10, "ip6"),
];
const NFPROTO_UNSPEC: u8 = 0;
/// `linux/netfilter.h`.
const NF_INET_FORWARD: u32 = 2;
const NF_DROP: u32 = 0;
