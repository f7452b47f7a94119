//! What is read from the disk: a key file, a list, a profile of a network.

use std::{io::Write, path::Path, time::Duration};

use peerlane_netem::profile::{Direction, Profile};
use peerlane_transport::{
    admission::{ListFiles, Lists},
    identity::Identity,
};
use tempfile::NamedTempFile;

/// A file with these bytes; its name is a new one each time, its mode 0600.
fn file(data: &[u8]) -> Option<NamedTempFile> {
    let mut file = NamedTempFile::new().ok()?;
    file.write_all(data).ok()?;
    Some(file)
}

/// A key file: one that is accepted is written again and read as the same key.
pub fn key_file(data: &[u8]) {
    let Some(file) = file(data) else { return };
    let Ok(identity) = Identity::load(file.path()) else { return };
    let Ok(directory) = tempfile::tempdir() else { return };
    let again = directory.path().join("again");
    let saved = identity.save_new(&again).map_err(|error| error.to_string());
    let loaded = saved.and_then(|()| load(&again));
    assert_eq!(loaded, Ok(identity.peer_id()));
}

fn load(path: &Path) -> Result<peerlane_transport::identity::PeerId, String> {
    Identity::load(path).map(|identity| identity.peer_id()).map_err(|error| error.to_string())
}

/// A list: one that is accepted has at most a key a line, and reading it twice changes nothing.
pub fn lists(data: &[u8]) {
    let Some(file) = file(data) else { return };
    let files = ListFiles { allow: Some(file.path().to_owned()), ..ListFiles::default() };
    if let Ok(lists) = Lists::open(files) {
        let allowed = lists.current().allow.as_ref().map_or(0, |allowed| allowed.len());
        assert!(allowed <= data.split(|byte| *byte == b'\n').count());
        assert!(matches!(lists.reload(), Ok(false)));
    }
}

/// A profile: one that is accepted says what it is at any time, and is read again as the same.
pub fn profile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(profile) = Profile::parse("fuzz.toml", text) else { return };
    let times = profile.times();
    assert!(times.len() <= 2 * data.len() + 2, "more changes than were written");
    for time in times.into_iter().chain([Duration::ZERO, Duration::MAX]) {
        for direction in [Direction::Forward, Direction::Backward] {
            let _ = profile.state(direction, time);
        }
    }
    let _ = (profile.rtt(), profile.is_symmetric(), profile.has_delay_stage());
    assert!(Profile::parse("fuzz.toml", profile.text()).is_ok_and(|again| again.events().len() == profile.events().len()));
}
