//! A peer as GoBGP is told of it.

use std::net::IpAddr;
use std::time::Duration;

use margay_bgp::{OverLimit, PeerConfig, RemoteAs, SpeakerConfig, TtlMode};

use crate::api;

/// The message that describes a peer.
///
/// # Errors
/// What the peer asks for and GoBGP cannot do.
pub fn peer(speaker: &SpeakerConfig, config: &PeerConfig) -> Result<api::Peer, String> {
    let RemoteAs::Is(asn) = config.remote_as else {
        return Err("GoBGP must know the peer's AS; say which".to_owned());
    };
    if config.scope != 0 {
        return Err("sessions with link-local addresses are not made with GoBGP".to_owned());
    }
    let own_as = config.local_as.unwrap_or(speaker.asn);
    let external = own_as != asn;
    if config.extended_next_hop {
        return Err("IPv4 routes with IPv6 next hops are not made with GoBGP".to_owned());
    }
    let password = match &config.password {
        None => String::new(),
        Some(password) => std::str::from_utf8(password.as_bytes())
            .map_err(|_| "GoBGP takes a password of UTF-8 only".to_owned())?
            .to_owned(),
    };
    let (hops, security) = match config.ttl {
        TtlMode::Auto => (None, None),
        TtlMode::Multihop(hops) => (Some(hops.max(1)), None),
        TtlMode::Security(hops) => (None, Some(hops.max(1))),
    };
    let mut afi_safis = Vec::new();
    for family in config.families.iter() {
        let limits = match config.max_prefixes.get(family) {
            None => None,
            Some(most) if most.over == OverLimit::Discard => {
                return Err(
                    "GoBGP ends a session with too many prefixes, and cannot pass them over"
                        .to_owned(),
                );
            }
            Some(most) => Some(api::PrefixLimit {
                family: Some(api::Family::of(family)),
                max_prefixes: most.limit,
                shutdown_threshold_pct: THRESHOLD,
            }),
        };
        let restart = config.graceful_restart;
        afi_safis.push(api::AfiSafi {
            mp_graceful_restart: Some(api::Enabled {
                config: Some(api::EnabledConfig {
                    enabled: restart.enabled,
                }),
            }),
            config: Some(api::AfiSafiConfig {
                family: Some(api::Family::of(family)),
                enabled: true,
            }),
            state: None,
            prefix_limits: limits,
            long_lived_graceful_restart: restart.long_lived.map(|time| api::LongLived {
                config: Some(api::LongLivedConfig {
                    enabled: true,
                    restart_time: seconds(time),
                }),
            }),
            add_paths: (config.add_path.receive || config.add_path.send > 0).then(|| {
                api::AddPaths {
                    config: Some(api::AddPathsConfig {
                        receive: config.add_path.receive,
                        send_max: u32::from(config.add_path.send),
                    }),
                }
            }),
        });
    }
    let times = config.timers;
    let keepalive = times
        .keepalive
        .unwrap_or(times.hold / 3)
        .min(times.hold / 3);
    let restart = config.graceful_restart;
    let source = config.source.as_ref().map(IpAddr::to_string);
    Ok(api::Peer {
        conf: Some(api::PeerConf {
            auth_password: password,
            description: config.label.clone(),
            local_asn: own_as.0,
            neighbor_address: config.address.to_string(),
            peer_asn: asn.0,
            allow_own_asn: u32::from(config.allow_own_as),
            admin_down: config.shutdown.is_some(),
        }),
        ebgp_multihop: hops.filter(|_| external).map(|hops| api::EbgpMultihop {
            enabled: true,
            multihop_ttl: u32::from(hops),
        }),
        route_reflector: config.reflector_client.then(|| api::RouteReflector {
            route_reflector_client: true,
            route_reflector_cluster_id: speaker.cluster().to_string(),
        }),
        state: None,
        timers: Some(api::Timers {
            config: Some(api::TimersConfig {
                connect_retry: u64::from(seconds(times.connect_retry).max(1)),
                hold_time: u64::from(seconds(times.hold)),
                keepalive_interval: u64::from(seconds(keepalive)),
                idle_hold_time_after_reset: u64::from(seconds(times.error_wait).max(1)),
            }),
            state: None,
        }),
        transport: Some(api::Transport {
            local_address: source.unwrap_or_default(),
            passive_mode: config.passive,
            remote_port: u32::from(config.port),
        }),
        graceful_restart: restart.enabled.then(|| api::GracefulRestart {
            enabled: true,
            restart_time: seconds(restart.restart_time).min(RESTART_TIME_MAX),
            deferral_time: seconds(speaker.deferral),
            notification_enabled: true,
            longlived_enabled: restart.long_lived.is_some(),
            stale_routes_time: seconds(restart.stale_time),
            peer_restarting: false,
            local_restarting: false,
        }),
        afi_safis,
        ttl_security: security.map(|hops| api::TtlSecurity {
            enabled: true,
            // RFC 5082 §3: 255 has crossed no router.
            ttl_min: 256 - u32::from(hops),
        }),
    })
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// A warning at so many per cent of the limit.
const THRESHOLD: u32 = 75;
/// What the capability has room for (RFC 4724 §3).
const RESTART_TIME_MAX: u32 = 4095;
