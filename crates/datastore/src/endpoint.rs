//! What an etcd endpoint may look like.

use crate::config::ConfigError;

/// Reads a comma-separated list of endpoints.
///
/// # Errors
/// The list is empty, or an endpoint is no `http://HOST:PORT` or `https://HOST:PORT`.
pub(crate) fn parse_list(key: &str, text: &str) -> Result<Vec<String>, ConfigError> {
    let endpoints: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|endpoint| !endpoint.is_empty())
        .collect();
    if endpoints.is_empty() {
        return Err(ConfigError::new(key, text, "no endpoint is given", EXAMPLE));
    }
    let mut checked = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        checked.push(parse(key, endpoint)?);
    }
    let secure = checked
        .iter()
        .filter(|endpoint| endpoint.starts_with("https://"))
        .count();
    if secure != 0 && secure != checked.len() {
        return Err(ConfigError::new(
            key,
            text,
            "http and https are mixed",
            "use one of them for all",
        ));
    }
    Ok(checked)
}

fn parse(key: &str, endpoint: &str) -> Result<String, ConfigError> {
    let wrong = |problem: &str| {
        Err(ConfigError::new(
            key,
            &without_login(endpoint),
            problem,
            EXAMPLE,
        ))
    };
    let Some((scheme, rest)) = endpoint.split_once("://") else {
        return wrong("the endpoint has no scheme");
    };
    if !matches!(scheme, "http" | "https") {
        return wrong("the scheme is neither http nor https");
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        return wrong("the endpoint carries a login; use ETCD_USERNAME and ETCD_PASSWORD");
    }
    if authority.contains(['/', '?', '#']) || authority.chars().any(char::is_whitespace) {
        return wrong("the endpoint has more than host and port");
    }
    // The last colon parts the port, unless it belongs to a bare or bracketed IPv6 address.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() {
        return wrong("the endpoint has no host");
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return wrong("an IPv6 address must stand in brackets");
    }
    match port {
        None => Ok(format!("{scheme}://{host}:{DEFAULT_PORT}")),
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number != 0 => Ok(format!("{scheme}://{host}:{number}")),
            _ => wrong("the port is no number from 1 to 65535"),
        },
    }
}

/// The endpoint as it may be shown.
fn without_login(endpoint: &str) -> String {
    match endpoint
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1)))
    {
        Some((scheme, rest)) => format!("{scheme}://…@{rest}"),
        None => endpoint.to_owned(),
    }
}

const EXAMPLE: &str = "give a list such as \"https://10.0.0.1:2379,https://10.0.0.2:2379\"";
const DEFAULT_PORT: u16 = 2379;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let parsed = parse_list(
            "k",
            "http://10.0.0.1:2379, http://[fd00::1]:2379,http://etcd/",
        )
        .unwrap();
        assert_eq!(
            parsed,
            [
                "http://10.0.0.1:2379",
                "http://[fd00::1]:2379",
                "http://etcd:2379"
            ]
        );
    }

    #[test]
    fn faults_are_named() {
        for (text, problem) in [
            ("", "no endpoint"),
            (" , ", "no endpoint"),
            ("10.0.0.1:2379", "no scheme"),
            ("ftp://10.0.0.1:2379", "neither http nor https"),
            ("http://", "no host"),
            ("http://10.0.0.1:0", "the port"),
            ("http://10.0.0.1:x", "the port"),
            ("http://10.0.0.1:70000", "the port"),
            ("http://fd00::1:2379", "brackets"),
            ("http://a:2379/v3", "more than host"),
            ("http://a b:2379", "more than host"),
            ("http://a:1,https://b:1", "mixed"),
        ] {
            let error = parse_list("etcd_endpoints", text).unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
            assert!(error.to_string().contains("etcd_endpoints"), "{error}");
        }
    }

    #[test]
    fn logins_are_never_shown() {
        let error = parse_list("k", "http://root:geheim@a:2379").unwrap_err();
        assert!(!error.to_string().contains("geheim"), "{error}");
    }
}
