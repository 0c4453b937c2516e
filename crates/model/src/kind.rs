//! The kinds of the v3 API.

use std::fmt;

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(
    missing_docs,
    reason = "each variant is the kind of that name in the v3 API"
)]
pub enum Kind {
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    BlockAffinity,
    CalicoNodeStatus,
    ClusterInformation,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    IPAMConfiguration,
    IPPool,
    IPReservation,
    KubeControllersConfiguration,
    LiveMigration,
    NetworkPolicy,
    NetworkSet,
    Node,
    Profile,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
    WorkloadEndpoint,
}

impl Kind {
    /// Every kind, in alphabetical order.
    pub const ALL: [Self; 24] = [
        Self::BGPConfiguration,
        Self::BGPFilter,
        Self::BGPPeer,
        Self::BlockAffinity,
        Self::CalicoNodeStatus,
        Self::ClusterInformation,
        Self::FelixConfiguration,
        Self::GlobalNetworkPolicy,
        Self::GlobalNetworkSet,
        Self::HostEndpoint,
        Self::IPAMConfiguration,
        Self::IPPool,
        Self::IPReservation,
        Self::KubeControllersConfiguration,
        Self::LiveMigration,
        Self::NetworkPolicy,
        Self::NetworkSet,
        Self::Node,
        Self::Profile,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::Tier,
        Self::WorkloadEndpoint,
    ];

    /// The kind as objects spell it, such as `IPPool`.
    pub fn name(self) -> &'static str {
        self.spelling().0
    }

    /// The lower-case plural used in keys, such as `ippools`.
    pub fn plural(self) -> &'static str {
        self.spelling().1
    }

    /// Whether objects of this kind live in a namespace.
    pub fn namespaced(self) -> bool {
        matches!(
            self,
            Self::LiveMigration
                | Self::NetworkPolicy
                | Self::NetworkSet
                | Self::StagedKubernetesNetworkPolicy
                | Self::StagedNetworkPolicy
                | Self::WorkloadEndpoint
        )
    }

    /// Whether stored objects always carry a `status`, be it empty.
    pub fn always_has_status(self) -> bool {
        matches!(
            self,
            Self::Node | Self::Tier | Self::KubeControllersConfiguration
        )
    }

    /// The kind with this name, in the spelling of objects.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind with this plural, in the spelling of keys.
    pub fn from_plural(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural)
    }

    fn spelling(self) -> (&'static str, &'static str) {
        match self {
            Self::BGPConfiguration => ("BGPConfiguration", "bgpconfigurations"),
            Self::BGPFilter => ("BGPFilter", "bgpfilters"),
            Self::BGPPeer => ("BGPPeer", "bgppeers"),
            Self::BlockAffinity => ("BlockAffinity", "blockaffinities"),
            Self::CalicoNodeStatus => ("CalicoNodeStatus", "caliconodestatuses"),
            Self::ClusterInformation => ("ClusterInformation", "clusterinformations"),
            Self::FelixConfiguration => ("FelixConfiguration", "felixconfigurations"),
            Self::GlobalNetworkPolicy => ("GlobalNetworkPolicy", "globalnetworkpolicies"),
            Self::GlobalNetworkSet => ("GlobalNetworkSet", "globalnetworksets"),
            Self::HostEndpoint => ("HostEndpoint", "hostendpoints"),
            Self::IPAMConfiguration => ("IPAMConfiguration", "ipamconfigurations"),
            Self::IPPool => ("IPPool", "ippools"),
            Self::IPReservation => ("IPReservation", "ipreservations"),
            Self::KubeControllersConfiguration => (
                "KubeControllersConfiguration",
                "kubecontrollersconfigurations",
            ),
            Self::LiveMigration => ("LiveMigration", "livemigrations"),
            Self::NetworkPolicy => ("NetworkPolicy", "networkpolicies"),
            Self::NetworkSet => ("NetworkSet", "networksets"),
            Self::Node => ("Node", "nodes"),
            Self::Profile => ("Profile", "profiles"),
            Self::StagedGlobalNetworkPolicy => {
                ("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies")
            }
            Self::StagedKubernetesNetworkPolicy => (
                "StagedKubernetesNetworkPolicy",
                "stagedkubernetesnetworkpolicies",
            ),
            Self::StagedNetworkPolicy => ("StagedNetworkPolicy", "stagednetworkpolicies"),
            Self::Tier => ("Tier", "tiers"),
            Self::WorkloadEndpoint => ("WorkloadEndpoint", "workloadendpoints"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
