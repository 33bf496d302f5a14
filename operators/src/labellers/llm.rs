//! Names given by a language model.
//!
//! One idea: a topic is shown to the model as its words, some of its texts, and the words of the topics beside it; every
//! topic has a name from the start, by its words, and the model's takes its place where there is one. So whatever goes
//! wrong with an endpoint, nothing is without a name, and which names are the model's is known.
//!
//! Source: the prompts' plan follows BERTopic's representation models (keywords and documents), taxonomy-completion
//! (many titles, one label) and text-clustering (ten texts, a topic and its educational score).

use super::prompts::{Prompt, Prompts};
use super::subjects::{Cut, ExamplesConfig, Subject};
use crate::endpoint::chat::{Question, object};
use crate::endpoint::{Chat, Endpoint, EndpointConfig, Failure, Usage};
use crate::fit::Observer;
use crate::model::{Model, NamedBy};
use crate::{Error, Result};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// How often topics of the same name are asked for another.
const UNIQUE_ROUNDS: usize = 2;

/// The longest name.
const NAME_CHARACTERS: usize = 80;

/// What language model names topics, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LlmConfig {
    /// The endpoint.
    pub endpoint: EndpointConfig,
    /// The model's name there.
    pub model: String,
    /// What is asked of it.
    pub mode: NameMode,
    /// Which texts of a topic it is shown.
    pub examples: ExamplesConfig,
    /// Words of a topic it is shown. 10: as many as a topic has.
    pub keywords: usize,
    /// Neighbouring topics whose words it is shown, so that names differ. 3.
    pub siblings: usize,
    /// 0, so that the same topic has the same name.
    pub temperature: f64,
    /// The longest answer, in tokens. 300: a name is some ten, and some models think before.
    pub max_tokens: u32,
    /// A file of prompts, in the place of the built-in ones (`thema check --prompts` prints those).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PathBuf>,
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            endpoint: EndpointConfig::default(),
            model: String::new(),
            mode: NameMode::default(),
            examples: ExamplesConfig::default(),
            keywords: 10,
            siblings: 3,
            temperature: 0.0,
            max_tokens: 300,
            prompts: None,
        }
    }
}

/// What is asked of a language model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameMode {
    /// One concise name.
    #[default]
    Label,
    /// Three words.
    Words,
    /// One concise name, and an educational score of 1 to 10.
    Rated,
}

impl LlmConfig {
    /// Checks every setting that neither a network nor a file is needed for.
    pub fn check(&self) -> Result<()> {
        const NAME: &str = "fit.labeller.llm";
        let wrong = |key: &str, reason: &str| Err(Error::setting(format!("{NAME}.{key}"), reason));
        if self.model.is_empty() {
            return wrong("model", "is not given, expected the name of one of the endpoint's models");
        }
        if self.max_tokens == 0 {
            return wrong("max_tokens", "0 tokens hold no name, expected 1 or more");
        }
        if !(0.0..=2.0).contains(&self.temperature) {
            return wrong("temperature", "expected a number from 0 to 2");
        }
        if matches!(self.examples.cut, Cut::Characters(0) | Cut::Tokens(0)) {
            return wrong(
                "examples.cut",
                "leaves nothing of a text, expected 1 or more; for no examples set count to 0",
            );
        }
        self.endpoint.check(&format!("{NAME}.endpoint"))
    }

    /// Makes the client, and reads the prompts; nothing is sent yet.
    pub fn open(&self) -> Result<Chat> {
        Prompts::load(self.prompts.as_deref())?;
        let endpoint = Endpoint::open("fit.labeller.llm.endpoint", &self.endpoint)?;
        Ok(self.with(&Arc::new(endpoint)))
    }

    /// The same model through a connection that is there.
    pub fn with(&self, endpoint: &Arc<Endpoint>) -> Chat {
        Chat::new(Arc::clone(endpoint), &self.model, self.temperature, self.max_tokens)
    }
}

/// A name that a language model gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The educational score, where it was asked for.
    pub rating: Option<u8>,
}

/// Names that a language model gave, and those it did not.
#[derive(Debug, Clone, PartialEq)]
pub struct Naming {
    /// The model.
    pub model: String,
    /// Names by topic.
    pub names: BTreeMap<i32, Named>,
    /// Why the other topics keep the names of their words.
    pub failures: BTreeMap<i32, Failure>,
    /// What was asked and spent.
    pub usage: Usage,
}

impl Naming {
    /// Gives `model`'s topics their names; those without one keep what a language model called them in `before`, a model
    /// with the same rows.
    pub fn apply(&self, model: &mut Model, before: Option<&Model>) {
        for topic in &mut model.topics {
            let Some(named) = self.names.get(&topic.id) else {
                let before = before.and_then(|before| before.topic(topic.id));
                if let Some(before) = before.filter(|before| matches!(before.named_by, NamedBy::Llm(_))) {
                    topic.name.clone_from(&before.name);
                    topic.named_by.clone_from(&before.named_by);
                    topic.rating = before.rating;
                }
                continue;
            };
            topic.name.clone_from(&named.name);
            topic.rating = named.rating;
            topic.named_by = NamedBy::Llm(self.model.clone());
        }
        let topics = &model.topics;
        model
            .taxonomy
            .rename(|id| topics.iter().find(|topic| topic.id == id).map(|topic| topic.name.as_str()));
    }
}

/// Asks `chat` for a name of each of `subjects` that the user did not name, several at a time.
///
/// A failure that all would meet (an endpoint that is down, a wrong key, a budget) ends the asking; every topic without
/// an answer is in [`Naming::failures`].
///
/// # Errors
/// `Setting` for prompts that cannot be read; `Stopped` if the observer breaks.
pub async fn name(
    subjects: &[Subject],
    config: &LlmConfig,
    chat: &Chat,
    observer: &dyn Observer,
) -> Result<Naming> {
    let prompts = Prompts::load(config.prompts.as_deref())?;
    let prompt = match config.mode {
        NameMode::Label => &prompts.label,
        NameMode::Words => &prompts.words,
        NameMode::Rated => &prompts.rated,
    };
    let asker = Asker { chat, mode: config.mode };
    let asked = || subjects.iter().filter(|subject| !subject.is_given);
    observer.begin("names", asked().count() as u64);
    let mut naming = Naming {
        model: config.model.clone(),
        names: BTreeMap::new(),
        failures: BTreeMap::new(),
        usage: Usage::default(),
    };
    let questions = asked().map(|subject| asker.named(subject, question(prompt, subject, None)));
    let mut answers = stream::iter(questions).buffer_unordered(chat.endpoint().concurrency());
    while let Some((topic, answer)) = answers.next().await {
        match answer {
            Ok(named) => drop(naming.names.insert(topic, named)),
            Err(failure) => drop(naming.failures.insert(topic, failure)),
        }
        if observer.advance((naming.names.len() + naming.failures.len()) as u64).is_break() {
            return Err(Error::Stopped("the naming of topics"));
        }
    }
    drop(answers);
    // Three words are what they are: those of another topic, too, are told apart by a fourth.
    if config.mode != NameMode::Words {
        for _ in 0..UNIQUE_ROUNDS {
            let renamed = asker.renamed(subjects, &naming, &prompts.unique).await;
            if renamed.is_empty() {
                break;
            }
            naming.names.extend(renamed);
        }
    }
    tell_apart(subjects, &mut naming);
    naming.usage = chat.endpoint().usage();
    Ok(naming)
}

/// What asks for names.
#[derive(Clone, Copy)]
struct Asker<'a> {
    chat: &'a Chat,
    mode: NameMode,
}

impl Asker<'_> {
    async fn named(
        self,
        subject: &Subject,
        question: Question,
    ) -> (i32, std::result::Result<Named, Failure>) {
        let answer = self.ask(question).await;
        (subject.topic, answer)
    }

    async fn ask(self, mut question: Question) -> std::result::Result<Named, Failure> {
        (question.name, question.schema) = schema(self.mode);
        match self.mode {
            NameMode::Label => {
                let answer: Label =
                    self.chat.ask(&question, |answer: &Label| check_name(&answer.topic)).await?;
                Ok(Named { name: cleaned(&answer.topic), rating: None })
            }
            NameMode::Words => {
                let answer: Words = self.chat.ask(&question, check_words).await?;
                let words: Vec<String> = answer.words.iter().map(|word| cleaned(word)).collect();
                Ok(Named { name: words.join(", "), rating: None })
            }
            NameMode::Rated => {
                let answer: Rated = self.chat.ask(&question, check_rated).await?;
                Ok(Named { name: cleaned(&answer.topic), rating: Some(answer.educational_score) })
            }
        }
    }

    /// Other names for topics that have the same; those that the model gave keep their ratings.
    async fn renamed(self, subjects: &[Subject], naming: &Naming, prompt: &Prompt) -> BTreeMap<i32, Named> {
        let label = Asker { mode: NameMode::Label, ..self };
        let groups = same_names(subjects, naming);
        let questions = groups.iter().flat_map(|group| {
            group.iter().filter_map(|subject| {
                let named = naming.names.get(&subject.topic)?;
                let others = group.iter().filter(|other| other.topic != subject.topic);
                let others: Vec<String> =
                    others.map(|other| format!("- {}", other.words.join(", "))).collect();
                let same = Some((named.name.as_str(), others.join("\n")));
                Some(label.named(subject, question(prompt, subject, same)))
            })
        });
        let answers = stream::iter(questions).buffer_unordered(self.chat.endpoint().concurrency());
        let answers: Vec<_> = answers.collect().await;
        let renamed = answers.into_iter().filter_map(|(topic, answer)| {
            let rating = naming.names.get(&topic)?.rating;
            Some((topic, Named { rating, ..answer.ok()? }))
        });
        renamed.collect()
    }
}

/// The groups of topics that have one name, however it is written.
fn same_names<'s>(subjects: &'s [Subject], naming: &Naming) -> Vec<Vec<&'s Subject>> {
    let mut groups: BTreeMap<String, Vec<&Subject>> = BTreeMap::new();
    for subject in subjects {
        let name = naming.names.get(&subject.topic).map_or(&subject.name, |named| &named.name);
        groups.entry(name.to_lowercase()).or_default().push(subject);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

/// Adds to names that are still the same the first word that no other topic of that name has, or the topic's number.
fn tell_apart(subjects: &[Subject], naming: &mut Naming) {
    for group in same_names(subjects, naming) {
        for subject in &group {
            let others: BTreeSet<&String> = group
                .iter()
                .filter(|other| other.topic != subject.topic)
                .flat_map(|other| &other.words)
                .collect();
            let own = subject.words.iter().find(|word| !others.contains(word));
            let own = own.cloned().unwrap_or_else(|| format!("topic {}", subject.topic));
            if let Some(named) = naming.names.get_mut(&subject.topic) {
                named.name = format!("{} ({own})", named.name);
            }
        }
    }
}

/// A prompt with its values; `same` holds the name that other topics have too, and their words.
fn question(prompt: &Prompt, subject: &Subject, same: Option<(&str, String)>) -> Question {
    let lines = |lines: &[String]| match lines {
        [] => "(none)".to_string(),
        lines => lines.iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n"),
    };
    let (keywords, examples, siblings) =
        (subject.words.join(", "), lines(&subject.examples), lines(&subject.siblings));
    let user = prompt.user.fill(|variable| match variable {
        "keywords" => Some(&keywords),
        "examples" => Some(&examples),
        "siblings" => Some(&siblings),
        "size" => Some(&subject.size),
        "name" => same.as_ref().map(|(name, _)| *name),
        "others" => same.as_ref().map(|(_, others)| others.as_str()),
        _ => None,
    });
    let (name, schema) = schema(NameMode::Label);
    Question { system: prompt.system.clone(), user, name, schema }
}

#[derive(Deserialize)]
struct Label {
    topic: String,
}

#[derive(Deserialize)]
struct Words {
    words: Vec<String>,
}

#[derive(Deserialize)]
struct Rated {
    topic: String,
    educational_score: u8,
}

/// The name and the JSON schema of a mode's answer.
fn schema(mode: NameMode) -> (&'static str, Value) {
    let topic = json!({ "type": "string", "description": "the topic's label, two to six words" });
    match mode {
        NameMode::Label => ("topic_label", object(json!({ "topic": topic }))),
        NameMode::Words => {
            let words =
                json!({ "type": "array", "items": { "type": "string" }, "description": "three words" });
            ("topic_words", object(json!({ "words": words })))
        }
        NameMode::Rated => {
            let score = json!({ "type": "integer", "description": "educational value from 1 to 10" });
            ("topic_rating", object(json!({ "topic": topic, "educational_score": score })))
        }
    }
}

/// A name without what models put around it.
pub(crate) fn cleaned(name: &str) -> String {
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let name = name.trim_matches(['"', '\'', '`', '*', '#', '“', '”', ' ']);
    name.strip_suffix('.').unwrap_or(name).to_string()
}

pub(crate) fn check_name(name: &str) -> std::result::Result<(), String> {
    match cleaned(name).chars().count() {
        0 => Err("has an empty name".into()),
        1..=NAME_CHARACTERS => Ok(()),
        long => Err(format!("has a name of {long} characters, expected {NAME_CHARACTERS} at most")),
    }
}

fn check_words(answer: &Words) -> std::result::Result<(), String> {
    match answer.words.len() {
        3 => answer.words.iter().try_for_each(|word| check_name(word)),
        count => Err(format!("has {count} words, expected three")),
    }
}

fn check_rated(answer: &Rated) -> std::result::Result<(), String> {
    match answer.educational_score {
        1..=10 => check_name(&answer.topic),
        score => Err(format!("has an educational_score of {score}, expected 1 to 10")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(topic: i32, words: &[&str]) -> Subject {
        Subject {
            topic,
            name: format!("words of {topic}"),
            words: words.iter().map(|word| (*word).to_string()).collect(),
            examples: vec!["a text".into()],
            siblings: Vec::new(),
            size: "12".into(),
            is_given: false,
        }
    }

    fn naming(names: &[(i32, &str)]) -> Naming {
        let named = |(topic, name): &(i32, &str)| (*topic, Named { name: (*name).into(), rating: None });
        Naming {
            model: "m".into(),
            names: names.iter().map(named).collect(),
            failures: BTreeMap::new(),
            usage: Usage::default(),
        }
    }

    #[test]
    fn a_question_holds_what_is_known_of_a_topic() {
        let prompts = Prompts::load(None).unwrap();
        let asked = question(&prompts.label, &subject(3, &["graph", "node"]), None).user;
        for part in ["graph, node", "- a text", "(none)"] {
            assert!(asked.contains(part), "{part} in {asked}");
        }
        assert!(!asked.contains('{'), "{asked}");
    }

    #[test]
    fn names_that_stay_the_same_are_told_apart_by_words_or_numbers() {
        let subjects =
            [subject(0, &["graph", "node"]), subject(1, &["graph", "tree"]), subject(2, &["graph"])];
        let mut naming = naming(&[(0, "Graphs"), (1, "graphs"), (2, "Graphs")]);
        tell_apart(&subjects, &mut naming);
        let names: Vec<&str> = naming.names.values().map(|named| named.name.as_str()).collect();
        assert_eq!(names, ["Graphs (node)", "graphs (tree)", "Graphs (topic 2)"]);
    }

    #[test]
    fn a_name_of_words_counts_as_a_name() {
        let subjects = [subject(0, &["a"]), subject(1, &["b"])];
        let mut given = naming(&[(1, "Words of 0")]);
        tell_apart(&subjects, &mut given);
        assert_eq!(given.names[&1].name, "Words of 0 (b)");
        assert!(!given.names.contains_key(&0));
    }

    #[test]
    fn a_name_that_the_user_gave_is_taken() {
        let given = Subject { name: "Graphs".into(), is_given: true, ..subject(0, &["graph"]) };
        let mut naming = naming(&[(1, "graphs")]);
        tell_apart(&[given, subject(1, &["tree"])], &mut naming);
        assert_eq!(naming.names[&1].name, "graphs (tree)");
    }

    #[test]
    fn what_models_put_around_names_is_left_out() {
        for (said, name) in [
            ("  \"Graph  neural networks.\" ", "Graph neural networks"),
            ("**Graphs**", "Graphs"),
            ("Graphs.", "Graphs"),
            ("# Graphs", "Graphs"),
        ] {
            assert_eq!(cleaned(said), name);
        }
        assert!(check_name(" \"\" ").is_err() && check_name(&"x".repeat(81)).is_err());
        assert!(check_words(&Words { words: vec!["a".into(); 2] }).is_err());
        assert!(check_rated(&Rated { topic: "a".into(), educational_score: 0 }).is_err());
        assert!(check_rated(&Rated { topic: "a".into(), educational_score: 11 }).is_err());
    }
}
