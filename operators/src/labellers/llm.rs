//! Names given by a language model.
//!
//! One idea: a topic is shown to the model as its words, some of its texts, and the words of the topics beside it; every
//! topic has a name from the start, by its words, and the model's takes its place where there is one. So whatever goes
//! wrong with an endpoint, nothing is without a name, and which names are the model's is known.
//!
//! Source: the prompts' plan follows BERTopic's representation models (keywords and documents), taxonomy-completion
//! (many titles, one label) and text-clustering (ten texts, a topic and its educational score).

use super::LabellerConfig;
use super::subjects::{Cut, ExamplesConfig, Subject};
use crate::endpoint::chat::object;
use crate::endpoint::{Failure, Usage};
use crate::fit::Observer;
use crate::llm::{ChatConfig, Llm, lacking, lines};
use crate::model::{Model, NamedBy, Topic};
use crate::text::is_unseen;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How often topics of the same name are asked for another.
const UNIQUE_ROUNDS: usize = 2;

/// The longest name.
const NAME_CHARACTERS: usize = 80;

/// The longest answer, in tokens: a name is some ten, and some models think before.
const ANSWER_TOKENS: u32 = 300;

/// What the job file calls the language model.
const CHAT: &str = "fit.labeller.llm.chat";

/// What language model names topics, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamerConfig {
    /// The language model; its answers have at most 300 tokens.
    pub chat: ChatConfig,
    /// What is asked of it.
    pub mode: NameMode,
    /// Which texts of a topic it is shown.
    pub examples: ExamplesConfig,
    /// Words of a topic it is shown. 10: as many as a topic has.
    pub keywords: usize,
    /// Neighbouring topics whose words it is shown, so that names differ. 3.
    pub siblings: usize,
}

impl Default for NamerConfig {
    fn default() -> Self {
        Self {
            chat: ChatConfig::default(),
            mode: NameMode::default(),
            examples: ExamplesConfig::default(),
            keywords: 10,
            siblings: 3,
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

impl NamerConfig {
    /// Checks every setting that neither a network nor a file is needed for.
    pub fn check(&self) -> Result<()> {
        if matches!(self.examples.cut, Cut::Characters(0) | Cut::Tokens(0)) {
            let reason = "leaves nothing of a text, expected 1 or more; for no examples set count to 0";
            return Err(Error::setting("fit.labeller.llm.examples.cut", reason));
        }
        self.chat.check(CHAT)
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
    /// What is to be said of topics that the language model did not name, if there are any.
    pub fn lacking(&self) -> Option<String> {
        lacking(&self.failures, self.names.len(), &format!("not named by {}", self.model))
    }

    /// Gives `model`'s topics their names.
    pub fn apply(&self, model: &mut Model) {
        for topic in &mut model.topics {
            if let Some(named) = self.names.get(&topic.id) {
                topic.name.clone_from(&named.name);
                topic.rating = named.rating;
                topic.named_by = NamedBy::Llm(self.model.clone());
            }
        }
        model.taxonomy.name_after(&model.topics);
    }
}

/// Gives topics of `model` that are named by words the names that the same topics have in `before`, if they are to be kept.
pub fn keep_names(model: &mut Model, before: &Model, is_kept: impl Fn(&Topic) -> bool) {
    for topic in model.topics.iter_mut().filter(|topic| topic.named_by == NamedBy::Words) {
        if let Some(before) = before.topic(topic.id).filter(|before| is_kept(before)) {
            topic.take_name(before);
        }
    }
    model.taxonomy.name_after(&model.topics);
}

/// A language model that names topics; opened before the work, so that a key that is missing is known by then.
pub struct Namer {
    config: NamerConfig,
    llm: Llm,
}

impl Namer {
    /// Opens the language model of `labeller`, if it is one; `budget` are the tokens that this run may spend.
    ///
    /// # Errors
    /// What [`Llm::open`] fails with.
    pub fn open(labeller: &LabellerConfig, budget: Option<u64>) -> Result<Option<Self>> {
        let LabellerConfig::Llm(config) = labeller else { return Ok(None) };
        config.check()?;
        let llm = Llm::open(CHAT, &config.chat.within(budget), ANSWER_TOKENS)?;
        Ok(Some(Self { config: (**config).clone(), llm }))
    }

    /// The same with another of the endpoint's models, through the same connection.
    #[must_use]
    pub fn beside(&self, model: &str) -> Self {
        let mut config = self.config.clone();
        config.chat.model = model.into();
        Self { config, llm: self.llm.beside(model) }
    }

    /// What it is asked, and what it is shown.
    pub fn config(&self) -> &NamerConfig {
        &self.config
    }

    /// The language model's name.
    pub fn model(&self) -> &str {
        self.llm.model()
    }

    /// Asks for a name of each of `subjects` that the user did not name, several at a time.
    ///
    /// A failure that all would meet (an endpoint that is down, a wrong key, a budget) ends the asking; every topic
    /// without an answer is in [`Naming::failures`].
    ///
    /// # Errors
    /// `Stopped` if the observer breaks.
    pub async fn name(&self, subjects: &[Subject], observer: &dyn Observer) -> Result<Naming> {
        let asked = subjects.iter().filter(|subject| !subject.is_given);
        let questions = asked.map(|subject| self.named(self.config.mode, subject, None));
        let mut naming = Naming {
            model: self.model().to_string(),
            names: BTreeMap::new(),
            failures: BTreeMap::new(),
            usage: Usage::default(),
        };
        for (topic, answer) in self.llm.all("names", questions, observer).await? {
            match answer {
                Ok(named) => drop(naming.names.insert(topic, named)),
                Err(failure) => drop(naming.failures.insert(topic, failure)),
            }
        }
        // Three words are what they are: those of another topic, too, are told apart by a fourth.
        if self.config.mode != NameMode::Words {
            for _ in 0..UNIQUE_ROUNDS {
                let renamed = self.renamed(subjects, &naming, observer).await?;
                if renamed.is_empty() {
                    break;
                }
                naming.names.extend(renamed);
            }
        }
        tell_apart(subjects, &mut naming);
        naming.usage = self.llm.usage();
        Ok(naming)
    }

    /// The name of a topic; another one than the name of `same`, where others have it.
    async fn named(
        &self,
        mode: NameMode,
        subject: &Subject,
        same: Option<Same>,
    ) -> (i32, std::result::Result<Named, Failure>) {
        (subject.topic, self.ask(mode, subject, same.as_ref()).await)
    }

    async fn ask(
        &self,
        mode: NameMode,
        subject: &Subject,
        same: Option<&Same>,
    ) -> std::result::Result<Named, Failure> {
        let prompts = self.llm.prompts();
        let prompt = match (mode, same) {
            (_, Some(_)) => &prompts.unique,
            (NameMode::Label, None) => &prompts.label,
            (NameMode::Words, None) => &prompts.words,
            (NameMode::Rated, None) => &prompts.rated,
        };
        let shown = Shown::of(subject, same);
        match mode {
            NameMode::Label => {
                let check = |answer: &Label| check_name(&answer.topic);
                let answer = self.llm.ask(prompt, |name| shown.value(name), schema(mode), check).await?;
                Ok(Named { name: cleaned(&answer.topic), rating: None })
            }
            NameMode::Words => {
                let answer: Words =
                    self.llm.ask(prompt, |name| shown.value(name), schema(mode), check_words).await?;
                let words: Vec<String> = answer.words.iter().map(|word| cleaned(word)).collect();
                Ok(Named { name: words.join(", "), rating: None })
            }
            NameMode::Rated => {
                let answer: Rated =
                    self.llm.ask(prompt, |name| shown.value(name), schema(mode), check_rated).await?;
                Ok(Named { name: cleaned(&answer.topic), rating: Some(answer.educational_score) })
            }
        }
    }

    /// Other names for topics that have the same; those that the model gave keep their ratings.
    async fn renamed(
        &self,
        subjects: &[Subject],
        naming: &Naming,
        observer: &dyn Observer,
    ) -> Result<BTreeMap<i32, Named>> {
        let groups = same_names(subjects, naming);
        let questions = groups.iter().flat_map(|group| {
            group.iter().filter_map(|subject| {
                let name = naming.names.get(&subject.topic)?.name.clone();
                let others = group.iter().filter(|other| other.topic != subject.topic);
                let others = lines(others.map(|other| other.words.join(", ")));
                Some(self.named(NameMode::Label, subject, Some(Same { name, others })))
            })
        });
        let answers = match groups.is_empty() {
            true => Vec::new(),
            false => self.llm.all("equal names", questions, observer).await?,
        };
        let renamed = answers.into_iter().filter_map(|(topic, answer)| {
            let rating = naming.names.get(&topic)?.rating;
            Some((topic, Named { rating, ..answer.ok()? }))
        });
        Ok(renamed.collect())
    }
}

/// A name that other topics have too, and their words, a line each.
struct Same {
    name: String,
    others: String,
}

/// What a prompt's variables stand for.
struct Shown<'s> {
    keywords: String,
    examples: String,
    siblings: String,
    size: &'s str,
    same: Option<&'s Same>,
}

impl<'s> Shown<'s> {
    fn of(subject: &'s Subject, same: Option<&'s Same>) -> Self {
        Self {
            keywords: subject.words.join(", "),
            examples: lines(subject.examples.iter().cloned()),
            siblings: lines(subject.siblings.iter().cloned()),
            size: &subject.size,
            same,
        }
    }

    fn value(&self, variable: &str) -> Option<&str> {
        match variable {
            "keywords" => Some(&self.keywords),
            "examples" => Some(&self.examples),
            "siblings" => Some(&self.siblings),
            "size" => Some(self.size),
            "name" => self.same.map(|same| same.name.as_str()),
            "others" => self.same.map(|same| same.others.as_str()),
            _ => None,
        }
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
    let name: String = name.chars().filter(|c| !is_unseen(*c)).collect();
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
        let prompts = crate::llm::prompts::Prompts::load(None).unwrap();
        let subject = subject(3, &["graph", "node"]);
        let shown = Shown::of(&subject, None);
        let asked = prompts.label.user.fill(|variable| shown.value(variable));
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
            ("\u{202E}Graphs\u{200B}", "Graphs"),
        ] {
            assert_eq!(cleaned(said), name);
        }
        assert!(check_name(" \"\" ").is_err() && check_name(&"x".repeat(81)).is_err());
        assert!(check_words(&Words { words: vec!["a".into(); 2] }).is_err());
        assert!(check_rated(&Rated { topic: "a".into(), educational_score: 0 }).is_err());
        assert!(check_rated(&Rated { topic: "a".into(), educational_score: 11 }).is_err());
    }
}
