//! Inputs: the corpus of a target, and its changes.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long the inputs at random of one target last, unless `BOLERO_RANDOM_TEST_TIME_MS` says otherwise.
pub(crate) const TIME: Duration = Duration::from_millis(1500);

/// A target: its name, which is that of its corpus, words that changes put in, and what must hold of each input.
macro_rules! target {
    ($(#[$about:meta])* $name:ident, $words:expr, $holds:expr) => {
        $(#[$about])*
        #[test]
        fn $name() {
            let seeds = $crate::input::Seeds::of(stringify!($name), $words);
            let holds: fn(&[u8]) = $holds;
            bolero::check!(name = stringify!($name)).with_test_time($crate::input::TIME).for_each(|input: &[u8]| {
                holds(input);
                // The same bytes, read as directions for changes of the corpus.
                holds(&seeds.changed(input));
            });
        }
    };
}
pub(crate) use target;

/// The corpus of a target.
pub(crate) struct Seeds {
    corpus: Vec<Vec<u8>>,
    words: &'static [&'static str],
}

impl Seeds {
    pub(crate) fn of(target: &str, words: &'static [&'static str]) -> Self {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .join("tests/fuzz/__fuzz__")
            .join(target)
            .join("corpus");
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let corpus: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(!corpus.is_empty(), "{} is empty", folder.display());
        Self { corpus, words }
    }

    /// The result of one to four changes of an entry of the corpus.
    pub(crate) fn changed(&self, directions: &[u8]) -> Vec<u8> {
        let mut directions = Directions(directions);
        let mut text = self.entry(&mut directions).to_vec();
        for _ in 0..=directions.below(4) {
            let at = directions.below(text.len() + 1);
            let end = (at + directions.below(24)).min(text.len());
            match directions.below(8) {
                0 if at < text.len() => text[at] ^= 1 << directions.below(8),
                1 => text.insert(at, directions.byte()),
                2 => drop(text.drain(at..end)),
                3 => {
                    let twice = text[at..end].to_vec();
                    text.splice(at..at, twice);
                }
                4 => drop(text.splice(at..end, self.word(&mut directions))),
                5 => drop(text.splice(at..at, self.word(&mut directions))),
                6 => text.truncate(at),
                _ => {
                    let other = self.entry(&mut directions);
                    let from = directions.below(other.len() + 1);
                    text.splice(at.., other[from..].iter().copied());
                }
            }
        }
        text
    }

    fn entry(&self, directions: &mut Directions<'_>) -> &[u8] {
        &self.corpus[directions.below(self.corpus.len())]
    }

    fn word(&self, directions: &mut Directions<'_>) -> Vec<u8> {
        match self.words {
            [] => vec![directions.byte()],
            words => words[directions.below(words.len())].as_bytes().to_vec(),
        }
    }
}

/// Choices, two bytes each; zeros at the end.
struct Directions<'a>(&'a [u8]);

impl Directions<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()])) % end.max(1)
    }
}
