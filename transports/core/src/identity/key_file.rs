//! An identity's file: PKCS#8 in PEM (RFC 7468, section 10; RFC 8410, section 7), readable by its owner alone.
//!
//! The file is made whole or not at all: written beside its place, synced, then linked there. An existing file is
//! never overwritten, since a lost key can't be had again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::key::Identity;
use super::pem;

/// Largest key file read, in bytes: 119 are needed, and a few comment lines fit. Allocated once per load.
pub const KEY_FILE_MAX: usize = 16 * 1024;

/// Why a key file couldn't be read or written. Each text names the file, and what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// There is no such file.
    #[error("{}: no such key file; make one with `peerlane key new --out {}`", .0.display(), .0.display())]
    NotFound(PathBuf),
    /// A new key would have overwritten a file.
    #[error("{}: the file exists, and a key is never overwritten; choose another name or move the file away", .0.display())]
    Exists(PathBuf),
    /// The operating system refused.
    #[error("{}: {doing}: {source}", .path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others than the owner may read or write the file.
    #[error("{}: mode {mode:04o} lets others than the owner at the key; run `chmod 600 {}`", .path.display(), .path.display())]
    Permissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something in the file isn't as it must be.
    #[error("{}:{line}: {problem}", .path.display())]
    Line {
        /// The key file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there and what is expected.
        problem: String,
    },
    /// The file as a whole isn't a key.
    #[error("{}: {problem}", .path.display())]
    Content {
        /// The key file.
        path: PathBuf,
        /// What is wrong and what is expected.
        problem: String,
    },
}

impl Identity {
    /// Writes the secret key to a new file, mode 0600.
    ///
    /// Blocks on the disk: the file and its directory are synced before this returns.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] if there is anything at `path` already; else what the operating system says. Nothing
    /// is left behind then.
    pub fn save_new(&self, path: &Path) -> Result<(), KeyFileError> {
        let pem = pem::encode(self).map_err(|error| KeyFileError::Content { path: path.to_owned(), problem: error.to_string() })?;
        let fail = |doing| move |source| KeyFileError::Io { path: path.to_owned(), doing, source };
        if fs::symlink_metadata(path).is_ok() {
            return Err(KeyFileError::Exists(path.to_owned()));
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let temporary = Temporary::beside(path, directory);
        let mut file = create_private(&temporary.0).map_err(fail("making the key file"))?;
        file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(fail("writing the key file"))?;
        put_in_place(&temporary.0, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists(path.to_owned()),
            _ => fail("putting the key file in its place")(source),
        })?;
        drop(temporary);
        // The name is on the disk once the directory is. Only Unix lets a directory be opened for it.
        if cfg!(unix) {
            File::open(directory).and_then(|opened| opened.sync_all()).map_err(fail("syncing the key file's directory"))?;
        }
        Ok(())
    }

    /// Reads an identity that [`Identity::save_new`], OpenSSL or another tool wrote as unencrypted PKCS#8 PEM.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// [`KeyFileError`], naming the file, the line where there is one, and the remedy. A file that others may read is
    /// refused, for its key is no secret.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let fail = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyFileError::NotFound(path.to_owned()),
            _ => KeyFileError::Io { path: path.to_owned(), doing: "reading the key file", source },
        };
        let content = |problem: String| KeyFileError::Content { path: path.to_owned(), problem };
        // Asked before opening too: opening a named pipe would wait for its writer.
        if !fs::metadata(path).map_err(fail)?.is_file() {
            return Err(content("not a regular file".to_owned()));
        }
        let file = File::open(path).map_err(fail)?;
        check_mode(path, &file.metadata().map_err(fail)?)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_MAX + 1));
        file.take(KEY_FILE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() > KEY_FILE_MAX {
            return Err(content(format!("larger than {KEY_FILE_MAX} bytes, so not a key file")));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| content("not text; a key file is PKCS#8 in PEM".to_owned()))?;
        pem::decode(text).map_err(|bad| match bad.line {
            Some(line) => KeyFileError::Line { path: path.to_owned(), line, problem: bad.problem },
            None => content(bad.problem),
        })
    }
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt;

    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Where permission bits don't exist the directory's access rules are the user's to set.
#[cfg(not(unix))]
fn check_mode(_path: &Path, _metadata: &fs::Metadata) -> Result<(), KeyFileError> {
    Ok(())
}

/// A new file that nobody but the owner may open, from its first moment on.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Gives the finished file its name, unless the name is taken: a rename would overwrite, a link doesn't.
fn put_in_place(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
            // A file system without links: take the name with an empty file, then rename over our own.
            drop(create_private(path)?);
            fs::rename(temporary, path).inspect_err(|_| {
                let _ = fs::remove_file(path);
            })
        }
        other => other,
    }
}

/// A temporary file's name, which goes when this does. After a rename there is nothing left to remove.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path, directory: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let unique = rand::random::<u64>();
        Self(directory.join(format!(".{name}.{unique:016x}.new")))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use data_encoding::BASE64;

    use super::*;

    fn saved() -> (tempfile::TempDir, PathBuf, Identity) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peer.key");
        let identity = Identity::from_seed(&[7; 32]).unwrap();
        identity.save_new(&path).unwrap();
        (directory, path, identity)
    }

    /// Replaces the file's text, keeping its mode, and says what loading it says.
    fn error_of(path: &Path, text: impl AsRef<[u8]>) -> String {
        fs::write(path, text).unwrap();
        let message = Identity::load(path).unwrap_err().to_string();
        assert!(message.contains("peer.key"), "{message}");
        message
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let (directory, path, identity) = saved();
        assert_eq!(Identity::load(&path).unwrap().peer_id(), identity.peer_id());
        // Nothing but the key is left in the directory.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_alone_and_is_refused_otherwise() {
        use std::os::unix::fs::PermissionsExt;

        let (_directory, path, _) = saved();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let message = Identity::load(&path).unwrap_err().to_string();
            assert!(message.contains("chmod 600"), "{message}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(Identity::load(&path).is_ok());
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let (_directory, path, identity) = saved();
        let other = Identity::from_seed(&[8; 32]).unwrap();
        assert!(matches!(other.save_new(&path), Err(KeyFileError::Exists(_))));
        assert_eq!(Identity::load(&path).unwrap().peer_id(), identity.peer_id());
        // Nor in the race that the first look can't see.
        let raced = path.with_file_name("other");
        fs::write(&raced, "x").unwrap();
        assert_eq!(put_in_place(&raced, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(Identity::load(&path).unwrap().peer_id(), identity.peer_id());
    }

    #[test]
    fn a_missing_file_or_directory_says_what_to_do() {
        let (directory, path, identity) = saved();
        let missing = directory.path().join("nothing");
        let message = Identity::load(&missing).unwrap_err().to_string();
        assert!(message.contains("peerlane key new --out"), "{message}");
        assert!(identity.save_new(&missing.join("peer.key")).is_err());
        let message = Identity::load(directory.path()).unwrap_err().to_string();
        assert!(message.contains("not a regular file"), "{message}");
        drop(path);
    }

    #[test]
    fn broken_text_is_refused_with_its_line() {
        let (_directory, path, _) = saved();
        let good = fs::read_to_string(&path).unwrap();

        assert!(error_of(&path, "").contains("PKCS#8 in PEM"));
        assert!(error_of(&path, [0xff, 0xfe]).contains("not text"));
        assert!(error_of(&path, vec![b'x'; KEY_FILE_MAX + 1]).contains("larger than"));
        let spoiled = good.replacen("MC4", "M*4", 1);
        assert!(error_of(&path, spoiled).contains("peer.key:2: this line isn't base64"));
        let cut = good.split_once("-----END").unwrap().0.to_owned();
        assert!(error_of(&path, cut).contains("cut short"));
        let short = good.replacen("MC4", "MC", 1);
        assert!(error_of(&path, short).contains("peer.key:1:"));
        let twice = format!("{good}{good}");
        assert!(error_of(&path, twice).contains("peer.key:4: something follows"));
        let public = good.replace("PRIVATE KEY", "PUBLIC KEY");
        assert!(error_of(&path, format!("\n{public}")).contains("peer.key:2:"));
        let ended = good.replace("END PRIVATE", "END PUBLIC");
        assert!(error_of(&path, ended).contains("peer.key:3:"));
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        let (_directory, path, _) = saved();
        let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(p256.serialized_der()));
        assert!(error_of(&path, pem).contains("1.2.840.10045.2.1"));
    }

    #[test]
    fn version_2_is_read_and_its_public_key_compared() {
        use ed25519_dalek::pkcs8::{EncodePrivateKey, KeypairBytes};

        let (_directory, path, identity) = saved();
        let pem = |public: [u8; 32]| {
            let der = KeypairBytes { secret_key: [7; 32], public_key: Some(ed25519_dalek::pkcs8::PublicKeyBytes(public)) }
                .to_pkcs8_der()
                .unwrap();
            format!("# a comment\r\n-----BEGIN PRIVATE KEY-----\r\n{}\r\n-----END PRIVATE KEY-----\r\n\r\n", BASE64.encode(der.as_bytes()))
        };
        fs::write(&path, pem(*identity.peer_id().as_bytes())).unwrap();
        assert_eq!(Identity::load(&path).unwrap().peer_id(), identity.peer_id());
        let other = Identity::from_seed(&[8; 32]).unwrap();
        assert!(error_of(&path, pem(*other.peer_id().as_bytes())).contains("broken"));
    }
}
