//! Which labels of a container become labels of its endpoints; pure.

use std::collections::BTreeMap;

use margay_model::syntax::{is_label_key, is_label_value};

/// Labels taken over and labels that cannot be, with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Labels of the endpoint.
    pub labels: BTreeMap<String, String>,
    /// Container labels that were meant to be taken and cannot.
    pub refused: BTreeMap<String, &'static str>,
}

impl Taken {
    /// Chooses. A key that begins with one of `prefixes` is taken without it; Compose's project and service are
    /// taken as they are; others are the container's own business.
    ///
    /// Labels decide which policy applies, so nobody may give himself one of those by which Margay and Calico say
    /// what an endpoint is.
    pub fn from(container: &BTreeMap<String, String>, prefixes: &[String]) -> Self {
        let mut taken = Self::default();
        for (key, value) in container {
            let stripped = prefixes
                .iter()
                .find_map(|prefix| key.strip_prefix(prefix.as_str()));
            let Some(name) = stripped.or_else(|| COMPOSE.contains(&&**key).then_some(key)) else {
                continue;
            };
            let refusal = if RESERVED.iter().any(|prefix| name.starts_with(prefix)) {
                Some("the key is reserved")
            } else if !is_label_key(name) {
                Some("the key is not a label key")
            } else if !is_label_value(value) {
                Some("the value is not a label value")
            } else {
                None
            };
            match refusal {
                Some(reason) => {
                    taken.refused.insert(key.clone(), reason);
                }
                None => {
                    taken.labels.insert(name.to_owned(), value.clone());
                }
            }
        }
        taken
    }
}

/// The prefix that Calico's plugin takes.
pub const CALICO_PREFIX: &str = "org.projectcalico.label.";
const COMPOSE: [&str; 2] = ["com.docker.compose.project", "com.docker.compose.service"];
const RESERVED: [&str; 2] = ["projectcalico.org/", "margay.io/"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_chosen_by_prefix_and_checked() {
        let container: BTreeMap<String, String> = [
            ("org.projectcalico.label.role", "web"),
            (
                "org.projectcalico.label.projectcalico.org/namespace",
                "kube-system",
            ),
            ("org.projectcalico.label.margay.io/docker-network", "net2"),
            ("org.projectcalico.label.bad key", "x"),
            ("org.projectcalico.label.text", "two words"),
            ("org.projectcalico.label.", "x"),
            ("tenant.example/", "x"),
            ("com.docker.compose.service", "db"),
            ("com.docker.compose.config-hash", "0123"),
            ("maintainer", "somebody"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        let taken = Taken::from(&container, &[CALICO_PREFIX.to_owned()]);
        let labels: Vec<_> = taken.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            labels,
            [("com.docker.compose.service", "db"), ("role", "web")]
        );
        assert_eq!(taken.refused.len(), 5, "{:?}", taken.refused);
    }
}
