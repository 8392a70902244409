//! A rate: how often something may happen, written `10/s burst 20`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest window that is accepted. A longer window is considered a mistake.
pub const MAX_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// A number of events in a window of time, with a burst. Written `10/s`, `10/1m`, `600/10m burst 20`; units are `ms`,
/// `s`, `m`, `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Number of events in each window.
    pub count: u32,
    /// Length of the window.
    pub per: Duration,
    /// Number of events that may come at once. Equal to `count` unless the text sets it.
    pub burst: u32,
}

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// The text does not have the form of a rate.
    #[error("\"{0}\" is not a rate; write for example \"10/s\", \"10/1m\" or \"10/s burst 20\"")]
    Malformed(String),
    /// The count, the burst or the window is zero.
    #[error("\"{0}\" holds a zero; a count, a burst and a window are at least 1")]
    Zero(String),
    /// The window is longer than [`MAX_WINDOW`].
    #[error("the window of \"{0}\" is longer than 24 hours")]
    TooLong(String),
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let malformed = || RateError::Malformed(text.to_owned());
        let mut words = text.split_whitespace();
        let (count, window) = words.next().and_then(|word| word.split_once('/')).ok_or_else(malformed)?;
        let count = count.parse().map_err(|_| malformed())?;
        let per = window_of(window).ok_or_else(malformed)?;
        let burst = match (words.next(), words.next(), words.next()) {
            (None, ..) => count,
            (Some("burst"), Some(burst), None) => burst.parse().map_err(|_| malformed())?,
            _ => return Err(malformed()),
        };
        if count == 0 || burst == 0 || per.is_zero() {
            return Err(RateError::Zero(text.to_owned()));
        }
        if per > MAX_WINDOW {
            return Err(RateError::TooLong(text.to_owned()));
        }
        Ok(Self { count, per, burst })
    }
}

/// Reads a window such as `s`, `1m` or `500ms`.
fn window_of(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = if number.is_empty() { 1 } else { number.parse().ok()? };
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" | "sec" | "second" => 1_000,
        "m" | "min" | "minute" => 60_000,
        "h" | "hour" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(unit_ms)?))
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.count)?;
        match self.per.as_millis() {
            1_000 => f.write_str("s")?,
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000)?,
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000)?,
            ms if ms % 1_000 == 0 => write!(f, "{}s", ms / 1_000)?,
            ms => write!(f, "{ms}ms")?,
        }
        if self.burst != self.count {
            write!(f, " burst {}", self.burst)?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Result<Rate, RateError> {
        text.parse()
    }

    #[test]
    fn rate_is_read_as_it_is_written() {
        let second = Duration::from_secs(1);
        assert_eq!(rate("10/s").unwrap(), Rate { count: 10, per: second, burst: 10 });
        assert_eq!(rate("10/s burst 20").unwrap(), Rate { count: 10, per: second, burst: 20 });
        assert_eq!(rate("10/1m").unwrap(), Rate { count: 10, per: second * 60, burst: 10 });
        assert_eq!(rate("3/500ms burst 1").unwrap(), Rate { count: 3, per: second / 2, burst: 1 });
    }

    #[test]
    fn rate_is_shown_as_it_can_be_read() {
        for text in ["10/s", "10/s burst 20", "10/1m", "1/2h", "3/500ms burst 1", "5/90s"] {
            assert_eq!(rate(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn rubbish_is_refused_with_an_example() {
        for text in ["", "10", "/s", "10/", "10/x", "-1/s", "10/s burst", "10/s 20", "10/s burst 5 5", "99999999999/s"]
        {
            assert!(rate(text).unwrap_err().to_string().contains("10/s burst 20"), "{text}");
        }
        for text in ["0/s", "1/0s", "1/s burst 0"] {
            assert_eq!(rate(text).unwrap_err(), RateError::Zero(text.to_owned()));
        }
        for text in ["1/25h", "1/18446744073709551615ms"] {
            assert_eq!(rate(text).unwrap_err(), RateError::TooLong(text.to_owned()));
        }
        assert!(rate("1/18446744073709551615h").is_err());
    }
}
