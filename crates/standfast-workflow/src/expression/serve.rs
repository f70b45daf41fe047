//! The child process that evaluates expressions for the engine.
//!
//! It limits itself first, and then reads requests from its standard input and writes answers to its standard output, one at a time.
//! It ends when its input does, so that none outlives the engine; one that is busy when the engine dies is ended by the limit on its
//! processor time. When it runs out of memory or stack it dies: the engine sees that, and starts another.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use standfast_model::Stamp;

use super::compile::Compiler;
use super::evaluate::evaluate;
use super::failure::Fault;
use super::frame::{self, Answer, Begin, REQUEST_BYTES_MAX, Ready, Request, VERSION};
use super::functions::Kind;
use crate::check::STACK_BYTES;

/// As many filters are kept compiled; when there is one more, all are dropped. A filter takes about half a megabyte.
const FILTERS_MAX: usize = 64;
/// As many files may be open: the three pipes, the table of time zones, and some to spare.
const FILES_MAX: u64 = 16;
/// Longest first frame, in bytes.
const BEGIN_BYTES_MAX: usize = 1 << 10;

/// Evaluates expressions for an [`Evaluator`](super::Evaluator) in another process, until standard input ends.
///
/// # Errors
/// The process cannot limit itself, standard input is not what an evaluator writes, or standard output is closed.
pub fn serve_expressions() -> io::Result<()> {
    let Some(begin) = read::<Begin>(&mut io::stdin().lock(), BEGIN_BYTES_MAX)? else { return Ok(()) };
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, FILES_MAX)?;
    limit(Resource::As, begin.memory_max)?;
    thread::scope(|scope| {
        let serving = thread::Builder::new()
            .name("evaluate".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || serve(&mut io::stdin().lock(), &mut io::stdout().lock()))?;
        serving.join().unwrap_or_else(|_| Err(io::Error::other("the evaluation panicked")))
    })
}

fn limit(resource: Resource, max: u64) -> io::Result<()> {
    let max = getrlimit(resource).maximum.map_or(max, |allowed| allowed.min(max));
    Ok(setrlimit(resource, Rlimit { current: Some(max), maximum: Some(max) })?)
}

fn serve(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut filters = Filters { compiler: Compiler::new(), known: BTreeMap::new() };
    write(to, &Ready { version: VERSION })?;
    while let Some(request) = read::<Request>(from, REQUEST_BYTES_MAX)? {
        limit_processor_time(request.processor_s_max)?;
        let id = request.id;
        // Nothing of the evaluation is left when the answer goes out. What dies of its own data must die before, or the next
        // expression would be told that it was the culprit.
        let outcome = filters.evaluate(request);
        write(to, &Answer { id, outcome })?;
    }
    Ok(())
}

/// Lets the process take so much more of a processor's time, and be killed then.
fn limit_processor_time(seconds: u64) -> io::Result<()> {
    let used = u64::try_from(clock_gettime(ClockId::ProcessCPUTime).tv_sec).unwrap_or(0);
    let allowed = getrlimit(Resource::Cpu).maximum;
    let max = used.saturating_add(seconds);
    let current = Some(allowed.map_or(max, |allowed| allowed.min(max)));
    Ok(setrlimit(Resource::Cpu, Rlimit { current, maximum: allowed })?)
}

struct Filters {
    compiler: Compiler,
    known: BTreeMap<(String, Vec<String>), jaq_core::Filter<Kind>>,
}

impl Filters {
    fn evaluate(&mut self, request: Request) -> Result<serde_json::Value, Fault> {
        let Request { text, variables, input, values, now_us, output_bytes_max, .. } = request;
        let key = (text, variables);
        if !self.known.contains_key(&key) {
            // The engine has compiled it too, so this is no error that anybody sees.
            let compiled = self.compiler.compile(&key.0, &key.1).map_err(|bad| Fault::Raised(bad.message))?;
            if self.known.len() >= FILTERS_MAX {
                self.known.clear();
            }
            self.known.insert(key.clone(), compiled);
        }
        match self.known.get(&key) {
            Some(filter) => {
                evaluate(filter, &input, values.iter(), Stamp::from_micros(now_us), output_bytes_max)
            }
            None => Err(Fault::Raised("it was not compiled".to_owned())),
        }
    }
}

fn read<T: DeserializeOwned>(from: &mut impl Read, bytes_max: usize) -> io::Result<Option<T>> {
    let Some(bytes) = frame::read(from, bytes_max)? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes)?))
}

fn write(to: &mut impl Write, said: &impl Serialize) -> io::Result<()> {
    frame::write(to, &serde_json::to_vec(said)?)
}
