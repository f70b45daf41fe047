use std::fmt::{self, Write};

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents,
    NarratableReportHandler, SourceCode, SourceSpan, SpanContents,
};

use crate::diagnostics::{Diagnostic, Diagnostics, Severity, printable};

/// Longest line of a file that a snippet shows, in characters; of longer ones the part around the mark is shown.
const SNIPPET_CHARS_MAX: usize = 140;
/// Characters shown before the mark when a line is cut.
const SNIPPET_CHARS_BEFORE: usize = 60;

/// `error: message`, the place, the line it is about and the hint.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.severity, self.message)?;
        let snippet = Snippet::of(self);
        if let (Some(place), Some(snippet)) = (&self.place, snippet) {
            let gutter = snippet.line.to_string().len();
            writeln!(f, "{:gutter$}--> {}:{}:{}", "", place.file(), snippet.line, place.column())?;
            if !snippet.text.trim().is_empty() {
                writeln!(f, "{:gutter$} |", "")?;
                writeln!(f, "{} | {}", snippet.line, snippet.text)?;
                writeln!(
                    f,
                    "{:gutter$} | {:before$}{}",
                    "",
                    "",
                    "^".repeat(snippet.marked),
                    before = snippet.before
                )?;
            }
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "hint: {hint}")?;
        }
        Ok(())
    }
}

/// Each diagnostic, an empty line after each, and how many more there were.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            write!(f, "{item}")?;
        }
        if self.omitted > 0 {
            writeln!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl Diagnostics {
    /// Drawn with lines and arrows for a terminal, in colour when `color` is set.
    pub fn graphical(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false);
        self.through(|out, report| handler.render_report(out, report))
    }

    /// In sentences, for screen readers and logs.
    pub fn narrated(&self) -> String {
        let handler = NarratableReportHandler::new();
        self.through(|out, report| handler.render_report(out, report))
    }

    fn through(&self, render: impl Fn(&mut String, &dyn miette::Diagnostic) -> fmt::Result) -> String {
        let mut out = String::new();
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            let mut one = String::new();
            if render(&mut one, &Report::new(item)).is_err() {
                one = item.to_string();
            }
            out.push_str(&one);
        }
        if self.omitted > 0 {
            let _ = writeln!(out, "and {} more", self.omitted); // A `String` takes any text.
        }
        out
    }
}

/// The line that a diagnostic is about, safe to print.
struct Snippet {
    line: usize,
    text: String,
    /// Characters before the mark.
    before: usize,
    /// Characters marked; at least 1.
    marked: usize,
}

impl Snippet {
    fn of(item: &Diagnostic) -> Option<Self> {
        let place = item.place.as_ref()?;
        let (before, from) = place.source.line_around(place.line(), place.span.start);
        let bytes = place.span.end.saturating_sub(place.span.start) as usize;
        // Lines may be a megabyte long: only what is shown of them is walked through.
        let is_long = before.len() + from.len() > SNIPPET_CHARS_MAX;
        let most_before = if is_long { SNIPPET_CHARS_BEFORE } else { SNIPPET_CHARS_MAX };
        let cut = before.char_indices().rev().take(most_before).last().map_or(before.len(), |(at, _)| at);
        let before = &before[cut..];
        let text: String =
            before.chars().chain(from.chars()).take(SNIPPET_CHARS_MAX).map(printable).collect();
        let before = before.chars().count();
        let marked =
            from.char_indices().take(SNIPPET_CHARS_MAX - before).take_while(|(at, _)| *at < bytes).count();
        Some(Self { line: place.line(), text, before, marked: marked.max(1) })
    }
}

/// The one line that a diagnostic is about, as the source that miette draws: whatever the file holds elsewhere cannot reach
/// the terminal.
#[derive(Debug)]
struct Line {
    file: String,
    number: usize,
    /// The mark's column in the file's line, which may be longer than what is shown of it.
    column: usize,
    text: String,
}

impl SourceCode for Line {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let whole = SourceSpan::from(0..self.text.len());
        let (file, bytes) = (self.file.clone(), self.text.as_bytes());
        // Asked for the mark alone, miette wants to know its column; asked for its surroundings, where these begin.
        let column = if before + after == 0 { self.column - 1 } else { 0 };
        debug_assert!(span.offset() <= self.text.len());
        Ok(Box::new(MietteSpanContents::new_named(file, bytes, whole, self.number - 1, column, 1)))
    }
}

/// One diagnostic in the form that miette draws.
#[derive(Debug)]
struct Report<'a> {
    item: &'a Diagnostic,
    source: Option<Line>,
    label: Option<LabeledSpan>,
}

impl<'a> Report<'a> {
    fn new(item: &'a Diagnostic) -> Self {
        let drawn = item.place.as_ref().zip(Snippet::of(item)).map(|(place, snippet)| {
            let at = |chars: usize| snippet.text.chars().take(chars).map(char::len_utf8).sum::<usize>();
            let (start, end) = (at(snippet.before), at(snippet.before + snippet.marked));
            let label = LabeledSpan::new(None, start, end - start);
            (
                Line {
                    file: place.file().to_owned(),
                    number: snippet.line,
                    column: place.column(),
                    text: snippet.text + "\n",
                },
                label,
            )
        });
        let (source, label) = drawn.unzip();
        Self { item, source, label }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.item.message)
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.item.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.item.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.label
            .clone()
            .map(|label| Box::new(std::iter::once(label)) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}
