//! What the tests of this crate evaluate expressions with, from the outside and with real children.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use standfast_model::Stamp;
use standfast_model::workflow::BadExpression;

use super::compile::{Compiler, Filter};
use super::evaluate::evaluate;
use super::failure::ExpressionFailed;
use super::pool::{Evaluator, EvaluatorConfig};

/// A compiler and an evaluator. What was compiled last is kept.
pub struct Trial {
    compiler: Compiler,
    last: Mutex<Option<(Vec<String>, Arc<Filter>)>>,
    evaluator: Evaluator,
    output_bytes_max: usize,
}

/// A variable's name, without `$`, and its value.
pub type Variable<'a> = (&'a str, &'a Value);

impl Trial {
    /// What `now` is.
    pub const NOW: Stamp = Stamp::from_micros(1_772_357_399_125_000);

    /// Starts nothing yet.
    pub fn new(config: EvaluatorConfig) -> Self {
        let output_bytes_max = config.output_bytes_max;
        let (compiler, evaluator) = (Compiler::new(), Evaluator::new(config));
        Self { compiler, last: Mutex::default(), evaluator, output_bytes_max }
    }

    fn filter(&self, text: &str, variables: &[Variable<'_>]) -> Result<Arc<Filter>, BadExpression> {
        let known: Vec<String> = variables.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, filter)) = last.as_ref().filter(|(of, filter)| *of == known && filter.text() == text)
        {
            return Ok(filter.clone());
        }
        let filter = Arc::new(self.compiler.filter(text, &known)?);
        *last = Some((known, filter.clone()));
        Ok(filter)
    }

    /// Up to which size of its data an expression is cheap.
    ///
    /// # Errors
    /// It does not compile.
    pub fn cheap_size_max(
        &self,
        text: &str,
        variables: &[Variable<'_>],
    ) -> Result<Option<usize>, BadExpression> {
        let filter = self.filter(text, variables)?;
        assert_eq!(filter.is_cheap(), filter.cheap().is_some());
        Ok(filter.cheap().map(|cheap| cheap.size_max))
    }

    /// The variables that an expression mentions.
    ///
    /// # Errors
    /// It does not compile.
    pub fn mentioned(&self, text: &str, variables: &[Variable<'_>]) -> Result<Vec<String>, BadExpression> {
        Ok(self.filter(text, variables)?.variables().to_vec())
    }

    /// Evaluates as the engine does.
    ///
    /// # Errors
    /// As [`Evaluator`] has them; what does not compile is raised.
    pub fn evaluate(
        &self,
        text: &str,
        input: &Value,
        variables: &[Variable<'_>],
    ) -> Result<Value, ExpressionFailed> {
        let filter = self.compiled(text, variables)?;
        self.evaluator.evaluate(&filter, input, &values(&filter, variables), Self::NOW)
    }

    /// Evaluates in a child, however cheap it is.
    ///
    /// # Errors
    /// As [`Evaluator`] has them; what does not compile is raised.
    pub fn evaluate_in_child(
        &self,
        text: &str,
        input: &Value,
        variables: &[Variable<'_>],
    ) -> Result<Value, ExpressionFailed> {
        let filter = self.compiled(text, variables)?;
        self.evaluator.evaluate_in_child(&filter, input, &values(&filter, variables), Self::NOW)
    }

    /// Evaluates a cheap expression in this process, however large its data is. None when it is not cheap.
    ///
    /// # Errors
    /// As [`Evaluator`] has them; what does not compile is raised.
    pub fn evaluate_here(
        &self,
        text: &str,
        input: &Value,
        variables: &[Variable<'_>],
    ) -> Option<Result<Value, ExpressionFailed>> {
        let filter = match self.compiled(text, variables) {
            Ok(filter) => filter,
            Err(why) => return Some(Err(why)),
        };
        let cheap = filter.cheap()?;
        let values = values(&filter, variables);
        let outcome =
            evaluate(&cheap.filter, input, values.iter().copied(), Self::NOW, self.output_bytes_max);
        Some(outcome.map_err(|fault| fault.of_output(self.output_bytes_max)))
    }

    /// Evaluates again and again, after compiling once: how long it took for each, in microseconds. For measurements.
    ///
    /// # Errors
    /// As [`Evaluator`] has them; what does not compile is raised.
    pub fn measure(
        &self,
        text: &str,
        input: &Value,
        times: u32,
        in_child: bool,
    ) -> Result<f64, ExpressionFailed> {
        let filter = self.compiled(text, &[])?;
        #[expect(clippy::disallowed_methods, reason = "a measurement")]
        let begun = std::time::Instant::now();
        for _ in 0..times {
            if in_child {
                self.evaluator.evaluate_in_child(&filter, input, &[], Self::NOW)?;
            } else {
                self.evaluator.evaluate(&filter, input, &[], Self::NOW)?;
            }
        }
        Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(times))
    }

    fn compiled(&self, text: &str, variables: &[Variable<'_>]) -> Result<Arc<Filter>, ExpressionFailed> {
        self.filter(text, variables)
            .map_err(|bad| ExpressionFailed::Raised(format!("does not compile: {}", bad.message)))
    }

    /// The children that have nothing to do.
    pub fn idle_process_ids(&self) -> Vec<u32> {
        self.evaluator.idle_process_ids()
    }

    /// How many callers wait in line.
    pub fn waiting(&self) -> usize {
        self.evaluator.waiting()
    }
}

/// The values of the variables that a filter mentions, in its order.
fn values<'a>(filter: &Filter, variables: &[Variable<'a>]) -> Vec<&'a Value> {
    let value_of = |name: &String| variables.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    filter.variables().iter().filter_map(value_of).collect()
}
