//! Files as a kernel and a disk keep them: what was written, what of it is synced, and what a crash leaves.

use std::collections::{BTreeMap, HashMap};

use standfast_runtime::Rng;

use super::trace::Call;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// A folder.
#[derive(Debug)]
pub(crate) struct SimulatedFiles {
    disk_lies: bool,
    files: Vec<File>,
    /// Files by name, as the kernel has them, and as the disk does.
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// Changes of names that are not synced.
    renamed: Vec<NameChange>,
    open: HashMap<u32, Open>,
}

#[derive(Debug, Clone, Copy)]
enum Open {
    Folder,
    File(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Add(String, usize),
    Remove(String),
}

#[derive(Debug, Default)]
struct File {
    content: Vec<u8>,
    synced: Vec<u8>,
    /// What changed since it was synced.
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

/// Files that have nothing to keep: SQLite makes its shared memory anew, and our lock is empty.
fn is_volatile(name: &str) -> bool {
    name.ends_with("-shm") || name.ends_with(".lock")
}

impl SimulatedFiles {
    /// An empty folder.
    pub(crate) fn new(disk_lies: bool) -> Self {
        Self {
            disk_lies,
            files: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            renamed: Vec::new(),
            open: HashMap::new(),
        }
    }

    /// Does what a call did.
    pub(crate) fn apply(&mut self, call: &Call) {
        match call {
            Call::OpenFolder { descriptor } => drop(self.open.insert(*descriptor, Open::Folder)),
            Call::Close { descriptor } => drop(self.open.remove(descriptor)),
            Call::Open { descriptor, name, creates, empties } => {
                self.open.remove(descriptor);
                if is_volatile(name) {
                    return;
                }
                let file = match self.names.get(name) {
                    Some(file) => *file,
                    None => {
                        assert!(creates, "{name} is opened and was never made");
                        self.files.push(File::default());
                        let file = self.files.len() - 1;
                        self.names.insert(name.clone(), file);
                        self.renamed.push(NameChange::Add(name.clone(), file));
                        file
                    }
                };
                if *empties {
                    self.files[file].change(Change::Length(0));
                }
                self.open.insert(*descriptor, Open::File(file));
            }
            Call::Write { descriptor, at, bytes } => {
                if let Some(file) = self.file(*descriptor) {
                    file.change(Change::Write { at: *at, bytes: bytes.clone() });
                }
            }
            Call::Truncate { descriptor, length } => {
                if let Some(file) = self.file(*descriptor) {
                    file.change(Change::Length(*length));
                }
            }
            Call::Sync { .. } if self.disk_lies => {}
            Call::Sync { descriptor } => match self.open.get(descriptor) {
                Some(Open::Folder) => {
                    self.synced_names.clone_from(&self.names);
                    self.renamed.clear();
                }
                Some(Open::File(file)) => {
                    let file = &mut self.files[*file];
                    file.synced.clone_from(&file.content);
                    file.unsynced.clear();
                }
                None => {}
            },
            Call::Remove { name } => {
                if self.names.remove(name).is_some() {
                    self.renamed.push(NameChange::Remove(name.clone()));
                }
            }
        }
    }

    fn file(&mut self, descriptor: u32) -> Option<&mut File> {
        match self.open.get(&descriptor) {
            Some(Open::File(file)) => Some(&mut self.files[*file]),
            _ => None,
        }
    }

    /// What is there when the process is killed: all that it wrote.
    pub(crate) fn after_kill(&self) -> BTreeMap<String, Vec<u8>> {
        self.names.iter().map(|(name, file)| (name.clone(), self.files[*file].content.clone())).collect()
    }

    /// What is there when the power goes: what was synced, and each sector and name that was not by chance, in any order.
    pub(crate) fn after_power_cut(&self, rng: &mut Rng, chance: f64) -> BTreeMap<String, Vec<u8>> {
        let mut names = self.synced_names.clone();
        for change in &self.renamed {
            if rng.fraction() >= chance {
                continue;
            }
            match change {
                NameChange::Add(name, file) => drop(names.insert(name.clone(), *file)),
                NameChange::Remove(name) => drop(names.remove(name)),
            }
        }
        names.into_iter().map(|(name, file)| (name, self.files[file].after_power_cut(rng, chance))).collect()
    }
}

impl File {
    fn change(&mut self, change: Change) {
        match &change {
            Change::Write { at, bytes } => put(&mut self.content, *at, bytes),
            Change::Length(length) => self.content.resize(*length, 0),
        }
        self.unsynced.push(change);
    }

    fn after_power_cut(&self, rng: &mut Rng, chance: f64) -> Vec<u8> {
        let mut content = self.synced.clone();
        for change in &self.unsynced {
            match change {
                Change::Length(length) if rng.fraction() < chance => content.resize(*length, 0),
                Change::Length(_) => {}
                Change::Write { at, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let until = bytes.len().min((at + from) / SECTOR * SECTOR + SECTOR - at);
                        if rng.fraction() < chance {
                            put(&mut content, at + from, &bytes[from..until]);
                        }
                        from = until;
                    }
                }
            }
        }
        content
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}
