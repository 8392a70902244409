//! Times as numbers and as text.

use std::time::{Duration, SystemTime};

/// The last second of the year 9999, in Unix time.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Unix time in milliseconds. Times before 1970 become 0.
pub fn unix_millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

/// The reverse of [`unix_millis`]. A time that the clock cannot represent becomes 1970.
pub fn from_unix_millis(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// ISO 8601 in UTC with milliseconds. A time outside the years 1970 to 9999, which may have been read from Redis,
/// becomes the nearest time within them.
pub fn iso8601(at: SystemTime) -> String {
    let latest = SystemTime::UNIX_EPOCH + LATEST;
    humantime::format_rfc3339_millis(at.clamp(SystemTime::UNIX_EPOCH, latest)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_out_of_range_become_the_nearest() {
        assert_eq!(iso8601(SystemTime::UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso8601(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40)), "9999-12-31T23:59:59.000Z");
        assert_eq!(unix_millis(SystemTime::UNIX_EPOCH - Duration::from_secs(5)), 0);
        assert_eq!(unix_millis(from_unix_millis(1500)), 1500);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
