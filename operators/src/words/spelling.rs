//! How terms are written: "LLMs" for `llms`, "low-resource" for `low resource`, "Alzheimer's disease".
//!
//! Terms are lower-cased and cut at hyphens so that they can be counted together; names are read by people. The
//! spelling of a term is the way most texts write it, but lower case wins over initial capitals if it is not rare: a
//! phrase that headings and abbreviations capitalise ("Retrieval-Augmented Generation (RAG)") is no proper noun.

use super::{
    Tokenizer, VocabularyConfig,
    tokens::HYPHENS,
    vocabulary::{Key, LONGEST_NGRAM},
};
use crate::Result;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

/// Documents a thread takes at a time.
const CHUNK_ROWS: usize = 2048;

/// A term with initial capitals is written in lower case if at least one in so many of its spellings is: names of
/// languages, people and systems stay far below, and common phrases far above.
const LOWER_CASE_ONE_IN: u64 = 10;

/// The spellings of some terms, and how many texts have them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spellings {
    of: FxHashMap<String, Spelling>,
}

/// How one term is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spelling {
    written: String,
    texts: u64,
    is_bound: bool,
}

impl Spellings {
    /// Finds how `texts` write `terms` (n-grams of the vocabulary of `config`), on all threads.
    ///
    /// Fails where `config` names stop words of an unknown language.
    pub fn collect<S: AsRef<str> + Sync, T: AsRef<str>>(
        texts: &[S],
        terms: impl IntoIterator<Item = T>,
        config: &VocabularyConfig,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::try_new(config)?;
        let wanted = Wanted::new(terms);
        let chunks: Vec<Vec<Tally>> = texts
            .par_chunks(CHUNK_ROWS)
            .map(|chunk| {
                let mut tallies = vec![Tally::default(); wanted.terms.len()];
                for text in chunk {
                    wanted.tally(text.as_ref(), &tokenizer, &mut tallies);
                }
                tallies
            })
            .collect();
        let mut tallies = vec![Tally::default(); wanted.terms.len()];
        for (term, of_chunk) in chunks.into_iter().flat_map(|chunk| chunk.into_iter().enumerate()) {
            tallies[term].add(of_chunk);
        }
        let found = wanted.terms.into_iter().zip(tallies);
        Ok(Self { of: found.filter_map(|(term, tally)| Some((term, tally.spelling()?))).collect() })
    }

    /// The spelling of `term`; the term itself if no text has it.
    pub fn of<'s>(&'s self, term: &'s str) -> &'s str {
        self.of.get(term).map_or(term, |spelling| &spelling.written)
    }

    /// Whether `term` is mostly written as a part of a hyphenated word, like "multi" and "shot".
    pub fn is_bound(&self, term: &str) -> bool {
        self.of.get(term).is_some_and(|spelling| spelling.is_bound)
    }

    /// How many texts have `term`.
    pub fn texts(&self, term: &str) -> u64 {
        self.of.get(term).map_or(0, |spelling| spelling.texts)
    }
}

/// The spellings of a term, each with the number of texts that have it.
#[derive(Clone, Default)]
struct Tally {
    spellings: FxHashMap<String, u64>,
    texts: u64,
    occurrences: u64,
    /// Occurrences with a hyphen right before or behind them.
    hyphenated: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.texts += other.texts;
        self.occurrences += other.occurrences;
        self.hyphenated += other.hyphenated;
        for (spelling, count) in other.spellings {
            *self.spellings.entry(spelling).or_default() += count;
        }
    }

    fn spelling(self) -> Option<Spelling> {
        let most = |spellings: &FxHashMap<String, u64>, fits: fn(&str) -> bool| {
            let fitting = spellings.iter().filter(|(spelling, _)| fits(spelling));
            // Of equally frequent spellings the last in order: lower case before upper case.
            fitting.max_by_key(|(spelling, count)| (**count, *spelling)).map(|(spelling, _)| spelling.clone())
        };
        let all: u64 = self.spellings.values().sum();
        let lower: u64 = self.spellings.iter().filter(|(s, _)| is_lower(s)).map(|(_, count)| count).sum();
        let mut written = most(&self.spellings, |_| true)?;
        if has_initial_capitals(&written) && lower * LOWER_CASE_ONE_IN >= all {
            written = most(&self.spellings, is_lower).unwrap_or(written);
        }
        Some(Spelling { written, texts: self.texts, is_bound: 2 * self.hyphenated > self.occurrences })
    }
}

fn is_lower(spelling: &str) -> bool {
    !spelling.contains(char::is_uppercase)
}

/// Whether capitals only begin words, unlike those of "LLMs" and "DeepSeek".
fn has_initial_capitals(spelling: &str) -> bool {
    spelling.split(|c: char| !c.is_alphanumeric()).all(|word| !word.chars().skip(1).any(char::is_uppercase))
}

/// The terms looked for, by the numbers of their words (from 1, in order of appearance).
struct Wanted {
    terms: Vec<String>,
    words: FxHashMap<String, u32>,
    keys: FxHashMap<Key, usize>,
}

impl Wanted {
    fn new<T: AsRef<str>>(terms: impl IntoIterator<Item = T>) -> Self {
        let mut wanted = Self { terms: Vec::new(), words: FxHashMap::default(), keys: FxHashMap::default() };
        for term in terms {
            let words: Vec<&str> = term.as_ref().split(' ').collect();
            if words.len() > LONGEST_NGRAM {
                continue;
            }
            let mut key = Key::default();
            for (place, word) in words.into_iter().enumerate() {
                let next = wanted.words.len() as u32 + 1;
                key[place] = *wanted.words.entry(word.to_owned()).or_insert(next);
            }
            wanted.keys.entry(key).or_insert_with(|| {
                wanted.terms.push(term.as_ref().to_owned());
                wanted.terms.len() - 1
            });
        }
        wanted
    }

    fn tally(&self, text: &str, tokenizer: &Tokenizer, tallies: &mut [Tally]) {
        let mut seen: Vec<(usize, String)> = Vec::new();
        // The last joined words: number and first byte.
        let mut phrase: Vec<(u32, usize)> = Vec::with_capacity(LONGEST_NGRAM);
        tokenizer.words(text, |source, word| {
            let id = self.words.get(word.text.as_ref()).copied();
            if !word.joined || id.is_none() {
                phrase.clear();
            }
            let Some(id) = id else { return };
            if phrase.len() == LONGEST_NGRAM {
                phrase.remove(0);
            }
            phrase.push((id, word.bytes.start));
            for first in 0..phrase.len() {
                let mut key = Key::default();
                for (place, &(id, _)) in phrase[first..].iter().enumerate() {
                    key[place] = id;
                }
                if let Some(&term) = self.keys.get(&key) {
                    let bytes = phrase[first].1..word.bytes.end;
                    tallies[term].occurrences += 1;
                    if source[..bytes.start].ends_with(HYPHENS) || source[bytes.end..].starts_with(HYPHENS) {
                        tallies[term].hyphenated += 1;
                    }
                    let written = &source[bytes];
                    seen.push((term, written.split_whitespace().collect::<Vec<_>>().join(" ")));
                }
            }
        });
        seen.sort_unstable();
        seen.dedup();
        for of_term in seen.chunk_by(|a, b| a.0 == b.0) {
            tallies[of_term[0].0].texts += 1;
        }
        for (term, spelling) in seen {
            *tallies[term].spellings.entry(spelling).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_spelled_as_most_texts_write_them_and_capitals_only_where_they_belong() {
        let texts = [
            "LLMs for low-resource languages and Alzheimer's disease",
            "Low-Resource settings; LLMs' use, Machine  Translation",
            "low resource or low-resource? LLMs, llms. Machine Translation and machine translation of Alzheimer's",
        ];
        let texts = texts.map(String::from).into_iter().chain(std::iter::repeat_n("LLMs in Greek".into(), 9));
        let texts: Vec<String> = texts.collect();
        let terms = [
            "llms",
            "greek",
            "low resource",
            "machine translation",
            "alzheimer disease",
            "alzheimer",
            "absent",
        ];
        let spellings = Spellings::collect(&texts, terms, &VocabularyConfig::default()).unwrap();
        let spelled = terms.map(|term| spellings.of(term));
        assert_eq!(
            spelled,
            [
                "LLMs",
                "Greek",
                "low-resource",
                "machine translation",
                "Alzheimer's disease",
                "Alzheimer",
                "absent"
            ]
        );
        assert_eq!((spellings.texts("llms"), spellings.texts("absent")), (12, 0));
    }

    #[test]
    fn words_that_are_mostly_parts_of_hyphenated_ones_are_bound() {
        let texts = ["zero-shot and few-shot", "a shot of chain-of-thought"];
        let spellings =
            Spellings::collect(&texts, ["shot", "thought", "chain thought"], &VocabularyConfig::default());
        let spellings = spellings.unwrap();
        assert_eq!(
            ["shot", "thought", "chain thought"].map(|term| spellings.is_bound(term)),
            [true, true, false]
        );
        assert_eq!(spellings.of("chain thought"), "chain-of-thought");
    }

    #[test]
    fn ideographs_are_written_without_blanks() {
        let spellings = Spellings::collect(&["机器翻译"], ["机 器"], &VocabularyConfig::default()).unwrap();
        assert_eq!(spellings.of("机 器"), "机器");
    }
}
