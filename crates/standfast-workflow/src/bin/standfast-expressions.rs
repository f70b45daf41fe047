//! Evaluates expressions for the tests of this crate, as `standfast serve-expressions` does for those who run workflows.

fn main() -> std::io::Result<()> {
    standfast_workflow::serve_expressions()
}
