//! One line of a log file: `2026-03-01T09:30:00.125Z orders-0.3 out 1234 text`.

use std::fmt::Write;

use standfast_model::Stamp;

use crate::local::api::{LogLine, LogSource, LogStream};

/// What a line of a log file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) at: Stamp,
    pub(crate) writer: &'a str,
    pub(crate) stream: LogStream,
    /// How far the spool has been read with this line.
    pub(crate) offset: u64,
    /// The line; `None` in one that only repeats the position, at the begin of a file.
    pub(crate) text: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// Appends the record to `file`.
    pub(crate) fn write(&self, file: &mut String) {
        let Self { at, writer, offset, .. } = self;
        let stream = match (self.stream, self.text) {
            (LogStream::Out, Some(_)) => "out",
            (LogStream::Err, Some(_)) => "err",
            (LogStream::Out, None) => "at-out",
            (LogStream::Err, None) => "at-err",
        };
        let text = self.text.unwrap_or_default();
        let _a_string_takes_all = writeln!(file, "{at} {writer} {stream} {offset} {text}");
    }

    /// The record in a line without its end; `None` when it is not one.
    pub(crate) fn read(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(5, ' ');
        let at = stamp(parts.next()?)?;
        let writer = parts.next()?;
        let (stream, is_line) = match parts.next()? {
            "out" => (LogStream::Out, true),
            "err" => (LogStream::Err, true),
            "at-out" => (LogStream::Out, false),
            "at-err" => (LogStream::Err, false),
            _ => return None,
        };
        let offset = parts.next()?.parse().ok()?;
        let text = parts.next()?;
        Some(Self { at, writer, stream, offset, text: is_line.then_some(text) })
    }

    /// The line for those who asked; `None` for a mere position.
    pub(crate) fn line(&self) -> Option<LogLine> {
        self.text.map(|text| LogLine {
            at: self.at,
            writer: self.writer.to_owned(),
            stream: self.stream,
            text: text.to_owned(),
        })
    }
}

/// Whose log a writer's lines go to: `orders-0.3` writes for service `orders`; the node's writers begin with `_`, which
/// no service can.
pub(crate) fn source_of(writer: &str) -> Option<LogSource> {
    if writer.starts_with('_') {
        return Some(LogSource::Node);
    }
    let (replica, _attempt) = writer.rsplit_once('.')?;
    let (service, _slot) = replica.rsplit_once('-')?;
    service.parse().ok().map(LogSource::Service)
}

/// A stamp from the form that [`Stamp`] prints. Microseconds were not printed and are zero.
fn stamp(text: &str) -> Option<Stamp> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let is_ours = text.len() == 24 && text.ends_with('Z') && text.is_char_boundary(23);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second, milli) = (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 23)?);
    if !is_ours || year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds =
        ((standfast_model::days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(Stamp::from_micros((seconds * 1_000 + milli) * 1_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_written_record_reads_back(millis in 0_u64..250_000_000_000_000, offset: u64, text in "[^\n]{0,40}", is_err: bool) {
            let stream = if is_err { LogStream::Err } else { LogStream::Out };
            let at = Stamp::from_micros(millis % 100_000_000_000_000 * 1_000);
            let record = Record { at, writer: "orders-0.3", stream, offset, text: Some(&text) };
            let mut line = String::new();
            record.write(&mut line);
            prop_assert_eq!(Record::read(line.strip_suffix('\n').unwrap()), Some(record));
        }
    }

    #[test]
    fn what_is_not_a_record_is_none() {
        for bad in
            ["", "x", "2026-03-01T09:30:00.125Z orders-0.3 out 12", "2026-13-01T09:30:00.125Z a out 1 t"]
        {
            assert_eq!(Record::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_writer_names_its_log() {
        assert_eq!(source_of("a-b-12.7"), Some(LogSource::Service("a-b".parse().unwrap())));
        assert_eq!(source_of("_node.3"), Some(LogSource::Node));
        assert_eq!(source_of("orders"), None);
    }
}
