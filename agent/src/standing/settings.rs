//! What operators choose of the status in the datastore.

use std::time::Duration;

use crate::config;

/// What one source says; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StandingTunables {
    /// `endpointReportingEnabled`.
    pub endpoints: Option<bool>,
    /// `endpointReportingDelay`.
    pub delay: Option<Duration>,
    /// `reportingInterval`; 0 is never.
    pub interval: Option<Duration>,
    /// `reportingTTL`.
    pub ttl: Option<Duration>,
    /// `openstackRegion`.
    pub region: Option<String>,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingSettings {
    /// Whether the status of endpoints is written.
    pub endpoints: bool,
    /// Between two writings of it.
    pub delay: Duration,
    /// How often the agent's own status is written; `None` is never.
    pub interval: Option<Duration>,
    /// How long that lasts without another.
    pub ttl: Duration,
    /// The region in the keys: `no-region`, or `region-<name>`.
    pub region: String,
}

impl StandingSettings {
    /// The first source that says something wins; where none does, the default holds.
    pub fn resolve(sources: &[&StandingTunables]) -> Self {
        fn first<T: Clone>(
            sources: &[&StandingTunables],
            field: impl Fn(&StandingTunables) -> Option<&T>,
        ) -> Option<T> {
            sources.iter().find_map(|source| field(source)).cloned()
        }
        let endpoints = first(sources, |t| t.endpoints.as_ref()).unwrap_or(false);
        let interval = first(sources, |t| t.interval.as_ref());
        let interval = interval.or_else(|| endpoints.then_some(INTERVAL));
        let region = first(sources, |t| t.region.as_ref());
        Self {
            endpoints,
            delay: first(sources, |t| t.delay.as_ref()).unwrap_or(DELAY),
            interval: interval.filter(|interval| !interval.is_zero()),
            ttl: first(sources, |t| t.ttl.as_ref()).unwrap_or(TTL),
            region: region.map_or_else(|| NO_REGION.to_owned(), |name| format!("region-{name}")),
        }
    }
}

impl Default for StandingSettings {
    fn default() -> Self {
        Self::resolve(&[])
    }
}

/// Reads `endpointReportingDelay`, `reportingInterval` and `reportingTTL`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text)
}

/// Reads `reportingTTL`: leases are given by the second.
pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    match ttl.as_secs() {
        0 => Err("give at least one second".to_owned()),
        _ => Ok(ttl),
    }
}

/// Reads `openstackRegion`.
pub(crate) fn region(text: &str) -> Result<String, String> {
    match text.contains('/') {
        true => Err("give a name without /".to_owned()),
        false => Ok(text.to_owned()),
    }
}

pub(crate) const NO_REGION: &str = "no-region";
// Felix's.
const DELAY: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_status_comes_with_that_of_endpoints_or_when_asked_for() {
        let nothing = StandingSettings::default();
        assert_eq!((nothing.endpoints, nothing.interval), (false, None));
        assert_eq!(nothing.region, "no-region");
        let endpoints = StandingTunables {
            endpoints: Some(true),
            region: Some("one".to_owned()),
            ..StandingTunables::default()
        };
        let settings = StandingSettings::resolve(&[&endpoints]);
        assert_eq!(settings.interval, Some(INTERVAL));
        assert_eq!(settings.region, "region-one");
        for (seconds, expected) in [(0, None), (5, Some(Duration::from_secs(5)))] {
            let told = StandingTunables {
                interval: Some(Duration::from_secs(seconds)),
                ..StandingTunables::default()
            };
            assert_eq!(StandingSettings::resolve(&[&told]).interval, expected);
            assert_eq!(
                StandingSettings::resolve(&[&told, &endpoints]).interval,
                expected
            );
        }
        assert!(ttl("500ms").is_err() && ttl("1").is_ok());
        assert!(region("a/b").is_err());
    }
}
