//! Secrets of a stack: a stack names files, and what they hold is read where it is used. No value is in a [`Stack`](crate::Stack),
//! which is stored and shown.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::Files;

/// Most bytes of a secret.
pub const SECRET_BYTES_MAX: usize = 64 << 10;

/// Where a secret of a stack is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Its file: absolute.
    pub file: PathBuf,
    /// How that is read.
    pub format: SecretFormat,
}

/// How a secret's file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretFormat {
    /// As a text, without the line breaks at its end.
    #[default]
    Text,
    /// As JSON: an object with the keys that a policy of `use.authentications` has, for example.
    Json,
}

/// Why a secret cannot be used. None of these texts holds any of the file.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// Others may read the file.
    #[error("others than its owner may read it")]
    Open,
    /// It holds nothing.
    #[error("it is empty")]
    Empty,
    /// It is no text.
    #[error("it is not UTF-8: see byte {0}")]
    NotText(usize),
    /// It is no JSON.
    #[error("it is not JSON: see line {line}, column {column}")]
    NotJson {
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
    },
}

impl Secret {
    /// Reads the file, which only its owner may be able to read, of at most [`SECRET_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// See [`BadSecret`].
    pub fn read(&self, files: &dyn Files) -> Result<Value, BadSecret> {
        // First, so that it is told even of a file that this account may not read.
        if files.is_open_to_others(&self.file).map_err(BadSecret::Unreadable)? {
            return Err(BadSecret::Open);
        }
        let bytes = files.read(&self.file, SECRET_BYTES_MAX).map_err(BadSecret::Unreadable)?;
        let text =
            String::from_utf8(bytes).map_err(|why| BadSecret::NotText(why.utf8_error().valid_up_to()))?;
        let text = text.trim_end_matches(['\n', '\r']);
        match self.format {
            _ if text.is_empty() => Err(BadSecret::Empty),
            SecretFormat::Text => Ok(Value::String(text.to_owned())),
            SecretFormat::Json => serde_json::from_str(text)
                .map_err(|why| BadSecret::NotJson { line: why.line(), column: why.column() }),
        }
    }
}

impl BadSecret {
    /// What to do about it; `file` is what its user calls the file.
    pub fn hint(&self, file: &str) -> Option<String> {
        match self {
            Self::Open => Some(format!("chmod 600 {file}")),
            Self::Empty => Some(format!("write it: (umask 077; cat > {file})")),
            Self::Unreadable(why) if why.kind() == io::ErrorKind::NotFound => {
                Some(format!("write it, out of reach of git: (umask 077; cat > {file})"))
            }
            Self::Unreadable(_) | Self::NotText(_) | Self::NotJson { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::files::Disk;

    #[test]
    fn a_secret_is_read_as_it_is_meant_and_only_from_a_file_of_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let secret = |name: &str, text: &[u8], mode: u32, format| {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            Secret { file, format }.read(&Disk)
        };
        let (text, as_json) = (SecretFormat::Text, SecretFormat::Json);
        assert_eq!(secret("a", b" hunter2 \r\n\n", 0o600, text).unwrap(), json!(" hunter2 "));
        assert_eq!(
            secret("b", b"{\"username\": \"ada\"}\n", 0o400, as_json).unwrap(),
            json!({"username": "ada"})
        );
        for mode in [0o640, 0o604, 0o620, 0o644] {
            let why = secret("c", b"hunter2", mode, text).unwrap_err();
            assert!(matches!(why, BadSecret::Open), "{mode:o}: {why}");
            assert_eq!(why.hint("c").unwrap(), "chmod 600 c");
        }
        assert!(matches!(secret("d", b"\n", 0o600, text), Err(BadSecret::Empty)));
        assert!(matches!(secret("e", b"ab\xff", 0o600, text), Err(BadSecret::NotText(2))));
        let why = secret("f", b"{\n \"hunter2\" }", 0o600, as_json).unwrap_err();
        assert!(matches!(why, BadSecret::NotJson { line: 2, .. }), "{why}");
        assert!(!format!("{why:?} {why}").contains("hunter2"));
        let none = Secret { file: folder.path().join("none"), format: text }.read(&Disk).unwrap_err();
        assert!(matches!(&none, BadSecret::Unreadable(why) if why.kind() == io::ErrorKind::NotFound));
        let large = vec![b'x'; SECRET_BYTES_MAX + 1];
        assert!(matches!(secret("g", &large, 0o600, text), Err(BadSecret::Unreadable(_))));
    }
}
