//! Times with a unit, as settings and contracts have them.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::schema::inline_schema;

/// A time with its unit: `"25s"`, `"100ms"`, `"1h 30m"`. A bare number is refused, because its unit would be unclear.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

/// The format of a time, for messages.
const EXPECTED: &str = "a time with its unit, such as \"25s\", \"100ms\" or \"5m\"";

impl Period {
    /// Creates a period from a number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Creates a period from a number of milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Returns the period as a `Duration`.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Period {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.0
    }
}

impl Deref for Period {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl FromStr for Period {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The crate humantime accepts "0" without a unit.
        if text.trim().parse::<u64>().is_ok() {
            return Err(EXPECTED);
        }
        humantime::parse_duration(text).map(Self).map_err(|_| EXPECTED)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&humantime::format_duration(self.0), f)
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PeriodVisitor;
        impl Visitor<'_> for PeriodVisitor {
            type Value = Period;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
                text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(PeriodVisitor)
    }
}

inline_schema!(Period, { "type": "string", "format": "time" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn period_reads_units_and_shows_them_again() {
        for (text, millis) in [("25s", 25_000), ("100ms", 100), ("5m", 300_000), ("1h 30m", 5_400_000), ("0s", 0)] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.as_millis(), millis, "{text}");
            assert_eq!(period.to_string(), text);
        }
    }

    #[test]
    fn period_without_unit_is_refused() {
        for text in ["25", "0", "", "s", "25 parsecs", "-1s"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Period>("25").is_err());
    }
}
