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
    /// thema's own: one folder an encoder, by the last part of its name.
    pub thema: PathBuf,
    /// The Hugging Face hub's cache.
    pub hub: PathBuf,
}

fn resolve_in(name: &str, folders: &CacheFolders) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(path.into());
    }
    let parts: Vec<&str> = name.split('/').collect();
    let plain = |p: &&str| !p.is_empty() && !p.starts_with('.');
    if parts.len() > 2 || !parts.iter().all(|p| plain(&p)) {
        return Err(Error::setting("encoder", format!("{name} is no folder and no name like owner/name")));
    }
    let own = folders.thema.join(parts[parts.len() - 1]);
    if own.join("config.json").is_file() {
        return Ok(own);
    }
    // A name without owner is one of sentence-transformers' own models, as in that library.
    let repository =
        if parts.len() == 2 { name.replace('/', "--") } else { format!("sentence-transformers--{name}") };
    let repository = folders.hub.join(format!("models--{repository}"));
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
            own.display(),
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

        std::fs::create_dir_all(folders.thema.join("model")).unwrap();
        std::fs::write(folders.thema.join("model/config.json"), "{}").unwrap();
        assert_eq!(resolve_in("owner/model", &folders).unwrap(), folders.thema.join("model"));
        assert!(resolve_in("../model", &folders).is_err());
    }
}
