//! Mutates the corpus of HTTP/1.1 for a while:
//! `cargo run -p standfast-gateway --features fuzzing --example fuzz_http -- SECONDS [SEED]`.
//!
//! Prints the seed, the number of inputs and of messages that were accepted; ends with 1, and leaves the input in the temporary
//! folder, when one panics, means something else when it arrives in pieces, or would not reach a replica as exactly one request.

use std::process::ExitCode;
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "a measuring program outside the product")]
fn now() -> Instant {
    Instant::now()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let seconds = arguments.next().and_then(Result::ok).unwrap_or(10);
    let nanos = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    let seed = arguments.next().and_then(Result::ok).unwrap_or(nanos);
    println!("seed {seed}");
    let begin = now();
    match standfast_gateway::fuzz_http(seed, || begin.elapsed() < Duration::from_secs(seconds)) {
        Ok((inputs, accepted)) => {
            println!("{inputs} inputs, {accepted} messages accepted");
            ExitCode::SUCCESS
        }
        Err(input) => {
            let path = std::env::temp_dir().join(format!("standfast-fuzz-{seed}.http"));
            let kept = std::fs::write(&path, &input)
                .map_or_else(|why| why.to_string(), |()| path.display().to_string());
            println!("an input of {} bytes broke a promise: {kept}", input.len());
            ExitCode::from(1)
        }
    }
}
