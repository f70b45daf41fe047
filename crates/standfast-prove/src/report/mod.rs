//! A judged run, told: on the terminal, as JSON, as JUnit XML and as one HTML page.
//!
//! All of them are pure functions of the same record and judgement and use the same sentences. What stands in a stack or in
//! an answer is a stranger's text: each format escapes it.

mod chart;
mod html;
mod json;
mod junit;
mod page;
mod style;
mod terminal;
#[cfg(test)]
mod tests;
mod words;

pub use html::html;
pub use json::{REPORT_VERSION, ReportFile, json, read_json};
pub use junit::junit;
pub use terminal::{Colour, terminal};
