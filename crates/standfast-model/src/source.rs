use std::fmt;
use std::sync::Arc;

/// A text that was read, with its name and the offsets of its lines.
pub(crate) struct Source {
    name: String,
    text: String,
    /// The byte offset at which each line begins; never empty.
    lines: Vec<u32>,
}

impl Source {
    /// The text is at most 4 GiB (`files::FILE_BYTES_MAX` is far below), so offsets fit in 32 bits.
    pub(crate) fn new(name: String, text: String) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(breaks.map(|(at, _)| offset(at + 1))).collect();
        Self { name, text, lines }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The line and the column of a byte offset, both counted from 1, columns in characters.
    pub(crate) fn position(&self, at: u32) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0) as usize;
        let before = self.text.get(start..(at as usize).min(self.text.len())).unwrap_or("");
        (line, before.chars().count() + 1)
    }

    /// A line by its number, without its line break, in two parts: before a byte offset, and from it on.
    pub(crate) fn line_around(&self, number: usize, at: u32) -> (&str, &str) {
        let start = self.lines.get(number.wrapping_sub(1)).copied().unwrap_or(0) as usize;
        let end = self.lines.get(number).map_or(self.text.len(), |next| *next as usize);
        let line = self.text.get(start..end).unwrap_or("").trim_end_matches(['\n', '\r']);
        line.split_at_checked((at as usize).saturating_sub(start)).unwrap_or((line, ""))
    }

    /// The byte offset of a line and a column in bytes, both counted from 1.
    pub(crate) fn offset_of(&self, line: usize, column: usize) -> u32 {
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0) as usize;
        let mut at = (start + column.saturating_sub(1)).min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        offset(at)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}, {} bytes)", self.name, self.text.len())
    }
}

/// A byte range of one of the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// The source's number in [`Sources`].
    pub(crate) source: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// All that was read for one stack, numbered in the order of reading.
#[derive(Debug, Default)]
pub(crate) struct Sources(Vec<Arc<Source>>);

impl Sources {
    pub(crate) fn add(&mut self, source: Source) -> u32 {
        self.0.push(Arc::new(source));
        offset(self.0.len() - 1)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Arc<Source>> {
        self.0.get(number as usize)
    }

    /// The text as it is written at a span.
    pub(crate) fn slice(&self, span: Span) -> &str {
        self.get(span.source)
            .and_then(|source| source.text().get(span.start as usize..span.end as usize))
            .unwrap_or("")
    }
}

/// A byte offset in 32 bits.
pub(crate) fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
