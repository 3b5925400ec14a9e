//! Which terms does a text have? Words, lower-cased and stemmed as its language asks.

use tantivy::tokenizer::{
    AsciiFoldingFilter, Language, LowerCaser, PreTokenizedString, RemoveLongFilter, SimpleTokenizer, Stemmer,
    StopWordFilter, TextAnalyzer, Token,
};
use unicode_segmentation::UnicodeSegmentation;

/// Shorter texts are taken as English: detection guesses on a few words.
const DETECTABLE_BYTES: usize = 200;

/// Longer "words" are encoded data, not words.
const LONGEST_WORD_BYTES: usize = 80;

/// Languages with a stemmer, with their codes as stored in the index.
const LANGUAGES: [(&str, whatlang::Lang, Language); 18] = [
    ("eng", whatlang::Lang::Eng, Language::English),
    ("ara", whatlang::Lang::Ara, Language::Arabic),
    ("dan", whatlang::Lang::Dan, Language::Danish),
    ("nld", whatlang::Lang::Nld, Language::Dutch),
    ("fin", whatlang::Lang::Fin, Language::Finnish),
    ("fra", whatlang::Lang::Fra, Language::French),
    ("deu", whatlang::Lang::Deu, Language::German),
    ("ell", whatlang::Lang::Ell, Language::Greek),
    ("hun", whatlang::Lang::Hun, Language::Hungarian),
    ("ita", whatlang::Lang::Ita, Language::Italian),
    ("nob", whatlang::Lang::Nob, Language::Norwegian),
    ("por", whatlang::Lang::Por, Language::Portuguese),
    ("ron", whatlang::Lang::Ron, Language::Romanian),
    ("rus", whatlang::Lang::Rus, Language::Russian),
    ("spa", whatlang::Lang::Spa, Language::Spanish),
    ("swe", whatlang::Lang::Swe, Language::Swedish),
    ("tam", whatlang::Lang::Tam, Language::Tamil),
    ("tur", whatlang::Lang::Tur, Language::Turkish),
];

/// Cuts texts of one language into terms.
#[derive(Clone)]
pub(super) struct Analyser {
    chain: TextAnalyzer,
}

impl Analyser {
    /// The analyser of a language by its code; unknown codes are English.
    pub(super) fn new(code: &str) -> Self {
        let language = LANGUAGES.iter().find(|(c, ..)| *c == code).map_or(Language::English, |(_, _, l)| *l);
        // Accents are folded after stemming, as stemmers know their language's accents; people leave them out.
        let chain = TextAnalyzer::builder(SimpleTokenizer::default())
            .filter(RemoveLongFilter::limit(LONGEST_WORD_BYTES))
            .filter(LowerCaser)
            .dynamic();
        let chain = match StopWordFilter::new(language) {
            Some(stop) => chain.filter_dynamic(stop),
            None => chain,
        };
        let chain = chain.filter_dynamic(Stemmer::new(language)).filter_dynamic(AsciiFoldingFilter).build();
        Self { chain }
    }

    /// The terms of a text, in order.
    pub(super) fn terms(&mut self, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        let text = words(text);
        let mut stream = self.chain.token_stream(&text);
        while stream.advance() {
            terms.push(std::mem::take(&mut stream.token_mut().text));
        }
        terms
    }

    /// The terms in the form that the index takes.
    pub(super) fn tokenized(&mut self, text: &str) -> PreTokenizedString {
        let tokens = self
            .terms(text)
            .into_iter()
            .enumerate()
            .map(|(position, text)| Token { position, text, ..Token::default() })
            .collect();
        PreTokenizedString { text: String::new(), tokens }
    }
}

/// The language of a text, as a code of [`Analyser::new`]; English when it can not be told.
pub(super) fn language_of(text: &str) -> &'static str {
    let detected = (text.len() >= DETECTABLE_BYTES)
        .then(|| whatlang::detect(text))
        .flatten()
        .filter(whatlang::Info::is_reliable)
        .and_then(|info| LANGUAGES.iter().find(|(_, lang, _)| *lang == info.lang()));
    detected.map_or("eng", |(code, ..)| code)
}

/// The terms of texts, each stemmed in the language of the first: how a passage and what was written from it are
/// compared.
#[must_use]
pub fn terms_alike<const N: usize>(texts: [&str; N]) -> [Vec<String>; N] {
    let mut analyser = Analyser::new(language_of(texts.first().copied().unwrap_or_default()));
    texts.map(|text| analyser.terms(text))
}

/// Scripts that do not separate words with spaces get them here, one per word or ideograph; possessive endings go.
fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for word in text.unicode_words() {
        let word = word.strip_suffix("'s").or_else(|| word.strip_suffix("’s")).unwrap_or(word);
        out.push_str(word);
        out.push(' ');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_stemmed_and_stop_words_left_out() {
        let terms =
            Analyser::new("eng").terms("The employee's vacations are in wi-fi rooms at 88,000 cafés.");
        assert_eq!(terms, ["employe", "vacat", "wi", "fi", "room", "88", "000", "cafe"]);
    }

    #[test]
    fn each_language_has_its_stemmer() {
        assert_eq!(
            Analyser::new("deu").terms("Die Urlaubstage für Angestellte"),
            ["urlaubstag", "angestellt"]
        );
        assert_eq!(Analyser::new("eng").terms("休暇日数"), ["休", "暇", "日", "数"]);
    }

    #[test]
    fn languages_are_told_apart_when_there_is_enough_text() {
        let german = "Alle Angestellten haben Anspruch auf dreißig Tage Urlaub im Jahr. Der Antrag wird im Portal \
                      gestellt und von der Führungskraft genehmigt. Nicht genommene Tage verfallen am 31. März des \
                      folgenden Jahres, außer wenn dringende betriebliche Gründe vorliegen.";
        assert_eq!(language_of(german), "deu");
        assert_eq!(language_of("Kurz."), "eng");
    }
}
