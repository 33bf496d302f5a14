//! Vectors kept by their texts: a file an answer, which holds all vectors of a request.
//!
//! A file is a head (`thema vectors 1\n`, then how many and of how many numbers: two little-endian u32), the SHA-256 of
//! each text cut to 16 bytes, and the vectors as little-endian f32. Whoever opens a folder reads the heads and the
//! texts' hashes, 16 bytes a vector; a vector is read when it is asked for. Files are written beside their place and
//! moved there, so that a killed run leaves none that is half there, and two runs at a time harm neither.

use super::cache::write;
use crate::bundle::hex;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const MAGIC: &[u8; 16] = b"thema vectors 1\n";

/// How the names of files end.
const EXTENSION: &str = "vectors";

/// A text's hash.
type Key = [u8; 16];

/// A folder of vectors that one model made.
pub(super) struct Packs {
    folder: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    files: Vec<PathBuf>,
    places: FxHashMap<Key, Place>,
    has_failed: bool,
}

/// Where a vector stands.
#[derive(Clone, Copy)]
struct Place {
    file: u32,
    /// The first of its bytes.
    at: u64,
    dim: u32,
}

impl Packs {
    /// Opens a folder; one that is not there yet is empty, and files that are broken are none.
    pub(super) fn open(folder: PathBuf) -> Self {
        let mut known = Known::default();
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for file in files.filter(|file| file.extension().is_some_and(|extension| extension == EXTENSION)) {
            match keys(&file) {
                Ok((keys, dim)) => known.add(file, keys, dim),
                Err(error) => tracing::debug!("{}: {error}", file.display()),
            }
        }
        Self { folder, known: Mutex::new(known) }
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The vector of `text`, if it is kept.
    pub(super) fn get(&self, text: &str) -> Option<Vec<f32>> {
        let (file, Place { at, dim, .. }) = {
            let known = self.known();
            let place = *known.places.get(&key(text))?;
            (known.files.get(place.file as usize)?.clone(), place)
        };
        let mut bytes = vec![0; dim as usize * 4];
        let mut file = File::open(file).ok()?;
        file.seek(SeekFrom::Start(at)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        let vector: Vec<f32> =
            bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        vector.iter().all(|number| number.is_finite()).then_some(vector)
    }

    /// Keeps the vectors of an answer, all of one length; where the disk refuses them, says so once and goes on.
    pub(super) fn put(&self, vectors: &[(&str, Vec<f32>)]) {
        // A model has fewer dimensions, and an answer fewer vectors, than u32::MAX.
        let Some(dim) = vectors.first().map(|(_, vector)| vector.len() as u32) else { return };
        let keys: Vec<Key> = vectors.iter().map(|(text, _)| key(text)).collect();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((keys.len() as u32).to_le_bytes());
        bytes.extend(dim.to_le_bytes());
        bytes.extend(keys.iter().flatten());
        bytes.extend(vectors.iter().flat_map(|(_, vector)| vector).flat_map(|number| number.to_le_bytes()));
        let name = hex(&Sha256::digest(keys.concat())[..16]);
        let place = self.folder.join(name).with_extension(EXTENSION);
        match write(&place, &bytes) {
            Ok(()) => self.known().add(place, keys, dim),
            Err(error) => {
                if !std::mem::replace(&mut self.known().has_failed, true) {
                    tracing::warn!("{}: vectors cannot be kept: {error}", place.display());
                }
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, path: PathBuf, keys: Vec<Key>, dim: u32) {
        let file = self.files.len() as u32; // a folder has fewer files than u32::MAX
        self.files.push(path);
        let first = (MAGIC.len() + 8 + keys.len() * size_of::<Key>()) as u64;
        let places = (0..).map(|row: u64| Place { file, at: first + row * u64::from(dim) * 4, dim });
        self.places.extend(keys.into_iter().zip(places));
    }
}

/// The hashes of a file's texts, and the length of its vectors.
fn keys(file: &Path) -> std::io::Result<(Vec<Key>, u32)> {
    let broken = || std::io::Error::other("is no file of vectors");
    let mut file = File::open(file)?;
    let mut head = [0; MAGIC.len() + 8];
    file.read_exact(&mut head)?;
    let (magic, numbers) = head.split_at(MAGIC.len());
    let ([count, dim], true) = (numbers.as_chunks::<4>().0, magic == MAGIC) else { return Err(broken()) };
    let (count, dim) = (u32::from_le_bytes(*count), u32::from_le_bytes(*dim));
    let of_one = size_of::<Key>() as u64 + u64::from(dim) * 4;
    let bytes = u64::from(count).checked_mul(of_one).and_then(|bytes| bytes.checked_add(head.len() as u64));
    if bytes != Some(file.metadata()?.len()) {
        return Err(broken());
    }
    let mut keys = vec![0; count as usize * size_of::<Key>()];
    file.read_exact(&mut keys)?;
    Ok((keys.as_chunks().0.to_vec(), dim))
}

fn key(text: &str) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&Sha256::digest(text)[..size_of::<Key>()]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_kept_by_their_texts_for_whoever_opens_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let packs = Packs::open(folder.path().join("new"));
        assert_eq!(packs.get("a"), None);
        packs.put(&[("a", vec![1.0, 2.0]), ("b", vec![3.0, 4.0])]);
        packs.put(&[("c", vec![5.0, 6.0, 7.0])]);
        for packs in [packs, Packs::open(folder.path().join("new"))] {
            assert_eq!(packs.get("a"), Some(vec![1.0, 2.0]));
            assert_eq!(packs.get("b"), Some(vec![3.0, 4.0]));
            assert_eq!(packs.get("c"), Some(vec![5.0, 6.0, 7.0]));
            assert_eq!(packs.get("d"), None);
        }
    }

    #[test]
    fn a_broken_file_holds_no_vectors() {
        let folder = tempfile::tempdir().unwrap();
        Packs::open(folder.path().into()).put(&[("a", vec![1.0, 2.0])]);
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::read(&file).unwrap();
        let mut huge = whole.clone();
        huge[MAGIC.len()..MAGIC.len() + 8].fill(255);
        for broken in [&whole[..whole.len() - 1], &whole[1..], &whole[..10], b"", &huge] {
            std::fs::write(&file, broken).unwrap();
            assert_eq!(Packs::open(folder.path().into()).get("a"), None);
        }
    }
}
