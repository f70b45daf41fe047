use std::path::Path;
use std::thread;

use standfast_model::Diagnostics;
use standfast_model::workflow::{LoadedDocument, load_document, parse_document};

use crate::expression::Compiler;

/// The stack on which expressions are parsed: the parser of jq calls itself for each part of an expression, and expressions are
/// bounded by `expression::BYTES_MAX`. The system gives only what is used of it.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// Reads and checks a workflow document: its keys, its names, and whether its expressions compile.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn check_document(file: &Path) -> Result<LoadedDocument, Diagnostics> {
    on_large_stack(|| {
        let compiler = Compiler::new();
        load_document(file, &mut |expression, variables| compiler.check(expression, variables))
    })
}

/// The same of a text; `name` is what diagnostics call it.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn check_text(name: &str, text: String) -> Result<LoadedDocument, Diagnostics> {
    on_large_stack(|| {
        let compiler = Compiler::new();
        parse_document(name, text, &mut |expression, variables| compiler.check(expression, variables))
    })
}

/// Runs `work` where expressions can be parsed.
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("check".to_owned()).stack_size(STACK_BYTES);
        let working = thread.spawn_scoped(scope, work).expect("there is memory for one more thread");
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
