//! Durable workflows: documents are compiled, and each run is driven through its journal to an end.
//!
//! What is here so far: documents are read and checked, their expressions included. `standfast_model::workflow` has the language's
//! keys; `expression` is the only place that knows jq.

mod check;
mod expression;
mod render;

pub use check::check_document;
pub use render::mermaid;
