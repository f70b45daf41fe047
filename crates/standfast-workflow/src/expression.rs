//! Expressions: jq, by `jaq`.

use jaq_core::load::lex::Expect as Expected;
use jaq_core::load::{self, Arena, File, Loader, parse};
use jaq_core::{compile, data};
use jaq_json::Val;
use standfast_model::workflow::{BadExpression, Expression};

/// Longest expression, in bytes.
pub(crate) const BYTES_MAX: usize = 8 << 10;
/// What would reach out of a run, or end the process: the environment, the terminal, the process, the machine's time zone.
const REFUSED: [&str; 13] = [
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

type Data = data::JustLut<Val>;

/// Compiles expressions.
pub(crate) struct Compiler {
    definitions: Vec<parse::Def<&'static str>>,
}

impl Compiler {
    pub(crate) fn new() -> Self {
        let all = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        Self { definitions: all.filter(|definition| !REFUSED.contains(&definition.name)).collect() }
    }

    /// Whether an expression compiles, where these variables are known (without their `$`).
    pub(crate) fn check(&self, expression: &Expression, variables: &[String]) -> Result<(), BadExpression> {
        self.compile(expression.text(), variables).map(drop)
    }

    fn compile(&self, text: &str, variables: &[String]) -> Result<jaq_core::Filter<Data>, BadExpression> {
        if text.len() > BYTES_MAX {
            return Err(BadExpression {
                message: format!("it is longer than {} KiB", BYTES_MAX >> 10),
                at: 0,
            });
        }
        let arena = Arena::default();
        let modules = Loader::new(self.definitions.clone())
            .load(&arena, File { code: text, path: () })
            .map_err(|errors| unreadable(text, &errors))?;
        let variables: Vec<String> = variables.iter().map(|name| format!("${name}")).collect();
        let functions = jaq_core::funs::<Data>().chain(jaq_std::funs()).chain(jaq_json::funs());
        jaq_core::Compiler::default()
            .with_funs(functions.filter(|(name, ..)| !REFUSED.contains(name)))
            .with_global_vars(variables.iter().map(String::as_str))
            .compile(modules)
            .map_err(|errors| undefined(text, &errors))
    }
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
    let message = match kind {
        compile::Undefined::Filter(_) if REFUSED.contains(name) => {
            format!("`{name}` is refused: an expression sees nothing but its data")
        }
        compile::Undefined::Var if *name == "$ENV" => {
            "`$ENV` is refused: an expression sees nothing but its data".to_owned()
        }
        compile::Undefined::Filter(0) => format!("there is no function `{name}`"),
        compile::Undefined::Filter(arguments) => {
            format!("there is no function `{name}` with {arguments} arguments")
        }
        compile::Undefined::Var => format!("there is no variable `{name}`"),
        other => format!("there is no {} `{name}`", other.as_str()),
    };
    BadExpression { message, at: offset(text, name) }
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
