//! A place that rows are read from or written to: one kind of handle for the local disk and for every object store.

use crate::{Error, Result};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path};
use std::fmt;
use std::path::{Component, PathBuf};
use std::sync::Arc;
use url::Url;

/// A file, or a folder, in a store.
#[derive(Debug, Clone)]
pub struct Location {
    store: Arc<dyn ObjectStore>,
    path: Path,
    name: String,
    /// What stands before the path of a file in this store to make one name of both.
    root: String,
    is_local: bool,
}

/// The prefixes of the environment variables that hold stores' settings and credentials.
const STORE_VARIABLES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// What changes when the bytes of a file do, as far as its store tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileVersion {
    tag: Option<String>,
    bytes: u64,
    /// On a disk in microseconds. In a store in seconds: what a list tells to the millisecond, a look at one file may not.
    modified: Option<i64>,
}

impl FileVersion {
    /// The version of a file that never changes.
    pub fn of_size(bytes: u64) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Whether this is the version of the same bytes. A list may tell less than a look at one file.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = self.bytes == other.bytes;
        match (&self.tag, &other.tag, self.modified, other.modified) {
            (Some(tag), Some(other), ..) => same && tag == other,
            (_, _, Some(modified), Some(other)) => same && modified == other,
            _ => same,
        }
    }
}

impl fmt::Display for FileVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tag, self.modified) {
            (Some(tag), _) => f.write_str(tag),
            (None, Some(modified)) => write!(f, "{}-{modified}", self.bytes),
            (None, None) => write!(f, "{}", self.bytes),
        }
    }
}

impl Location {
    /// Takes `place`, a local path or a URL (`file`, and with the feature `cloud` `s3`, `gs`, `az`, `abfss`, `http`,
    /// `https`). A store's settings and credentials come from the environment (`AWS_...`, `GOOGLE_...`, `AZURE_...`).
    /// Nothing is read.
    pub fn parse(place: &str) -> Result<Self> {
        if place.is_empty() {
            return Err(Error::place("path", "is empty"));
        }
        let Some((scheme, _)) = place.split_once("://") else {
            return Self::local(place);
        };
        let url = Url::parse(place).map_err(|error| Error::place(place, error.to_string()))?;
        if scheme == "file" {
            let path = url.to_file_path().map_err(|()| Error::place(place, "is no path on this machine"))?;
            return Self::local(&path.to_string_lossy());
        }
        let choices = if cfg!(feature = "cloud") {
            "expected a local path, file://, s3://, gs://, az://, abfss://, http:// or https://"
        } else {
            "expected a local path or file:// (this program was built without the feature \"cloud\")"
        };
        let known = ["s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "http", "https"];
        if !cfg!(feature = "cloud") || !known.contains(&scheme) {
            return Err(Error::place(place, format!("cannot read from \"{scheme}://\", {choices}")));
        }
        let settings = std::env::vars()
            .filter(|(key, _)| STORE_VARIABLES.iter().any(|prefix| key.starts_with(prefix)))
            .map(|(key, value)| (key.to_ascii_lowercase(), value));
        let shown = without_secrets(place);
        let (store, path) =
            object_store::parse_url_opts(&url, settings).map_err(|error| Error::store(&shown, error))?;
        let mut root = url;
        root.set_query(None);
        root.set_fragment(None);
        // It fails where there is none to take away; before an @ of abfss stands the container.
        let _ = root.set_password(None);
        if !scheme.starts_with("abfs") {
            let _ = root.set_username("");
        }
        if let Ok(mut parts) = root.path_segments_mut() {
            parts.pop_if_empty();
            path.parts().for_each(|_| {
                parts.pop();
            });
        }
        let root = root.as_str().trim_end_matches('/').replacen("s3a://", "s3://", 1);
        Ok(Self { store: store.into(), path, name: shown, root, is_local: false })
    }

    /// Makes a location of its parts: a store, the path in it, and the name that errors show.
    pub fn new(store: Arc<dyn ObjectStore>, path: Path, name: impl Into<String>) -> Self {
        let name = name.into();
        let start = name.find("://").map_or(0, |at| at + 3);
        let end = name[start..].find('/').map_or(name.len(), |at| start + at);
        let root = name[..end].to_string();
        Self { store, path, name, root, is_local: false }
    }

    /// The same place under another name.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The path in the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path or URL as the user wrote it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that is here, in a form by which others find it in [`Self::store`]: what stands before the path tells a
    /// disk from a store, and nothing more.
    pub fn folder_url(&self) -> Result<Url> {
        let wrong = |reason: String| Error::place(&self.name, reason);
        if self.is_local {
            let url = Url::from_directory_path(self.on_disk());
            return url.map_err(|()| wrong("is no path on this machine".into()));
        }
        let mut url = Url::parse("store://store/").map_err(|error| wrong(error.to_string()))?;
        url.set_path(&format!("/{}/", self.path));
        Ok(url)
    }

    /// Makes the folder that is to be here, where there are folders.
    pub fn make_folder(&self) -> Result<()> {
        if !self.is_local {
            return Ok(());
        }
        let made = std::fs::create_dir_all(self.on_disk());
        made.map_err(|error| Error::place(&self.name, format!("no folder can be made: {error}")))
    }

    /// The file at `path` in this store, by a name that is the same wherever the program is started.
    pub fn url_of(&self, path: &Path) -> String {
        if !self.is_local {
            return format!("{}/{path}", self.root);
        }
        // By whatever links it is reached.
        let plain = format!("/{path}");
        let found = std::fs::canonicalize(&plain).map(|found| found.to_string_lossy().into_owned());
        format!("file://{}", found.unwrap_or(plain))
    }

    /// What changes when the bytes of a file in this store do.
    pub fn version_of(&self, meta: &ObjectMeta) -> FileVersion {
        // On a disk the tag has the file's number in it, which a copy does not keep.
        let tag = meta.e_tag.as_ref().filter(|_| !self.is_local);
        let tag = tag.map(|tag| tag.trim_matches('"').to_string());
        let modified = match self.is_local {
            true => meta.last_modified.timestamp_micros(),
            false => meta.last_modified.timestamp(),
        };
        FileVersion { tag, bytes: meta.size, modified: Some(modified) }
    }

    /// Whether the file or folder that is here lies in the folder `other`, or is it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.is_same_store(other) && self.path.prefix_matches(&other.path)
    }

    /// Whether this is in the same store.
    pub fn is_same_store(&self, other: &Self) -> bool {
        self.is_local == other.is_local && self.root == other.root
    }

    /// Whether this is a place on this machine.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// What is called `name` in the folder that is here.
    pub fn within(&self, name: &str) -> Self {
        let path = self.path.clone().join(name);
        Self { path, name: format!("{}/{name}", self.name.trim_end_matches('/')), ..self.clone() }
    }

    /// Tells whether there is a file here.
    pub async fn exists(&self) -> Result<bool> {
        match self.store.head(&self.path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Error::store(&self.name, error)),
        }
    }

    /// Tells whether this is a folder of this machine. (Object stores have no folders.)
    pub fn is_local_folder(&self) -> bool {
        self.is_local && self.on_disk().is_dir()
    }

    /// Tells whether this is a file of this machine.
    pub fn is_local_file(&self) -> bool {
        self.is_local && self.on_disk().is_file()
    }

    /// Fails unless a folder could be made and written to here, where this is a place on this machine; leaves nothing.
    pub fn check_writable(&self) -> Result<()> {
        if !self.is_local {
            return Ok(());
        }
        // In the folder that is there: who makes one and takes it away again takes it from another run that has begun to
        // use it.
        let folder = self.on_disk();
        let nearest = folder.ancestors().find(|folder| folder.exists()).unwrap_or(&folder);
        let probe = nearest.join(format!(".thema-{}", uuid::Uuid::new_v4().simple()));
        let written = std::fs::write(&probe, "").and_then(|()| std::fs::remove_file(&probe));
        written.map_err(|error| Error::place(&self.name, format!("cannot be written to: {error}")))
    }

    /// Tells whether this is the file at `path` in the store of `other`, under whatever name.
    pub fn is_file(&self, other: &Self, path: &Path) -> bool {
        if !(self.is_local && other.is_local) {
            return self.is_same_store(other) && self.path == *path;
        }
        let other = std::fs::canonicalize(format!("/{path}"));
        matches!((std::fs::canonicalize(self.on_disk()), other), (Ok(a), Ok(b)) if a == b)
    }

    /// The path on this machine, where it is a place there.
    pub(crate) fn on_disk(&self) -> PathBuf {
        format!("/{}", self.path).into()
    }

    fn local(place: &str) -> Result<Self> {
        let path = std::path::absolute(place)
            .map_err(|error| error.to_string())
            .and_then(|path| Path::from_absolute_path(without_dots(&path)).map_err(|error| error.to_string()))
            .map_err(|reason| Error::place(place, reason))?;
        Ok(Self {
            store: Arc::new(LocalFileSystem::new()),
            path,
            name: place.into(),
            root: String::new(),
            is_local: true,
        })
    }
}

/// The address without what may be a secret in it: a password, a signature.
pub(crate) fn without_secrets(place: &str) -> String {
    let Ok(mut url) = Url::parse(place) else { return place.into() };
    if !place.contains("://")
        || (url.username().is_empty() && url.password().is_none() && url.query().is_none())
    {
        return place.into();
    }
    // It fails where there is none to take away; before an @ of abfss stands the container.
    let _ = url.set_password(None);
    if !url.scheme().starts_with("abfs") {
        let _ = url.set_username("");
    }
    url.set_query(None);
    url.into()
}

/// The path without `..`, which no store takes: it leads to the folder above, of a link's target where there is a link.
fn without_dots(path: &std::path::Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain = std::fs::canonicalize(&plain).unwrap_or(plain);
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_through_a_folder_above_is_the_place_that_the_system_means() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/x"), "x").unwrap();
        let parse = |path: &str| Location::parse(folder.path().join(path).to_str().unwrap()).unwrap();
        assert!(parse("a/b/../x").exists().await.unwrap());
        assert!(parse("a/b/../../a/./x").exists().await.unwrap());
        // What does not exist yet is a place, too.
        assert_eq!(parse("a/new/../y").path(), parse("a/y").path());
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(folder.path().join("a/b"), folder.path().join("link")).unwrap();
            assert!(parse("link/../x").exists().await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_local_path_and_its_url_are_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a file, ünïcode.txt");
        std::fs::write(&file, "x").unwrap();
        let by_path = Location::parse(file.to_str().unwrap()).unwrap();
        let by_url = Location::parse(Url::from_file_path(&file).unwrap().as_str()).unwrap();
        assert!(by_path.exists().await.unwrap());
        assert_eq!(by_path.path(), by_url.path());
    }

    #[test]
    fn a_folder_that_can_be_written_to_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let parse = |path: &str| Location::parse(folder.path().join(path).to_str().unwrap()).unwrap();
        parse("new/deep").check_writable().unwrap();
        parse("").check_writable().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let error = parse("file/below").check_writable().unwrap_err();
        assert!(error.to_string().contains("file/below: cannot be written to"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn a_file_has_one_name_which_holds_no_secret() {
        let url = |place: &str| {
            let place = Location::parse(place).unwrap();
            (place.url_of(place.path()), place.name().to_string())
        };
        let file = |bucket: &str| format!("https://a.blob.core.windows.net/{bucket}/x/y.parquet");
        for (place, named) in [
            ("s3a://lake/x/y.parquet".to_string(), "s3://lake/x/y.parquet".to_string()),
            ("s3://lake/x/y.parquet".into(), "s3://lake/x/y.parquet".into()),
            (
                "abfss://lake@a.dfs.core.windows.net/x/y.parquet".into(),
                "abfss://lake@a.dfs.core.windows.net/x/y.parquet".into(),
            ),
            (file("one"), file("one")),
            (file("two"), file("two")),
            ("https://me:guess@host/x/y.parquet?sig=secret".into(), "https://host/x/y.parquet".into()),
        ] {
            let (found, shown) = url(&place);
            assert_eq!(found, named);
            assert!(!shown.contains("guess") && !shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn an_unknown_scheme_is_named_with_the_choices() {
        let error = Location::parse("ftp://host/x").unwrap_err();
        assert!(error.to_string().contains("\"ftp://\", expected a local path"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
