//! Finds the files of a table: what a path, a glob, a URL or a hub name stands for.

use super::{Format, TableConfig, hub};
use crate::{Error, Result, error::lacks_bucket, location::Location, positions::Split};
use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::{ObjectMeta, ObjectStoreExt, path::Path};

/// Where to look: a file or a folder, or what in a folder matches a pattern.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) location: Location,
    /// Patterns on the path below `location`; none: all of it.
    pub(super) patterns: Vec<Pattern>,
}

/// A file that was found by its name.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    pub(super) split: Split,
    pub(super) path: Path,
    pub(super) size_bytes: u64,
    pub(super) encoding: Encoding,
}

/// How a file is to be read, as its name and the configuration say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) format: Format,
    pub(super) delimiter: u8,
    pub(super) gzip: bool,
}

/// A file that was looked at.
#[derive(Debug, Clone)]
pub(super) struct DataFile {
    pub(super) found: FoundFile,
    /// The columns, in the types that the table gives them.
    pub(super) schema: SchemaRef,
    /// The rows of each row group, for Parquet.
    pub(super) row_groups: Option<Vec<u64>>,
}

impl DataFile {
    /// The file's name.
    pub(super) fn name(&self) -> &str {
        self.found.split.as_str()
    }

    /// How many rows there are, where the file says so.
    pub(super) fn rows(&self) -> Option<u64> {
        Some(self.row_groups.as_ref()?.iter().sum())
    }
}

/// The extensions that errors list.
const EXTENSIONS: &str = ".parquet, .pq, .csv, .tsv, .jsonl, .ndjson or .json (text also with .gz)";

const GLOB: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Tells what `config.path` stands for. Looks at the local disk only to tell a name from a glob and to find a hub
/// data set.
pub(super) fn resolve(config: &TableConfig) -> Result<Place> {
    let path = config.path.as_str();
    if path.is_empty() {
        return Err(Error::setting(
            "path",
            "is missing, expected a file, a folder, a glob or a URL of rows to read",
        ));
    }
    if let Some(dataset) = path.strip_prefix("hf://") {
        return hub::resolve(path, dataset, config.split.as_deref());
    }
    if let Some(split) = &config.split {
        let reason = format!("is \"{split}\", but {path} is no hub data set (hf://datasets/owner/name)");
        return Err(Error::setting("split", reason));
    }
    let is_web = path.starts_with("http://") || path.starts_with("https://");
    let glob_at = path.find(['*', '?', '[']).filter(|_| !is_web && !std::path::Path::new(path).exists());
    let Some(glob_at) = glob_at else {
        return Ok(Place { location: Location::parse(path)?, patterns: Vec::new() });
    };
    let (folder, pattern) = match path[..glob_at].rfind('/') {
        Some(slash) => path.split_at(slash + 1),
        None => ("./", path),
    };
    let pattern =
        Pattern::new(pattern).map_err(|error| Error::place(path, format!("is no glob: {}", error.msg)))?;
    Ok(Place { location: Location::parse(folder)?, patterns: vec![pattern] })
}

/// Lists the files of `place` in the order of their paths.
pub(super) async fn list(config: &TableConfig, place: &Place) -> Result<Vec<FoundFile>> {
    let location = &place.location;
    if place.patterns.is_empty() && !location.name().ends_with('/') {
        match location.store().head(location.path()).await {
            Ok(meta) => return Ok(vec![only_file(config, location, meta)?]),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(Error::store(location.name(), error)),
        }
    }
    let mut files = below(location).await?;
    if files.is_empty() {
        return Err(Error::place(&config.path, "no such file, and no folder with files in it"));
    }
    if place.patterns.is_empty() {
        files.retain(|(relative, _)| !relative.split('/').any(|name| name.starts_with(['.', '_'])));
    } else {
        files.retain(|(relative, _)| {
            place.patterns.iter().any(|pattern| pattern.matches_with(relative, GLOB))
        });
    }
    files.sort_by(|(_, a), (_, b)| a.location.as_ref().cmp(b.location.as_ref()));
    let seen = files.len();
    let example = files.first().map(|(relative, _)| relative.clone());
    let root = location.name().strip_prefix("./").unwrap_or(location.name());
    let root = if root.is_empty() || root.ends_with('/') { root.into() } else { format!("{root}/") };
    let found: Vec<FoundFile> = files
        .into_iter()
        .filter_map(|(relative, meta)| {
            Some(found(format!("{root}{relative}"), meta, encoding_of(config, &relative)?))
        })
        .collect();
    match (found.is_empty(), example) {
        (false, _) => Ok(found),
        (true, None) => Err(Error::place(&config.path, "nothing matches")),
        (true, Some(example)) => {
            let reason = format!("none of the {seen} files is one of {EXTENSIONS}, for example {example}");
            Err(Error::place(&config.path, reason))
        }
    }
}

/// Tells how to read the file `name`, or nothing if neither it nor the configuration says.
pub(super) fn encoding_of(config: &TableConfig, name: &str) -> Option<Encoding> {
    let lower = name.to_ascii_lowercase();
    let (plain, gzip) = match lower.strip_suffix(".gz") {
        Some(plain) => (plain, true),
        None => (lower.as_str(), false),
    };
    let extension = plain.rsplit('/').next()?.rsplit_once('.').map_or("", |(_, extension)| extension);
    let by_name = match extension {
        "parquet" | "pq" if !gzip => Some(Format::Parquet),
        "csv" | "tsv" => Some(Format::Csv),
        "jsonl" | "ndjson" | "json" => Some(Format::Jsonl),
        _ => None,
    };
    // The type's character is ASCII: `TableConfig::check` has seen to it.
    let delimiter = if extension == "tsv" { b'\t' } else { config.delimiter as u8 };
    Some(Encoding { format: config.format.or(by_name)?, delimiter, gzip })
}

/// All files below a folder with their paths relative to it.
async fn below(location: &Location) -> Result<Vec<(String, ObjectMeta)>> {
    let listing = location.store().list(Some(location.path())).try_collect::<Vec<_>>().await;
    let metas = match listing {
        Ok(metas) => metas,
        Err(error @ object_store::Error::NotFound { .. }) if !lacks_bucket(&error) => Vec::new(),
        Err(error) => return Err(Error::store(location.name(), error)),
    };
    let relative = |meta: ObjectMeta| {
        let parts: Vec<String> =
            meta.location.prefix_match(location.path())?.map(|part| part.as_ref().to_string()).collect();
        (!parts.is_empty()).then(|| (parts.join("/"), meta))
    };
    Ok(metas.into_iter().filter_map(relative).collect())
}

fn only_file(config: &TableConfig, location: &Location, meta: ObjectMeta) -> Result<FoundFile> {
    let name = location.name();
    let Some(encoding) = encoding_of(config, meta.location.as_ref()) else {
        let reason =
            format!("cannot tell the format, expected {EXTENSIONS}, or `format`: parquet, csv or jsonl");
        return Err(Error::place(name, reason));
    };
    Ok(found(name.into(), meta, encoding))
}

fn found(name: String, meta: ObjectMeta, encoding: Encoding) -> FoundFile {
    FoundFile { split: Split::new(name), path: meta.location, size_bytes: meta.size, encoding }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_tells_the_format_and_the_configuration_overrules_it() {
        let config = TableConfig::default();
        let format = |name| encoding_of(&config, name).map(|encoding| encoding.format);
        assert_eq!(format("a/b.PARQUET"), Some(Format::Parquet));
        assert_eq!(format("a.json.gz"), Some(Format::Jsonl));
        assert_eq!(format("a.csv/b"), None);
        assert_eq!(format("a.parquet.gz"), None);
        assert_eq!(encoding_of(&config, "a.tsv.gz").unwrap().delimiter, b'\t');
        let config = TableConfig { format: Some(Format::Csv), delimiter: ';', ..config };
        let encoding = Encoding { format: Format::Csv, delimiter: b';', gzip: false };
        assert_eq!(encoding_of(&config, "a.txt"), Some(encoding));
    }
}
