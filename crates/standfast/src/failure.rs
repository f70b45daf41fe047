//! A command that could not be carried out: what happened, why, and what to type next.

use crate::exit;
use crate::output::Output;

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    /// Text that was rendered already, shown before the message.
    detail: Option<String>,
}

impl Failure {
    /// The user's input or machine does not allow it.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(exit::INPUT, message)
    }

    /// Something of ours failed.
    pub(crate) fn ours(message: impl Into<String>) -> Self {
        Self::new(exit::FAILED, message)
    }

    /// With a code of one's own.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), hint: None, detail: None }
    }

    /// Something of ours failed, with its whole chain.
    pub(crate) fn because_of(message: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self::ours(message).because(error)
    }

    /// Adds an error and its causes.
    #[must_use]
    pub(crate) fn because(mut self, error: &dyn std::error::Error) -> Self {
        self.causes.push(error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            self.causes.push(cause.to_string());
            source = cause.source();
        }
        self.causes.dedup();
        self
    }

    /// Adds the next command to type.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds text to show first.
    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// What happened and why, in one sentence, for a warning; with what was to be shown before it.
    pub(crate) fn told(&self) -> String {
        let causes: String = self.causes.iter().map(|cause| format!(": {cause}")).collect();
        let detail =
            self.detail.as_deref().map_or(String::new(), |detail| format!("\n{}", detail.trim_end()));
        format!("{}{causes}{detail}", self.message)
    }

    pub(crate) fn print(&self, output: Output) {
        if let Some(detail) = &self.detail {
            output.note(detail.trim_end());
        }
        output.error(&self.message, &self.causes, self.hint.as_deref());
    }
}
