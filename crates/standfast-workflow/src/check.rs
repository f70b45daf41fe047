use std::path::Path;
use std::thread;

use standfast_model::Diagnostics;
use standfast_model::workflow::{LoadedDocument, load_document};

use crate::expression::Compiler;

/// The stack on which expressions are parsed: the parser of jq calls itself for each part of an expression, and expressions are
/// bounded by `expression::BYTES_MAX`. The system gives only what is used of it.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// Reads and checks a workflow document: its keys, its names, and whether its expressions compile.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn check_document(file: &Path) -> Result<LoadedDocument, Diagnostics> {
    let check = || {
        let compiler = Compiler::new();
        load_document(file, &mut |expression, variables| compiler.check(expression, variables))
    };
    thread::scope(|scope| {
        let checking = thread::Builder::new()
            .name("check".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, check);
        match checking.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(checked)) => checked,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(why) => Err(Diagnostics::of_error(
                format!("cannot check {}: no memory for a thread: {why}", file.display()),
                None,
            )),
        }
    })
}
