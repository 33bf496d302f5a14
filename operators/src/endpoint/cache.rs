//! Answers kept by what was asked: a file each, named by the SHA-256 of endpoint, path and question.
//!
//! A file is written beside its place and moved there, so that a killed run leaves none that is half there; two runs
//! at a time write the same.

use crate::bundle::hex;
use crate::encoders::cache_folders;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A folder of answers.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    has_failed: AtomicBool,
}

impl Cache {
    /// The cache in `folder`, or thema's own.
    pub(super) fn open(folder: Option<PathBuf>) -> Self {
        let own = || cache_folders().thema.with_file_name("answers");
        Self { folder: folder.unwrap_or_else(own), has_failed: AtomicBool::new(false) }
    }

    /// The name of the answer to `asked`.
    pub(super) fn key(&self, url: &str, path: &str, asked: &Value) -> String {
        let mut hash = Sha256::new();
        // JSON strings end where they end: no two questions run together.
        hash.update(Value::from(vec![url, path]).to_string());
        hash.update(asked.to_string());
        hex(&hash.finalize())
    }

    /// The answer of that name, if one is kept.
    pub(super) fn get(&self, key: &str) -> Option<Value> {
        let bytes = std::fs::read(self.place(key)).ok()?;
        // One that is broken is asked for again.
        serde_json::from_slice(&bytes).ok()
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps an answer; where the disk refuses it, says so once and goes on.
    pub(super) fn put(&self, key: &str, answer: &Value) {
        let place = self.place(key);
        if let Err(error) = write(&place, answer.to_string().as_bytes())
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{}: answers cannot be kept: {error}", place.display());
        }
    }

    /// Two letters a folder, as git has it: no folder grows too large.
    fn place(&self, key: &str) -> PathBuf {
        self.folder.join(&key[..2]).join(format!("{key}.json"))
    }
}

/// Writes a file, beside its place first.
pub(super) fn write(place: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = place.parent().unwrap_or(place);
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_kept_by_what_was_asked_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path().into()));
        let key = cache.key("http://a/v1", "embeddings", &json!({ "input": "x" }));
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &json!({ "data": [1] }));
        assert_eq!(cache.get(&key), Some(json!({ "data": [1] })));
        for (url, path, input) in [
            ("http://b/v1", "embeddings", "x"),
            ("http://a/v1", "chat/completions", "x"),
            ("http://a/v1", "embeddings", "y"),
        ] {
            assert_ne!(cache.key(url, path, &json!({ "input": input })), key);
        }
    }

    #[test]
    fn a_broken_file_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(folder.path().into()));
        cache.put("abcd", &json!(1));
        std::fs::write(cache.place("abcd"), "{\"da").unwrap();
        assert_eq!(cache.get("abcd"), None);
    }
}
