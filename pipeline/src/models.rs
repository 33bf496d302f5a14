//! Where bundles lie: a folder, local or in an object store, of numbered versions.
//!
//! `MODEL/v1/`, `MODEL/v2/`, ... each hold one bundle. A version's parts are written first, its manifest last, and no
//! file of a version is ever replaced: so a version is whole or it does not exist, two writers never mix, and readers
//! take the highest version that has a manifest.

use crate::location::Location;
use crate::worker::on_worker;
use crate::{Error, Result};
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use operators::bundle::{self, MANIFEST, Manifest, Wanted};
use operators::model::Model;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A bundle that was found.
#[derive(Debug)]
pub struct Found {
    /// Its version.
    pub version: u64,
    /// Its manifest.
    pub manifest: Manifest,
    /// The folder of the version, as a user would write it.
    pub folder: String,
}

impl Found {
    /// The model's folder, in which its versions lie; fails for a version that was copied out of one.
    pub fn model(&self) -> Result<String> {
        let folder = self.folder.trim_end_matches('/');
        match folder.rsplit_once('/').unwrap_or((".", folder)) {
            (model, version) if version == format!("v{}", self.version) => Ok(model.to_string()),
            _ => {
                let reason = "is one version of a model by itself, so that no other can be written beside it: name its \
                              folder v1 in one for the model";
                Err(Error::place(&self.folder, reason))
            }
        }
    }
}

/// Fails if `place` holds a model already, unless `overwrite` (which adds a version and leaves the old ones alone).
pub async fn check_free(place: &str, overwrite: bool) -> Result<()> {
    let location = Location::parse(place)?;
    check_folder(&location)?;
    location.check_writable()?;
    if overwrite {
        return Ok(());
    }
    match versions(&location).await?.last() {
        None => Ok(()),
        Some(version) => Err(Error::place(
            place,
            format!("holds a model already (version {version}); --overwrite adds a version beside it"),
        )),
    }
}

/// Fails if `location` is a file.
fn check_folder(location: &Location) -> Result<()> {
    if location.is_local_file() {
        return Err(Error::place(location.name(), "is a file, expected a model's folder"));
    }
    Ok(())
}

/// Writes `model` and `extras` (files beside the bundle, such as the report) as a new version, and returns its folder.
pub async fn save(place: &str, model: &Arc<Model>, extras: Vec<(&str, Vec<u8>)>) -> Result<String> {
    let location = Location::parse(place)?;
    let model = Arc::clone(model);
    let mut parts = on_worker(move || Ok(bundle::encode(&model)?)).await?;
    let Some((name, manifest)) = parts.pop() else {
        return Err(Error::Internal("a bundle without parts".into()));
    };
    // Another writer may be at the same number, or one that crashed has left parts there: who finds a file of a
    // version goes on to the next.
    let mut version = versions(&location).await?.last().copied().unwrap_or(0) + 1;
    loop {
        let folder = location.path().clone().join(format!("v{version}"));
        let mut files = parts.iter().chain(&extras).map(|(name, bytes)| (*name, bytes)).collect::<Vec<_>>();
        files.push((name, &manifest));
        if put_all(&location, &folder, &files, PutMode::Create).await? {
            // The newest version's report and map also lie where people look first.
            let extras: Vec<_> = extras.iter().map(|(name, bytes)| (*name, bytes)).collect();
            put_all(&location, location.path(), &extras, PutMode::Overwrite).await?;
            return Ok(under(place, &format!("v{version}")));
        }
        version += 1;
    }
}

/// Puts named bytes into a folder, in order; false as soon as another one is there already that may not be replaced.
async fn put_all(
    location: &Location,
    folder: &object_store::path::Path,
    files: &[(&str, &Vec<u8>)],
    mode: PutMode,
) -> Result<bool> {
    for (name, bytes) in files {
        let path = folder.clone().join(*name);
        let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
        match location.store().put_opts(&path, PutPayload::from((*bytes).clone()), options).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => {
                // It may be our own: where an answer is lost, the store is asked again.
                let there = location.store().get(&path).await;
                let there =
                    async { there?.bytes().await }.await.map_err(|e| Error::store(path.to_string(), e))?;
                if there != bytes.as_slice() {
                    return Ok(false);
                }
            }
            Err(e) => return Err(Error::store(path.to_string(), e)),
        }
    }
    Ok(true)
}

/// Finds the newest bundle at `place`, if there is one.
pub async fn newest(place: &str) -> Result<Option<Found>> {
    match versions(&Location::parse(place)?).await?.is_empty() {
        true => Ok(None),
        false => find(place).await.map(Some),
    }
}

/// Finds the newest bundle at `place`, or the one that `place` names itself (`MODEL/v3`).
pub async fn find(place: &str) -> Result<Found> {
    let location = Location::parse(place)?;
    check_folder(&location)?;
    if let Some(bytes) = read_if_there(&location, MANIFEST).await? {
        let number = location.path().filename().and_then(|n| n.strip_prefix('v')?.parse().ok());
        let manifest = bundle::manifest(Path::new(&under(place, MANIFEST)), &bytes)?;
        return Ok(Found { version: number.unwrap_or(1), manifest, folder: place.into() });
    }
    let Some(version) = versions(&location).await?.last().copied() else {
        return Err(Error::place(
            place,
            "holds no model: expected a folder that `thema fit` wrote, with v1/model.json",
        ));
    };
    let folder = under(place, &format!("v{version}"));
    let bytes = read(&Location::parse(&folder)?, MANIFEST).await?;
    let manifest = bundle::manifest(Path::new(&under(&folder, MANIFEST)), &bytes)?;
    Ok(Found { version, manifest, folder })
}

/// Loads what is wanted of the bundle that was found, checking each part's hash.
pub async fn load(found: &Found, wanted: Wanted) -> Result<Model> {
    let location = Location::parse(&found.folder)?;
    let mut parts = BTreeMap::new();
    for name in wanted.parts(&found.manifest) {
        parts.insert(name.to_owned(), read(&location, name).await?);
    }
    let (folder, manifest) = (PathBuf::from(&found.folder), found.manifest.clone());
    on_worker(move || {
        let missing = |name: &str| operators::Error::model(folder.join(name), "is not in the bundle");
        let part = |name: &str| parts.get(name).cloned().ok_or_else(|| missing(name));
        Ok(bundle::decode(&folder, &manifest, wanted, part)?)
    })
    .await
}

/// The versions at `location` that have a manifest, rising.
async fn versions(location: &Location) -> Result<Vec<u64>> {
    let error = |e| Error::store(location.name(), e);
    let listed = match location.store().list_with_delimiter(Some(location.path())).await {
        Ok(listed) => listed,
        Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
        Err(e) => return Err(error(e)),
    };
    let mut found = Vec::new();
    for folder in listed.common_prefixes {
        let Some(number) = folder.filename().and_then(|n| n.strip_prefix('v')?.parse().ok()) else {
            continue;
        };
        match location.store().head(&folder.join(MANIFEST)).await {
            Ok(_) => found.push(number),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(error(e)),
        }
    }
    found.sort_unstable();
    Ok(found)
}

async fn read(folder: &Location, name: &str) -> Result<Vec<u8>> {
    read_if_there(folder, name).await?.ok_or_else(|| {
        operators::Error::model(Path::new(folder.name()).join(name), "is missing from the bundle").into()
    })
}

async fn read_if_there(folder: &Location, name: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.path().clone().join(name);
    let failed = |e| Error::store(under(folder.name(), name), e);
    match folder.store().get(&path).await {
        Ok(found) => Ok(Some(found.bytes().await.map_err(failed)?.to_vec())),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// `place/name`, as a user would write it.
fn under(place: &str, name: &str) -> String {
    format!("{}/{name}", place.trim_end_matches('/'))
}
