//! The text of a key file: PKCS#8 in PEM, read so that an error can name its line.

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use super::error::IdentityError;
use super::key::Identity;

const LABEL: &str = "PRIVATE KEY";
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// The OID of Ed25519 keys (RFC 8410, section 3).
const ED25519_OID: &str = "1.3.101.112";

/// The identity's secret key as text, three lines.
pub(super) fn encode(identity: &Identity) -> Result<Zeroizing<String>, IdentityError> {
    identity.to_pkcs8()?.to_pem(LABEL, LineEnding::LF).map_err(|error| IdentityError::Encoding(error.to_string()))
}

/// What is wrong with a key file's text.
pub(super) struct BadPem {
    /// Counted from 1, if one line is to blame.
    pub(super) line: Option<usize>,
    /// What is wrong and what is expected.
    pub(super) problem: String,
}

impl BadPem {
    fn at(line: usize, problem: impl Into<String>) -> Self {
        Self { line: Some(line), problem: problem.into() }
    }

    fn whole(problem: impl Into<String>) -> Self {
        Self { line: None, problem: problem.into() }
    }
}

/// One `PRIVATE KEY` block, with any lines before it and only blank ones after it.
pub(super) fn decode(text: &str) -> Result<Identity, BadPem> {
    let mut lines = (1..).zip(text.lines().map(str::trim_end));
    let (begin, label) = lines
        .by_ref()
        .find_map(|(line, text)| Some((line, boundary(text, BEGIN)?)))
        .ok_or_else(|| BadPem::whole(format!("no line `{BEGIN}{LABEL}{DASHES}`; a key file is PKCS#8 in PEM")))?;
    if label != LABEL {
        return Err(BadPem::at(begin, wrong_label(label)));
    }
    let mut base64 = Zeroizing::new(String::with_capacity(text.len()));
    loop {
        let Some((line, text)) = lines.next() else {
            return Err(BadPem::whole(format!("the file ends before `{END}{LABEL}{DASHES}`; it was cut short")));
        };
        if let Some(label) = boundary(text, END) {
            if label != LABEL {
                return Err(BadPem::at(line, format!("`{END}{LABEL}{DASHES}` expected")));
            }
            break;
        }
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_base64) {
            return Err(BadPem::at(line, "this line isn't base64"));
        }
        base64.push_str(text);
    }
    if let Some((line, _)) = lines.find(|(_, text)| !text.is_empty()) {
        return Err(BadPem::at(line, "something follows the key; a key file contains one key"));
    }
    let der = Zeroizing::new(
        BASE64.decode(base64.as_bytes()).map_err(|_| BadPem::at(begin, "the base64 of this key is incomplete; it was cut short"))?,
    );
    from_pkcs8(&der, begin)
}

fn from_pkcs8(der: &[u8], line: usize) -> Result<Identity, BadPem> {
    let info = PrivateKeyInfoRef::try_from(der).map_err(|_| BadPem::at(line, "the base64 of this key isn't a PKCS#8 private key"))?;
    let oid = info.algorithm.oid.to_string();
    if oid != ED25519_OID {
        return Err(BadPem::at(line, format!("a key of another kind (algorithm {oid}), and an Ed25519 key ({ED25519_OID}) is expected")));
    }
    // Version 2 contains the public key too, which is compared with the secret one here.
    let key = SigningKey::from_pkcs8_der(der).map_err(|_| BadPem::at(line, "the Ed25519 key in it is broken"))?;
    Identity::from_signing_key(Box::new(key)).map_err(|error| BadPem::at(line, error.to_string()))
}

/// The label of a line `-----BEGIN label-----`, if it is one.
fn boundary<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix(DASHES)
}

fn wrong_label(label: &str) -> String {
    let remedy = match label {
        "ENCRYPTED PRIVATE KEY" => "the key is encrypted; decrypt it with `openssl pkey -in FILE -out NEW`",
        "OPENSSH PRIVATE KEY" => "a key of OpenSSH's own form; make one with `peerlane key new` instead",
        "PUBLIC KEY" => "this is the public half; the secret one is expected",
        "CERTIFICATE" => "this is a certificate; a secret key is expected",
        _ => "another kind of PEM file",
    };
    format!("`{BEGIN}{LABEL}{DASHES}` expected: {remedy}")
}
