//! What the functions cost that a cheap expression may call.
//!
//! Each line was written from the function's definition in jaq 3 (`jaq-core/src/defs.jq`, `jaq-std/src/defs.jq`, the functions in
//! Rust beside them, and our `prelude.jq`). What is not here is not cheap: above all what can go on without end (`range`, `repeat`,
//! `recurse`, `until`, …), what nests (`fromjson`), what grows by a number (`*`, `implode`), regular expressions, and dates in parts,
//! whose arithmetic jaq does not check.

use super::cost::{Bound, Flow};
use super::value::NODE;

/// The work of one step of the interpreter: about a tenth of a microsecond, where a unit is what handling a byte takes at most.
pub(super) const STEP: f64 = 64.0;
/// The size of a number, and of any other value with no text and no values in it.
pub(super) const SCALAR: Bound = Bound::constant(NODE as f64);
/// How much larger than itself a value is as JSON at most: `\u0001` for one byte.
pub(super) const AS_JSON: f64 = 6.0;
/// How much larger an array of a text's bytes is than the text.
pub(super) const PARTS: f64 = NODE as f64 + 1.0;
/// A value holds at most so many values, as a part of its size.
const VALUES: f64 = 1.0 / NODE as f64;
/// Copying a byte, as a part of a unit.
const COPY: f64 = 1.0 / 16.0;
/// Upper bound of the logarithm that sorting takes.
const LOG: f64 = 24.0;

const S: Bound = Bound::SIZE;

pub(super) fn steps(count: f64) -> Bound {
    Bound::constant(count * STEP)
}

/// `.[]`
pub(super) fn iterate() -> Flow {
    let count = S * VALUES;
    Flow { count, each: S, total: S, work: count * (2.0 * STEP) + steps(2.0) }
}

/// `[f]`
pub(super) fn collect(f: Flow) -> Flow {
    Flow::one(f.total + SCALAR, f.work + steps(2.0))
}

/// Adding up so many values of so much size: in the worst case the sum is copied at each step.
fn sum(count: Bound, total: Bound) -> Bound {
    count * (6.0 * STEP) + total + count * total * COPY + steps(4.0)
}

/// Comparing each of so many keys with one that is as large as all of them, as often as sorting may.
fn sort(count: Bound, total: Bound) -> Bound {
    count * (LOG * STEP) + total * LOG + total * total * (VALUES / 4.0 * LOG / 2.0) + steps(8.0)
}

/// Looking for a key, an index or a part in a value of the size `s`.
pub(super) fn index(key: Bound) -> Bound {
    S + key + S * key * (1.0 / 32.0) + steps(4.0)
}

/// A number or a truth, after so much work.
fn scalar(work: Bound) -> Flow {
    Flow::one(SCALAR, work)
}

/// One value made of the input.
fn same(work: Bound) -> Flow {
    Flow::one(S, work)
}

/// A function without arguments.
pub(super) fn of_input(name: &str) -> Option<Flow> {
    let each_step = S * (VALUES * 8.0 * STEP) + S + steps(16.0);
    Some(match name {
        "not" | "type" | "isboolean" | "isnumber" | "isstring" | "isarray" | "isobject" | "isnan"
        | "isinfinite" | "isfinite" | "isnormal" | "true" | "false" | "null" | "nan" | "infinite" | "now"
        | "floor" | "round" | "ceil" | "trunc" | "fabs" | "sqrt" | "exp" | "exp2" | "exp10" | "log"
        | "log2" | "log10" | "abs" => scalar(S + steps(32.0)),
        "length" | "utf8bytelength" | "tonumber" | "toboolean" | "any" | "all" => scalar(each_step),
        "fromdate" | "fromdateiso8601" => scalar(S * 8.0 + steps(16.0)),
        "todate" | "todateiso8601" => Flow::one(Bound::constant(64.0), S + steps(16.0)),
        "empty" => Flow::many(Bound::ZERO, Bound::ZERO, steps(4.0)),
        // An error is an output to whoever catches it: it is no larger than the work.
        "error" => Flow::many(Bound::ZERO, Bound::ZERO, S + steps(4.0)),
        "first" | "last" | "ascii_downcase" | "ascii_upcase" | "trim" | "ltrim" | "rtrim" => {
            same(S + steps(8.0))
        }
        "reverse" => same(each_step),
        "values" | "nulls" | "booleans" | "numbers" | "finites" | "normals" | "strings" | "arrays"
        | "objects" | "iterables" | "scalars" => same(S + steps(32.0)),
        "toarray" => Flow::one(S + SCALAR, S + steps(16.0)),
        "keys_unsorted" => Flow::one(S + SCALAR, each_step),
        // Keys are texts, or numbers: comparing two takes no longer than the shorter is.
        "keys" => Flow::one(S + SCALAR, S * (VALUES * LOG * STEP) + S * LOG + steps(16.0)),
        "to_entries" => to_entries(),
        "from_entries" => from_entries(),
        "add" => Flow::one(S + SCALAR, sum(S * VALUES, S)),
        "min" | "max" => same(S * (VALUES * 8.0 * STEP) + S * 2.0 + S * S * (VALUES / 4.0) + steps(16.0)),
        "sort" | "unique" => same(sort(S * VALUES, S)),
        "tostring" | "tojson" | "@text" | "@json" => as_json(1.0),
        "@html" => as_json(6.0),
        "@uri" => as_json(3.0),
        "@base64" => as_json(2.0),
        _ => return None,
    })
}

/// A value as JSON, whose bytes then become so many each.
pub(super) fn as_json(factor: f64) -> Flow {
    let size = S * AS_JSON + SCALAR;
    Flow::one(size * factor, size * 2.0 + S * STEP * VALUES + steps(4.0))
}

/// Each entry becomes an object with the keys `key` and `value`.
fn to_entries() -> Flow {
    Flow::one(S * 6.0 + SCALAR, S * (VALUES * 16.0 * STEP) + steps(8.0))
}

/// The key may become a text, and be more than there was.
fn from_entries() -> Flow {
    let made = S * (AS_JSON + 4.0) + SCALAR;
    Flow::one(made, sum(S * VALUES, made) + S * (VALUES * 48.0 * STEP))
}

/// A function whose arguments are expressions that it runs itself, each of which is here in terms of the input of the whole. For
/// those that are run on something else, `on_items` and `on_entries` say so.
pub(super) fn of_filters(name: &str, arguments: &[Flow]) -> Option<Flow> {
    Some(match (name, arguments) {
        ("select", [f]) => {
            Flow { count: f.count, each: S, total: f.count * S, work: f.work + f.count * (4.0 * STEP) }
        }
        ("error", [f]) => Flow::many(Bound::ZERO, Bound::ZERO, f.work + f.total + steps(4.0)),
        ("first" | "last", [f]) => Flow { count: Bound::ONE, total: f.each, ..*f }.plus_work(steps(4.0)),
        ("isempty", [f]) => scalar(f.work + steps(8.0)),
        ("add", [f]) => Flow::one(f.total + SCALAR, f.work + sum(f.count, f.total)),
        ("limit" | "skip", [n, f]) => {
            f.times(n.count).plus_work(n.work + (f.count * n.count + n.count) * (4.0 * STEP))
        }
        ("IN", [f]) => scalar(f.work + f.count * (S + steps(16.0)) + f.total + steps(8.0)),
        ("pow" | "atan2" | "fmin" | "fmax", [left, right]) => {
            let count = left.count * right.count;
            Flow::many(count, SCALAR, left.work + left.count * right.work + count * (8.0 * STEP))
        }
        ("in" | "inside", [f]) => {
            // The input is looked for in each output.
            let work = f.total + (S + steps(8.0)) * f.count + S * f.total * (1.0 / 8.0);
            Flow::many(f.count, SCALAR, f.work + work + f.count * SCALAR)
        }
        (
            "has" | "startswith" | "endswith" | "contains" | "indices" | "index" | "rindex" | "ltrimstr"
            | "trimstr" | "rtrimstr" | "split" | "join" | "nth",
            [argument],
        ) => of_value(name, *argument)?,
        _ => return None,
    })
}

/// A function of its input and of each output of its argument.
fn of_value(name: &str, argument: Flow) -> Option<Flow> {
    let key = argument.each;
    let made = match name {
        "has" => scalar(index(key)),
        "nth" => same(index(key)),
        "startswith" | "endswith" => scalar(S + key + steps(4.0)),
        "ltrimstr" | "rtrimstr" | "trimstr" => same(S * 8.0 + key * 8.0 + steps(64.0)),
        // Each text in one is looked for in each text of the other.
        "contains" => scalar(S + key + S * key * (1.0 / 8.0) + steps(8.0)),
        "indices" => Flow::one(S * NODE as f64 + SCALAR, S * STEP + key + S * key * COPY + steps(8.0)),
        "index" | "rindex" => scalar(S * NODE as f64 + S * STEP + key + S * key * COPY + steps(16.0)),
        // Each byte may become a text.
        "split" => Flow::one(S * PARTS + SCALAR, S * STEP + key + steps(16.0)),
        "join" => {
            // Only texts, numbers and truths can be joined, and the digits of a number take less than twice its size.
            let joined = S * 2.0 + S * key * VALUES + SCALAR;
            Flow::one(joined, sum(S * VALUES, joined) * 2.0 + S * (VALUES * 32.0 * STEP))
        }
        _ => return None,
    };
    Some(made.times(argument.count).plus_work(argument.work))
}

/// Whether a function runs its last argument on each item of its input.
pub(super) fn runs_on_items(name: &str, arguments: usize) -> bool {
    arguments == 1
        && matches!(
            name,
            "map" | "map_values" | "any" | "all" | "sort_by" | "group_by" | "unique_by" | "min_by" | "max_by"
        )
}

/// A function that runs its argument on each item: `f` is `.[] | argument`.
pub(super) fn of_items(name: &str, f: Flow) -> Option<Flow> {
    let (count, total) = (f.count + S * VALUES, f.total + S);
    let items = S * (VALUES * 8.0 * STEP) + steps(16.0);
    Some(match name {
        "map" => collect(f),
        "map_values" => Flow::one(f.total + S + SCALAR, f.work + items),
        "any" | "all" => scalar(f.work + f.count * (8.0 * STEP) + items),
        "sort_by" | "unique_by" => same(f.work + items + sort(count, total)),
        "group_by" => Flow::one(S * 2.0 + SCALAR, f.work + items + sort(count, total)),
        "min_by" | "max_by" => same(f.work + items + total * 2.0 + total * total * (VALUES / 4.0)),
        _ => return None,
    })
}

/// `any(f; condition)` and `all(f; condition)`: `f` is `f | condition`.
pub(super) fn any_or_all(f: Flow) -> Flow {
    scalar(f.work + f.count * (8.0 * STEP) + steps(16.0))
}

/// `with_entries(f)`: `f` is `to_entries | .[] | argument`.
pub(super) fn with_entries(f: Flow) -> Flow {
    collect(f).then(from_entries())
}

/// What `with_entries` runs its argument on.
pub(super) fn entries() -> Flow {
    to_entries().then(iterate())
}
