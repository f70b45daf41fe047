use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a run or a task failed by: problem details as RFC 7807 has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Its kind, a URI.
    #[serde(rename = "type")]
    pub kind: String,
    /// As HTTP has it.
    pub status: u16,
    /// Where it arose, a JSON pointer into the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What its kind means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The kinds of problems that the language names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standard {
    /// Something is set wrongly.
    Configuration,
    /// Data is not as it must be.
    Validation,
    /// An expression failed.
    Expression,
    /// It is not known who asks.
    Authentication,
    /// Who asks may not.
    Authorization,
    /// It took too long.
    Timeout,
    /// Asking something outside failed.
    Communication,
    /// Running it failed.
    Runtime,
}

/// What stands before the name of a standard kind.
const STANDARD: &str = "https://serverlessworkflow.io/spec/1.0.0/errors/";

impl Standard {
    const fn word(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Validation => "validation",
            Self::Expression => "expression",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::Timeout => "timeout",
            Self::Communication => "communication",
            Self::Runtime => "runtime",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration Error",
            Self::Validation => "Validation Error",
            Self::Expression => "Expression Error",
            Self::Authentication => "Authentication Error",
            Self::Authorization => "Authorization Error",
            Self::Timeout => "Timeout",
            Self::Communication => "Communication Error",
            Self::Runtime => "Runtime Error",
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::Configuration | Self::Validation | Self::Expression => 400,
            Self::Authentication => 401,
            Self::Authorization => 403,
            Self::Timeout => 408,
            Self::Communication | Self::Runtime => 500,
        }
    }

    /// A problem of this kind, with its usual status.
    pub fn problem(self, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("{STANDARD}{}", self.word()),
            status: self.status(),
            instance: None,
            title: Some(self.title().to_owned()),
            detail: Some(detail.into()),
        }
    }
}

impl Problem {
    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same, arisen here unless it is known already where.
    #[must_use]
    pub fn at(mut self, pointer: &str) -> Self {
        self.instance.get_or_insert_with(|| pointer.to_owned());
        self
    }

    /// As data, for expressions.
    pub fn to_value(&self) -> Value {
        let optional = [("instance", &self.instance), ("title", &self.title), ("detail", &self.detail)];
        let mut value = json!({"type": self.kind, "status": self.status});
        for (name, text) in optional {
            if let Some(text) = text {
                value[name] = text.as_str().into();
            }
        }
        value
    }

    /// Whether it is of this kind. The language's own documents write the address of a standard kind in several ways, so of those
    /// only the last part counts.
    pub fn is_of(&self, kind: &str) -> bool {
        fn standard(kind: &str) -> Option<&str> {
            let (address, word) = kind.rsplit_once('/')?;
            let is_known = [
                Standard::Configuration,
                Standard::Validation,
                Standard::Expression,
                Standard::Authentication,
                Standard::Authorization,
                Standard::Timeout,
                Standard::Communication,
                Standard::Runtime,
            ]
            .iter()
            .any(|known| known.word() == word);
            let is_of_language =
                address.contains("serverlessworkflow.io") || address.contains("open-workflow-specification");
            (is_known && is_of_language).then_some(word)
        }
        self.kind == kind || standard(&self.kind).is_some_and(|word| standard(kind) == Some(word))
    }
}

/// `communication, 503: the connection was refused (at /do/0/pay)`.
impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.kind.rsplit('/').next().unwrap_or(&self.kind);
        write!(f, "{kind}, {}", self.status)?;
        if let Some(text) = self.detail.as_ref().or(self.title.as_ref()) {
            write!(f, ": {text}")?;
        }
        match &self.instance {
            Some(instance) => write!(f, " (at {instance})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_kinds_are_told_by_their_last_part() {
        let problem = Standard::Communication.problem("x");
        for same in [
            "https://serverlessworkflow.io/spec/1.0.0/errors/communication",
            "https://serverlessworkflow.io/dsl/errors/types/communication",
            "https://serverlessworkflow.io.io/dsl/errors/types/communication",
        ] {
            assert!(problem.is_of(same), "{same}");
        }
        assert!(!problem.is_of("https://serverlessworkflow.io/spec/1.0.0/errors/timeout"));
        assert!(!problem.is_of("https://shop.example/errors/communication"));
    }
}
