use super::environment::path;
use crate::secret::SecretFormat;
use crate::shape::{Choice, Keyed, Object, TextKeys};
use crate::source::At;

/// One of `secrets`; its path is as it was written.
pub(crate) struct SecretDraft {
    pub(crate) file: At<String>,
    pub(crate) format: SecretFormat,
}

/// Longest name of a secret, in characters.
const NAME_MAX: usize = 64;

/// What `secrets` of a stack has.
pub(crate) const SECRETS: Keyed<TextKeys, Object<SecretDraft>> = Keyed {
    keys: TextKeys {
        what: "a secret's name: up to 64 letters, digits, `_`, `-` and `.`",
        pattern: "^[A-Za-z0-9_.-]{1,64}$",
        matches: is_name,
    },
    item: SECRET,
    min: 0,
};

const SECRET: Object<SecretDraft> = Object {
    doc: "A secret that workflows may count on (`use.secrets`).",
    read: |f| {
        let file = f.required(
            "file",
            "Its file, from the stack's folder, which only its owner may be able to read. It is read again when it changes.",
            path(),
        );
        let formats = Choice(&[("text", SecretFormat::Text), ("json", SecretFormat::Json)]);
        let format = f.or(
            "format",
            "How the file is read: as a text (without line breaks at its end) or as JSON.",
            formats,
            SecretFormat::Text,
        );
        f.refused(&[
            ("environment", "a node does not see its starter's environment: write the secret into a file"),
            ("external", "name the file that holds it in `file`"),
        ]);
        Some(SecretDraft { file: file?, format })
    },
};

fn is_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}
