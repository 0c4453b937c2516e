//! The registry every resident program starts from, and its text form.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// A registry that tells the program's version and, at every scrape, what the process uses.
///
/// The process metrics have the names that Prometheus' own clients give them.
pub fn registry(version: &str) -> Registry {
    let mut registry = Registry::default();
    let info = Info::new(vec![("version".to_owned(), version.to_owned())]);
    registry.register("margay_build", "Version of the running program", info);
    registry.register_collector(Box::new(Process));
    registry
}

/// The registry's metrics in OpenMetrics text, as `/metrics` answers.
///
/// # Errors
/// Only when a collector of the registry returns one.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

/// What the process uses, read from `/proc/self` when asked (`proc_pid_stat(5)`).
#[derive(Debug)]
struct Process;

impl Collector for Process {
    /// A figure that the kernel does not give is left out.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut put = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            let place = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(place)
        };
        if let Some(seconds) = read("/proc/self/stat", cpu_seconds) {
            let metric = ConstCounter::new(seconds);
            put(
                "process_cpu_seconds",
                "User and system time spent, in seconds",
                &metric,
            )?;
        }
        if let Some(bytes) = read("/proc/self/status", resident_bytes) {
            let metric = ConstGauge::new(bytes);
            put(
                "process_resident_memory_bytes",
                "Resident memory, in bytes",
                &metric,
            )?;
        }
        if let Some(count) = open_files() {
            put(
                "process_open_fds",
                "Open file descriptors",
                &ConstGauge::new(count),
            )?;
        }
        Ok(())
    }
}

fn read<T>(path: &str, find: impl Fn(&str) -> Option<T>) -> Option<T> {
    find(&fs::read_to_string(path).ok()?)
}

/// Fields 14 and 15 of `/proc/pid/stat`; the command in field 2 may hold spaces and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / CLOCK_TICKS)
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The descriptor that reads the directory is not counted.
fn open_files() -> Option<i64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    i64::try_from(count.saturating_sub(1)).ok()
}

/// Ticks a second in `/proc/pid/stat`: USER_HZ, 100 on every architecture that Rust's std supports.
const CLOCK_TICKS: f64 = 100.0;

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn the_text_is_open_metrics_with_version_own_and_process_metrics() {
        let mut registry = registry("1.2.3");
        let changes: Counter = Counter::default();
        registry.register("margay_route_changes", "Routes changed", changes.clone());
        changes.inc_by(3);
        let text = text(&registry).unwrap();
        assert!(
            text.contains("margay_build_info{version=\"1.2.3\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("margay_route_changes_total 3\n"), "{text}");
        assert!(
            text.contains("# TYPE process_cpu_seconds counter\n"),
            "{text}"
        );
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.contains("process_open_fds "), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn cpu_time_is_found_behind_any_command_name() {
        let stat = "7 (a ) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 99 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (a) S 1"), None);
    }

    #[test]
    fn memory_is_given_in_bytes() {
        assert_eq!(
            resident_bytes("Name:\ta\nVmRSS:\t    2048 kB\n"),
            Some(2_097_152)
        );
        assert_eq!(resident_bytes("Name:\ta\n"), None);
    }
}
