//! Values: JSON to jaq's and back.
//!
//! jaq knows more than JSON does. What comes out becomes JSON by these rules:
//! - an integer of at most 64 bits stays what it is, a larger one becomes the nearest number with a fraction (as in jq);
//! - `nan` becomes null, an infinite number the largest or smallest finite one (as in jq);
//! - bytes that are not UTF-8 in a text become U+FFFD (as in jq); a byte string, which only jaq has, is an error unless it is UTF-8;
//! - a key that is no text is an error (as in jq).

use jaq_json::{Map, Num, Val};
use jaq_std::ValT as _;
use serde_json::{Number, Value};

use super::failure::Fault;

/// How deeply values may be nested, as input and as output. `serde_json` reads up to 127 levels; the rest is for what the engine
/// puts around a value when it keeps it.
pub(super) const DEPTH_MAX: usize = 100;
/// What any value counts in a size, beside the bytes of texts: about its share of memory. Six times as much is more than a number,
/// or the signs around a value, take up as JSON, on which `signature` relies.
pub(super) const NODE: usize = 16;
/// What a number counts in an output's size: about its digits.
const NUMBER_BYTES: usize = 8;

/// How large a value is, and how deep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// [`NODE`] for each value and key in it, and the bytes of all texts.
    pub(super) size: usize,
    /// Zero for a value with none in it.
    pub(super) depth: usize,
}

/// Measures a value. Stops below [`DEPTH_MAX`]: the extent is then deeper than that, and its size too small.
pub(super) fn measure(value: &Value) -> Extent {
    let mut extent = Extent::default();
    measure_into(value, 0, &mut extent);
    extent
}

fn measure_into(value: &Value, depth: usize, extent: &mut Extent) {
    extent.size += NODE;
    extent.depth = extent.depth.max(depth);
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => extent.size += text.len(),
        Value::Array(items) => {
            extent.depth = extent.depth.max(depth + 1);
            for item in items {
                measure_into(item, depth + 1, extent);
            }
        }
        Value::Object(entries) => {
            extent.depth = extent.depth.max(depth + 1);
            for (key, item) in entries {
                extent.size += NODE + key.len();
                measure_into(item, depth + 1, extent);
            }
        }
    }
}

/// JSON as a value of jaq. The caller has made sure that it is not too deep.
pub(super) fn to_jaq(value: &Value) -> Val {
    match value {
        Value::Null => Val::Null,
        Value::Bool(truth) => Val::Bool(*truth),
        Value::Number(number) => Val::Num(number_to_jaq(number)),
        Value::String(text) => Val::utf8_str(text.clone()),
        Value::Array(items) => items.iter().map(to_jaq).collect(),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, item)| (Val::utf8_str(key.clone()), to_jaq(item)));
            Val::obj(entries.collect::<Map>())
        }
    }
}

fn number_to_jaq(number: &Number) -> Num {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(integer), ..) => Num::from_integral(integer),
        (None, Some(integer), _) => Num::from_integral(integer),
        (None, None, Some(float)) => Num::Float(float),
        (None, None, None) => Num::Float(f64::NAN),
    }
}

/// A value of jaq as JSON.
///
/// # Errors
/// It is larger than `bytes_max`, deeper than [`DEPTH_MAX`], or has no form in JSON. Nothing more than `bytes_max` is built.
pub(super) fn from_jaq(value: &Val, bytes_max: usize) -> Result<Value, Fault> {
    Output { room: bytes_max }.convert(value, 0)
}

/// What is being converted: about as many bytes may yet be added to it as JSON, escapes aside.
struct Output {
    room: usize,
}

impl Output {
    fn convert(&mut self, value: &Val, depth: usize) -> Result<Value, Fault> {
        match value {
            Val::Null => self.take(4).map(|()| Value::Null),
            Val::Bool(truth) => self.take(5).map(|()| Value::Bool(*truth)),
            Val::Num(number) => self.take(NUMBER_BYTES).map(|()| number_from_jaq(number, value)),
            Val::TStr(bytes) => self.text(bytes).map(Value::String),
            Val::BStr(bytes) => match std::str::from_utf8(bytes) {
                Ok(_) => self.text(bytes).map(Value::String),
                Err(_) => {
                    Err(Fault::Raised("its value has bytes in it that are no text: use @base64".to_owned()))
                }
            },
            Val::Arr(items) => {
                self.enter(depth)?;
                let items = items.iter().map(|item| self.convert(item, depth + 1));
                items.collect::<Result<Vec<Value>, Fault>>().map(Value::Array)
            }
            Val::Obj(entries) => {
                self.enter(depth)?;
                let entries =
                    entries.iter().map(|(key, item)| Ok((self.key(key)?, self.convert(item, depth + 1)?)));
                entries.collect::<Result<serde_json::Map<String, Value>, Fault>>().map(Value::Object)
            }
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), Fault> {
        if depth >= DEPTH_MAX { Err(Fault::TooDeep) } else { self.take(2) }
    }

    fn key(&mut self, key: &Val) -> Result<String, Fault> {
        match key {
            Val::TStr(bytes) => self.text(bytes),
            _ => Err(Fault::Raised("the keys of an object must be texts".to_owned())),
        }
    }

    fn text(&mut self, bytes: &[u8]) -> Result<String, Fault> {
        self.take(bytes.len() + 3)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        self.room = self.room.checked_sub(bytes).ok_or(Fault::TooLarge)?;
        Ok(())
    }
}

fn number_from_jaq(number: &Num, value: &Val) -> Value {
    if let Some(integer) = number.as_isize() {
        return Value::from(integer);
    }
    let Some(float) = value.as_f64() else { return Value::Null };
    // Integers between the largest of `i64` and of `u64` are exact in JSON, and would not be as a float.
    if matches!(number, Num::BigInt(_))
        && (0.0..=18_446_744_073_709_551_616.0).contains(&float)
        && let Ok(integer) = number.to_string().parse::<u64>()
    {
        return Value::from(integer);
    }
    if float.is_nan() {
        return Value::Null;
    }
    Number::from_f64(float.clamp(f64::MIN, f64::MAX)).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_survives_the_way_there_and_back() {
        let value = json!({
            "a": [1, -1, 0, 1.5, 1.0, 1e300, i64::MIN, i64::MAX, u64::MAX, null, true, false],
            "ключ": {"": "", "\u{0}\u{1f}\"\\": "\u{10ffff}"},
            "empty": [[], {}],
        });
        assert_eq!(from_jaq(&to_jaq(&value), 10_000), Ok(value));
    }

    #[test]
    fn what_json_has_not_follows_the_rules() {
        let jq = |value: Val| from_jaq(&value, 100);
        assert_eq!(jq(Val::from(f64::NAN)), Ok(Value::Null));
        assert_eq!(jq(Val::from(f64::INFINITY)), Ok(json!(f64::MAX)));
        assert_eq!(jq(Val::from(f64::NEG_INFINITY)), Ok(json!(f64::MIN)));
        let big = |digits| Num::from_str_radix(digits, 10).map(Val::Num).unwrap();
        assert_eq!(jq(big("18446744073709551615")), Ok(json!(u64::MAX)));
        assert_eq!(jq(big("18446744073709551616")), Ok(json!(18_446_744_073_709_551_616_f64)));
        assert_eq!(jq(big("-9223372036854775809")), Ok(json!(-9_223_372_036_854_775_809_f64)));
        assert_eq!(jq(Val::utf8_str(vec![b'a', 0xff])), Ok(json!("a\u{fffd}")));
        assert_eq!(jq(Val::byte_str(vec![b'a'])), Ok(json!("a")));
        assert!(matches!(jq(Val::byte_str(vec![0xff])), Err(Fault::Raised(_))));
        let keyed = Val::obj([(Val::from(1_usize), Val::Null)].into_iter().collect());
        assert!(matches!(jq(keyed), Err(Fault::Raised(_))));
    }

    #[test]
    fn size_and_depth_of_an_output_are_bounded() {
        let nest = |levels: usize| (0..levels).fold(Val::Null, |inner, _| [inner].into_iter().collect());
        assert!(from_jaq(&nest(DEPTH_MAX), 1_000).is_ok());
        assert_eq!(from_jaq(&nest(DEPTH_MAX + 1), 1_000), Err(Fault::TooDeep));
        assert!(from_jaq(&Val::from("x".repeat(97)), 100).is_ok());
        assert_eq!(from_jaq(&Val::from("x".repeat(98)), 100), Err(Fault::TooLarge));
        // Shared many times over: 2^60 values if it were written out.
        let shared = (0..60).fold(Val::Null, |inner, _| [inner.clone(), inner].into_iter().collect());
        assert_eq!(from_jaq(&shared, 100_000), Err(Fault::TooLarge));
    }

    #[test]
    fn measuring_counts_values_keys_and_texts() {
        assert_eq!(measure(&json!(null)), Extent { size: NODE, depth: 0 });
        assert_eq!(measure(&json!({"ab": [1, "c"]})), Extent { size: 5 * NODE + 3, depth: 2 });
        let nest = |levels: usize| (0..levels).fold(json!(null), |inner, _| json!([inner]));
        assert_eq!(measure(&nest(DEPTH_MAX)).depth, DEPTH_MAX);
        assert!(measure(&nest(1_000)).depth > DEPTH_MAX);
    }
}
