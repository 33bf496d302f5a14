//! Topics that users give: a list of names, or a file of names, descriptions and thresholds.

use crate::{Error, Result};
use operators::classify::{GivenTopic, check_topics};
use std::path::Path;

/// Reads topics from a file, or from a list with commas.
pub(super) fn read_topics(topics: &str) -> Result<Vec<GivenTopic>> {
    let named = |name: &str| GivenTopic { name: name.trim().into(), description: None, threshold: None };
    let path = Path::new(topics);
    let is_list = |ending: &str| path.extension().is_some_and(|extension| extension == ending);
    let structured = is_list("yaml") || is_list("yml") || is_list("json");
    let found: Vec<GivenTopic> = if path.is_file() || structured || is_list("txt") {
        let text = std::fs::read_to_string(path).map_err(|e| Error::place(topics, e.to_string()))?;
        match structured {
            true => serde_saphyr::from_str(&text).map_err(|error| {
                let reason = crate::error::first_line(&error.without_snippet().to_string());
                let form =
                    "expected a list of topics, each with a name and perhaps a description and a threshold";
                Error::place(topics, format!("{reason}; {form}"))
            })?,
            false => text.lines().filter(|line| !line.trim().is_empty()).map(named).collect(),
        }
    } else {
        topics.split(',').filter(|name| !name.trim().is_empty()).map(named).collect()
    };
    check_topics(&found)?;
    Ok(found)
}
