//! Keys by which records are sealed: one record, one key of its own, made of the file's key and of chance.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use standfast_model::{BadSecret, Disk, Secret, SecretFormat};

/// What a sealed value begins with: a byte that is in no text in UTF-8, and the form.
const MARK: [u8; 4] = [0xff, b'S', b'F', 1];
const ID_BYTES: usize = 8;
const SALT_BYTES: usize = 12;
const NONCE_BYTES: usize = 12;
/// Where the sealed text begins.
const HEAD_BYTES: usize = MARK.len() + ID_BYTES + SALT_BYTES + NONCE_BYTES;
/// Bytes of a key, which its file holds in hexadecimal digits.
const KEY_BYTES: usize = 32;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the key file {} cannot be used", .file.display())]
pub struct BadKeyFile {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub source: WrongKeyFile,
}

/// Why a key file cannot be used. None of these texts holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum WrongKeyFile {
    /// It cannot be read, or not by its owner alone.
    #[error(transparent)]
    Secret(#[from] BadSecret),
    /// It holds something else.
    #[error("it holds no key of 64 hexadecimal digits; make one: (umask 077; openssl rand -hex 32 > FILE)")]
    NoKey,
}

impl WrongKeyFile {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Secret(BadSecret::Unreadable(why)) if why.kind() == io::ErrorKind::NotFound)
    }
}

/// Which key: what a record says of the key by which it was sealed. It tells nothing of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyId([u8; ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct Key {
    id: KeyId,
    master: hmac::Key,
}

/// Keys of files: the first one seals, each one opens.
pub struct Keys {
    all: Vec<Key>,
    random: SystemRandom,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(")?;
        self.all.iter().try_for_each(|key| write!(f, " {}", key.id))?;
        write!(f, " )")
    }
}

impl Keys {
    /// Reads keys of files: 64 hexadecimal digits each, in a file that only its owner may read. `None` when there are no files.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn read(files: &[PathBuf]) -> Result<Option<Self>, BadKeyFile> {
        let keys =
            files.iter().map(|file| read(file).map_err(|source| BadKeyFile { file: file.clone(), source }));
        let all = keys.collect::<Result<Vec<_>, _>>()?;
        Ok((!all.is_empty()).then(|| Self { all, random: SystemRandom::new() }))
    }

    /// The key that seals.
    pub(super) fn first(&self) -> Option<KeyId> {
        self.all.first().map(|key| key.id)
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.all.iter().map(|key| key.id.to_string()).collect()
    }

    /// A sealed value; `place` is where it is kept: elsewhere it cannot be opened. `None` when the system gives no chance.
    pub(super) fn seal(&self, place: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let key = self.all.first()?;
        let mut chance = [0; SALT_BYTES + NONCE_BYTES];
        self.random.fill(&mut chance).ok()?;
        let (salt, nonce) = chance.split_at(SALT_BYTES);
        let mut text = value.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        key.of_record(salt)?.seal_in_place_append_tag(nonce, Aad::from(place), &mut text).ok()?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + text.len());
        sealed.extend_from_slice(&MARK);
        sealed.extend_from_slice(&key.id.0);
        sealed.extend_from_slice(&chance);
        sealed.extend_from_slice(&text);
        Some(sealed)
    }

    /// What was sealed; `None` when it is damaged, was moved, or its key is not here.
    pub(super) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (head, text) = sealed.split_at_checked(HEAD_BYTES)?;
        let (id, chance) = head[MARK.len()..].split_at(ID_BYTES);
        let (salt, nonce) = chance.split_at(SALT_BYTES);
        let key = self.all.iter().find(|key| key.id.0 == *id)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let length = key.of_record(salt)?.open_in_place(nonce, Aad::from(place), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

/// Whether a value is sealed; what was written before there was a key is not.
pub(super) fn is_sealed(value: &[u8]) -> bool {
    value.starts_with(&MARK)
}

impl Key {
    /// The key of one record. Records are more than a key of this cipher may seal with nonces of chance; each has its own key.
    fn of_record(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let mut made = hmac::Context::with_key(&self.master);
        made.update(b"standfast record 1 ");
        made.update(salt);
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, made.sign().as_ref()).ok()?))
    }
}

fn read(file: &Path) -> Result<Key, WrongKeyFile> {
    let secret = Secret { file: file.to_owned(), format: SecretFormat::Text };
    let text = secret.read(&Disk)?;
    let digits = text.as_str().unwrap_or_default().trim().as_bytes();
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    let bytes = bytes.filter(|bytes| bytes.len() == KEY_BYTES).ok_or(WrongKeyFile::NoKey)?;
    let master = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
    let mut id = [0; ID_BYTES];
    id.copy_from_slice(&hmac::sign(&master, b"standfast key id 1").as_ref()[..ID_BYTES]);
    Ok(Key { id: KeyId(id), master })
}
