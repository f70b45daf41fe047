//! What a document names outside of itself, as it was when its definition was made.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Texts by their addresses, each as `address_of` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resources(BTreeMap<String, Arc<str>>);

impl Resources {
    /// The text at an address, if it is at hand.
    pub fn get(&self, address: &str) -> Option<&Arc<str>> {
        self.0.get(address)
    }

    /// From now on this is at hand.
    pub fn insert(&mut self, address: String, text: Arc<str>) {
        self.0.insert(address, text);
    }

    /// Whether nothing is at hand.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How long they all are, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.values().map(|text| text.len()).sum()
    }
}

/// Where the text of an address is read: pages of forges that show files to people are turned into the files themselves.
pub(super) fn address_of(address: &str) -> String {
    let raw = github(address).or_else(|| gitlab(address));
    raw.unwrap_or_else(|| address.to_owned())
}

fn github(address: &str) -> Option<String> {
    let path = address.strip_prefix("https://github.com/")?;
    let mut parts = path.splitn(5, '/');
    let (owner, name) = (parts.next()?, parts.next()?);
    let raw = |rest: String| Some(format!("https://raw.githubusercontent.com/{owner}/{name}/{rest}"));
    match (parts.next(), parts.next(), parts.next()) {
        (Some("tree" | "blob"), Some(reference), rest) => {
            let is_commit = reference.len() == 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
            let branch = if is_commit { "" } else { "refs/heads/" };
            raw(format!("{branch}{reference}/{}", rest.unwrap_or("")))
        }
        // Below the repository itself, of the branch that it shows first.
        (Some(first), rest, more) => {
            let all: Vec<&str> = [Some(first), rest, more].into_iter().flatten().collect();
            raw(format!("HEAD/{}", all.join("/")))
        }
        (None, ..) => None,
    }
}

fn gitlab(address: &str) -> Option<String> {
    let is_gitlab = address.strip_prefix("https://").is_some_and(|rest| rest.starts_with("gitlab."));
    let page = ["/-/tree/", "/-/blob/"].into_iter().find(|page| address.contains(page))?;
    is_gitlab.then(|| address.replacen(page, "/-/raw/", 1))
}

/// Where a catalog has a function: `functions/NAME/VERSION/function.yaml` below its root.
pub(super) fn function_of(root: &str, name: &str, version: &str) -> Option<String> {
    let is_plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '\\', '?', '#', '%'])
    };
    if !is_plain(name) || !is_plain(version) {
        return None;
    }
    Some(address_of(&format!("{}/functions/{name}/{version}/function.yaml", root.trim_end_matches('/'))))
}

/// Where a function is that is called by its address: a folder means the file `function.yaml` in it.
pub(super) fn function_at(address: &str) -> String {
    let is_file = [".yaml", ".yml", ".json"].iter().any(|ending| address.ends_with(ending));
    let file =
        if is_file { address.to_owned() } else { format!("{}/function.yaml", address.trim_end_matches('/')) };
    address_of(&file)
}

/// An address as a file means it that was read at another one.
pub(super) fn resolve(at: &str, address: &str) -> String {
    if address.contains("://") {
        return address.to_owned();
    }
    let Some((scheme, rest)) = at.split_once("://") else { return address.to_owned() };
    let address = address.trim_start_matches("./");
    if scheme == "file" && !address.starts_with('/') {
        // There is no host: all of it is a path.
        let folder = rest.rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/"));
        return format!("file://{folder}{address}");
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if let Some(host) = address.strip_prefix("//") {
        return format!("{scheme}://{host}");
    }
    if let Some(path) = address.strip_prefix('/') {
        return format!("{scheme}://{host}/{path}");
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let joint = if folder.is_empty() { "" } else { "/" };
    format!("{scheme}://{host}/{folder}{joint}{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_the_file_means_it_that_says_it() {
        for (at, address, found) in [
            ("https://h/a/b.json", "/v1", "https://h/v1"),
            ("https://h/a/b.json", "v1", "https://h/a/v1"),
            ("https://h/a/b.json", "./v1", "https://h/a/v1"),
            ("https://h", "v1", "https://h/v1"),
            ("https://h/a", "//other/v1", "https://other/v1"),
            ("https://h/a", "http://other/v1", "http://other/v1"),
            ("file://a.proto", "b/c.proto", "file://b/c.proto"),
            ("file://x/y/a.proto", "b.proto", "file://x/y/b.proto"),
        ] {
            assert_eq!(resolve(at, address), found, "{at} {address}");
        }
    }

    #[test]
    fn pages_of_forges_become_the_files_that_they_show() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (page, file) in [
            (
                "https://github.com/serverlessworkflow/catalog/tree/main/functions/log/1.0.0/function.yaml",
                "https://raw.githubusercontent.com/serverlessworkflow/catalog/refs/heads/main/functions/log/1.0.0/function.yaml",
            ),
            (
                "https://github.com/o/r/functions/f.yaml",
                "https://raw.githubusercontent.com/o/r/HEAD/functions/f.yaml",
            ),
            ("https://gitlab.com/g/p/-/blob/main/f.yaml", "https://gitlab.com/g/p/-/raw/main/f.yaml"),
            ("https://github.com/o/r", "https://github.com/o/r"),
            ("https://other.example/o/r/tree/main/f", "https://other.example/o/r/tree/main/f"),
            ("file://functions/f.yaml", "file://functions/f.yaml"),
        ] {
            assert_eq!(address_of(page), file);
        }
        assert_eq!(
            address_of(&format!("https://github.com/o/r/blob/{commit}/a")),
            format!("https://raw.githubusercontent.com/o/r/{commit}/a")
        );
        assert_eq!(
            function_of("https://github.com/o/r", "log", "1.0.0").unwrap(),
            "https://raw.githubusercontent.com/o/r/HEAD/functions/log/1.0.0/function.yaml"
        );
        assert_eq!(function_at("file://f/log/"), "file://f/log/function.yaml");
        for name in ["..", "a/b", "", "a?b"] {
            assert_eq!(function_of("file://c", name, "1.0.0"), None);
        }
    }
}
