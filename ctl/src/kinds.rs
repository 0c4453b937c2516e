//! How people spell kinds on the command line.

use margay_model::Kind;

/// The kind a word means: its name, its plural or a short form, in any case.
///
/// # Errors
/// The word means none; the kinds there are.
pub fn parse(word: &str) -> Result<Kind, String> {
    let wanted = word.to_ascii_lowercase();
    Kind::ALL
        .into_iter()
        .find(|kind| spellings(*kind).any(|spelling| spelling == wanted))
        .ok_or_else(|| {
            let names: Vec<&str> = Kind::ALL.into_iter().map(Kind::name).collect();
            format!(
                "{word:?} is no kind of resource; there are {}",
                names.join(", ")
            )
        })
}

/// Every spelling of a kind, in lower case.
fn spellings(kind: Kind) -> impl Iterator<Item = String> {
    let own = [kind.name().to_ascii_lowercase(), kind.plural().to_owned()];
    own.into_iter()
        .chain(short_forms(kind).iter().map(|&form| form.to_owned()))
}

/// Forms beside the name and the plural.
pub fn short_forms(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::BGPConfiguration => &["bgpconfig", "bgpconfigs"],
        Kind::BGPFilter => &["bgpf", "bgpfs", "bf", "bfs"],
        Kind::BGPPeer => &["bgpp", "bgpps", "bp", "bps"],
        Kind::BlockAffinity => &["affinity", "affinities"],
        Kind::CalicoNodeStatus => &["nodestatus", "nodestatuses", "caliconodestatuss"],
        Kind::ClusterInformation => &["clusterinfo", "clusterinfos"],
        Kind::FelixConfiguration => &["felixconfig", "felixconfigs"],
        Kind::GlobalNetworkPolicy => &["gnp", "gnps"],
        Kind::GlobalNetworkSet => &["gnetset", "gnetsets", "gns"],
        Kind::HostEndpoint => &["hep", "heps"],
        Kind::IPAMConfiguration => &["ipamconfig", "ipamconfigs"],
        Kind::IPPool => &["ipp", "ipps", "pool", "pools"],
        Kind::IPReservation => &["reservation", "reservations", "ipres"],
        Kind::KubeControllersConfiguration => &["kubecontrollersconfig", "kubecontrollersconfigs"],
        Kind::LiveMigration => &[],
        Kind::NetworkPolicy => &["policy", "policies", "np", "nps", "pol", "pols"],
        Kind::NetworkSet => &["netset", "netsets"],
        Kind::Node => &["no", "nos"],
        Kind::Profile => &["pro", "pros"],
        Kind::StagedGlobalNetworkPolicy => &["sgnp", "sgnps"],
        Kind::StagedKubernetesNetworkPolicy => &["sknp", "sknps", "skpol", "skpols"],
        Kind::StagedNetworkPolicy => &["snp", "snps", "spol", "spols"],
        Kind::Tier => &[],
        Kind::WorkloadEndpoint => &["wep", "weps"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        for (words, kind) in [
            ("ippool ippools IPPool ipp pool POOLS", Kind::IPPool),
            ("node nodes no nos Node", Kind::Node),
            (
                "wep weps workloadendpoint WorkloadEndpoints",
                Kind::WorkloadEndpoint,
            ),
            ("hep heps hostendpoints", Kind::HostEndpoint),
            (
                "np networkpolicy networkpolicies policy pol pols",
                Kind::NetworkPolicy,
            ),
            ("gnp gnps globalnetworkpolicies", Kind::GlobalNetworkPolicy),
            (
                "gnetset gnetsets gns globalnetworksets",
                Kind::GlobalNetworkSet,
            ),
            ("netset netsets networkset", Kind::NetworkSet),
            ("profile pro pros", Kind::Profile),
            ("bgpp bgppeer bgppeers bp", Kind::BGPPeer),
            ("bgpf bf bgpfilters", Kind::BGPFilter),
            ("bgpconfig bgpconfigs", Kind::BGPConfiguration),
            ("felixconfig felixconfigurations", Kind::FelixConfiguration),
            ("clusterinfo ClusterInformation", Kind::ClusterInformation),
            ("nodestatus caliconodestatuses", Kind::CalicoNodeStatus),
            ("ipamconfig", Kind::IPAMConfiguration),
            ("reservation ipreservations", Kind::IPReservation),
            ("kubecontrollersconfig", Kind::KubeControllersConfiguration),
            ("sgnp", Kind::StagedGlobalNetworkPolicy),
            ("sknp skpol", Kind::StagedKubernetesNetworkPolicy),
            ("snp spol", Kind::StagedNetworkPolicy),
            ("tier tiers", Kind::Tier),
        ] {
            for word in words.split(' ') {
                assert_eq!(parse(word), Ok(kind), "{word}");
            }
        }
        let error = parse("ippol").unwrap_err();
        assert!(error.starts_with("\"ippol\" is no kind of resource; there are BGPConfiguration,"));
    }

    #[test]
    fn no_spelling_means_two_kinds() {
        let mut all: Vec<String> = Kind::ALL
            .into_iter()
            .flat_map(|kind| {
                let unique: std::collections::BTreeSet<String> = spellings(kind).collect();
                unique
            })
            .collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
