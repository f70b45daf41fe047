use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use crate::check;
use crate::diagnostics::{Diagnostic, Diagnostics, Severity, shown};
use crate::files::{Disk, FILE_BYTES_MAX, Files};
use crate::keys::STACK;
use crate::secret::{BadSecret, Secret};
use crate::shape::{Context, Shape};
use crate::source::{At, Source, Span};
use crate::stack::{Stack, WorkflowFile};
use crate::yaml;

/// The folder of a stack's workflows.
pub const WORKFLOWS: &str = "workflows";
/// Most workflows of a stack.
const WORKFLOWS_MAX: usize = 1_000;
/// The name of a stack's file.
pub const STACK_FILE: &str = "standfast.yaml";
/// What to do when there is no stack.
const NO_STACK: &str = "a stack is a folder with a `standfast.yaml`; name the folder or the file";
/// Bytes read of all files that a stack names, each counted as often as it is named.
const NAMED_BYTES_MAX: usize = 16 << 20;

/// A checked stack, and what its writer should know about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The stack.
    pub stack: Stack,
    /// Warnings only.
    pub warnings: Diagnostics,
    /// Errors: secrets that cannot be used. They forbid to start the stack, not to look at it or to take it down.
    pub secrets: Diagnostics,
}

/// Reads and checks a stack: a folder with a `standfast.yaml`, or that file itself. `environment` is what interpolation sees.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn load(path: &Path, environment: &BTreeMap<String, String>) -> Result<Loaded, Diagnostics> {
    let (loaded, unread) = load_despite_workflows(path, environment)?;
    unread.map_or(Ok(loaded), Err)
}

/// The same for who does not need the documents of its workflows: when these cannot be read there are none, and why is told beside.
///
/// # Errors
/// All that is wrong with the stack itself, warnings included.
pub fn load_despite_workflows(
    path: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<(Loaded, Option<Diagnostics>), Diagnostics> {
    let file = if path.is_dir() { path.join(STACK_FILE) } else { path.to_owned() };
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    let cx = Context::new(environment);
    let root = match std::path::absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { &folder })
    {
        Ok(root) => root,
        Err(why) => return Err(unreadable(&file, &why, NO_STACK)),
    };
    let bytes = match Disk.read(&file, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(why) => return Err(unreadable(&file, &why, NO_STACK)),
    };
    match String::from_utf8(bytes) {
        Ok(text) => {
            let shown_in = folder.strip_prefix(".").unwrap_or(&folder).to_owned();
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let folder = root.join(WORKFLOWS);
            let mut loaded =
                read(cx, text, &name, Reader { root, shown_in, files: &Disk, left: NAMED_BYTES_MAX })?;
            match workflows(&folder) {
                Ok(found) => {
                    loaded.stack.workflows = found;
                    Ok((loaded, None))
                }
                Err(why) => Ok((loaded, Some(why))),
            }
        }
        Err(why) => Err(not_text(&file, &why)),
    }
}

/// Checks the text of a `standfast.yaml` that stands in the folder `root`; `files` are those that it names.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn parse(
    text: &str,
    root: &Path,
    files: &dyn Files,
    environment: &BTreeMap<String, String>,
) -> Result<Loaded, Diagnostics> {
    let cx = Context::new(environment);
    let reader = Reader { root: root.to_owned(), shown_in: PathBuf::new(), files, left: NAMED_BYTES_MAX };
    read(cx, text.to_owned(), STACK_FILE, reader)
}

/// Whether a file of a folder of workflows is one: not if it is called like one of tests.
pub fn is_workflow(file: &Path) -> bool {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some((stem, ending)) = name.rsplit_once('.') else { return false };
    matches!(ending, "yaml" | "yml" | "json") && !stem.is_empty() && !stem.ends_with(".test")
}

/// The documents of a folder, which need not be there.
fn workflows(folder: &Path) -> Result<Vec<WorkflowFile>, Diagnostics> {
    let bad = |why: &io::Error| unreadable(folder, why, NO_STACK);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(bad(&why)),
    };
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(|why| bad(&why))?.path());
    }
    files.retain(|file| is_workflow(file) && !file.is_dir());
    files.sort();
    if files.len() > WORKFLOWS_MAX {
        let message = format!("{} has more than {WORKFLOWS_MAX} workflows", shown(&folder.to_string_lossy()));
        return Err(Diagnostics::of_error(message, None));
    }
    let mut left = NAMED_BYTES_MAX;
    let mut found = Vec::with_capacity(files.len());
    for file in files {
        let bytes =
            Disk.read(&file, FILE_BYTES_MAX.min(left)).map_err(|why| unreadable(&file, &why, NO_STACK))?;
        left -= bytes.len();
        let text = String::from_utf8(bytes).map_err(|why| not_text(&file, &why))?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        found.push(WorkflowFile { file: format!("{WORKFLOWS}/{name}"), text });
    }
    Ok(found)
}

/// What is said of a file that cannot be read; `missing` is the hint when there is none.
pub(crate) fn unreadable(file: &Path, why: &io::Error, missing: &str) -> Diagnostics {
    let hint = match why.kind() {
        io::ErrorKind::NotFound => Some(missing.to_owned()),
        io::ErrorKind::PermissionDenied => {
            Some("see who may with `ls -ld`; use that account, or have yours let in with `chmod`".to_owned())
        }
        _ => None,
    };
    Diagnostics::of_error(format!("cannot read {}: {}", shown(&file.to_string_lossy()), because(why)), hint)
}

/// What is said of a file that is no text.
pub(crate) fn not_text(file: &Path, why: &FromUtf8Error) -> Diagnostics {
    let at = why.utf8_error().valid_up_to();
    Diagnostics::of_error(format!("{} is not UTF-8: see byte {at}", shown(&file.to_string_lossy())), None)
}

fn because(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "it may not be read".to_owned(),
        io::ErrorKind::FileTooLarge => format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20),
        io::ErrorKind::InvalidInput => "it is not a file".to_owned(),
        _ => why.to_string(),
    }
}

fn read(mut cx: Context<'_>, text: String, name: &str, reader: Reader<'_>) -> Result<Loaded, Diagnostics> {
    if text.len() > FILE_BYTES_MAX {
        cx.reports.push(
            Severity::Error,
            None,
            format!("{name} is larger than {} MiB", FILE_BYTES_MAX >> 20),
            None,
        );
        return Err(cx.reports.finish());
    }
    let source = cx.reports.sources.add(Source::new(reader.shown_name(name), text));
    let draft = yaml::parse(source, &mut cx.reports, "`docs/stack.md` shows what a stack consists of")
        .and_then(|node| STACK.decode(&node, &mut cx));
    let stack = draft.and_then(|draft| check::check(draft, &mut cx, reader));
    let failed = cx.reports.errors() > 0;
    let secrets = std::mem::take(&mut cx.unusable_secrets);
    let found = cx.reports.finish();
    match stack {
        Some(stack) if !failed => Ok(Loaded { stack, warnings: found, secrets }),
        _ => Err(found.and(secrets)),
    }
}

/// Reads the files that a stack names.
pub(crate) struct Reader<'f> {
    /// The stack's folder.
    pub(crate) root: PathBuf,
    /// The same as the user named it, for messages.
    shown_in: PathBuf,
    files: &'f dyn Files,
    /// Bytes that may still be read.
    left: usize,
}

impl Reader<'_> {
    fn shown_name(&self, path: impl AsRef<Path>) -> String {
        shown_path(self.shown_in.join(path).display())
    }

    /// Adds a file to the sources; `None` when that failed, which was reported at `span`, or when an optional file is absent.
    pub(crate) fn source(
        &mut self,
        path: &str,
        span: Span,
        required: bool,
        cx: &mut Context<'_>,
    ) -> Option<u32> {
        let bytes = match self.bytes(path) {
            Ok(bytes) => bytes,
            Err((io::ErrorKind::NotFound, _)) if !required => return None,
            Err((_, why)) => {
                refuse(path, span, &why, cx);
                return None;
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) => Some(cx.reports.sources.add(Source::new(self.shown_name(path), text))),
            Err(error) => {
                let why = format!("it is not UTF-8: see byte {}", error.utf8_error().valid_up_to());
                refuse(path, span, &why, cx);
                None
            }
        }
    }

    /// Reports a file that cannot be read. What it holds is dropped: it may be a secret.
    pub(crate) fn reads(&mut self, path: &At<String>, cx: &mut Context<'_>) {
        if let Err((_, why)) = self.bytes(&path.value) {
            refuse(&path.value, path.span, &why, cx);
        }
    }

    /// Reports a file that cannot be read, or holds less than a key must have. What it holds is dropped: it is a secret.
    pub(crate) fn reads_key(&mut self, path: &At<String>, bytes_min: usize, cx: &mut Context<'_>) {
        match self.bytes(&path.value) {
            Err((_, why)) => refuse(&path.value, path.span, &why, cx),
            Ok(bytes) if bytes.trim_ascii().len() < bytes_min => {
                let file = shown(&path.value);
                cx.reports.error_hint(
                    path.span,
                    format!("{file} is no key: it holds less than {bytes_min} bytes"),
                    format!("make one: openssl rand -hex 32 > {file}"),
                );
            }
            Ok(_) => {}
        }
    }

    /// Reports a secret that cannot be used. Its value is dropped.
    pub(crate) fn reads_secret(&self, secret: &Secret, path: &At<String>, cx: &mut Context<'_>) {
        let Err(why) = secret.read(self.files) else { return };
        let file = shown(&path.value);
        let cause = match &why {
            BadSecret::Unreadable(why) => because(why),
            why => why.to_string(),
        };
        let message = format!("the secret of {file} cannot be used: {cause}");
        let place = cx.reports.place(path.span);
        let hint = why.hint(&file);
        cx.unusable_secrets.items.push(Diagnostic { severity: Severity::Error, message, hint, place });
    }

    /// The bytes of a file, or why they cannot be had.
    fn bytes(&mut self, path: &str) -> Result<Vec<u8>, (io::ErrorKind, String)> {
        match self.files.read(&self.root.join(path), FILE_BYTES_MAX.min(self.left)) {
            Ok(bytes) => {
                self.left -= bytes.len().min(self.left);
                Ok(bytes)
            }
            Err(why) if why.kind() == io::ErrorKind::FileTooLarge && self.left < FILE_BYTES_MAX => {
                let why = format!("the files of this stack hold more than {} MiB", NAMED_BYTES_MAX >> 20);
                Err((io::ErrorKind::FileTooLarge, why))
            }
            Err(why) => Err((why.kind(), because(&why))),
        }
    }
}

fn refuse(path: &str, span: Span, why: &str, cx: &mut Context<'_>) {
    cx.reports.error(span, format!("cannot read {}: {why}", shown(path)));
}

/// A path as messages show it: all of it, but nothing that a terminal would obey.
fn shown_path(path: impl Display) -> String {
    path.to_string().chars().map(crate::diagnostics::printable).collect()
}
