//! What is wrong with objects, and what that means meanwhile.

use margay_model::Key;

/// Something wrong with an object of the store. Others are not affected by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// The object.
    pub key: Key,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with an object, what that means meanwhile, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Problem {
    /// Nothing of it can be used.
    #[error("it is passed over, because it cannot be read: {reason}; correct it or delete it")]
    Unreadable {
        /// Why.
        reason: String,
    },
    /// A policy does not say whom it is for.
    #[error("it is for nobody, because its selectors cannot be read: {reason}; correct them")]
    Unselective {
        /// Why.
        reason: String,
    },
    /// A policy or profile says things that make no sense, so it denies.
    #[error(
        "it denies everything in the directions it decides, because it cannot be understood: \
         {reason}; correct it"
    )]
    Denies {
        /// Why.
        reason: String,
    },
    /// A part of it makes no sense.
    #[error("a part of it is left out: {reason}; correct it")]
    LeftOut {
        /// Why.
        reason: String,
    },
    /// A rule asks for what cannot be enforced.
    #[error(
        "{path} cannot be enforced here, so that the rule {}; remove it",
        if *.denies { "denies without regard to it" } else { "matches nothing" }
    )]
    Unsupported {
        /// The field, such as `spec.ingress[0].http`.
        path: String,
        /// Whether the rule denies.
        denies: bool,
    },
    /// A policy's tier does not exist.
    #[error(
        "its tier {tier:?} does not exist, so that it comes after all other tiers and what it does \
         not decide is denied; create the Tier"
    )]
    UnknownTier {
        /// The tier.
        tier: String,
    },
    /// An endpoint of this node has a profile that does not exist or cannot be read.
    #[error(
        "its profile {profile:?} does not exist or cannot be read, and denies what comes to it; \
         create the Profile"
    )]
    UnknownProfile {
        /// The profile.
        profile: String,
    },
    /// A policy in force refers to a service that is not known.
    #[error("its rules name the service {service}, which is not known, so that they match nothing")]
    UnknownService {
        /// `<namespace>/<name>`.
        service: String,
    },
    /// Two endpoints of this node have one interface.
    #[error("its interface {interface:?} is that of {holder}, whose policies hold; delete one")]
    InterfaceTaken {
        /// The interface.
        interface: String,
        /// The endpoint that has it: `<namespace>/<name>`.
        holder: String,
    },
    /// An endpoint of this node has no interface, or no address.
    #[error("it has no {what}, so that nothing is put in force for it; correct it or delete it")]
    Lacks {
        /// `interface` or `address`.
        what: &'static str,
    },
    /// A policy with `doNotTrack` selects a host endpoint for every interface.
    #[error(
        "the policy {policy} has doNotTrack, which a host endpoint for every interface cannot have; \
         name an interface"
    )]
    UntrackedEverywhere {
        /// The policy.
        policy: String,
    },
}
