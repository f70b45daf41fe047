//! A command in one string, split into words as Compose does: at blanks, with quotes and backslashes as in a POSIX shell.
//! Nothing is expanded: no variables, no patterns, no operators.

/// Why a string is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadWords {
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("it ends in a backslash")]
    LoneBackslash,
}

pub(crate) fn split(text: &str) -> Result<Vec<String>, BadWords> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(BadWords::OpenQuote)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(BadWords::OpenQuote)? {
                        '"' => break,
                        '\\' => match chars.next().ok_or(BadWords::OpenQuote)? {
                            '\n' => {}
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next().ok_or(BadWords::LoneBackslash)? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_as_in_a_shell() {
        for (text, expected) in [
            ("a b  c", vec!["a", "b", "c"]),
            ("sh -c 'echo \"hi\" there'", vec!["sh", "-c", "echo \"hi\" there"]),
            (r#"a"b c"d '' "\"x\\""#, vec!["ab cd", "", "\"x\\"]),
            (r"a\ b \'c", vec!["a b", "'c"]),
            ("a \\\n b", vec!["a", "b"]),
            ("", vec![]),
        ] {
            assert_eq!(split(text).unwrap(), expected, "{text}");
        }
        assert_eq!(split("a 'b"), Err(BadWords::OpenQuote));
        assert_eq!(split("a \"b\\"), Err(BadWords::OpenQuote));
        assert_eq!(split("a\\"), Err(BadWords::LoneBackslash));
    }
}
