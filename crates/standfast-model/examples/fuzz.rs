//! Mutates the corpus for a while: `cargo run -p standfast-model --example fuzz -- SECONDS [SEED]`.
//!
//! No input may panic, take over a second of processor time or over 256 MiB. Prints the seed, the number of inputs, the
//! longest time of one and the peak of resident memory; ends with 1, and leaves the input in the temporary folder, when a bound is broken.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const INPUT_TIME_MAX: Duration = Duration::from_secs(1);
/// After this an input counts as one that never ends.
const HANG: Duration = Duration::from_secs(20);
const PEAK_KIB_MAX: u64 = 256 << 10;
/// Largest input that is made; a little over what a stack may be.
const INPUT_BYTES_MAX: usize = (1 << 20) + 64;

const PIECES: &[&str] = &[
    "&a ",
    "*a",
    "<<: *a",
    "<<: [*a, *a]",
    "${",
    "}",
    "${A:-",
    "${id}",
    "$$",
    "$",
    "[",
    "]",
    "{",
    "}",
    "- ",
    ": ",
    "? ",
    "| ",
    ">-\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "!!str ",
    "!reset ",
    "\t",
    "\n",
    "\r\n",
    "\u{0}",
    "\u{feff}",
    "\u{85}",
    "\u{202e}",
    "\"",
    "'",
    "\\",
    "#",
    "@",
    "`",
    "é",
    "💥",
    "null",
    "~",
    "true",
    "-1",
    "0",
    "1e999",
    ".nan",
    "0x7fffffffffffffff",
    "99999999999999999999",
    "1h",
    "9999999999h",
    "256M",
    "a, ",
    "services: ",
    "x-a: ",
    "deploy: ",
    "standfast:",
    "chaos/a.yaml",
    ".env",
    "load/a.json",
    "depends_on: [a]",
    "external: [a:1]",
    "traffic: ",
    "gateway: ",
    "routes: ",
    "regex: ",
    "redirect: ",
    "(a{99}){99}",
    "    ",
];

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is at least 1.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn mutate(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = corpus[rng.below(corpus.len())].clone();
    for _ in 0..=rng.below(6) {
        let at = rng.below(input.len() + 1);
        let end = (at + rng.below(64)).min(input.len());
        match rng.below(12) {
            0 if at < input.len() => input[at] ^= 1 << rng.below(8),
            1 => drop(input.drain(at..end)),
            2 | 3 => drop(input.splice(at..at, PIECES[rng.below(PIECES.len())].bytes())),
            4 => drop(input.splice(at..end, PIECES[rng.below(PIECES.len())].bytes())),
            5 => {
                let other = &corpus[rng.below(corpus.len())];
                let from = rng.below(other.len() + 1);
                let to = (from + rng.below(400)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            6 => {
                let piece = input[at..end].to_vec();
                let times = 1 << rng.below(8);
                input.splice(at..at, piece.repeat(times));
            }
            7 => {
                // Deep or long: one piece very often.
                let piece = PIECES[rng.below(PIECES.len())];
                let times = 1 << rng.below(17);
                input.splice(at..at, piece.repeat(times).bytes());
            }
            8 => {
                let mut lines: Vec<&[u8]> = input.split_inclusive(|b| *b == b'\n').collect();
                let (one, other) = (rng.below(lines.len()), rng.below(lines.len()));
                if !lines.is_empty() {
                    lines.swap(one, other);
                }
                input = lines.concat();
            }
            9 if rng.below(20) == 0 => {
                while input.len() < INPUT_BYTES_MAX / 2 && !input.is_empty() {
                    input.extend_from_within(..);
                }
            }
            10 => {
                for byte in input.iter_mut().filter(|byte| **byte == b' ').take(rng.below(9)) {
                    *byte = b'\t';
                }
            }
            _ => input
                .splice(at..at, (0..rng.below(16)).map(|_| rng.next() as u8).collect::<Vec<_>>())
                .for_each(drop),
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

fn corpus(folder: &Path, found: &mut Vec<Vec<u8>>) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        if entry.path().is_dir() {
            corpus(&entry.path(), found)?;
        } else {
            let text = std::fs::read_to_string(entry.path())?;
            found.extend(text.split("\n---").map(|case| case.as_bytes().to_vec()));
        }
    }
    Ok(())
}

/// Reads a stack and prints its diagnostics in every form.
fn exercise(text: &str, environment: &BTreeMap<String, String>) -> bool {
    let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
    for name in ["chaos/a.yaml", ".env", "load/a.json", "tls/a.pem", "tls/a.key"] {
        files.insert(Path::new("/stack").join(name), text.to_owned());
    }
    let result = standfast_model::parse(text, Path::new("/stack"), &files, environment);
    let good = result.is_ok();
    let found = result.map_or_else(|found| found, |loaded| loaded.warnings);
    let printed =
        [found.to_string(), found.graphical(true), found.narrated(), format!("{:?}", found.to_json())];
    assert!(printed.iter().all(|text| text.len() < 4 << 20), "diagnostics larger than 4 MiB");
    good
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The processor time of this thread: the machine may be busy with something else, which is no fault of the input.
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

#[expect(clippy::disallowed_methods, reason = "a measuring program outside the product")]
fn now() -> Instant {
    Instant::now()
}

/// What is being tried, and since when; for the watch that ends a hang.
static CURRENT: Mutex<Option<(Instant, Vec<u8>)>> = Mutex::new(None);

/// Ends the program when one input takes for ever.
#[expect(clippy::disallowed_methods, reason = "a measuring program outside the product")]
fn watch() {
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let held = CURRENT.lock().map(|held| held.clone()).unwrap_or_default();
        if let Some((since, input)) = held.filter(|(since, _)| since.elapsed() > HANG) {
            let path = std::env::temp_dir().join("standfast-fuzz-hang.yaml");
            let kept = std::fs::write(&path, &input)
                .map_or_else(|why| why.to_string(), |()| path.display().to_string());
            println!("an input of {} bytes still runs after {:?}: {kept}", input.len(), since.elapsed());
            std::process::exit(1);
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let seconds = arguments.next().and_then(Result::ok).unwrap_or(10);
    let nanos = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
    let seed = arguments.next().and_then(Result::ok).unwrap_or(nanos);
    println!("seed {seed}");
    std::thread::spawn(watch);

    let mut found = Vec::new();
    if let Err(why) = corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"), &mut found) {
        eprintln!("cannot read the corpus: {why}");
        return ExitCode::from(3);
    }
    let environment =
        BTreeMap::from([("A".to_owned(), "1".to_owned()), ("LONG".to_owned(), "x".repeat(10_000))]);
    let mut rng = Rng(seed);
    let begin = now();
    let (mut inputs, mut good, mut longest) = (0_u64, 0_u64, Duration::ZERO);
    while begin.elapsed() < Duration::from_secs(seconds) {
        let input = mutate(&found, &mut rng);
        let text = String::from_utf8_lossy(&input);
        let start = spent();
        if let Ok(mut held) = CURRENT.lock() {
            *held = Some((now(), input.clone()));
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(&text, &environment)));
        let took = spent().saturating_sub(start);
        longest = longest.max(took);
        inputs += 1;
        good += u64::from(matches!(outcome, Ok(true)));
        if outcome.is_err() || took > INPUT_TIME_MAX || peak_kib() > PEAK_KIB_MAX {
            let path = std::env::temp_dir().join(format!("standfast-fuzz-{seed}-{inputs}.yaml"));
            let kept = std::fs::write(&path, &input)
                .map_or_else(|why| why.to_string(), |()| path.display().to_string());
            println!("input {inputs} broke a bound after {took:?} with a peak of {} KiB: {kept}", peak_kib());
            return ExitCode::from(1);
        }
    }
    println!("{inputs} inputs, {good} of them good, longest {longest:?}, peak {} KiB", peak_kib());
    ExitCode::SUCCESS
}
