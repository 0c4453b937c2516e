//! Rules of other programs that can drop workloads' packets, and what helps.
//!
//! Values in, values out.

use std::fmt;

use serde::Serialize;

/// A chain of any table, as far as it matters who drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChain {
    /// `ip`, `ip6`, `inet` or `bridge`; other families are left out.
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Whether forwarded packets come in here to be filtered.
    pub forward: bool,
    /// Whether what no rule has decided is dropped.
    pub drops: bool,
}

/// Something of another program that bears on workloads' packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The table, with its family.
    pub table: String,
    /// What is there.
    pub what: &'static str,
    /// What helps.
    pub remedy: String,
}

/// What bears on workloads' packets among all chains of a node; one finding for each table and cause.
pub fn findings(chains: &[ForeignChain]) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for chain in chains.iter().filter(|chain| chain.table != "margay") {
        let table = format!("{} {}", chain.family, chain.table);
        let iptables = match chain.family {
            "ip6" => "ip6tables",
            _ => "iptables",
        };
        let docker = || {
            let mut own = chains.iter();
            own.any(|other| {
                (other.family, &other.table) == (chain.family, &chain.table)
                    && other.chain == "DOCKER-USER"
            })
        };
        let (what, remedy) = if chain.table == "calico" {
            let remedy = format!("where Calico does not run any more: nft delete table {table}");
            ("rules of Calico", remedy)
        } else if chain.chain.starts_with("cali-") {
            let remedy = format!(
                "where Calico does not run any more: {iptables}-save | grep -v cali- | {iptables}-restore"
            );
            ("rules of Calico", remedy)
        } else if !chain.forward {
            continue;
        } else if chain.table == "firewalld" {
            let remedy = "for every pool: firewall-cmd --permanent --zone=trusted --add-source=CIDR; \
                          then firewall-cmd --reload";
            ("firewalld rejects what it does not know", remedy.to_owned())
        } else if chain.drops && docker() {
            let remedy = format!(
                "{iptables} -I DOCKER-USER -i cali+ -j ACCEPT; {iptables} -I DOCKER-USER -o cali+ -j ACCEPT"
            );
            ("Docker drops what it does not know", remedy)
        } else if chain.drops {
            let remedy = match (&*chain.chain, chain.family) {
                ("FORWARD", "ip" | "ip6") => format!(
                    "{iptables} -I FORWARD -i cali+ -j ACCEPT; {iptables} -I FORWARD -o cali+ -j ACCEPT"
                ),
                _ => format!(
                    "accept interfaces named cali* in chain {} of table {table}",
                    chain.chain
                ),
            };
            ("drops what it does not know", remedy)
        } else {
            continue;
        };
        let finding = Finding {
            table,
            what,
            remedy,
        };
        if !found.contains(&finding) {
            found.push(finding);
        }
    }
    found
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}: {}; {}", self.table, self.what, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(
        family: &'static str,
        table: &str,
        chain: &str,
        forward: bool,
        drops: bool,
    ) -> ForeignChain {
        ForeignChain {
            family,
            table: table.to_owned(),
            chain: chain.to_owned(),
            forward,
            drops,
        }
    }

    #[test]
    fn who_drops_and_what_helps() {
        let docker = [
            chain("ip", "filter", "FORWARD", true, true),
            chain("ip", "filter", "DOCKER-USER", false, false),
        ];
        for (chains, what, remedy) in [
            (
                &docker[..],
                "Docker drops",
                "iptables -I DOCKER-USER -i cali+",
            ),
            (&docker[..1], "drops what", "iptables -I FORWARD -i cali+"),
            (
                &[chain("ip6", "filter", "FORWARD", true, true)],
                "drops what",
                "ip6tables -I FORWARD",
            ),
            (
                &[chain("inet", "mine", "fwd", true, true)],
                "drops what",
                "chain fwd of table inet mine",
            ),
            (
                &[chain("inet", "firewalld", "filter_FORWARD", true, false)],
                "firewalld",
                "--zone=trusted",
            ),
            (
                &[
                    chain("ip", "filter", "cali-FORWARD", false, false),
                    chain("ip", "filter", "cali-INPUT", false, false),
                ],
                "Calico",
                "iptables-save | grep -v cali-",
            ),
            (
                &[chain("ip", "calico", "filter-cali-FORWARD", false, false)],
                "Calico",
                "nft delete table ip calico",
            ),
        ] {
            let found = findings(chains);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].what.contains(what), "{found:?}");
            assert!(found[0].remedy.contains(remedy), "{found:?}");
        }
        let harmless = [
            chain("ip", "filter", "INPUT", false, true),
            chain("ip", "filter", "FORWARD", true, false),
            chain("inet", "margay", "fwd-to", true, true),
        ];
        assert_eq!(findings(&harmless), []);
    }
}
