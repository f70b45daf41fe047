//! From a text to a [`Filter`].

use std::panic::resume_unwind;
use std::thread;

use jaq_core::compile;
use jaq_core::load::lex::Expect as Expected;
use jaq_core::load::{self, Arena, File, Loader, parse};
use standfast_model::workflow::{BadExpression, Expression};

use super::cheap;
use super::functions::{self, Kind};
use crate::check::STACK_BYTES;

/// Longest expression, in bytes.
pub(crate) const BYTES_MAX: usize = 8 << 10;

/// A compiled expression.
pub(crate) struct Filter {
    text: String,
    variables: Vec<String>,
    /// What evaluates it in this process, when it is cheap.
    cheap: Option<Cheap>,
}

/// How a cheap expression is evaluated in this process.
pub(super) struct Cheap {
    pub(super) filter: jaq_core::Filter<Kind>,
    /// With data up to this size it is cheap, measured as `value::measure` does.
    pub(super) size_max: usize,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({})", self.text())
    }
}

impl Filter {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The variables that it mentions, without `$`, in the order in which `evaluate` takes their values.
    pub(crate) fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Whether it is evaluated in this process when its data is small.
    pub(crate) fn is_cheap(&self) -> bool {
        self.cheap.is_some()
    }

    pub(super) fn cheap(&self) -> Option<&Cheap> {
        self.cheap.as_ref()
    }
}

/// Compiles expressions.
pub(crate) struct Compiler {
    definitions: Vec<parse::Def<&'static str>>,
}

impl Compiler {
    pub(crate) fn new() -> Self {
        Self { definitions: functions::definitions() }
    }

    /// Whether an expression compiles, where these variables are known (without their `$`). To be called on a stack of
    /// [`STACK_BYTES`].
    pub(crate) fn check(&self, expression: &Expression, variables: &[String]) -> Result<(), BadExpression> {
        self.compile(expression.text(), variables).map(drop)
    }

    /// Compiles an expression where these variables are known, of which the filter keeps those that it mentions.
    ///
    /// jaq's parser and compiler call themselves for each part of an expression, so this happens on a thread with a stack for that.
    pub(crate) fn filter(&self, text: &str, variables: &[String]) -> Result<Filter, BadExpression> {
        thread::scope(|scope| {
            let compiling = thread::Builder::new()
                .name("compile".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || self.filter_here(text, variables));
            match compiling.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(filter)) => filter,
                Ok(Err(panic)) => resume_unwind(panic),
                Err(why) => {
                    Err(BadExpression { message: format!("there is no memory for a thread: {why}"), at: 0 })
                }
            }
        })
    }

    fn filter_here(&self, text: &str, variables: &[String]) -> Result<Filter, BadExpression> {
        let term = self.compile(text, variables).map(|_| parsed(text))?;
        let Some(term) = term else {
            // What stands before its term, such as `module`, is known to jaq's loader only.
            return Ok(Filter { text: text.to_owned(), variables: variables.to_vec(), cheap: None });
        };
        let mentioned = cheap::mentioned(&term);
        let variables: Vec<String> =
            variables.iter().filter(|name| mentioned.contains(name.as_str())).cloned().collect();
        let cheap = match cheap::size_max(&term, &variables) {
            Some(size_max) => Some(Cheap { filter: self.compile(text, &variables)?, size_max }),
            None => None,
        };
        Ok(Filter { text: text.to_owned(), variables, cheap })
    }

    /// To be called on a stack of [`STACK_BYTES`].
    pub(super) fn compile(
        &self,
        text: &str,
        variables: &[String],
    ) -> Result<jaq_core::Filter<Kind>, BadExpression> {
        readable(text)?;
        let arena = Arena::default();
        let modules = Loader::new(self.definitions.clone())
            .load(&arena, File { code: text, path: () })
            .map_err(|errors| unreadable(text, &errors))?;
        let variables: Vec<String> = variables.iter().map(|name| format!("${name}")).collect();
        jaq_core::Compiler::default()
            .with_funs(functions::natives())
            .with_global_vars(variables.iter().map(String::as_str))
            .compile(modules)
            .map_err(|errors| undefined(text, &errors))
    }
}

fn readable(text: &str) -> Result<(), BadExpression> {
    if text.len() > BYTES_MAX {
        let message = format!("it is longer than {} KiB", BYTES_MAX >> 10);
        return Err(BadExpression { message, at: 0 });
    }
    Ok(())
}

fn parsed(text: &str) -> Option<parse::Term<&str>> {
    load::parse(text, |parser| parser.term())
}

/// The first of the errors that the parser found.
fn unreadable(text: &str, errors: &load::Errors<&str, ()>) -> BadExpression {
    let bad = |message: String, part: &str| BadExpression { message, at: offset(text, part) };
    match errors.first().map(|(_, error)| error) {
        Some(load::Error::Lex(found)) => match found.first() {
            Some((expected, part)) => {
                bad(format!("{} is missing{}", expected_by_lexer(expected), before(part)), part)
            }
            None => bad("it cannot be read".to_owned(), text),
        },
        Some(load::Error::Parse(found)) => match found.first() {
            Some((parse::Expect::Nothing, part)) => bad(format!("it should end{}", before(part)), part),
            Some((expected, part)) => {
                bad(format!("{} is missing{}", expected_by_parser(expected), before(part)), part)
            }
            None => bad("it cannot be read".to_owned(), text),
        },
        Some(load::Error::Io(found)) => match found.first() {
            Some((part, _)) => bad("modules cannot be loaded here".to_owned(), part),
            None => bad("it cannot be read".to_owned(), text),
        },
        None => bad("it cannot be read".to_owned(), text),
    }
}

fn expected_by_lexer(expected: &Expected<&str>) -> &'static str {
    match expected {
        Expected::Delim("(") => "`)`",
        Expected::Delim("[") => "`]`",
        Expected::Delim("{") => "`}`",
        Expected::Delim(_) => "a closing quote",
        other => other.as_str(),
    }
}

fn expected_by_parser(expected: &parse::Expect<&str>) -> String {
    match expected {
        parse::Expect::Just(word) => format!("`{word}`"),
        other => format!("a {}", other.as_str()),
    }
}

fn before(part: &str) -> String {
    match part.split_whitespace().next() {
        Some(word) => format!(" at `{}`", word.chars().take(20).collect::<String>()),
        None => " at its end".to_owned(),
    }
}

/// The first name that nothing defines.
fn undefined(text: &str, errors: &compile::Errors<&str, ()>) -> BadExpression {
    let Some((name, kind)) = errors.iter().flat_map(|(_, found)| found).next() else {
        return BadExpression { message: "it cannot be compiled".to_owned(), at: 0 };
    };
    BadExpression { message: functions::undefined(name, kind), at: offset(text, name) }
}

/// Where a part of a text begins in it; its end, when the part is of elsewhere.
fn offset(text: &str, part: &str) -> usize {
    let at = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    if at <= text.len() { at } else { text.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), (String, usize)> {
        let variables = ["context".to_owned(), "item".to_owned()];
        Compiler::new().compile(text, &variables).map(drop).map_err(|bad| (bad.message, bad.at))
    }

    #[test]
    fn what_compiles_compiles() {
        for text in [
            ".",
            ".order.total > 100 and ($context.customer != null)",
            "[.items[] | {id: .id, sum: (.price * .count)}] | sort_by(.sum) | first",
            r#""order-\(.id)" | ascii_downcase"#,
            "reduce .[] as $x (0; . + $x)",
            "now | todate",
            "$item.id | tostring | test(\"^[0-9]+$\")",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_does_not_says_where_and_why() {
        for (text, message, at) in [
            (".a |", "a term is missing at its end", 4),
            (".a b", "it should end at `b`", 3),
            ("if .a", "`then` is missing at its end", 5),
            ("(.a", "`)` is missing at its end", 3),
            ("$itme.id", "there is no variable `$itme`", 0),
            (".a | frist", "there is no function `frist`", 5),
            ("env.HOME", "`env` is refused: an expression sees nothing but its data", 0),
            ("$ENV.HOME", "`$ENV` is refused: an expression sees nothing but its data", 0),
            ("halt", "`halt` is refused: an expression sees nothing but its data", 0),
            ("[limit(3; repeat(input))]", "`input` is refused: an expression sees nothing but its data", 17),
            ("import \"a\" as a; .", "modules cannot be loaded here", 8),
        ] {
            let (said, place) = check(text).unwrap_err();
            assert!(said.starts_with(message), "{text}: {said}");
            assert_eq!(place, at, "{text}: {said}");
        }
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_refused_and_does_no_harm() {
        let run = |text: String| {
            std::thread::Builder::new()
                .stack_size(crate::check::STACK_BYTES)
                .spawn(move || check(&text).is_err())
                .unwrap()
                .join()
                .unwrap()
        };
        assert!(run(".".repeat(BYTES_MAX + 1)));
        for part in ["(", "[", "{a:", "-", "if ", "def f: ", ". as $x | ", "try ", ".[", "reduce ", "\"\\("] {
            run(part.repeat(BYTES_MAX / part.len()));
        }
    }
}
