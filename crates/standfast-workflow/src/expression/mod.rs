//! Expressions: jq, by `jaq`, under hard limits.
//!
//! jaq can neither be interrupted nor bounded in memory or stack, and an expression is written by somebody else. So each goes one of
//! two ways, and no expression can stall the process of the engine, or end it:
//!
//! 1. What is **cheap** is evaluated here, on the caller's thread. `cheap` proves, from the expression's text alone, for how much
//!    data its evaluation stays below a named amount of work; with more data it goes the other way.
//! 2. **All others** go to a child process (`worker`), which limits itself before it reads anything (`serve`) and is killed when it
//!    has not answered in time. `pool` has the few children, and callers wait in line for them.
//!
//! The parts: `compile` knows jaq's parser, `functions` what jaq may call, `evaluate` runs one filter, `value` converts between JSON
//! and jaq, `cost` and `signature` are what `cheap` computes with, `frame` is what goes over the pipes.
//!
//! The same expression on the same data at the same instant has the same value, whichever way it goes: `now` is told by the caller,
//! and nothing else in jaq's functions reads a clock, chance or the surroundings, once the names in `compile::REFUSED` are gone. (Only
//! `strptime` with `%Q` reads the machine's table of time zones.)

mod cheap;
mod compile;
mod cost;
mod evaluate;
mod failure;
mod frame;
mod functions;
mod pool;
mod serve;
mod signature;
#[cfg(feature = "trial")]
mod trial;
mod value;
mod worker;

pub(crate) use compile::{Compiler, Filter};
pub use failure::ExpressionFailed;
pub use pool::{Evaluator, EvaluatorConfig};
pub use serve::serve_expressions;
#[cfg(feature = "trial")]
pub use trial::{Trial, Variable};
