//! What sets stand for.

use margay_selector::Selector;

use crate::output::{SetId, SetKind};

/// What a set stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetSpec {
    /// The addresses of everything that a selector matches.
    Selector(Selector),
    /// The ports of this name and protocol of everything that a selector matches.
    NamedPort {
        selector: Selector,
        protocol: u8,
        name: String,
    },
    /// The addresses of a service's endpoints.
    ServiceAddresses(String),
    /// The ports of a service's endpoints.
    ServicePorts(String),
}

impl SetSpec {
    pub(crate) fn id(&self) -> SetId {
        SetId::hash(&match self {
            Self::Selector(selector) => format!("s:{selector}"),
            Self::NamedPort {
                selector,
                protocol,
                name,
            } => format!("n:{protocol},{name},{selector}"),
            Self::ServiceAddresses(service) => format!("a:{service}"),
            Self::ServicePorts(service) => format!("p:{service}"),
        })
    }

    pub(crate) fn kind(&self) -> SetKind {
        match self {
            Self::Selector(_) | Self::ServiceAddresses(_) => SetKind::Nets,
            Self::NamedPort { .. } | Self::ServicePorts(_) => SetKind::Ports,
        }
    }

    /// The set as people read it.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Selector(selector) => selector.to_string(),
            Self::NamedPort {
                selector,
                protocol,
                name,
            } => format!("port {name} ({protocol}) of {selector}"),
            Self::ServiceAddresses(service) => format!("service {service}"),
            Self::ServicePorts(service) => format!("ports of service {service}"),
        }
    }

    pub(crate) fn selector(&self) -> Option<&Selector> {
        match self {
            Self::Selector(selector) | Self::NamedPort { selector, .. } => Some(selector),
            Self::ServiceAddresses(_) | Self::ServicePorts(_) => None,
        }
    }

    /// The service, as `<namespace>/<name>`.
    pub(crate) fn service(&self) -> Option<&str> {
        match self {
            Self::ServiceAddresses(service) | Self::ServicePorts(service) => Some(service),
            Self::Selector(_) | Self::NamedPort { .. } => None,
        }
    }
}
