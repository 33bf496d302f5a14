//! How terms are written: "LLMs" for `llms`, "low-resource" for `low resource`, "Alzheimer's disease".
//!
//! Terms are lower-cased and cut at hyphens so that they can be counted together; names are read by people. The
//! spelling of a term is the way the texts write it most often.

use super::{
    Tokenizer, VocabularyConfig,
    vocabulary::{Key, LONGEST_NGRAM},
};
use crate::Result;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

/// Documents a thread takes at a time.
const CHUNK_ROWS: usize = 2048;

/// The spellings of some terms, and how often the texts have them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spellings {
    of: FxHashMap<String, (String, u64)>,
}

impl Spellings {
    /// Finds how `texts` write `terms` (n-grams of the vocabulary of `config`), on all threads.
    ///
    /// Each text counts a spelling once. Fails where `config` names stop words of an unknown language.
    pub fn collect<S: AsRef<str> + Sync, T: AsRef<str>>(
        texts: &[S],
        terms: impl IntoIterator<Item = T>,
        config: &VocabularyConfig,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::try_new(config)?;
        let wanted = Wanted::new(terms);
        let chunks: Vec<Tally> = texts
            .par_chunks(CHUNK_ROWS)
            .map(|chunk| {
                let mut tally = vec![FxHashMap::default(); wanted.terms.len()];
                for text in chunk {
                    wanted.tally(text.as_ref(), &tokenizer, &mut tally);
                }
                tally
            })
            .collect();
        let mut tally: Tally = vec![FxHashMap::default(); wanted.terms.len()];
        for (term, spellings) in chunks.into_iter().flat_map(|chunk| chunk.into_iter().enumerate()) {
            for (spelling, count) in spellings {
                *tally[term].entry(spelling).or_default() += count;
            }
        }
        let of = wanted.terms.into_iter().zip(tally).filter_map(|(term, spellings)| {
            let count = spellings.values().sum();
            // Of spellings that are equally frequent the last in order wins: lower case before upper case.
            let (spelling, _) = spellings.into_iter().max_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)))?;
            Some((term, (spelling, count)))
        });
        Ok(Self { of: of.collect() })
    }

    /// The spelling of `term`; the term itself if no text has it.
    pub fn of<'s>(&'s self, term: &'s str) -> &'s str {
        self.of.get(term).map_or(term, |(spelling, _)| spelling)
    }

    /// How many times `term` occurs, once for each text and spelling.
    pub fn count(&self, term: &str) -> u64 {
        self.of.get(term).map_or(0, |(_, count)| *count)
    }
}

/// For each wanted term its spellings with their counts.
type Tally = Vec<FxHashMap<String, u64>>;

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

    fn tally(&self, text: &str, tokenizer: &Tokenizer, tally: &mut Tally) {
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
                    let written = &source[phrase[first].1..word.bytes.end];
                    seen.push((term, written.split_whitespace().collect::<Vec<_>>().join(" ")));
                }
            }
        });
        seen.sort_unstable();
        seen.dedup();
        for (term, spelling) in seen {
            *tally[term].entry(spelling).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_spelled_as_most_texts_write_them() {
        let texts = [
            "LLMs for low-resource languages and Alzheimer's disease",
            "Low-Resource settings; LLMs' use, Machine  Translation",
            "low resource or low-resource? llms. Machine Translation and machine translation of Alzheimer's",
        ];
        let terms = ["llms", "low resource", "machine translation", "alzheimer disease", "alzheimer", "absent"];
        let spellings = Spellings::collect(&texts, terms, &VocabularyConfig::default()).unwrap();
        let spelled = terms.map(|term| spellings.of(term));
        assert_eq!(spelled, ["LLMs", "low-resource", "Machine Translation", "Alzheimer's disease", "Alzheimer", "absent"]);
        assert_eq!((spellings.count("llms"), spellings.count("absent")), (3, 0));
    }

    #[test]
    fn ideographs_are_written_without_blanks() {
        let spellings = Spellings::collect(&["机器翻译"], ["机 器"], &VocabularyConfig::default()).unwrap();
        assert_eq!(spellings.of("机 器"), "机器");
    }
}
