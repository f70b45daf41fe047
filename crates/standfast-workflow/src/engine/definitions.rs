//! Which workflows can be started, and the documents of those that were.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use standfast_model::Diagnostics;
use standfast_model::workflow::{Document, LoadedDocument};

use crate::check::check_text;
use crate::perform::{BadResource, ReadResource};
use crate::program::{Incomplete, Program, Resources, Unsupported, WorkflowName, compile, compile_with};
use crate::run::Digest;

/// A document that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum BadDefinition {
    /// It is not right.
    #[error("the document has {} errors", .0.iter().count())]
    Wrong(Diagnostics),
    /// It asks for what cannot be run yet.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Unsupported(Vec<Unsupported>),
    /// A file that it names cannot be had.
    #[error(transparent)]
    Resource(#[from] BadResource),
    /// It names too much.
    #[error("the document names more than {RESOURCES_MAX} files, or files of more than {} MiB", RESOURCES_BYTES_MAX >> 20)]
    TooMuch,
}

/// Most files that a document names, those included that they name in turn.
const RESOURCES_MAX: usize = 64;
/// Most bytes of all of them.
const RESOURCES_BYTES_MAX: usize = 16 << 20;

/// A program and the text that it was made of.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The program.
    pub program: Arc<Program>,
    /// The document.
    pub text: Arc<str>,
    /// The files that it names, as they were when it was made: no run depends on them any more.
    pub resources: Arc<Resources>,
}

/// How a definition with files is kept; one without is kept as its text.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept<'k> {
    /// What no document begins with.
    standfast_definition: u32,
    text: Cow<'k, str>,
    resources: Cow<'k, Resources>,
}

/// The form of [`Kept`].
const KEPT_VERSION: u32 = 1;

impl Definition {
    /// Makes a program of a document's text that names no files; `name` is what diagnostics call it.
    ///
    /// # Errors
    /// See [`BadDefinition`].
    pub fn of_text(name: &str, text: &str) -> Result<Self, BadDefinition> {
        let document = checked(name, text)?;
        let program =
            crate::check::on_large_stack(|| compile(&document)).map_err(BadDefinition::Unsupported)?;
        Ok(Self::new(program, text, Resources::default()))
    }

    /// Makes a program of a document's text and of the files that it names, which are read now.
    ///
    /// # Errors
    /// See [`BadDefinition`].
    pub async fn read(name: &str, text: &str, reader: &dyn ReadResource) -> Result<Self, BadDefinition> {
        let document = checked(name, text)?;
        let mut resources = Resources::default();
        // Each round reads what the one before found missing, so there are no more than there are files.
        loop {
            let made = crate::check::on_large_stack(|| compile_with(&document, &resources));
            let missing = match made {
                Ok(program) => return Ok(Self::new(program, text, resources)),
                Err(Incomplete::Unsupported(all)) => return Err(BadDefinition::Unsupported(all)),
                Err(Incomplete::Missing(missing)) => missing,
            };
            for address in missing {
                let text = reader.read(&address).await?;
                resources.insert(address, text.into());
                if resources.len() > RESOURCES_MAX || resources.bytes() > RESOURCES_BYTES_MAX {
                    return Err(BadDefinition::TooMuch);
                }
            }
        }
    }

    /// Makes a program of what was kept of it: nothing is read.
    pub(super) fn of_kept(name: &str, kept: &str) -> Result<Self, BadDefinition> {
        let Ok(Kept { standfast_definition, text, resources }) = serde_json::from_str::<Kept<'_>>(kept)
        else {
            return Self::of_text(name, kept);
        };
        if standfast_definition != KEPT_VERSION {
            let what = format!("a definition that was kept in the form {standfast_definition}");
            return Err(BadDefinition::Unsupported(vec![Unsupported { pointer: "/".to_owned(), what }]));
        }
        let document = checked(name, &text)?;
        let made = crate::check::on_large_stack(|| compile_with(&document, &resources));
        let program = made.map_err(|why| match why {
            Incomplete::Unsupported(all) => BadDefinition::Unsupported(all),
            Incomplete::Missing(addresses) => BadDefinition::Resource(BadResource {
                address: addresses.into_iter().collect::<Vec<_>>().join(", "),
                why: "it was not kept with the document".to_owned(),
            }),
        })?;
        Ok(Self::new(program, &text, resources.into_owned()))
    }

    /// All that is needed to make it again.
    pub(super) fn kept(&self) -> Cow<'_, str> {
        if self.resources.is_empty() {
            return Cow::Borrowed(&self.text);
        }
        let kept = Kept {
            standfast_definition: KEPT_VERSION,
            text: Cow::Borrowed(&self.text),
            resources: Cow::Borrowed(&self.resources),
        };
        Cow::Owned(serde_json::to_string(&kept).expect("texts can be written"))
    }

    fn new(program: Program, text: &str, resources: Resources) -> Self {
        Self { program: Arc::new(program), text: text.into(), resources: Arc::new(resources) }
    }
}

fn checked(name: &str, text: &str) -> Result<Document, BadDefinition> {
    let LoadedDocument { document, .. } = check_text(name, text.to_owned()).map_err(BadDefinition::Wrong)?;
    Ok(document)
}

/// All definitions that are known.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// Those that can be started, by namespace and name, the versions from old to new.
    named: BTreeMap<(String, String), Vec<Definition>>,
    by_digest: HashMap<Digest, Arc<Program>>,
}

impl Definitions {
    /// From now on this can be started, in place of another of the same version.
    pub(super) fn add(&mut self, definition: Definition) {
        let name = definition.program.name().clone();
        self.keep(Arc::clone(&definition.program));
        let versions = self.named.entry((name.namespace, name.name)).or_default();
        versions.retain(|known| known.program.name().version != name.version);
        versions.push(definition);
        versions.sort_by_key(|known| order_of(&known.program.name().version));
    }

    /// From now on this cannot be started.
    pub(super) fn remove(&mut self, name: &WorkflowName) {
        let place = (name.namespace.clone(), name.name.clone());
        if let Some(versions) = self.named.get_mut(&place) {
            versions.retain(|known| known.program.name().version != name.version);
            if versions.is_empty() {
                self.named.remove(&place);
            }
        }
    }

    /// From now on this is known by what it says, for runs that began with it.
    pub(super) fn keep(&mut self, program: Arc<Program>) {
        self.by_digest.insert(program.digest().clone(), program);
    }

    /// What to start; the version `latest` is the newest.
    pub(super) fn find(&self, name: &WorkflowName) -> Option<&Definition> {
        let versions = self.named.get(&(name.namespace.clone(), name.name.clone()))?;
        match name.version.as_str() {
            "latest" | "" => versions.last(),
            version => versions.iter().find(|known| known.program.name().version == version),
        }
    }

    pub(super) fn by_digest(&self, digest: &Digest) -> Option<Arc<Program>> {
        self.by_digest.get(digest).cloned()
    }

    /// All that are known, also those with which runs go on that were begun before.
    pub(super) fn programs(&self) -> impl Iterator<Item = &Arc<Program>> {
        self.by_digest.values()
    }

    /// All that can be started.
    pub(super) fn names(&self) -> Vec<WorkflowName> {
        self.named.values().flatten().map(|definition| definition.program.name().clone()).collect()
    }
}

/// Semantic versions in their order: three numbers, and what is before a release sorts before it.
pub(super) fn order_of(version: &str) -> (Vec<u64>, bool, String) {
    let version = version.split('+').next().unwrap_or(version);
    let (numbers, before) = version.split_once('-').unwrap_or((version, ""));
    let numbers = numbers.split('.').map(|number| number.parse().unwrap_or(0)).collect();
    (numbers, before.is_empty(), before.to_owned())
}
