//! Data sets of the Hugging Face hub, from its local cache folder; nothing is downloaded.
//!
//! The cache holds `datasets--OWNER--NAME/refs/REVISION` (a file with a commit) and `.../snapshots/COMMIT/` (the
//! repository's files). Which files make a subset and a split is said by the header of the repository's README
//! (`configs:`), else by the files' names, as the hub's own library does it: `train`, `validation`, `test`.

use super::{
    TableConfig,
    discover::{Place, encoding_of},
};
use crate::{Error, Result, error::quoted, location::Location};
use glob::{MatchOptions, Pattern};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Resolves what follows `hf://` in `name`.
pub(super) fn resolve(name: &str, dataset: &str, split: Option<&str>) -> Result<Place> {
    resolve_in(&cache_folder(), name, dataset, split)
}

/// The hub's cache: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
fn cache_folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").unwrap_or_default().join(".cache");
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
        .unwrap_or_else(|| variable("XDG_CACHE_HOME").unwrap_or_else(home).join("huggingface/hub"))
}

fn resolve_in(cache: &Path, name: &str, dataset: &str, split: Option<&str>) -> Result<Place> {
    let refuse = |reason: String| Error::place(name, reason);
    let Some(dataset) = dataset.strip_prefix("datasets/") else {
        return Err(refuse("expected hf://datasets/owner/name[/subset][@revision]".into()));
    };
    let Address { repository, inside, revision } = Address::parse(dataset)
        .ok_or_else(|| refuse("expected hf://datasets/owner/name[/subset][@revision]".into()))?;
    let folder = cache.join(format!("datasets--{}", repository.replace('/', "--")));
    let snapshot = snapshot(&folder, &revision).ok_or_else(|| {
        refuse(format!(
            "is not in the hub cache: looked for revision \"{revision}\" in {} (set HF_HOME or HF_HUB_CACHE for \
             another cache); where there is network, run `hf download {repository} --repo-type dataset --revision \
             {revision}`, then copy the folder datasets--{} there",
            folder.display(),
            repository.replace('/', "--"),
        ))
    })?;
    let files = files_below(&snapshot);
    let chosen = choose(&snapshot, &files, inside.as_deref(), split.unwrap_or("train")).map_err(refuse)?;
    if chosen.is_empty() {
        let inside = inside.map_or_else(String::new, |inside| format!(" for \"{inside}\""));
        return Err(refuse(format!(
            "no data files{inside} in {}: the download is incomplete; run `hf download {repository} --repo-type \
             dataset --revision {revision}` where there is network and copy the missing files there",
            snapshot.display(),
        )));
    }
    let patterns = chosen
        .iter()
        .map(|file| Pattern::new(&Pattern::escape(file)))
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Error::Internal(error.to_string()))?;
    let folder = Location::parse(&snapshot.to_string_lossy())?;
    let revision = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let shown = format!("hf://datasets/{repository}@{}", revision.get(..12).unwrap_or(&revision));
    Ok(Place { location: folder.named(shown), patterns })
}

/// `owner/name[@revision][/inside][@revision]`.
struct Address {
    repository: String,
    inside: Option<String>,
    revision: String,
}

impl Address {
    fn parse(text: &str) -> Option<Self> {
        let (before, after) =
            text.split_once('@').map_or((text, None), |(before, after)| (before, Some(after)));
        let mut revision = "main".to_string();
        let mut parts: Vec<&str> = before.trim_matches('/').split('/').collect();
        if let Some(after) = after {
            let after: Vec<&str> = after.trim_matches('/').split('/').collect();
            // A revision is one part, or a reference such as refs/convert/parquet.
            let length = if after[0] == "refs" { 3 } else { 1 };
            revision = after.get(..length)?.join("/").replace("%2F", "/");
            parts.extend(&after[length..]);
        }
        if parts.iter().any(|part| part.is_empty() || *part == "..") || revision.is_empty() {
            return None;
        }
        let owned = parts.len().min(2);
        let inside = (parts.len() > owned).then(|| parts[owned..].join("/"));
        Some(Self { repository: parts[..owned].join("/"), inside, revision })
    }
}

/// The folder of a revision: a commit, or what a reference names.
fn snapshot(folder: &Path, revision: &str) -> Option<PathBuf> {
    let commit = match std::fs::read_to_string(folder.join("refs").join(revision)) {
        Ok(commit) => commit.trim().to_string(),
        Err(_) => revision.to_string(),
    };
    Some(folder.join("snapshots").join(commit)).filter(|snapshot| snapshot.is_dir())
}

/// All files below `folder`, as paths relative to it, sorted. (A snapshot's files are links to the cache's blobs; a
/// link without its blob is no file.)
fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut open = vec![(folder.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
            if name.starts_with('.') {
                continue;
            }
            if metadata.is_dir() {
                open.push((entry.path(), format!("{prefix}{name}/")));
            } else {
                files.push(format!("{prefix}{name}"));
            }
        }
    }
    files.sort();
    files
}

/// The header of a data set's README, as far as it says which files to read.
#[derive(Debug, Default, Deserialize)]
struct Card {
    #[serde(default)]
    configs: Vec<Subset>,
}

#[derive(Debug, Deserialize)]
struct Subset {
    config_name: String,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    data_dir: Option<String>,
    #[serde(default)]
    data_files: Option<OneOrMany<DataFiles>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum DataFiles {
    Pattern(String),
    Split { split: String, path: OneOrMany<String> },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Chooses the data files of a subset (or a path inside) and a split.
fn choose(
    snapshot: &Path,
    files: &[String],
    inside: Option<&str>,
    split: &str,
) -> std::result::Result<Vec<String>, String> {
    let card = card(snapshot)?;
    let names: Vec<String> = card.configs.iter().map(|subset| subset.config_name.clone()).collect();
    let named = |name: &str| card.configs.iter().find(|subset| subset.config_name == name);
    let subset = match inside {
        Some(inside) => match named(inside) {
            Some(subset) => Some(subset),
            None => return choose_by_path(files, inside, split, &names),
        },
        None => match card.configs.as_slice() {
            [] => None,
            [only] => Some(only),
            many => match many.iter().find(|subset| subset.default).or_else(|| named("default")) {
                Some(subset) => Some(subset),
                None => return Err(format!("has several subsets, add one to the name: {}", quoted(&names))),
            },
        },
    };
    let folder = subset.and_then(|subset| subset.data_dir.as_deref()).unwrap_or("").trim_matches('/');
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let Some(patterns) = subset.and_then(|subset| subset.data_files.as_ref()) else {
        let below = files.iter().filter(|file| file.starts_with(&folder)).cloned().collect();
        return of_split(below, split);
    };
    let said: Vec<&DataFiles> = patterns.as_slice().iter().collect();
    let splits: Vec<String> = said
        .iter()
        .filter_map(|item| if let DataFiles::Split { split, .. } = item { Some(split.clone()) } else { None })
        .collect();
    if !splits.is_empty() && !splits.iter().any(|known| known == split) {
        return Err(format!("has no split \"{split}\"; there are: {}", quoted(&splits)));
    }
    let mut chosen = Vec::new();
    for item in said {
        let paths = match item {
            DataFiles::Pattern(path) => std::slice::from_ref(path),
            DataFiles::Split { split: of, path } if of == split => path.as_slice(),
            DataFiles::Split { .. } => continue,
        };
        for path in paths {
            chosen.extend(matching(files, &format!("{folder}{path}"))?);
        }
    }
    chosen.sort();
    chosen.dedup();
    if splits.is_empty() { of_split(chosen, split) } else { Ok(chosen) }
}

/// A file, a glob or a folder inside the repository.
fn choose_by_path(
    files: &[String],
    inside: &str,
    split: &str,
    subsets: &[String],
) -> std::result::Result<Vec<String>, String> {
    let exact = matching(files, inside)?;
    if !exact.is_empty() {
        return Ok(exact);
    }
    let folder = format!("{inside}/");
    let below: Vec<String> = files.iter().filter(|file| file.starts_with(&folder)).cloned().collect();
    if below.is_empty() {
        return Err(format!("has no subset, folder or file \"{inside}\"; subsets: {}", quoted(subsets)));
    }
    of_split(below, split)
}

fn matching(files: &[String], pattern: &str) -> std::result::Result<Vec<String>, String> {
    let pattern = pattern.trim_start_matches("./");
    let compiled =
        Pattern::new(pattern).map_err(|error| format!("\"{pattern}\" is no glob: {}", error.msg))?;
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
    Ok(files.iter().filter(|file| compiled.matches_with(file, options)).cloned().collect())
}

/// Those of `files` that hold data of `split`, by their names; all of them are `train` if no name tells a split.
fn of_split(files: Vec<String>, split: &str) -> std::result::Result<Vec<String>, String> {
    let is_data = |file: &String| {
        let name = file.rsplit('/').next().unwrap_or(file);
        encoding_of(&TableConfig::default(), file).is_some() && !name.starts_with('_') && !is_metadata(name)
    };
    let data: Vec<(Option<String>, String)> =
        files.into_iter().filter(is_data).map(|file| (split_in(&file), file)).collect();
    let mut splits: Vec<String> = data.iter().filter_map(|(split, _)| split.clone()).collect();
    splits.sort();
    splits.dedup();
    if splits.is_empty() && !data.is_empty() {
        if split != "train" {
            return Err(format!("has no split \"{split}\"; there are: \"train\""));
        }
        return Ok(data.into_iter().map(|(_, file)| file).collect());
    }
    if !splits.is_empty() && !splits.iter().any(|known| known == split) {
        return Err(format!("has no split \"{split}\"; there are: {}", quoted(&splits)));
    }
    Ok(data.into_iter().filter(|(of, _)| of.as_deref() == Some(split)).map(|(_, file)| file).collect())
}

/// Files that tools leave beside the data.
fn is_metadata(name: &str) -> bool {
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"]
        .contains(&name)
}

/// The split that a file's name or its folders tell: a word of it, or what stands before `-00000-of-00001`.
fn split_in(file: &str) -> Option<String> {
    let keyword = |word: &str| match word.to_ascii_lowercase().as_str() {
        "train" | "training" => Some("train"),
        "validation" | "valid" | "dev" | "val" => Some("validation"),
        "test" | "testing" | "eval" | "evaluation" => Some("test"),
        _ => None,
    };
    let name = file.rsplit('/').next()?;
    if let Some((before, _)) = name.split_once("-of-") {
        let shard = before.rsplit_once('-').filter(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()));
        if let Some((split, _)) = shard {
            return Some(keyword(split).unwrap_or(split).into());
        }
    }
    let words = |part: &'_ str| part.split(|c: char| !c.is_ascii_alphanumeric()).find_map(keyword);
    file.rsplit('/').find_map(words).map(Into::into)
}

/// Reads the header of the README; a data set without one has no subsets.
fn card(snapshot: &Path) -> std::result::Result<Card, String> {
    let Ok(text) = std::fs::read_to_string(snapshot.join("README.md")) else {
        return Ok(Card::default());
    };
    let text = text.replace("\r\n", "\n");
    let Some((header, _)) = text.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---")) else {
        return Ok(Card::default());
    };
    serde_saphyr::from_str(header).map_err(|error| {
        let reason = crate::error::first_line(&error.to_string());
        format!("the header of {} cannot be read: {reason}", snapshot.join("README.md").display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A cache with one data set of these files (empty ones).
    fn cache(readme: &str, files: &[&str]) -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("datasets--acme--papers");
        fs::create_dir_all(folder.join("refs")).unwrap();
        fs::write(folder.join("refs/main"), COMMIT).unwrap();
        for file in files.iter().chain(&["README.md"]) {
            let path = folder.join("snapshots").join(COMMIT).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, if *file == "README.md" { readme } else { "" }).unwrap();
        }
        cache
    }

    fn files(
        cache: &tempfile::TempDir,
        name: &str,
        split: Option<&str>,
    ) -> std::result::Result<String, String> {
        let dataset = name.strip_prefix("hf://").unwrap();
        let place = resolve_in(cache.path(), name, dataset, split).map_err(|error| error.to_string())?;
        Ok(place.patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_readme_says_which_files_make_a_subset_and_a_split() {
        let readme = "---\nlicense: cc0-1.0\nconfigs:\n- config_name: large\n  data_files:\n  - split: train\n    path: large/part-*\n  - split: test\n    path: [large/held.parquet]\n- config_name: small\n  default: true\n  data_files: small/*.csv\n---\n# Papers\n";
        let names = ["large/part-0.parquet", "large/part-1.parquet", "large/held.parquet", "small/a.csv"];
        let cache = cache(readme, &names);
        assert_eq!(files(&cache, "hf://datasets/acme/papers", None).unwrap(), "small/a.csv");
        let large = files(&cache, "hf://datasets/acme/papers/large@main", None).unwrap();
        assert_eq!(large, "large/part-0.parquet large/part-1.parquet");
        assert_eq!(
            files(&cache, "hf://datasets/acme/papers/large", Some("test")).unwrap(),
            "large/held.parquet"
        );
        let text = files(&cache, "hf://datasets/acme/papers/large", Some("dev")).unwrap_err();
        assert!(text.contains("no split \"dev\"; there are: \"train\", \"test\""), "{text}");
        let text = files(&cache, "hf://datasets/acme/papers/tiny", None).unwrap_err();
        assert!(text.contains("\"tiny\"; subsets: \"large\", \"small\""), "{text}");
    }

    #[test]
    fn without_a_readme_the_names_tell_the_split() {
        let names =
            ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "dataset_infos.json"];
        let cache = cache("# Papers", &names);
        assert_eq!(files(&cache, "hf://datasets/acme/papers", None).unwrap(), names[0]);
        let by_commit = format!("hf://datasets/acme/papers@{COMMIT}");
        assert_eq!(files(&cache, &by_commit, Some("test")).unwrap(), names[1]);
        let by_path = "hf://datasets/acme/papers@main/data/test-*";
        assert_eq!(files(&cache, by_path, None).unwrap(), names[1]);
    }

    #[test]
    fn what_is_not_in_the_cache_is_said_with_the_folder_and_what_to_put_there() {
        let cache = cache("", &["a.txt"]);
        let text = files(&cache, "hf://datasets/acme/other@v2", None).unwrap_err();
        let folder = cache.path().join("datasets--acme--other");
        assert!(text.contains(&*folder.to_string_lossy()), "{text}");
        assert!(text.contains("hf download acme/other --repo-type dataset --revision v2"), "{text}");
        let text = files(&cache, "hf://datasets/acme/papers", None).unwrap_err();
        assert!(text.contains("no data files") && text.contains(COMMIT), "{text}");
        let text = files(&cache, "hf://models/acme/papers", None).unwrap_err();
        assert!(text.contains("expected hf://datasets/owner/name"), "{text}");
    }
}
