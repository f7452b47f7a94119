//! OPS.jsonl: one operation per line, `{"op":"put","key":..,"value":..}` or `{"op":"del","key":..}`.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use bytes::Bytes;
use serde::Deserialize;

use super::CliError;
use crate::peer::{Edit, MAX_KEY, MAX_VALUE};

/// The longest line: a value of the largest size with every byte escaped, and a key likewise. Bytes.
pub(super) const MAX_LINE: u64 = 6 * (MAX_VALUE + MAX_KEY) as u64 + 64;

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Put { key: String, value: String },
    Del { key: String },
}

/// Reads one line.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn parse_line(line: &[u8]) -> Result<Edit, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        // Each line is parsed by itself: serde_json would call it line 1.
        let (column, what) = (error.column(), error.to_string());
        let what = what.rsplit_once(" at line ").map_or(&*what, |(what, _)| what);
        format!("column {column}: {what}")
    })?;
    let edit = match line {
        Line::Put { key, value } => Edit::Put { key: key.into(), value: value.into() },
        Line::Del { key } => Edit::Del { key: key.into() },
    };
    check(&edit)?;
    Ok(edit)
}

/// Whether a peer would take it.
pub(super) fn check(edit: &Edit) -> Result<(), String> {
    let key = edit.key().len();
    if key == 0 || key > MAX_KEY {
        return Err(format!("a key has 1 to {MAX_KEY} bytes, not {key}"));
    }
    match edit {
        Edit::Put { value, .. } if value.len() > MAX_VALUE => Err(format!("a value has at most {MAX_VALUE} bytes, not {}", value.len())),
        _ => Ok(()),
    }
}

/// Reads a whole file before anything is done: an error names file and line, and nothing has happened yet.
pub(super) fn read(path: &Path) -> Result<Vec<Edit>, CliError> {
    let fail = |what: String| CliError::Usage(format!("{}{what}", path.display()));
    let mut file = BufReader::new(File::open(path).map_err(|error| fail(format!(": {error}")))?);
    let mut edits = Vec::new();
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let read = file.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(|error| fail(format!(":{number}: {error}")))?;
        if read == 0 {
            break;
        }
        if read as u64 > MAX_LINE {
            return Err(fail(format!(":{number}: the line is longer than {MAX_LINE} bytes")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let edit = parse_line(&line).map_err(|what| {
            fail(format!(
                ":{number}: {what}; a line is {{\"op\":\"put\",\"key\":\"..\",\"value\":\"..\"}} or {{\"op\":\"del\",\"key\":\"..\"}}"
            ))
        })?;
        edits.push(edit);
    }
    Ok(edits)
}

/// The edit as a line, for making such files.
pub(super) fn line(key: &str, value: &str) -> String {
    serde_json::json!({ "op": "put", "key": key, "value": value }).to_string()
}

/// The key of an edit, for messages.
pub(super) fn name(edit: &Edit) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(edit.key() as &Bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn lines_are_read_and_empty_ones_skipped() {
        let file = file("{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"}\n\n  {\"op\":\"del\",\"key\":\"a\"}");
        let put = Edit::Put { key: "a".into(), value: "1".into() };
        assert_eq!(read(file.path()).unwrap(), [put, Edit::Del { key: "a".into() }]);
    }

    #[test]
    fn a_bad_line_is_named_with_file_and_number() {
        let good = "{\"op\":\"del\",\"key\":\"a\"}\n";
        let long = format!("{{\"op\":\"put\",\"key\":\"a\",\"value\":\"{}\"}}", "x".repeat(MAX_VALUE + 1));
        for bad in
            ["{", "{\"op\":\"get\",\"key\":\"a\"}", "{\"op\":\"del\",\"key\":\"\"}", "{\"op\":\"del\",\"key\":\"a\",\"x\":1}", "7", &long]
        {
            let file = file(&format!("{good}{good}{bad}\n{good}"));
            let error = read(file.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("{}:3: ", file.path().display())), "{error}");
            assert!(!error.contains("line 1"), "another line's number: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_read_or_refused(bytes: Vec<u8>, key: String, value: String, at: usize, bit in 0u8..8) {
            let _ = parse_line(&bytes);
            // One that's nearly right; what is accepted is within the bounds.
            let mut near = line(&key, &value).into_bytes();
            let at = at % near.len();
            near[at] ^= 1 << bit;
            if let Ok(edit) = parse_line(&near) {
                proptest::prop_assert!(check(&edit).is_ok());
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let edit = parse_line(line("k\"é\n", "v\\\u{0}").as_bytes()).unwrap();
        assert_eq!(edit, Edit::Put { key: "k\"é\n".into(), value: "v\\\u{0}".into() });
    }
}
