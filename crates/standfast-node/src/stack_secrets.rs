//! The secrets of a stack, as its files hold them now.

use serde_json::{Map, Value};
use standfast_model::{Disk, Stack};
use standfast_runtime::with_causes;

/// What was read of them last. No `Debug`: nothing shows them.
#[derive(Default)]
pub(crate) struct StackSecrets {
    /// Those that can be used.
    pub(crate) known: Map<String, Value>,
    /// Why the others cannot, for people.
    pub(crate) troubles: Vec<String>,
    was_read: bool,
}

impl StackSecrets {
    /// Reads all; true when anything is different from what was read before. One that cannot be used is not there: whoever takes it
    /// away wants that.
    pub(crate) fn read(&mut self, stack: &Stack) -> bool {
        let (mut known, mut troubles) = (Map::new(), Vec::new());
        for (name, secret) in &stack.secrets {
            match secret.read(&Disk) {
                Ok(value) => {
                    known.insert(name.clone(), value);
                }
                Err(why) => {
                    let file = secret.file.display().to_string();
                    let hint = why.hint(&file).map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
                    troubles.push(format!(
                        "the secret `{name}` of {file} cannot be used: {}{hint}",
                        with_causes(&why)
                    ));
                }
            }
        }
        let has_changed = !self.was_read || known != self.known || troubles != self.troubles;
        if troubles != self.troubles {
            for why in &troubles {
                tracing::error!(%why, "runs that count on it fail");
            }
        }
        (self.known, self.troubles, self.was_read) = (known, troubles, true);
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_that_changes_or_goes_is_seen_at_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let write = |text: &str| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        };
        write("first-value\n");
        let text = "name: shop\nservices: {a: {command: [a]}}\nsecrets: {key: {file: key}}\n";
        let stack = standfast_model::parse(text, folder.path(), &Disk, &BTreeMap::new()).unwrap().stack;
        let mut secrets = StackSecrets::default();
        assert!(secrets.read(&stack) && !secrets.read(&stack));
        assert_eq!(secrets.known["key"], json!("first-value"));
        write("second-value");
        assert!(secrets.read(&stack));
        assert_eq!(secrets.known["key"], json!("second-value"));
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert!(secrets.read(&stack) && secrets.known.is_empty());
        assert!(secrets.troubles[0].contains("chmod 600"), "{:?}", secrets.troubles);
        fs::remove_file(&file).unwrap();
        assert!(secrets.read(&stack) && secrets.known.is_empty());
        assert!(secrets.troubles[0].starts_with("the secret `key` of"), "{:?}", secrets.troubles);
    }
}
