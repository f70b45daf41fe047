//! The report as JSON: the record and the judgement, whole.

use serde::{Deserialize, Serialize};

use crate::judge::Judgement;
use crate::record::Record;

/// The version of [`ReportFile`] that is written. A reader of version 1 ignores fields that it does not know.
pub const REPORT_VERSION: u32 = 1;

/// The whole report as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportFile {
    /// The format's version.
    pub version: u32,
    /// The process's exit code for the verdict.
    pub exit_code: u8,
    /// What was proved.
    pub judgement: Judgement,
    /// What happened.
    pub record: Record,
}

/// The report as JSON.
///
/// # Errors
/// None that a record read from a run can cause; `serde_json` has the last word.
pub fn json(record: &Record, judgement: &Judgement) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&ReportFile {
        version: REPORT_VERSION,
        exit_code: judgement.verdict.exit_code(),
        judgement: judgement.clone(),
        record: record.clone(),
    })
}

/// Reads a report's JSON, for example to judge its run again from the journal.
///
/// # Errors
/// What is not a report, or one of a form that this program does not know.
pub fn read_json(text: &str) -> Result<ReportFile, serde_json::Error> {
    let file: ReportFile = serde_json::from_str(text)?;
    if file.version > REPORT_VERSION {
        let known =
            format!("the report has version {}, and this program reads up to {REPORT_VERSION}", file.version);
        return Err(serde::de::Error::custom(known));
    }
    Ok(file)
}
