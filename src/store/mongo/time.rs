//! Cluster times: seconds since 1970 in the upper 32 bits, an increment in the lower.

use mongodb::bson;

/// As the driver has it.
pub(crate) const fn to_bson(time: u64) -> bson::Timestamp {
    bson::Timestamp { time: seconds(time), increment: time as u32 }
}

/// From the driver's.
pub(crate) fn from_bson(time: bson::Timestamp) -> u64 {
    u64::from(time.time) << 32 | u64::from(time.increment)
}

/// Its seconds since 1970.
pub(crate) const fn seconds(time: u64) -> u32 {
    (time >> 32) as u32
}

/// The wall-clock time that it stands for, in whole seconds.
pub(crate) fn instant(time: u64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(seconds(time).into()).unwrap_or_default()
}
