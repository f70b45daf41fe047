//! The report as one HTML page: no script, nothing loaded from elsewhere, light and dark, legible at 390 pixels.

use super::page;
use super::style::CSS;
use crate::judge::Judgement;
use crate::record::Record;

/// The report as a page.
pub fn html(record: &Record, judgement: &Judgement) -> String {
    let title = format!("{}: {}", record.stack, judgement.verdict.word().to_lowercase());
    let body = [
        page::verdict(record, judgement),
        page::reasons(judgement),
        page::timeline(record, judgement),
        page::faults(record, judgement),
        page::invariants(judgement),
        page::requests(record),
        page::rules(record, judgement),
        page::footer(record),
    ]
    .concat();
    // The policy makes the browser refuse any script or outside resource, should an escape ever be missing.
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>{}</title><style>{CSS}</style></head><body><main>{body}</main></body></html>\n",
        escape(&title)
    )
}

/// Text as HTML takes it, in elements and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(' '),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
