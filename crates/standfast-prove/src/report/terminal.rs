//! The report for a terminal: legible without colour, at most about 100 columns unless names are long.

use std::fmt::Write as _;

use super::words::{self, FaultRow};
use crate::judge::Judgement;
use crate::record::Record;
use crate::verdict::Verdict;

/// Whether colours may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// ANSI colours.
    On,
    /// Plain text.
    Off,
}

impl Colour {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::On => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Self::Off => text.to_owned(),
        }
    }
}

/// The report as text.
pub fn terminal(record: &Record, judgement: &Judgement, colour: Colour) -> String {
    let mut text = String::new();
    faults(&mut text, &words::fault_rows(record, judgement), colour);
    line(&mut text, "");
    for finding in &judgement.findings {
        line(&mut text, &format!("  {}", clean(&finding.invariant)));
        for (is_good, claim) in words::claims(finding) {
            line(&mut text, &format!("    {} {}", mark(is_good, colour), clean(&claim)));
        }
    }
    for facts in &record.workflows {
        line(&mut text, &format!("  runs of {}", clean(&facts.workflow)));
        for (is_good, claim) in words::run_claims(facts) {
            line(&mut text, &format!("    {} {}", mark(is_good, colour), clean(&claim)));
        }
    }
    let (is_good, availability) = words::availability(record, judgement);
    line(&mut text, &format!("  {} {availability}", mark(is_good, colour)));
    line(&mut text, &format!("    {}", words::generator(record)));
    for note in &judgement.notes {
        line(&mut text, &format!("  note: {}", clean(note)));
    }
    line(&mut text, "");
    let code = match judgement.verdict {
        Verdict::Held => "1;32",
        Verdict::Broke => "1;31",
        Verdict::NotRun | Verdict::FaultDidNotBite | Verdict::NotRestored => "1;33",
    };
    let headline = words::headline(record, judgement);
    line(&mut text, &format!("  {}  {headline}", colour.paint(code, judgement.verdict.word())));
    for reason in &judgement.reasons {
        let number = reason.fault.map_or(String::new(), |number| format!("fault {number}: "));
        line(&mut text, &format!("    {}: {number}{}", words::weight(reason.weight), clean(&reason.text)));
    }
    line(
        &mut text,
        &format!("  seed {}; repeat with: {}", record.options.seed, clean(&record.options.repeat)),
    );
    text
}

fn faults(text: &mut String, rows: &[FaultRow], colour: Colour) {
    if rows.is_empty() {
        return line(text, "  nothing was broken");
    }
    let head = ["", "fault", "target", "verified", "failed", "worst", "healed in"].map(str::to_owned);
    let mut table = vec![head.to_vec()];
    for row in rows {
        table.push(vec![
            row.number.to_string(),
            row.fault.clone(),
            clean(&row.target),
            if row.bit { clean(&row.verified) } else { format!("NO: {}", clean(&row.verified)) },
            row.failed.clone(),
            row.worst.clone(),
            row.healed.clone(),
        ]);
    }
    let columns = head.len();
    let widths: Vec<usize> = (0..columns)
        .map(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for (index, row) in table.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0 | 4..=6 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            })
            .collect();
        let joined = cells.join("  ");
        match index.checked_sub(1).map(|index| &rows[index]) {
            None => line(text, &format!("    {}", colour.paint("2", joined.trim_end()))),
            Some(fault) => {
                line(text, &format!("  {} {}", mark(fault.is_good, colour), joined.trim_end()));
                if !fault.failures.is_empty() {
                    line(text, &format!("      {}", colour.paint("2", &clean(&fault.failures))));
                }
            }
        }
    }
}

fn mark(is_good: bool, colour: Colour) -> String {
    if is_good { colour.paint("32", "✓") } else { colour.paint("31", "✗") }
}

fn line(text: &mut String, content: &str) {
    let _never_fails = writeln!(text, "{content}");
}

/// A stranger's text must not drive the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
