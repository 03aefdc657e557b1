//! Time limits and retries.

use std::borrow::Cow;
use std::time::Duration;

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::stage::ParameterError;

/// Longer limits and pauses are a slip of the pen.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
const MOST_RETRIES: u32 = 100;
/// No pause between attempts is longer, however often it is doubled.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(600);

/// A span of time as people write it: `500ms`, `90s`, `10m`, `2h 30m`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pause {
    text: String,
    duration: Duration,
}

impl Pause {
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for Pause {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let duration = text.parse::<SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        match duration.filter(|d| !d.is_zero() && *d <= LONGEST) {
            Some(duration) => Ok(Pause { text, duration }),
            None => Err(format!("`{text}` is no span of time; write for example `90s`, `10m` or `2h 30m`, at most a year")),
        }
    }
}

impl From<Pause> for String {
    fn from(pause: Pause) -> String {
        pause.text
    }
}

impl JsonSchema for Pause {
    fn schema_name() -> Cow<'static, str> {
        "Pause".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]" })
    }
}

/// How often a program that fails is started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// So many times more, at most 100.
    #[schemars(range(max = MOST_RETRIES))]
    pub times: u32,
    /// The pause before the first of them; it is doubled before each further one, up to 10 minutes.
    pub wait: Pause,
}

impl Default for Retries {
    fn default() -> Self {
        Retries { times: 0, wait: Pause { text: "1s".into(), duration: Duration::from_secs(1) } }
    }
}

impl Retries {
    pub fn check(&self) -> Result<(), ParameterError> {
        if self.times > MOST_RETRIES {
            return Err(ParameterError::new("retries.times", format!("`times` must be at most {MOST_RETRIES}")));
        }
        Ok(())
    }

    /// The pause after an attempt that failed, counted from 0.
    pub fn pause(&self, attempt: u32) -> Duration {
        let longest = LONGEST_BACK_OFF.max(self.wait.duration);
        self.wait.duration.saturating_mul(2_u32.saturating_pow(attempt)).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_as_people_write_them() {
        let seconds = |text: &str| Pause::try_from(text.to_owned()).map(|p| p.duration().as_secs_f64());
        for (text, expected) in [("500ms", 0.5), ("90s", 90.0), ("10m", 600.0), ("2h 30m", 9000.0), ("1h30m", 5400.0)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "10", "0s", "-5s", "soon", "9000000h", "s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pauses_are_doubled_up_to_a_bound() {
        let retries = Retries { times: 100, wait: Pause::try_from("5s".to_owned()).unwrap() };
        assert_eq!([0, 1, 2, 99].map(|n| retries.pause(n).as_secs()), [5, 10, 20, 600]);
    }
}
