//! Text to words, and words to numbers.
//!
//! By default words are the segments of Unicode Standard Annex 29, lower-cased, so that any script works. What
//! carries no topic is left out: stop words, numbers, single letters (an ideograph stays: it is a word), web
//! addresses, and LaTeX commands (a word behind a backslash). Two words are *joined*, and may form a phrase, only if
//! nothing but blanks or hyphens lies between them: no phrase reaches across a stop word or a full stop, but for the
//! stop words inside a hyphenated compound ("chain-of-thought" is `chain thought`).
//!
//! [`TokenPattern::Sklearn`] is scikit-learn's `CountVectorizer` instead: lower-case the text, take the matches of
//! `\b\w\w+\b`, drop stop words, and join whatever is left.

use super::VocabularyConfig;
use crate::Result;
use rayon::prelude::*;
use regex::Regex;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, ops::Range};
use unicode_segmentation::UnicodeSegmentation;

/// Stands between two words of a document that are not joined.
pub(super) const BREAK: u32 = u32::MAX;

/// Hyphens that make one word of two: the ASCII one, the Unicode one, the one that does not break.
pub(super) const HYPHENS: [char; 3] = ['-', '\u{2010}', '\u{2011}'];

/// How English marks the possessive.
const POSSESSIVES: [&str; 2] = ["'s", "’s"];

/// Documents a thread takes at a time, at least: enough to make merging its words cheap.
const CHUNK_ROWS: usize = 2048;

/// The most chunks on few threads: each holds words of its own until all are merged, and common words would be held
/// once a chunk.
const CHUNKS: usize = 64;

/// The most chunks a thread where that is more: enough that no thread waits long for the last one.
const CHUNKS_A_THREAD: usize = 4;

/// What counts as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenPattern {
    /// The words of Unicode Standard Annex 29: right for any script.
    #[default]
    Unicode,
    /// scikit-learn's `\b\w\w+\b` over the lower-cased text; phrases reach across dropped words.
    Sklearn,
}

/// The words of many documents as numbers: words sorted, documents one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    words: Vec<String>,
    ids: Vec<u32>,
    offsets: Vec<usize>,
}

impl Tokens {
    /// Reads the words of `texts`, one document each, on all threads. 4 bytes are kept for each word in them.
    ///
    /// Fails where `config` names stop words of an unknown language.
    pub fn read<S: AsRef<str> + Sync>(texts: &[S], config: &VocabularyConfig) -> Result<Self> {
        let tokenizer = Tokenizer::try_new(config)?;
        let most = CHUNKS.max(CHUNKS_A_THREAD * rayon::current_num_threads());
        let rows = texts.len().div_ceil(most).max(CHUNK_ROWS);
        let chunks: Vec<Chunk> = texts.par_chunks(rows).map(|chunk| Chunk::read(chunk, &tokenizer)).collect();

        // Words are numbered in sorted order, so that numbers depend on neither threads nor chunks.
        let distinct: FxHashSet<&str> =
            chunks.iter().flat_map(|chunk| chunk.words.keys().map(String::as_str)).collect();
        let mut words: Vec<String> = distinct.into_iter().map(String::from).collect();
        words.par_sort_unstable();
        let number: FxHashMap<&str, u32> = words.iter().map(String::as_str).zip(0..).collect();

        let mut ids = Vec::with_capacity(chunks.iter().map(|chunk| chunk.ids.len()).sum());
        let mut offsets = Vec::with_capacity(texts.len() + 1);
        offsets.push(0);
        for chunk in chunks {
            let mut to_number = vec![BREAK; chunk.words.len()];
            for (word, &local) in &chunk.words {
                to_number[local as usize] = number[word.as_str()];
            }
            let start = ids.len();
            ids.extend(chunk.ids.iter().map(|&id| if id == BREAK { BREAK } else { to_number[id as usize] }));
            offsets.extend(chunk.ends.iter().map(|end| start + end));
        }
        Ok(Self { words, ids, offsets })
    }

    /// The number of documents.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no documents.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The distinct words, sorted; a word's number is its place here.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The words of document `row` by number, with [`BREAK`] between words that are not joined.
    pub(crate) fn document(&self, row: usize) -> &[u32] {
        &self.ids[self.offsets[row]..self.offsets[row + 1]]
    }

    /// The words of document `row`, in order.
    pub fn document_words(&self, row: usize) -> impl Iterator<Item = &str> {
        self.document(row).iter().filter(|&&id| id != BREAK).map(|&id| self.words[id as usize].as_str())
    }

    /// The number of `word`, if any document has it.
    pub(super) fn number(&self, word: &str) -> Option<u32> {
        // Words are numbered with u32, so a place fits.
        self.words.binary_search_by(|known| known.as_str().cmp(word)).ok().map(|at| at as u32)
    }
}

/// A word found in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word<'a> {
    /// The word as terms hold it: lower-cased, without possessive or elision.
    pub text: Cow<'a, str>,
    /// The bytes it covers in the text that was searched, without possessive or elision.
    pub bytes: Range<usize>,
    /// Whether it may form a phrase with the word before it.
    pub joined: bool,
}

/// Finds the words of a text.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    stop_words: FxHashSet<String>,
    sklearn: Option<Regex>,
}

impl Tokenizer {
    /// Makes the tokenizer of a vocabulary; fails where its stop words' language is unknown.
    pub fn try_new(config: &VocabularyConfig) -> Result<Self> {
        let mut stop_words = config.stop_words.to_set()?;
        stop_words.extend(config.more_stop_words.iter().map(|word| word.to_lowercase()));
        let sklearn = match config.token_pattern {
            TokenPattern::Unicode => None,
            // Python's `\w` is letters, numbers of any kind and `_`; Rust's would add combining marks. Taking the
            // longest run is what the two `\b` ask for.
            TokenPattern::Sklearn => Some(
                Regex::new(r"[\p{L}\p{N}_]{2,}")
                    .unwrap_or_else(|_| unreachable!("a constant, tested pattern")),
            ),
        };
        Ok(Self { stop_words, sklearn })
    }

    /// Calls `visit` with each word of `text`, and with the text that the words' bytes refer to (the lower-cased
    /// one for [`TokenPattern::Sklearn`]).
    pub fn words<'t>(&self, text: &'t str, mut visit: impl FnMut(&str, Word<'_>)) {
        match &self.sklearn {
            Some(pattern) => {
                let lower = text.to_lowercase();
                let mut joined = false;
                for found in
                    pattern.find_iter(&lower).filter(|found| !self.stop_words.contains(found.as_str()))
                {
                    visit(&lower, Word { text: Cow::Borrowed(found.as_str()), bytes: found.range(), joined });
                    joined = true;
                }
            }
            None => self.unicode_words(text, |word: Word<'t>| visit(text, word)),
        }
    }

    fn unicode_words<'t>(&self, text: &'t str, mut visit: impl FnMut(Word<'t>)) {
        let mut last_end = None;
        let mut skip_until = 0;
        for (start, segment) in text.unicode_word_indices() {
            let end = start + segment.len();
            if start < skip_until {
                continue;
            }
            if text[end..].starts_with("://") || segment.starts_with("www.") {
                let rest = &text[end..];
                skip_until = end + rest.find(char::is_whitespace).unwrap_or(rest.len());
                continue;
            }
            let is_command = text[..start].ends_with('\\');
            let Some((text_of_word, core)) = self.normalize(segment).filter(|_| !is_command) else {
                continue;
            };
            let bytes = start + core.start..start + core.end;
            let joined = last_end.is_some_and(|last: usize| is_joint(&text[last..bytes.start]));
            last_end = Some(bytes.end);
            visit(Word { text: text_of_word, bytes, joined });
        }
    }

    /// The word that a segment stands for and the bytes of it in the segment, or `None` if it carries no topic.
    fn normalize<'t>(&self, segment: &'t str) -> Option<(Cow<'t, str>, Range<usize>)> {
        if self.is_stop_word(segment) {
            return None;
        }
        let core = self.without_clitics(segment);
        let word = lower(&segment[core.clone()]);
        let mut letters = word.chars();
        let is_word = match (letters.next(), letters.next()) {
            (Some(only), None) => is_ideographic(only),
            _ => word.chars().any(char::is_alphabetic),
        };
        let is_whole = core.len() == segment.len();
        (is_word && (is_whole || !self.is_stop_word(&word))).then_some((word, core))
    }

    fn is_stop_word(&self, word: &str) -> bool {
        let lower = lower(word);
        if lower.contains('’') {
            self.stop_words.contains(&lower.replace('’', "'"))
        } else {
            self.stop_words.contains(lower.as_ref())
        }
    }

    /// Cuts off underscores (`_model_`), the possessive (`model's`) and an elided article or pronoun (`l'homme`,
    /// `dell'arte`); returns the bytes that are left.
    fn without_clitics(&self, segment: &str) -> Range<usize> {
        let end = POSSESSIVES
            .iter()
            .find_map(|s| segment.strip_suffix(s))
            .unwrap_or(segment)
            .trim_end_matches('_')
            .len();
        let word = &segment[..end];
        let elided = word.rfind(['\'', '’']).filter(|&at| {
            let head = &word[..at];
            head.chars().count() <= 2 || self.is_stop_word(head)
        });
        let tail =
            elided.map_or(word, |at| word[at..].trim_start_matches(['\'', '’'])).trim_start_matches('_');
        end - tail.len()..end
    }
}

/// The words of some documents, numbered as they come.
#[derive(Default)]
struct Chunk {
    words: FxHashMap<String, u32>,
    ids: Vec<u32>,
    ends: Vec<usize>,
}

impl Chunk {
    fn read<S: AsRef<str>>(texts: &[S], tokenizer: &Tokenizer) -> Self {
        let mut chunk = Self::default();
        for text in texts {
            let mut is_first = true;
            tokenizer.words(text.as_ref(), |_, word| {
                if !word.joined && !is_first {
                    chunk.ids.push(BREAK);
                }
                is_first = false;
                let id = match chunk.words.get(word.text.as_ref()) {
                    Some(&id) => id,
                    None => {
                        // Fewer than u32::MAX distinct words: each takes more than a byte of a chunk of texts.
                        let id = chunk.words.len() as u32;
                        chunk.words.insert(word.text.into_owned(), id);
                        id
                    }
                };
                chunk.ids.push(id);
            });
            chunk.ends.push(chunk.ids.len());
        }
        chunk
    }
}

/// Lower-cases, without a copy where nothing changes.
fn lower(word: &str) -> Cow<'_, str> {
    if word.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(word.to_lowercase())
    }
}

/// Whether what lies between two words leaves them one phrase: nothing, blanks or a hyphen (perhaps after a
/// possessive), or what a hyphenated compound holds: `chain-of-thought`.
fn is_joint(between: &str) -> bool {
    let between = POSSESSIVES.iter().find_map(|s| between.strip_prefix(s)).unwrap_or(between);
    let is_compound = between.starts_with(HYPHENS)
        && between.ends_with(HYPHENS)
        && between.chars().all(|c| c.is_alphanumeric() || HYPHENS.contains(&c));
    is_compound || between.chars().all(char::is_whitespace)
}

/// Whether a single character of this kind is a word: Han, and the kana that word segmentation leaves single.
fn is_ideographic(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}' | '\u{3041}'..='\u{30ff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::StopWords;

    /// The words of `text`, a bar where two are not joined.
    fn words(text: &str, config: &VocabularyConfig) -> String {
        let mut out = String::new();
        Tokenizer::try_new(config).unwrap().words(text, |_, word| {
            if !out.is_empty() {
                out.push_str(if word.joined { " " } else { " | " });
            }
            out.push_str(&word.text);
        });
        out
    }

    fn english(text: &str) -> String {
        words(text, &VocabularyConfig::default())
    }

    #[test]
    fn words_of_every_script_are_found_and_lower_cased() {
        assert_eq!(english("Größe ΠΛΑΤΩΝ Москва 机器"), "größe πλατων москва 机 器");
    }

    #[test]
    fn phrases_stop_at_stop_words_and_punctuation_but_not_at_hyphens() {
        let text = "low-resource state of the art. Machine  translation, LLM-as-a-Judge - chain-of-thought";
        assert_eq!(
            english(text),
            "low resource state | art | machine translation | llm judge | chain thought"
        );
    }

    #[test]
    fn numbers_single_letters_addresses_and_commands_are_left_out() {
        assert_eq!(
            english(r"x 2023 95.2 at https://a.org/b?c=d see \textbf{BERT} GPT4"),
            "see | bert | gpt4"
        );
    }

    #[test]
    fn possessives_contractions_and_elisions_lose_their_grammar() {
        assert_eq!(english("the model’s head, don't, Alzheimer's disease"), "model head | alzheimer disease");
        let french = VocabularyConfig { stop_words: StopWords::Language("fr".into()), ..Default::default() };
        assert_eq!(words("l'homme qu’elle", &french), "homme");
    }

    #[test]
    fn the_sklearn_pattern_joins_across_what_it_drops() {
        let config = VocabularyConfig {
            token_pattern: TokenPattern::Sklearn,
            stop_words: StopWords::Sklearn,
            ..Default::default()
        };
        assert_eq!(words("State of the Art: x_1 don't 42!", &config), "state art x_1 don 42");
    }

    #[test]
    fn the_sklearn_pattern_splits_at_combining_marks_as_python_does() {
        let config = VocabularyConfig {
            token_pattern: TokenPattern::Sklearn,
            stop_words: StopWords::None,
            ..Default::default()
        };
        // re.findall(r"\b\w\w+\b", "हिन्दी नमस्ते ½⅓ Ⅷ②".lower()) of Python 3.11.
        assert_eq!(words("हिन्दी नमस्ते ½⅓ Ⅷ②", &config), PYTHON_WORDS);
    }
    const PYTHON_WORDS: &str = "नमस ½⅓ ⅷ②";

    #[test]
    fn documents_are_numbered_alike_at_any_thread_count() {
        let texts: Vec<String> =
            (0..5000).map(|i| format!("word{} common, term{}", i % 97, i % 31)).collect();
        let read = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Tokens::read(&texts, &VocabularyConfig::default()).unwrap())
        };
        assert_eq!(read(1), read(4));
        assert_eq!(read(2).document_words(3).collect::<Vec<_>>(), ["word3", "common", "term3"]);
    }
}
