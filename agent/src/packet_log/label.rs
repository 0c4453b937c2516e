//! What stands before a logged packet, as the compilation of policy has written it.

use std::fmt;

/// What was done with a packet, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label {
    pub(crate) verdict: Verdict,
    /// `ingress` or `egress`, seen from the endpoint; none where a rule serves both.
    pub(crate) direction: Option<&'static str>,
    pub(crate) cause: Cause,
}

/// What was done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// It was dropped or rejected.
    Denied,
    /// A rule `Log` matched; what became of it is not said.
    Logged,
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// A rule of a policy, or of a profile.
    Rule {
        /// The policy's tier; `profile` for a profile.
        tier: String,
        /// `<kind>/<name>` or `<kind>/<namespace>/<name>`, or the profile's name.
        policy: String,
        /// Its place in the list, from 0.
        rule: String,
    },
    /// No rule of a tier matched.
    EndOfTier {
        /// The tier.
        tier: String,
    },
    /// Something that holds without policy.
    Other(String),
}

impl Label {
    /// Reads `<D or L>[<i or e>]|<rule or reason>`; `None` for what others have written.
    pub(crate) fn read(prefix: &str) -> Option<Self> {
        let (head, rest) = prefix.split_once('|')?;
        let (verdict, direction) = match head {
            "D" => (Verdict::Denied, None),
            "Di" => (Verdict::Denied, Some("ingress")),
            "De" => (Verdict::Denied, Some("egress")),
            "Li" => (Verdict::Logged, Some("ingress")),
            "Le" => (Verdict::Logged, Some("egress")),
            _ => return None,
        };
        let named = rest.split_once('|');
        let named = named.and_then(|(tier, rest)| Some((tier, rest.rsplit_once('|')?)));
        let cause = match named {
            Some((tier, (END_OF_TIER, _))) => Cause::EndOfTier { tier: tier.into() },
            Some((tier, (policy, rule))) => Cause::Rule {
                tier: tier.into(),
                policy: policy.into(),
                rule: rule.into(),
            },
            None => Cause::Other(rest.into()),
        };
        Some(Self {
            verdict,
            direction,
            cause,
        })
    }
}

impl Verdict {
    /// For lines and figures.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Logged => "logged",
        }
    }
}

impl Cause {
    /// The tier, if there is one.
    pub(crate) fn tier(&self) -> Option<&str> {
        match self {
            Self::Rule { tier, .. } | Self::EndOfTier { tier } => Some(tier),
            Self::Other(_) => None,
        }
    }

    /// The policy and the rule, if it is one's.
    pub(crate) fn rule(&self) -> Option<(&str, &str)> {
        match self {
            Self::Rule { policy, rule, .. } => Some((policy, rule)),
            _ => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rule { .. } => "rule",
            Self::EndOfTier { .. } => END_OF_TIER,
            Self::Other(reason) => reason,
        })
    }
}

const END_OF_TIER: &str = "end of tier";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read() {
        let rule = |tier: &str, policy: &str, rule: &str| Cause::Rule {
            tier: tier.to_owned(),
            policy: policy.to_owned(),
            rule: rule.to_owned(),
        };
        let default = "default".to_owned();
        for (prefix, verdict, direction, cause) in [
            (
                "Di|default|NetworkPolicy/prod/db|3",
                Verdict::Denied,
                Some("ingress"),
                rule("default", "NetworkPolicy/prod/db", "3"),
            ),
            (
                "Le|profile|kns.prod|0",
                Verdict::Logged,
                Some("egress"),
                rule("profile", "kns.prod", "0"),
            ),
            (
                "Di|default|end of tier|default",
                Verdict::Denied,
                Some("ingress"),
                Cause::EndOfTier { tier: default },
            ),
            (
                "De|spoofed source address",
                Verdict::Denied,
                Some("egress"),
                Cause::Other("spoofed source address".to_owned()),
            ),
            (
                "D|invalid state of connection",
                Verdict::Denied,
                None,
                Cause::Other("invalid state of connection".to_owned()),
            ),
            // The middle of a long name is left out.
            (
                "Di|security|NetworkPolicy/prod/xxxx..xxxx|17",
                Verdict::Denied,
                Some("ingress"),
                rule("security", "NetworkPolicy/prod/xxxx..xxxx", "17"),
            ),
        ] {
            let expected = Label {
                verdict,
                direction,
                cause,
            };
            assert_eq!(Label::read(prefix), Some(expected), "{prefix}");
        }
        for other in ["", "D", "IN=eth0", "X|y", "calico-packet|a|b|c"] {
            assert_eq!(Label::read(other), None, "{other}");
        }
    }
}
