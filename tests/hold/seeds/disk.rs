//! A disk in memory that outlives its peer: what was synced stays, of what wasn't any sector may.

use std::{
    io,
    sync::{Arc, Mutex},
};

use rand::{Rng, RngExt};

/// The unit in which a write can be torn.
const SECTOR: usize = 512;

enum Pending {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Default)]
struct Platter {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// Since the last sync.
    pending: Vec<Pending>,
    dead: bool,
    full: bool,
}

#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Platter {
    /// Does to the durable image what `lucky` lets pass of what isn't synced.
    fn settle(&mut self, mut lucky: impl FnMut() -> bool) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Length(length) if lucky() => resize(&mut self.durable, length),
                Pending::Length(_) => {}
                Pending::Write(at, bytes) => {
                    for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                        let at = at + i * SECTOR;
                        if lucky() && self.durable.len() >= at + sector.len() {
                            self.durable[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
    }
}

/// `Vec::resize`, which takes long byte by byte where this crate isn't optimised.
fn resize(image: &mut Vec<u8>, length: usize) {
    image.truncate(length);
    image.append(&mut vec![0; length - image.len()]);
}

impl Disk {
    /// The peer dies: it writes nothing any more. The disk as the next one finds it.
    pub fn after_crash(&self, rng: &mut impl Rng) -> Self {
        let mut platter = self.0.lock().unwrap();
        platter.dead = true;
        platter.settle(|| rng.random());
        let image = std::mem::take(&mut platter.durable);
        Self(Arc::new(Mutex::new(Platter { durable: image.clone(), now: image, ..Platter::default() })))
    }

    /// Whether there's room for anything.
    pub fn set_full(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }

    fn change(&self, change: impl FnOnce(&mut Platter)) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        if platter.dead {
            return Err(io::Error::other("the peer is dead"));
        }
        if platter.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        change(&mut platter);
        Ok(())
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        let at = offset as usize;
        out.copy_from_slice(platter.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(|platter| {
            resize(&mut platter.now, length as usize);
            platter.pending.push(Pending::Length(length as usize));
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|platter| platter.settle(|| true))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|platter| {
            let at = offset as usize;
            platter.now[at..at + data.len()].copy_from_slice(data);
            platter.pending.push(Pending::Write(at, data.to_vec()));
        })
    }
}
