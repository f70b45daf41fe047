//! What expressions may call: jaq's functions and definitions, without those that reach out of a run, with ours in the place of some.

use jaq_core::compile::Undefined;
use jaq_core::load::{self, parse};
use jaq_core::native::{Fun, bome, run, v};
use jaq_core::{DataT, Lut, ValR, ValT as _, data};
use jaq_json::{Num, Val};
use jaq_std::ValT as _;
use standfast_model::Stamp;

/// What would reach out of a run, or end the process: the environment, the terminal, the process, the machine's time zone.
pub(super) const REFUSED: [&str; 13] = [
    "env",
    "halt",
    "halt_error",
    "debug",
    "debug_empty",
    "stderr",
    "stderr_empty",
    "input",
    "inputs",
    "input_filename",
    "input_line_number",
    "localtime",
    "strflocaltime",
];

/// What [`ours`] does in jaq's stead. (What `prelude.jq` defines comes after jaq's definitions, and hides them.)
const REPLACED: [(&str, usize); 4] = [("now", 0), ("length", 0), ("tonumber", 0), ("toboolean", 0)];

/// Longest text that `tonumber` reads digit by digit; of a longer one it takes the nearest number with a fraction. Otherwise numbers
/// could be as long as texts, and calculating with them no longer quick.
const DIGITS_MAX: usize = 64;

/// The kind of filters that we run: jaq's values, and a [`Scope`] for our own functions.
pub(super) struct Kind;

/// What is known while a filter runs.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    pub(super) lut: &'a Lut<Kind>,
    /// What `now` says.
    pub(super) now: Stamp,
}

impl DataT for Kind {
    type V<'a> = Val;
    type Data<'a> = Scope<'a>;
}

impl<'a> data::HasLut<'a, Kind> for Scope<'a> {
    fn lut(&self) -> &'a Lut<Kind> {
        self.lut
    }
}

fn is_replaced(name: &str, arguments: usize) -> bool {
    REPLACED.contains(&(name, arguments))
}

/// The functions that are defined in jq.
pub(super) fn definitions() -> Vec<parse::Def<&'static str>> {
    let of_jaq = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let prelude = load::parse(include_str!("prelude.jq"), |parser| parser.defs());
    of_jaq
        .filter(|definition| !REFUSED.contains(&definition.name))
        .filter(|definition| !is_replaced(definition.name, definition.args.len()))
        .chain(prelude.expect("a test compiles expressions with it"))
        .collect()
}

/// The functions that are written in Rust.
pub(super) fn natives() -> impl Iterator<Item = Fun<Kind>> {
    let of_jaq = jaq_core::funs::<Kind>().chain(jaq_std::funs()).chain(jaq_json::funs());
    of_jaq
        .filter(|(name, arguments, _)| !REFUSED.contains(name) && !is_replaced(name, arguments.len()))
        .chain(ours())
}

type Native = jaq_core::native::Filter<jaq_core::RunPtr<Kind>>;

fn ours() -> impl Iterator<Item = Fun<Kind>> {
    let ours: [Native; 4] = [
        ("now", v(0), |cv| bome(Ok(Val::from(cv.0.data().now.as_micros() as f64 / 1e6)))),
        ("length", v(0), |cv| bome(length(&cv.1))),
        ("tonumber", v(0), |cv| bome(tonumber(cv.1))),
        ("toboolean", v(0), |cv| bome(toboolean(cv.1))),
    ];
    ours.into_iter().map(run::<Kind>)
}

/// As jaq's, which panics at the smallest integer.
fn length(value: &Val) -> ValR<Val> {
    Ok(match value {
        Val::Null => Val::from(0_usize),
        Val::Num(Num::Int(integer)) => match integer.checked_abs() {
            Some(integer) => Val::from(integer),
            None => Val::from(integer.unsigned_abs()),
        },
        Val::Num(_) if value.as_f64().is_some_and(|number| number < 0.0) => return -value.clone(),
        Val::Num(_) => value.clone(),
        // Bytes that are no text count as one character each, as in what is printed.
        Val::TStr(bytes) => {
            let chunks = bytes.utf8_chunks();
            let count = |chunk: std::str::Utf8Chunk<'_>| {
                chunk.valid().chars().count() + usize::from(!chunk.invalid().is_empty())
            };
            Val::from(chunks.map(count).sum::<usize>())
        }
        Val::BStr(bytes) => Val::from(bytes.len()),
        Val::Arr(items) => Val::from(items.len()),
        Val::Obj(entries) => Val::from(entries.len()),
        Val::Bool(_) => return Err(jaq_core::Error::str(format_args!("{value} has no length"))),
    })
}

/// As jaq's, which reads any JSON on the way, and overflows its stack at a text of many `[`.
fn tonumber(value: Val) -> ValR<Val> {
    if let Val::Num(_) = value {
        return Ok(value);
    }
    let text = value.as_utf8_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok());
    match text.map(str::trim_ascii).filter(|text| is_number(text)) {
        Some(text) if text.len() <= DIGITS_MAX => Val::from_num(text),
        Some(text) => Ok(Val::from(text.parse().unwrap_or(f64::NAN))),
        None => Err(jaq_core::Error::str(format_args!("{value} cannot be parsed as a number"))),
    }
}

/// Whether a text is a number as JSON has them; zeros may lead.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let text = text.strip_prefix('-').unwrap_or(text);
    let whole = digits(text);
    let mut rest = &text[whole..];
    if let Some(after) = rest.strip_prefix('.') {
        if digits(after) == 0 {
            return false;
        }
        rest = &after[digits(after)..];
    }
    if let Some(after) = rest.strip_prefix(['e', 'E']) {
        let after = after.strip_prefix(['+', '-']).unwrap_or(after);
        if digits(after) == 0 {
            return false;
        }
        rest = &after[digits(after)..];
    }
    whole > 0 && rest.is_empty()
}

fn toboolean(value: Val) -> ValR<Val> {
    match value.as_utf8_bytes() {
        _ if matches!(value, Val::Bool(_)) => Ok(value),
        Some(b"true") => Ok(Val::from(true)),
        Some(b"false") => Ok(Val::from(false)),
        _ => Err(jaq_core::Error::str(format_args!("{value} cannot be parsed as a boolean"))),
    }
}

/// What is undefined, in words.
pub(super) fn undefined(name: &str, kind: &Undefined) -> String {
    match kind {
        Undefined::Filter(_) if REFUSED.contains(&name) => {
            format!("`{name}` is refused: an expression sees nothing but its data")
        }
        Undefined::Var if name == "$ENV" => {
            "`$ENV` is refused: an expression sees nothing but its data".to_owned()
        }
        Undefined::Filter(0) => format!("there is no function `{name}`"),
        Undefined::Filter(arguments) => format!("there is no function `{name}` with {arguments} arguments"),
        Undefined::Var => format!("there is no variable `{name}`"),
        other => format!("there is no {} `{name}`", other.as_str()),
    }
}
