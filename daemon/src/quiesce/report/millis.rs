//! Times as milliseconds with three decimals: what a person reads and a program need not convert.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of 285 years fit into 53 bits"
)]
pub(super) fn to_number(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(to_number(*time))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let number = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(number / 1e3).map_err(de::Error::custom)
}

/// The same for a time that may not be there.
pub(super) mod option {
    use super::{Deserialize, Deserializer, Duration, Serializer, de, to_number};

    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&to_number(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let number = Option::<f64>::deserialize(deserializer)?;
        let time = number.map(|number| Duration::try_from_secs_f64(number / 1e3));
        time.transpose().map_err(de::Error::custom)
    }
}
