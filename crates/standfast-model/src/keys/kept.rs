use std::time::Duration;

use super::http::FIELD_NAME;
use crate::shape::{Bytes, Fields, Kinds, List, Object, Shape, Time, Whole};
use crate::traffic::KeepAnswers;

/// Shortest and longest time for which an answer is kept.
const FOR: Time = Time { min: Duration::from_secs(1), max: Duration::from_secs(24 * 3_600) };
/// Smallest and largest limit for one answer's body.
const BYTES_MAX: (u64, u64) = (1 << 10, 64 << 20);
/// Most keys that a limit may name.
const KEYS_MAX: u32 = 1_000_000;
/// Smallest and largest limit for all kept answers together.
const MEMORY_MAX: (u64, u64) = (1 << 20, 16 << 30);

/// A time, or a mapping with limits.
pub(crate) fn keep_answers() -> impl Shape<Value = KeepAnswers> {
    Kinds::new("a duration, or a mapping with `for`")
        .text(FOR.and_then(|keep_for, _, _| Some(KeepAnswers { keep_for, ..KeepAnswers::default() })))
        .mapping(KEEP_ANSWERS)
}

const KEEP_ANSWERS: Object<KeepAnswers> = Object {
    doc: "Which answers to requests with an `Idempotency-Key` are kept, and how long.",
    read: limits,
};

fn limits(f: &mut Fields<'_, '_>) -> Option<KeepAnswers> {
    let default = KeepAnswers::default();
    let keep_for = f.or("for", "How long an answer is kept, counted from its end.", FOR, default.keep_for);
    let bytes_max = f.or(
        "bytes_max",
        "The longest body of an answer that is kept.",
        Bytes { of: "bytes", min: BYTES_MAX.0, max: BYTES_MAX.1 },
        default.bytes_max,
    );
    let keys_max = f.or(
        "keys_max",
        "Most keys at a time; beyond, the oldest answers leave first.",
        Whole { min: 1, max: KEYS_MAX },
        default.keys_max,
    );
    let memory_max = f.or(
        "memory_max",
        "What all kept answers may take up; beyond, the oldest leave first.",
        Bytes { of: "memory", min: MEMORY_MAX.0, max: MEMORY_MAX.1 },
        default.memory_max,
    );
    let callers = f.optional(
        "callers",
        "The header fields that callers are told apart by; nobody is given the answer to somebody else. Default: \
         [authorization, cookie, x-api-key].",
        List { item: FIELD_NAME, min: 1 },
    );
    if bytes_max > memory_max
        && let (Some(place), Some((_, cx))) =
            (f.place_of("bytes_max").or(f.place_of("memory_max")), f.reading())
    {
        let message = "`bytes_max` is more than `memory_max`: the longest answer would have no room";
        cx.reports.error_hint(place, message, "raise `memory_max`, or lower `bytes_max`");
    }
    let callers = callers.unwrap_or(default.callers);
    Some(KeepAnswers { keep_for, bytes_max, keys_max, memory_max, callers })
}
