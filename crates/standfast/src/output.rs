//! What people see: colour only on a terminal, data on stdout, all else on stderr.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Colour;
use crate::failure::Failure;

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    stdout_colour: bool,
    stderr_colour: bool,
    stderr_terminal: bool,
}

impl Output {
    pub(crate) fn new(colour: Colour, no_colour: bool) -> Self {
        let wanted = |terminal: bool| match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !no_colour,
        };
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        Self { stdout_colour: wanted(out), stderr_colour: wanted(err), stderr_terminal: err }
    }

    pub(crate) const fn stdout_colour(self) -> bool {
        self.stdout_colour
    }

    pub(crate) const fn stderr_colour(self) -> bool {
        self.stderr_colour
    }

    pub(crate) const fn is_interactive(self) -> bool {
        self.stderr_terminal
    }

    /// Text on stdout. A reader that has gone away (`| head`) is no error; a full disk is one.
    pub(crate) fn data(self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Failure::because_of("cannot write the answer to the standard output", &error))
            }
            _ => Ok(()),
        }
    }

    /// A JSON value on stdout, indented.
    pub(crate) fn json(self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::because_of("cannot write the answer as JSON", &error))?;
        text.push('\n');
        self.data(&text)
    }

    /// A line for people on stderr.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        let _nobody_may_read = writeln!(std::io::stderr(), "{}", text.as_ref());
    }

    /// An error with its causes and the next step, on stderr.
    pub(crate) fn error(self, message: &str, causes: &[String], hint: Option<&str>) {
        let mut text = format!("{} {message}", self.paint(Paint::Bad, "error:"));
        for cause in causes {
            let _infallible = write!(text, "\n  because: {cause}");
        }
        if let Some(hint) = hint {
            let _infallible = write!(text, "\n{} {hint}", self.paint(Paint::Hint, "hint:"));
        }
        self.note(text);
    }

    /// Text in a colour on stderr, where colour is on.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        painted(self.stderr_colour, paint, text)
    }

    /// Text in a colour on stdout, where colour is on.
    pub(crate) fn paint_data(self, paint: Paint, text: &str) -> String {
        painted(self.stdout_colour, paint, text)
    }

    /// A spinner with a message on a terminal; elsewhere one plain line when it starts.
    pub(crate) fn progress(self, message: impl Into<String>) -> Progress {
        let message = message.into();
        if !self.stderr_terminal {
            self.note(&message);
            return Progress { bar: ProgressBar::hidden(), output: self, last: message };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        bar.set_message(message.clone());
        Progress { bar, output: self, last: message }
    }
}

/// Something that takes more than a second.
pub(crate) struct Progress {
    bar: ProgressBar,
    output: Output,
    last: String,
}

impl Progress {
    /// A new message; off a terminal it is printed only when `is_step`, or lines would fill a log.
    pub(crate) fn set(&mut self, message: impl Into<String>, is_step: bool) {
        let message = message.into();
        if message == self.last {
            return;
        }
        if self.bar.is_hidden() {
            if is_step {
                self.output.note(&message);
            }
        } else if is_step {
            self.bar.suspend(|| self.output.note(&message));
            self.bar.set_message(message.clone());
        } else {
            self.bar.set_message(message.clone());
        }
        self.last = message;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// What a colour means.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Paint {
    Good,
    Bad,
    Warn,
    Hint,
    Dim,
    Strong,
}

fn painted(colour: bool, paint: Paint, text: &str) -> String {
    let code = match paint {
        Paint::Good => "32",
        Paint::Bad => "1;31",
        Paint::Warn => "33",
        Paint::Hint => "36",
        Paint::Dim => "2",
        Paint::Strong => "1",
    };
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.into() }
}

/// A table: columns as wide as their widest cell, two spaces between; the last one is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| shown_width(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[column] - shown_width(cell) + 2));
            }
        }
        text.push('\n');
    }
    text
}

/// Characters that a terminal shows: escape sequences take no room.
fn shown_width(cell: &str) -> usize {
    let mut in_escape = false;
    cell.chars()
        .filter(|c| {
            match c {
                '\u{1b}' => in_escape = true,
                'm' if in_escape => {
                    in_escape = false;
                    return false;
                }
                _ => {}
            }
            !in_escape
        })
        .count()
}

/// `340 ms`, `2.4 s`, `3 min`, `5 h`.
pub(crate) fn for_people(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{:.1} s", duration.as_secs_f64()),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_their_colour() {
        let rows = vec![
            vec!["a".into(), painted(true, Paint::Good, "ok"), "x".into()],
            vec!["long".into(), "bad!".into(), "y".into()],
        ];
        assert_eq!(table(&rows), "a     \u{1b}[32mok\u{1b}[0m    x\nlong  bad!  y\n");
    }
}
