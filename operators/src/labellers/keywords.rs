//! Names made of a topic's own words: "Machine translation, low-resource, parallel corpora".
//!
//! The best words of a topic repeat themselves: "translation", "machine translation", "machine", "translations". A
//! name takes few of them that say different things, by rules one can check by eye:
//!
//! 1. Phrases that overlap are joined if half of the texts that have one of them have both in one: "parameter
//!    efficient" and "efficient fine" become "parameter-efficient fine-tuning".
//! 2. Single words that the texts mostly write as a part of a hyphenated one are left out: "multi", "shot".
//! 3. A single word becomes the phrase around it that at least half of its texts have: "translation" becomes
//!    "machine translation". Such a phrase takes the place of its other words too, if it is in a quarter of their
//!    texts: "peer" leads to "peer review", which takes the place of "review".
//! 4. Terms that few texts have (fewer than one in twenty) come last: a word that one paper repeats names no topic.
//! 5. Terms are taken from the best down; one that shares a word with a term already taken is passed over. Forms of
//!    a word are that word: "models", "modeling".
//! 6. Three terms make a name, a fourth follows if all are single words. They are spelled as the texts spell them.
//! 7. Topics whose names are equal take one more term each until they differ.
//!
//! Texts are those of the topic alone: what is a phrase, and how it is spelled, differs from field to field.

use crate::{
    Result,
    words::{
        Spellings, Tokenizer, TopicWords, VocabularyConfig, counts::check_labels, vocabulary::LONGEST_NGRAM,
    },
};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Documents a thread takes at a time.
const CHUNK_ROWS: usize = 2048;

/// How names are made of words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeywordsConfig {
    /// How many terms make a name, not counting those added to tell topics apart. 3 by default: enough to
    /// recognise a topic, and short enough for a map.
    pub terms: usize,
}

impl Default for KeywordsConfig {
    fn default() -> Self {
        Self { terms: 3 }
    }
}

/// How a topic is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicName {
    /// The topic, −1 for outliers.
    pub topic: i32,
    /// Its name, unlike any other topic's.
    pub name: String,
    /// The different terms of the topic as the texts spell them, best first; the name's are among the first.
    pub terms: Vec<String>,
}

/// Names the topics by their words, in the order given.
///
/// `topics` holds about thirty words a topic (fewer do, but leave less choice), `texts` and `labels` the documents
/// that they came from with their topics, `vocabulary` how. Topic −1 is called "Outliers", a topic without words
/// "Topic 7". Fails if labels and texts differ in number.
pub fn keyword_names<S: AsRef<str> + Sync>(
    topics: &[TopicWords],
    texts: &[S],
    labels: &[i32],
    vocabulary: &VocabularyConfig,
    config: &KeywordsConfig,
) -> Result<Vec<TopicName>> {
    check_labels(labels, texts.len())?;
    let mut texts_of: FxHashMap<i32, Vec<&str>> = FxHashMap::default();
    for (text, &label) in texts.iter().zip(labels) {
        texts_of.entry(label).or_default().push(text.as_ref());
    }
    let pairs = AllPairs::of(topics);
    let terms: Vec<Vec<String>> = topics
        .par_iter()
        .map(|topic| {
            let texts = texts_of.get(&topic.topic).map_or(&[][..], Vec::as_slice);
            name_terms(topic, &pairs, texts, vocabulary)
        })
        .collect::<Result<_>>()?;
    let lengths = tell_apart(topics, &terms, config.terms);
    let named = topics.iter().zip(terms).zip(lengths).map(|((topic, terms), length)| TopicName {
        topic: topic.topic,
        name: name(topic.topic, &terms, length),
        terms,
    });
    Ok(named.collect())
}

/// BERTopic's name of a topic: its id and its four best words, `7_agent_agents_tool_tasks`.
pub fn bertopic_name(topic: &TopicWords) -> String {
    let mut name = topic.topic.to_string();
    for (word, _) in topic.words.iter().take(4) {
        name.push('_');
        name.push_str(word);
    }
    name
}

/// The different terms of a topic, spelled as its texts spell them, best first. `pairs` are the pairs of words of
/// all topics: what ends a phrase of one ("language models") may be too common to be among its own words.
fn name_terms(
    topic: &TopicWords,
    pairs: &AllPairs<'_>,
    texts: &[&str],
    vocabulary: &VocabularyConfig,
) -> Result<Vec<String>> {
    let words: Vec<String> = topic.words.iter().map(|(term, _)| term.clone()).collect();
    let joined = join_phrases(&words, &pairs.within(texts, vocabulary)?);
    let wanted = words.iter().chain(joined.iter().map(|joined| &joined.term));
    let spellings = Spellings::collect(texts, wanted, vocabulary)?;
    let mut terms = whole_phrases(words, &joined, &spellings);
    terms.retain(|term| term.contains(' ') || !spellings.is_bound(term));
    // A stable sort: within the two groups the best stay first.
    terms.sort_by_key(|term| spellings.texts(term) * FEW_TEXTS_ONE_IN < texts.len() as u64);
    let terms = different_terms(&terms, &spellings);
    Ok(terms.iter().map(|term| spellings.of(term).to_owned()).collect())
}

/// The pairs of words of all topics, by the numbers of their words.
struct AllPairs<'a> {
    numbers: FxHashMap<&'a str, u32>,
    pairs: FxHashMap<(u32, u32), &'a str>,
}

impl<'a> AllPairs<'a> {
    fn of(topics: &'a [TopicWords]) -> Self {
        let (mut numbers, mut pairs) = (FxHashMap::default(), FxHashMap::default());
        let terms = topics.iter().flat_map(|topic| topic.words.iter().map(|(term, _)| term.as_str()));
        for pair in terms.filter(|term| is_pair(term)) {
            let Some((first, last)) = pair.split_once(' ') else { continue };
            let mut number = |word| {
                // At most two words for each of a topic's thirty: far fewer than u32::MAX.
                let next = numbers.len() as u32;
                *numbers.entry(word).or_insert(next)
            };
            pairs.insert((number(first), number(last)), pair);
        }
        Self { numbers, pairs }
    }

    /// The pairs that `texts` have: a phrase can be in them only if all of its pairs are. Many topics have many pairs,
    /// and a topic's texts few of them.
    fn within(&self, texts: &[&str], vocabulary: &VocabularyConfig) -> Result<Pairs<'a>> {
        let tokenizer = Tokenizer::try_new(vocabulary)?;
        let chunks: Vec<FxHashSet<&str>> = texts
            .par_chunks(CHUNK_ROWS)
            .map(|chunk| {
                let mut found = FxHashSet::default();
                for text in chunk {
                    let mut last = None;
                    tokenizer.words(text, |_, word| {
                        let number = self.numbers.get(word.text.as_ref()).copied();
                        if let (true, Some(last), Some(number)) = (word.joined, last, number) {
                            found.extend(self.pairs.get(&(last, number)));
                        }
                        last = number;
                    });
                }
                found
            })
            .collect();
        Ok(Pairs::of(chunks.into_iter().flatten().collect()))
    }
}

/// Pairs of words, by their words: to walk through all of them for each phrase of each topic would take time with the
/// square of the topics.
struct Pairs<'a> {
    /// By the first word, the pairs that begin with it, sorted.
    beginning: FxHashMap<&'a str, Vec<&'a str>>,
    /// By the last word, the pairs that end with it, sorted.
    ending: FxHashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Pairs<'a> {
    fn of(pairs: BTreeSet<&'a str>) -> Self {
        let (mut beginning, mut ending) = (FxHashMap::default(), FxHashMap::default());
        for pair in pairs {
            let Some((first, last)) = pair.split_once(' ') else { continue };
            beginning.entry(first).or_insert_with(Vec::new).push(pair);
            ending.entry(last).or_insert_with(Vec::new).push(pair);
        }
        Self { beginning, ending }
    }

    /// What becomes of `phrase` by the pairs that begin with its last word or end with its first, each with its pair,
    /// in the order of the pairs.
    fn extensions(&self, phrase: &str) -> Vec<(&'a str, String)> {
        let (Some((_, last)), Some((first, _))) = (phrase.rsplit_once(' '), phrase.split_once(' ')) else {
            return Vec::new();
        };
        let behind = self.beginning.get(last).into_iter().flatten();
        let before = self.ending.get(first).into_iter().flatten();
        let behind = behind.map(|pair| (*pair, format!("{phrase}{}", &pair[last.len()..])));
        let before = before.map(|pair| (*pair, format!("{}{phrase}", &pair[..pair.len() - first.len()])));
        let mut all: Vec<(&str, String)> = behind.chain(before).collect();
        // Stable: of a pair that does both, what lies behind comes first.
        all.sort_by_key(|(pair, _)| *pair);
        all
    }
}

/// A phrase made of pairs of words that overlap.
struct Joined {
    term: String,
    pairs: Vec<String>,
}

/// Joins the pairs among `terms` with those of `pairs` that begin with their last word or end with their first, then
/// what was joined again, up to the longest n-gram; the longest first.
fn join_phrases(terms: &[String], pairs: &Pairs<'_>) -> Vec<Joined> {
    let own = terms.iter().filter(|term| is_pair(term));
    let mut last: Vec<Joined> =
        own.map(|pair| Joined { term: pair.clone(), pairs: vec![pair.clone()] }).collect();
    let mut all = Vec::new();
    for _ in 3..=LONGEST_NGRAM {
        let mut next: Vec<Joined> = Vec::new();
        for phrase in &last {
            for (pair, term) in pairs.extensions(&phrase.term) {
                if phrase.pairs.iter().any(|held| held == pair) {
                    continue;
                }
                let pairs = phrase.pairs.iter().cloned().chain([pair.to_owned()]).collect();
                next.push(Joined { term, pairs });
            }
        }
        all.splice(
            0..0,
            std::mem::replace(&mut last, next).into_iter().filter(|joined| joined.pairs.len() > 1),
        );
    }
    all.splice(0..0, last);
    all
}

fn is_pair(term: &str) -> bool {
    term.split(' ').count() == 2
}

/// Puts each joined phrase in the place of those of its pairs of which at least half of the texts have the whole.
fn whole_phrases(mut terms: Vec<String>, longer: &[Joined], spellings: &Spellings) -> Vec<String> {
    for joined in longer {
        let texts = spellings.texts(&joined.term);
        for pair in &joined.pairs {
            if let Some(at) = terms.iter().position(|term| term == pair)
                && texts > 0
                && 2 * texts >= spellings.texts(pair)
            {
                if terms.contains(&joined.term) {
                    terms.remove(at);
                } else {
                    terms[at] = joined.term.clone();
                }
            }
        }
    }
    terms
}

/// Takes the terms that share no word, from the best down, single words as the phrase that they are mostly part of.
fn different_terms(terms: &[String], spellings: &Spellings) -> Vec<String> {
    let may_replace = |phrase: &str, held: &str| {
        !held.contains(' ') && 4 * spellings.texts(phrase) >= spellings.texts(held)
    };
    let mut taken: Vec<&String> = Vec::new();
    for term in terms {
        let whole = phrase_around(term, terms, spellings).unwrap_or(term);
        let sharing: Vec<usize> = (0..taken.len()).filter(|&at| share_a_word(taken[at], whole)).collect();
        match sharing.split_first() {
            None => taken.push(whole),
            Some((&first, others))
                if whole != term && sharing.iter().all(|&at| may_replace(whole, taken[at])) =>
            {
                taken[first] = whole;
                for &other in others.iter().rev() {
                    taken.remove(other);
                }
            }
            Some(_) => {}
        }
    }
    taken.into_iter().cloned().collect()
}

/// The phrase among `terms` around a single word that at least half of its texts have; of several, the one that most
/// texts have, then the better one.
fn phrase_around<'t>(word: &str, terms: &'t [String], spellings: &Spellings) -> Option<&'t String> {
    if word.contains(' ') {
        return None;
    }
    let around = terms.iter().filter(|term| term.contains(' ') && term.split(' ').any(|part| part == word));
    let mostly = around.filter(|term| 2 * spellings.texts(term) >= spellings.texts(word));
    // The last of equal ones is the maximum, so the best must come last.
    mostly.rev().max_by_key(|term| spellings.texts(term))
}

/// Returns how many terms each topic's name takes so that no two names are equal, as far as their terms go.
fn tell_apart(topics: &[TopicWords], terms: &[Vec<String>], wanted: usize) -> Vec<usize> {
    let length = |terms: &Vec<String>| {
        let are_words = terms.iter().take(wanted).all(|term| !term.contains(' '));
        (wanted.max(1) + usize::from(are_words)).min(terms.len())
    };
    let mut lengths: Vec<usize> = terms.iter().map(length).collect();
    loop {
        let mut named: FxHashMap<String, Vec<usize>> = FxHashMap::default();
        for (at, topic) in topics.iter().enumerate().filter(|(_, topic)| topic.topic >= 0) {
            named.entry(name(topic.topic, &terms[at], lengths[at]).to_lowercase()).or_default().push(at);
        }
        // A name that has taken all its terms and its topic's number cannot grow further.
        let alike = named.into_values().filter(|alike| alike.len() > 1).flatten();
        let alike: Vec<usize> = alike.filter(|&at| lengths[at] <= terms[at].len()).collect();
        if alike.is_empty() {
            return lengths;
        }
        for at in alike {
            lengths[at] += 1;
        }
    }
}

/// Joins the first `length` terms; more than there are adds the topic's number.
fn name(topic: i32, terms: &[String], length: usize) -> String {
    if topic < 0 {
        return "Outliers".into();
    }
    if terms.is_empty() {
        return format!("Topic {topic}");
    }
    let name = capitalized(&terms[..length.min(terms.len())].join(", "));
    if length > terms.len() { format!("{name} ({topic})") } else { name }
}

/// Begins `name` with a capital, unless its first word has its own ("mT5", "arXiv").
fn capitalized(name: &str) -> String {
    let first_word = name.split([' ', ',', '-']).next().unwrap_or(name);
    let mut letters = name.chars();
    match letters.next() {
        Some(first) if !first_word.chars().skip(1).any(char::is_uppercase) => {
            first.to_uppercase().chain(letters).collect()
        }
        _ => name.to_owned(),
    }
}

/// A term that fewer than one in so many of a topic's texts have comes last. Acronyms that authors expect readers to
/// know are above it, systems that single papers propose below.
const FEW_TEXTS_ONE_IN: u64 = 20;

/// Whether two terms share a word, in whatever form.
fn share_a_word(a: &str, b: &str) -> bool {
    a.split(' ').any(|a| b.split(' ').any(|b| are_forms_of_one_word(a, b)))
}

/// Whether two words differ by no more than an ending each, behind enough letters to be one word: "model" and
/// "modeling", "summary" and "summaries", "translated" and "translation".
fn are_forms_of_one_word(a: &str, b: &str) -> bool {
    let shared: usize = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let (end_a, end_b) = (&a[shared..], &b[shared..]);
    let is_plural = matches!((end_a, end_b), ("", "" | "s") | ("s", ""));
    let are_endings = || ENDINGS.contains(&end_a) && ENDINGS.contains(&end_b);
    is_plural || a[..shared].chars().count() >= SHORTEST_STEM && are_endings()
}

/// Endings that make another form of the same English word.
const ENDINGS: [&str; 25] = [
    "", "s", "es", "y", "ies", "e", "ed", "er", "ers", "or", "ors", "ing", "ings", "ion", "ions", "ation",
    "ations", "ze", "zed", "zing", "zation", "al", "ally", "ly", "ic",
];

/// Letters that forms of a word must share: with fewer, "rate" and "ration" would be one word.
const SHORTEST_STEM: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(topic: i32, words: &str) -> TopicWords {
        TopicWords {
            topic,
            words: words.split(", ").filter(|w| !w.is_empty()).map(|w| (w.to_owned(), 0.1)).collect(),
        }
    }

    /// The names where each topic has all of `texts`.
    fn names(topics: &[TopicWords], texts: &[&str]) -> Vec<String> {
        let texts: Vec<&str> = topics.iter().flat_map(|_| texts.iter().copied()).collect();
        let labels: Vec<i32> =
            topics.iter().flat_map(|topic| vec![topic.topic; texts.len() / topics.len()]).collect();
        let vocabulary = VocabularyConfig::default();
        let named = keyword_names(topics, &texts, &labels, &vocabulary, &KeywordsConfig::default()).unwrap();
        named.into_iter().map(|named| named.name).collect()
    }

    #[test]
    fn a_name_takes_different_words_and_whole_phrases() {
        let words =
            "translation, machine translation, machine, translations, low resource, corpus, corpora, bleu";
        let texts =
            ["Machine translation of low-resource languages", "machine translation: BLEU", "a corpus"];
        assert_eq!(names(&[topic(0, words)], &texts), ["Machine translation, low-resource, corpus"]);
    }

    #[test]
    fn a_single_word_stays_if_the_phrase_around_it_is_only_a_part_of_it() {
        let texts = ["agents", "agents", "agents", "multi-agent", "tool use", "tool use", "LLM", "memory"];
        assert_eq!(
            names(&[topic(0, "agents, multi agent, tool, tool use, llm, memory")], &texts),
            ["Agents, tool use, LLM"]
        );
    }

    #[test]
    fn halves_of_a_phrase_are_joined() {
        let texts = [
            "parameter-efficient fine-tuning",
            "Parameter-Efficient Fine-Tuning of LoRA",
            "rank",
            "fine-tuning",
        ];
        let words = "parameter efficient, lora, efficient fine, fine tuning, rank";
        assert_eq!(names(&[topic(0, words)], &texts), ["Parameter-efficient fine-tuning, LoRA, rank"]);
    }

    #[test]
    fn a_phrase_is_completed_by_a_pair_of_another_topic() {
        let texts = ["diffusion language models", "diffusion language models, language models, models"];
        let topics = [topic(0, "diffusion language, masked"), topic(1, "language models")];
        assert_eq!(names(&topics, &texts)[0], "Diffusion language models, masked");
    }

    #[test]
    fn a_phrase_is_made_only_of_pairs_that_the_texts_have() {
        let topics = [
            topic(0, "language models, models"),
            topic(1, "large language, models collapse, small language"),
        ];
        let all = AllPairs::of(&topics);
        let joined = |texts: &[&str]| {
            let pairs = all.within(texts, &VocabularyConfig::default()).unwrap();
            let joined = join_phrases(&["language models".into()], &pairs);
            joined.into_iter().map(|joined| joined.term).collect::<Vec<_>>()
        };
        let texts = ["Large language models", "language models. Models: collapse", "small, language"];
        assert_eq!(joined(&texts), ["large language models"]);
        assert_eq!(
            joined(&["large language", "models collapse"]),
            [
                "large language models collapse",
                "large language models collapse",
                "large language models",
                "language models collapse"
            ],
            "by way of either phrase of three words",
        );
    }

    #[test]
    fn equal_names_grow_until_they_differ() {
        let texts = ["red blue green sea sky sun"];
        let topics = [
            topic(0, "red, blue, green, sea, sky"),
            topic(1, "red, blue, green, sea, sun"),
            topic(2, "red"),
            topic(3, "red"),
        ];
        let expected = ["Red, blue, green, sea, sky", "Red, blue, green, sea, sun", "Red (2)", "Red (3)"];
        assert_eq!(names(&topics, &texts), expected);
    }

    #[test]
    fn outliers_and_topics_without_words_have_names_too() {
        assert_eq!(
            names(&[topic(-1, "red"), topic(0, ""), topic(1, "red")], &["red"]),
            ["Outliers", "Topic 0", "Red"]
        );
    }

    #[test]
    fn only_a_word_without_capitals_of_its_own_is_capitalized() {
        assert_eq!(["mT5, red", "érable", "", "LLMs"].map(capitalized), ["mT5, red", "Érable", "", "LLMs"]);
    }

    #[test]
    fn forms_of_a_word_are_one_word_and_other_words_are_not() {
        let one = "model models, translation translated, summary summaries, summarization summaries, class classes, agent agentic, bias biases, law laws";
        for (a, b) in one.split(", ").map(|pair| pair.split_once(' ').unwrap()) {
            assert!(are_forms_of_one_word(a, b) && are_forms_of_one_word(b, a), "{a} {b}");
        }
        let other = "general generation, bus bug, modal model, rate ration, emotion motion, use user, law lawn, été étés-là";
        for (a, b) in other.split(", ").map(|pair| pair.split_once(' ').unwrap()) {
            assert!(!are_forms_of_one_word(a, b) && !are_forms_of_one_word(b, a), "{a} {b}");
        }
    }

    #[test]
    fn a_phrase_stands_for_all_of_its_words() {
        let texts = ["a peer review", "a review of papers", "reviews", "a review", "KV cache", "zero-shot"];
        assert_eq!(
            names(
                &[topic(0, "review, peer, papers, kv, shot, cache, kv cache, peer review, zero shot")],
                &texts
            ),
            ["Peer review, papers, KV cache"]
        );
    }

    #[test]
    fn a_word_that_one_text_repeats_comes_last() {
        let mut texts = vec!["prompt tuning"; 39];
        texts.push("PEEM, PEEM and PEEM");
        assert_eq!(names(&[topic(0, "peem, prompt, tuning")], &texts), ["Prompt, tuning, PEEM"]);
    }

    #[test]
    fn the_bertopic_form_has_the_id_and_four_words() {
        assert_eq!(bertopic_name(&topic(-1, "a, b c, d, e, f")), "-1_a_b c_d_e");
    }
}
