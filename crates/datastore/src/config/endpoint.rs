//! etcd's URLs.

use super::ConfigError;
use super::settings::{Given, Setting, Settings};

/// The endpoints of a configuration for etcd: at least one.
pub(super) fn endpoints(settings: &Settings) -> Result<Vec<String>, ConfigError> {
    let (list, srv) = (settings.get(Setting::Endpoints), settings.get(Setting::Srv));
    if let (Some(list), Some(srv)) = (list, srv) {
        let problem = format!("{} is given too, and they may differ", list.key);
        return Err(srv.wrong(&problem, &format!("leave it out and keep {}", list.key)));
    }
    if let Some(srv) = srv {
        let remedy = format!("list the members in {}", settings.name(Setting::Endpoints));
        return Err(srv.wrong("finding etcd by DNS SRV records is not supported", &remedy));
    }
    let scheme = settings.get(Setting::Scheme);
    if let Some(given) = scheme.filter(|given| !matches!(given.value.as_str(), "http" | "https")) {
        return Err(given.wrong("it is no scheme of etcd", "use http or https"));
    }
    if let Some(list) = list {
        return listed(list);
    }
    let Some(authority) = settings.get(Setting::Authority) else {
        return Err(ConfigError::missing(
            &settings.name(Setting::Endpoints),
            "etcd's place is not known without it",
            "write etcd's URLs, such as https://10.0.0.1:2379, separated by commas",
        ));
    };
    let scheme = scheme.map_or("http", |given| given.value.as_str());
    Ok(vec![checked(
        authority,
        &format!("{scheme}://{}", authority.value),
    )?])
}

fn listed(list: &Given) -> Result<Vec<String>, ConfigError> {
    let items = list
        .value
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let urls = items
        .map(|item| checked(list, item))
        .collect::<Result<Vec<_>, _>>()?;
    if urls.is_empty() {
        return Err(list.wrong("the list is empty", "write at least one URL"));
    }
    Ok(urls)
}

/// The URL as `scheme://host:port`.
fn checked(given: &Given, url: &str) -> Result<String, ConfigError> {
    let example = "write it like https://10.0.0.1:2379";
    let wrong = |problem: &str| Err(given.wrong(&format!("{url:?} {problem}"), example));
    if url.contains('@') {
        return Err(given.wrong_and_secret(
            "an endpoint contains a user or password",
            "set the user name and the password as settings of their own",
        ));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return wrong("has no scheme");
    };
    if !matches!(scheme, "http" | "https") {
        return wrong("has a scheme other than http and https");
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority
        .chars()
        .any(|c| c.is_whitespace() || c.is_control())
    {
        return wrong("contains a space");
    }
    if authority.contains(['/', '?', '#']) {
        return wrong("goes on after the port");
    }
    let Some((host, port)) = authority.rsplit_once(':') else {
        return wrong("has no port");
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let proper = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(named)
        }
    };
    if !proper {
        return wrong("has no proper host");
    }
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return wrong("has no proper port");
    }
    Ok(format!("{scheme}://{authority}"))
}
