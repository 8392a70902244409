//! Metrics of the process, from the operating system and the Tokio runtime.

use std::fs;
use std::time::{Duration, SystemTime};

use tokio::runtime::{Handle, RuntimeMetrics};

use super::metrics::{Metrics, count, raise};

/// The unit in which the kernel reports CPU time: hundredths of a second, whatever its own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Measures the process, and the runtime of the caller, at every scrape.
pub fn watch(metrics: &Metrics) {
    let runtime = Handle::current().metrics();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let started = read("stat").as_deref().and_then(started).unwrap_or(since.as_secs().cast_signed());
    metrics.process_start.with_label_values::<&str>(&[]).set(started);
    metrics.measure(move |metrics| {
        measure_runtime(metrics, &runtime);
        measure_process(metrics);
    });
}

fn measure_runtime(metrics: &Metrics, runtime: &RuntimeMetrics) {
    let workers = runtime.num_workers();
    let busy: Duration = (0..workers).map(|worker| runtime.worker_total_busy_duration(worker)).sum();
    metrics.runtime_workers.with_label_values::<&str>(&[]).set(count(workers));
    raise(&metrics.runtime_busy_seconds_total, busy.as_secs_f64());
    metrics.runtime_tasks.with_label_values::<&str>(&[]).set(count(runtime.num_alive_tasks()));
    metrics.runtime_queue.with_label_values::<&str>(&[]).set(count(runtime.global_queue_depth()));
}

/// Sets the metrics that `/proc` gives. Other values are left unchanged, and are 0 on systems other than Linux.
fn measure_process(metrics: &Metrics) {
    if let Some(status) = read("status") {
        let bytes = |key| field(&status, key).map(|kib| kib.saturating_mul(1024));
        for (gauge, value) in [
            (&metrics.process_resident, bytes("VmRSS:")),
            (&metrics.process_virtual, bytes("VmSize:")),
            (&metrics.process_threads, field(&status, "Threads:")),
        ] {
            if let Some(value) = value {
                gauge.with_label_values::<&str>(&[]).set(value);
            }
        }
    }
    if let Some(seconds) = read("stat").as_deref().and_then(cpu_seconds) {
        raise(&metrics.process_cpu, seconds);
    }
    if let Some(limit) = max_open_files() {
        metrics.process_max_fds.with_label_values::<&str>(&[]).set(limit);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of the open descriptors is the folder that is being read.
        metrics.process_open_fds.with_label_values::<&str>(&[]).set(count(open.count().saturating_sub(1)));
    }
}

/// The soft limit of open file descriptors. `None` when it is unknown or unlimited.
pub fn max_open_files() -> Option<i64> {
    field(&read("limits")?, "Max open files")
}

fn read(file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/{file}")).ok()
}

/// The number after a key at the beginning of a line.
fn field(text: &str, key: &str) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// User plus system time from `/proc/self/stat`, in s: the 14th and 15th field. The second field, the name, may hold
/// any character, but ends at the last parenthesis.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: Vec<f64> = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    (ticks.len() == 2).then(|| ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// When the process started, in s of Unix time. The 22nd field counts from the start of the machine.
fn started(stat: &str) -> Option<i64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: i64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    Some(field(&fs::read_to_string("/proc/stat").ok()?, "btime")? + ticks / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_parentheses() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (a"), None);
    }

    #[test]
    fn numbers_are_found_by_their_key() {
        assert_eq!(field("VmPeak:\t 9 kB\nVmRSS:\t   1234 kB\n", "VmRSS:"), Some(1234));
        assert_eq!(
            field("Max open files            1024                 524288               files", "Max open files"),
            Some(1024)
        );
        assert_eq!(field("Max open files            unlimited", "Max open files"), None);
    }

    #[tokio::test]
    async fn a_running_process_has_memory_files_and_a_runtime() {
        let metrics = Metrics::new();
        watch(&metrics);
        let text = metrics.encode().unwrap();
        let value = |name: &str| -> f64 {
            let line =
                text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{name}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_start_time_seconds") > 1.6e9);
        assert!(value("roomcast_runtime_workers") >= 1.0);
    }
}
