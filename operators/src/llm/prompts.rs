//! What language models are asked: prompts that users can edit, with their variables.

use crate::text::{Template, did_you_mean};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

/// The prompts that are used unless a file gives others; with what they mean.
pub const PROMPTS: &str = include_str!("prompts.yaml");

/// What a prompt of any mode may hold.
const VARIABLES: [&str; 4] = ["keywords", "examples", "siblings", "size"];

/// What one for topics of the same name may hold.
const OF_UNIQUE: [&str; 6] = ["keywords", "examples", "siblings", "size", "name", "others"];

/// A question without its values.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// What the model is to be.
    pub system: String,
    /// What it is asked.
    pub user: Template,
}

/// All questions that language models are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    /// For one concise name.
    pub label: Prompt,
    /// For three words.
    pub words: Prompt,
    /// For a name and an educational score.
    pub rated: Prompt,
    /// For another name, where topics have the same.
    pub unique: Prompt,
    /// For classes and sub-classes of all topics.
    pub taxonomy: Prompt,
    /// For definitions of a class's topics.
    pub definitions: Prompt,
    /// For a topic's place in a scheme.
    pub place: Prompt,
}

/// What a file gives.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    label: Option<Prompt>,
    words: Option<Prompt>,
    rated: Option<Prompt>,
    unique: Option<Prompt>,
    taxonomy: Option<Prompt>,
    definitions: Option<Prompt>,
    place: Option<Prompt>,
}

impl Prompts {
    /// Reads the prompts of a file; those that it lacks, or all without one, are [`PROMPTS`].
    ///
    /// # Errors
    /// A file that cannot be read, a key that is none, a variable that is unknown: each by its name.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let built_in = parse("the built-in prompts", PROMPTS)?;
        let given = match path {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
                parse(&path.display().to_string(), &text)?
            }
            None => Given::default(),
        };
        let of = |given: Option<Prompt>, built_in: Option<Prompt>| {
            given.or(built_in).ok_or_else(|| Error::Internal("a prompt is not built in".into()))
        };
        Ok(Self {
            label: of(given.label, built_in.label)?,
            words: of(given.words, built_in.words)?,
            rated: of(given.rated, built_in.rated)?,
            unique: of(given.unique, built_in.unique)?,
            taxonomy: of(given.taxonomy, built_in.taxonomy)?,
            definitions: of(given.definitions, built_in.definitions)?,
            place: of(given.place, built_in.place)?,
        })
    }
}

/// Reads prompts and checks their variables; `place` names the file in errors.
fn parse(place: &str, text: &str) -> Result<Given> {
    let given: Given = serde_saphyr::from_str(text)
        .map_err(|e| Error::setting(place, e.without_snippet().to_string().trim().to_string()))?;
    let all = [
        ("label", &given.label, &VARIABLES[..]),
        ("words", &given.words, &VARIABLES[..]),
        ("rated", &given.rated, &VARIABLES[..]),
        ("unique", &given.unique, &OF_UNIQUE[..]),
        ("taxonomy", &given.taxonomy, &["topics"][..]),
        ("definitions", &given.definitions, &["topics", "class"][..]),
        ("place", &given.place, &["topic", "examples", "nodes"][..]),
    ];
    for (name, prompt, known) in all {
        let variables = prompt.as_ref().map(|prompt| prompt.user.columns()).unwrap_or_default();
        if let Some(unknown) = variables.into_iter().find(|variable| !known.contains(variable)) {
            let meant = did_you_mean(unknown, known.iter().copied());
            let reason =
                format!("unknown variable {{{unknown}}}{meant}, expected one of {}", known.join(", "));
            return Err(Error::setting(format!("{place}: {name}"), reason));
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Prompts> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.yaml");
        std::fs::write(&path, text).unwrap();
        Prompts::load(Some(&path))
    }

    #[test]
    fn a_file_gives_some_prompts_and_the_rest_is_built_in() {
        let built_in = Prompts::load(None).unwrap();
        let given = load("label: { system: You name., user: 'Name: {keywords}' }").unwrap();
        assert_eq!(given.label.system, "You name.");
        assert_eq!(given.label.user.fill(|_| Some("a, b")), "Name: a, b");
        assert_eq!((given.words, given.unique), (built_in.words, built_in.unique));
    }

    #[test]
    fn what_is_unknown_is_named_with_the_choices() {
        for (text, words) in [
            ("label: { system: a, user: '{keyword}' }", vec!["label", "{keyword}", "\"keywords\""]),
            ("rated: { system: a, user: '{others}' }", vec!["rated", "{others}", "siblings"]),
            ("lable: { system: a, user: '{size}' }", vec!["lable", "label"]),
            ("label: { user: '{size}' }", vec!["system"]),
            ("label: { system: a, user: '{size' }", vec!["not closed"]),
        ] {
            let error = load(text).unwrap_err().to_string();
            words.iter().chain(&["prompts.yaml"]).for_each(|word| assert!(error.contains(word), "{error}"));
        }
    }
}
