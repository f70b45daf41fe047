//! What strace wrote, as events.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use standfast_store::Version;

use super::script::MARK;

/// Something that the child did, in order of its end.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Mark(Mark),
    File(Call),
}

/// What the script says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    Begin(usize),
    Done(usize, Version),
    Refused,
}

/// A call that changes files of the store's folder, by descriptor.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Open { descriptor: u32, name: String, creates: bool, empties: bool },
    OpenFolder { descriptor: u32 },
    Close { descriptor: u32 },
    Write { descriptor: u32, at: usize, bytes: Vec<u8> },
    Truncate { descriptor: u32, length: usize },
    Sync { descriptor: u32 },
    Remove { name: String },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark(mark) => write!(f, "{mark:?}"),
            Self::File(Call::Write { descriptor, at, bytes }) => {
                write!(f, "write of {} bytes at {at} to {descriptor}", bytes.len())
            }
            Self::File(call) => write!(f, "{call:?}"),
        }
    }
}

/// Reads a trace of `strace -f -xx`. Calls that could change a file of `folder` and are not understood are an error.
pub(crate) fn parse(text: &str, folder: &Path) -> Vec<Event> {
    let folder = folder.join("store");
    let (mut events, mut unfinished) = (Vec::new(), HashMap::new());
    for line in text.lines() {
        let (process, rest) = line.split_once(' ').expect("a line has a process");
        let rest = rest.trim_start();
        if let Some(begin) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(process.to_owned(), begin.to_owned());
        } else if rest.starts_with("<... ") {
            let (_, end) = rest.split_once(" resumed>").expect("a resumed call says so");
            let begin = unfinished.remove(process).expect("a resumed call has begun");
            events.extend(event(&format!("{begin}{end}"), &folder));
        } else {
            events.extend(event(rest, &folder));
        }
    }
    events
}

fn event(line: &str, folder: &Path) -> Option<Event> {
    let (call, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    let result: i64 = result.split_whitespace().next()?.parse().ok()?;
    if result < 0 {
        return None;
    }
    // Strings are hexadecimal throughout, so a comma only ever separates arguments.
    let arguments: Vec<&str> = arguments.split(", ").collect();
    let number = |index: usize| arguments[index].parse::<usize>().expect("a number");
    let descriptor = || arguments[0].parse::<u32>().expect("a descriptor");
    let file = match call {
        "openat" => {
            let path = String::from_utf8(bytes_of(arguments[1])).expect("paths are UTF-8");
            let (path, flags, descriptor) =
                (Path::new(&path), arguments[2], u32::try_from(result).expect("positive"));
            if path == folder {
                Call::OpenFolder { descriptor }
            } else if path.parent() == Some(folder) {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                Call::Open {
                    descriptor,
                    name,
                    creates: flags.contains("O_CREAT"),
                    empties: flags.contains("O_TRUNC"),
                }
            } else {
                Call::Close { descriptor } // something else has the number now
            }
        }
        "close" => Call::Close { descriptor: descriptor() },
        "pwrite64" => {
            let bytes = bytes_of(arguments[1]);
            let written = usize::try_from(result).expect("positive");
            assert_eq!(bytes.len(), number(2), "strace shows all bytes");
            Call::Write { descriptor: descriptor(), at: number(3), bytes: bytes[..written].to_vec() }
        }
        "write" => {
            let bytes = bytes_of(arguments[1]);
            return mark(bytes.strip_prefix(MARK.as_bytes())?).map(Event::Mark);
        }
        "ftruncate" => Call::Truncate { descriptor: descriptor(), length: number(1) },
        "fsync" | "fdatasync" => Call::Sync { descriptor: descriptor() },
        "unlink" => {
            let path = String::from_utf8(bytes_of(arguments[0])).expect("paths are UTF-8");
            let path = Path::new(&path);
            if path.parent() != Some(folder) {
                return None;
            }
            Call::Remove { name: path.file_name().expect("a name").to_string_lossy().into_owned() }
        }
        "mkdir" => return None, // the store's folder itself; that its name is synced is tested by itself
        "writev" => return None, // the test harness's output
        other => {
            panic!("the store made a call that this test does not model: {other}({})", arguments.join(", "))
        }
    };
    Some(Event::File(file))
}

fn mark(bytes: &[u8]) -> Option<Mark> {
    let text = std::str::from_utf8(bytes).ok()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["begin", batch] => Some(Mark::Begin(batch.parse().ok()?)),
        ["done", batch, version] => Some(Mark::Done(batch.parse().ok()?, Version(version.parse().ok()?))),
        ["refused"] => Some(Mark::Refused),
        _ => None,
    }
}

/// `"\x61\x62"` as bytes.
fn bytes_of(text: &str) -> Vec<u8> {
    let hex = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).expect("a whole string");
    let byte = |digits: &[u8]| {
        assert_eq!(&digits[..2], b"\\x");
        u8::from_str_radix(std::str::from_utf8(&digits[2..]).expect("ASCII"), 16).expect("two digits")
    };
    hex.as_bytes().chunks(4).map(byte).collect()
}
