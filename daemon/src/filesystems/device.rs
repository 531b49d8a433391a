//! The number by which the kernel names a block device and a superblock.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A device number, written `8:1`: of a block device, or the identity of a superblock (third field of mountinfo, `man 5 proc`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    /// The driver; 0 for a superblock without one block device of its own (btrfs, tmpfs, nfs, …).
    pub major: u32,
    /// The device within the driver.
    pub minor: u32,
}

impl DeviceNumber {
    /// The device `major:minor`.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// From the `dev_t` of a system call, such as `st_rdev` (`man 3 makedev`).
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        Self::new(libc::major(raw), libc::minor(raw))
    }

    /// Whether this is a number the kernel made up for a superblock (`get_anon_bdev` in fs/super.c) and no block device.
    #[must_use]
    pub const fn is_anonymous(self) -> bool {
        self.major == 0
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The text is not `MAJOR:MINOR`, two decimal numbers below 2³².
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a device number of the form MAJOR:MINOR")]
pub struct InvalidDeviceNumber;

impl FromStr for DeviceNumber {
    type Err = InvalidDeviceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.split_once(':').ok_or(InvalidDeviceNumber)?;
        Ok(Self::new(decimal(major)?, decimal(minor)?))
    }
}

/// Digits only: `u32::from_str` would also take a sign.
fn decimal(text: &str) -> Result<u32, InvalidDeviceNumber> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().map_err(|_| InvalidDeviceNumber)
    } else {
        Err(InvalidDeviceNumber)
    }
}

impl Serialize for DeviceNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        for number in [
            DeviceNumber::new(8, 1),
            DeviceNumber::new(0, 43),
            DeviceNumber::new(u32::MAX, 0),
        ] {
            assert_eq!(number.to_string().parse(), Ok(number));
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "8",
            "8:",
            ":1",
            "+8:1",
            "8:-1",
            "8:1:2",
            "8 1",
            "8:4294967296",
        ] {
            assert_eq!(
                text.parse::<DeviceNumber>(),
                Err(InvalidDeviceNumber),
                "{text}"
            );
        }
    }

    #[test]
    fn is_a_string_in_json() {
        let number = DeviceNumber::new(253, 2);
        assert_eq!(serde_json::to_string(&number).unwrap(), r#""253:2""#);
        assert_eq!(
            serde_json::from_str::<DeviceNumber>(r#""253:2""#).unwrap(),
            number
        );
    }
}
