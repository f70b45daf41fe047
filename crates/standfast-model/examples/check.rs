//! Checks a stack and prints what is wrong with it: `cargo run -p standfast-model --example check -- FOLDER [plain|graphical|narrated|json|schema]`.

use std::collections::BTreeMap;
use std::path::Path;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| ".".to_owned());
    let form = arguments.next().unwrap_or_else(|| "plain".to_owned());
    if form == "schema" {
        println!("{:#}", standfast_model::schema());
        return;
    }
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let (stack, found) = match standfast_model::load(Path::new(&path), &environment) {
        Ok(loaded) => (Some(loaded.stack), loaded.warnings),
        Err(found) => (None, found),
    };
    match form.as_str() {
        "graphical" => eprint!("{}", found.graphical(false)),
        "narrated" => eprint!("{}", found.narrated()),
        "json" => found.to_json().iter().for_each(|item| eprintln!("{item}")),
        _ => eprint!("{found}"),
    }
    if let Some(stack) = stack {
        println!("{stack:#?}");
    }
}
