//! Lengths of time: milliseconds in the record, words for people.

use std::time::Duration;

/// `serde(with = "...")` for a [`Duration`] kept as whole milliseconds; the field's name ends in `_ms`.
pub mod ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// The same for an `Option<Duration>`.
pub mod ms_option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match duration {
            None => to.serialize_none(),
            Some(duration) => super::ms::serialize(duration, to),
        }
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

/// A length of time as a person says it: the two largest units that matter (`340 ms`, `4.2 s`, `2 min 30 s`, `3 h 5 min`, `2 d 4 h`).
pub fn human(duration: Duration) -> String {
    let ms = duration.as_millis();
    let s = duration.as_secs();
    let two = |n: u64, unit: &str, m: u64, small: &str| match m {
        0 => format!("{n} {unit}"),
        m => format!("{n} {unit} {m} {small}"),
    };
    match s {
        0 => format!("{ms} ms"),
        1..60 if ms % 1000 < 50 || s >= 10 => format!("{s} s"),
        1..60 => format!("{:.1} s", ms as f64 / 1000.0),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86400 => two(s / 3600, "h", s % 3600 / 60, "min"),
        _ => two(s / 86400, "d", s % 86400 / 3600, "h"),
    }
}

/// From `earlier` to `later`, or nothing where the clock was stepped back in between.
pub fn between(earlier: jiff::Timestamp, later: jiff::Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// `at` plus `by`; the end of time where that lies beyond it.
pub fn after(at: jiff::Timestamp, by: Duration) -> jiff::Timestamp {
    at.checked_add(by).unwrap_or(jiff::Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_said_as_people_say_them() {
        let say = |ms| human(Duration::from_millis(ms));
        assert_eq!(
            [
                say(0),
                say(340),
                say(4_200),
                say(4_000),
                say(12_900),
                say(150_000),
                say(3_600_000),
                say(11_100_000),
                say(187_200_000)
            ],
            ["0 ms", "340 ms", "4.2 s", "4 s", "12 s", "2 min 30 s", "1 h", "3 h 5 min", "2 d 4 h"]
        );
    }
}
