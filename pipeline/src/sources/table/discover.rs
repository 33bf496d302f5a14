//! Finds the files of a table: what a path, a glob, a URL or a hub name stands for.

use super::{Format, TableConfig, hub};
use crate::{
    Error, Result,
    error::lacks_bucket,
    location::{FileVersion, Location},
    positions::Split,
};
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::{ObjectMeta, ObjectStoreExt, path::Path};
use percent_encoding::percent_decode_str;
use std::sync::Arc;

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
    /// What changes when the file's bytes do.
    pub(super) version: FileVersion,
    /// The values of partition columns, as the log of a table or the names of folders tell them; nothing stands for null.
    pub(super) partition: Vec<(String, Option<String>)>,
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
    /// The row groups, for Parquet.
    pub(super) row_groups: Option<Vec<RowGroupSize>>,
    /// The columns that it does not hold, each of one value for all its rows.
    pub(super) constants: Arc<[Constant]>,
}

/// How large a row group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowGroupSize {
    pub(super) rows: u64,
    /// As it lies in the file.
    pub(super) bytes: u64,
}

/// A column of one value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub(super) field: FieldRef,
    pub(super) value: ScalarValue,
}

impl DataFile {
    /// The file's name.
    pub(super) fn name(&self) -> &str {
        self.found.split.as_str()
    }

    /// The columns, those of one value behind those that it holds.
    pub(super) fn columns(&self) -> impl Iterator<Item = &FieldRef> {
        self.schema.fields().iter().chain(self.constants.iter().map(|constant| &constant.field))
    }

    /// How many rows there are, where the file says so.
    pub(super) fn rows(&self) -> Option<u64> {
        Some(self.row_groups.as_ref()?.iter().map(|group| group.rows).sum())
    }
}

impl Place {
    /// Whether a file at `other` would be found here.
    pub(super) fn would_have(&self, other: &Location) -> bool {
        if !other.is_within(&self.location) {
            return false;
        }
        let parts = other.path().prefix_match(self.location.path()).into_iter().flatten();
        let relative: Vec<String> = parts.map(|part| part.as_ref().to_string()).collect();
        self.takes(&relative.join("/"))
    }

    /// Whether the file at the path `relative` is one of those that are meant.
    fn takes(&self, relative: &str) -> bool {
        match self.patterns.as_slice() {
            [] => !relative.split('/').any(|name| name.starts_with(['.', '_'])),
            patterns => patterns.iter().any(|pattern| pattern.matches_with(relative, GLOB)),
        }
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
    files.retain(|(relative, _)| place.takes(relative));
    files.sort_by(|(_, a), (_, b)| a.location.as_ref().cmp(b.location.as_ref()));
    let seen = files.len();
    let example = files.first().map(|(relative, _)| relative.clone());
    let root = location.name().strip_prefix("./").unwrap_or(location.name());
    let root = if root.is_empty() || root.ends_with('/') { root.into() } else { format!("{root}/") };
    let found: Vec<FoundFile> = files
        .into_iter()
        .filter_map(|(relative, meta)| {
            let encoding = encoding_of(config, &relative)?;
            let file = found(format!("{root}{relative}"), location, meta, encoding);
            Some(FoundFile { partition: partition_of(&relative), ..file })
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
    Ok(found(name.into(), location, meta, encoding))
}

fn found(name: String, location: &Location, meta: ObjectMeta, encoding: Encoding) -> FoundFile {
    let version = location.version_of(&meta);
    let (split, partition) = (Split::new(name), Vec::new());
    FoundFile { split, path: meta.location, size_bytes: meta.size, encoding, version, partition }
}

/// What stands for null in a folder's name, as Hive writes it.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns that folders on the way to a file tell: `year=2024/month=1/`.
fn partition_of(relative: &str) -> Vec<(String, Option<String>)> {
    let Some((folders, _)) = relative.rsplit_once('/') else { return Vec::new() };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    folders
        .split('/')
        .filter_map(|folder| folder.split_once('='))
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (decoded(name), (value != NULL).then(|| decoded(value))))
        .collect()
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

    #[test]
    fn folders_tell_columns_as_hive_writes_them() {
        let told = |path| partition_of(path);
        let column = |name: &str, value: &str| (name.to_string(), Some(value.to_string()));
        assert_eq!(
            told("year=2024/x/field=a%2Fb/0.parquet"),
            [column("year", "2024"), column("field", "a/b")]
        );
        assert_eq!(told("year=__HIVE_DEFAULT_PARTITION__/0.parquet"), [("year".into(), None)]);
        assert_eq!(told("a=b.parquet"), []);
        assert_eq!(told("=x/0.parquet"), []);
    }
}
