//! From what a user calls an encoder to its folder on this machine.
//!
//! A path is taken as it is. A name is looked up in thema's own cache and in the Hugging Face hub's cache folder
//! (`models--OWNER--NAME/refs/main` names the snapshot). Nothing is downloaded here.

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Returns the folder of the encoder `name`: a path, `owner/name` or a bare name.
///
/// # Errors
/// `Setting`, which says which folders were looked at and what to put where.
pub fn resolve(name: &str) -> Result<PathBuf> {
    resolve_in(name, &cache_folders())
}

/// The cache folders that names are looked up in: thema's own, then the hub's.
pub fn cache_folders() -> CacheFolders {
    let var = |key: &str| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = var("HOME").unwrap_or_default();
    let cache = var("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
    CacheFolders {
        thema: var("THEMA_CACHE").unwrap_or_else(|| cache.join("thema")).join("encoders"),
        hub: var("HF_HUB_CACHE")
            .or_else(|| var("HF_HOME").map(|h| h.join("hub")))
            .unwrap_or_else(|| cache.join("huggingface").join("hub")),
    }
}

/// Where encoders may lie.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheFolders {
    /// thema's own: one folder an encoder, `OWNER--NAME`, or `NAME` for those of sentence-transformers.
    pub thema: PathBuf,
    /// The Hugging Face hub's cache.
    pub hub: PathBuf,
}

/// Whose models a name without owner means.
const DEFAULT_OWNER: &str = "sentence-transformers";

/// Lists the encoders in the caches by name, sorted, with their folders.
pub fn installed(folders: &CacheFolders) -> Vec<(String, PathBuf)> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|n| !n.starts_with('.'))
            .collect()
    };
    let own = names(&folders.thema).into_iter().map(|n| n.replacen("--", "/", 1));
    let shared = names(&folders.hub);
    let shared = shared.iter().filter_map(|n| n.strip_prefix("models--")).map(|n| n.replacen("--", "/", 1));
    let mut found: Vec<(String, PathBuf)> = own
        .chain(shared)
        .filter_map(|name| resolve_in(&name, folders).ok().map(|folder| (name, folder)))
        // The hub's cache holds models of all kinds; an encoder lists its modules.
        .filter(|(_, folder)| folder.join("modules.json").is_file())
        .collect();
    found.sort();
    found.dedup();
    found
}

fn resolve_in(name: &str, folders: &CacheFolders) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(path.into());
    }
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |p: &&str| !p.is_empty() && !p.starts_with('.');
    if parts.len() > 2 || !parts.iter().all(plain) {
        return Err(Error::setting("encoder", format!("{name} is no folder and no name like owner/name")));
    }
    // A name without owner is one of sentence-transformers' own models, as in that library.
    let (owner, bare) = match parts[..] {
        [owner, bare] => (owner, bare),
        _ => (DEFAULT_OWNER, name),
    };
    let mut own = vec![folders.thema.join(format!("{owner}--{bare}"))];
    if owner == DEFAULT_OWNER {
        own.push(folders.thema.join(bare));
    }
    if let Some(found) = own.iter().find(|folder| folder.join("config.json").is_file()) {
        return Ok(found.clone());
    }
    let repository = folders.hub.join(format!("models--{owner}--{bare}"));
    if let Ok(revision) = std::fs::read_to_string(repository.join("refs").join("main")) {
        let snapshot = repository.join("snapshots").join(revision.trim());
        if snapshot.join("config.json").is_file() {
            return Ok(snapshot);
        }
    }
    Err(Error::setting(
        "encoder",
        format!(
            "{name} is not on this machine: no folder {name}, none at {}, no snapshot under {}; put the model's files \
             (modules.json, config.json, tokenizer.json, model.safetensors, 1_Pooling/config.json, ...) into one of \
             these, or give the path of a folder that holds them",
            own[own.len() - 1].display(),
            repository.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_the_hubs_cache_by_its_main_revision() {
        let root = tempfile::tempdir().unwrap();
        let folders = CacheFolders { thema: root.path().join("own"), hub: root.path().join("hub") };
        let error = resolve_in("owner/model", &folders).unwrap_err().to_string();
        assert!(error.contains("models--owner--model") && error.contains("tokenizer.json"), "{error}");

        let repository = folders.hub.join("models--owner--model");
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::create_dir_all(repository.join("snapshots/abc")).unwrap();
        std::fs::write(repository.join("refs/main"), "abc\n").unwrap();
        std::fs::write(repository.join("snapshots/abc/config.json"), "{}").unwrap();
        assert_eq!(resolve_in("owner/model", &folders).unwrap(), repository.join("snapshots/abc"));

        for (folder, name) in
            [("owner--model", "owner/model"), ("bare", "bare"), ("bare", "sentence-transformers/bare")]
        {
            std::fs::create_dir_all(folders.thema.join(folder)).unwrap();
            std::fs::write(folders.thema.join(folder).join("config.json"), "{}").unwrap();
            assert_eq!(resolve_in(name, &folders).unwrap(), folders.thema.join(folder));
        }
        assert!(resolve_in("somebody/bare", &folders).is_err(), "another owner's model is another model");
        assert!(resolve_in("../model", &folders).is_err());
    }
}
