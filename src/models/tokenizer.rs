//! How does text become the model's tokens? From a GGUF's own vocabulary, as the model was trained.

use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    decoders::{
        byte_fallback::ByteFallback, byte_level::ByteLevel, fuse::Fuse, sequence::Sequence, strip::Strip,
    },
    models::bpe::{BPE, Vocab},
    normalizers::{Prepend, Replace, Sequence as NormalizerSequence, unicode::NFC},
    pre_tokenizers::{
        digits::Digits,
        sequence::Sequence as PreTokenizerSequence,
        split::{Split, SplitPattern},
    },
};

use super::{ModelsError, gguf::Gguf};

/// The tokenizer of a GGUF file. It adds no special tokens of its own, with or without `add_special_tokens`: the
/// chat template writes them.
pub(super) fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, ModelsError> {
    let tokens = tokens(gguf)?;
    let mut tokenizer = match gguf.text("tokenizer.ggml.model") {
        Some("gpt2") => byte_level(gguf, &tokens)?,
        Some("llama") => sentence_piece(gguf, &tokens)?,
        other => {
            return Err(unsupported(gguf, &format!("tokenizer model {other:?} is not supported")));
        }
    };
    let kinds = kinds(gguf);
    let added = |wanted: &[TokenKind], special| -> Vec<AddedToken> {
        let of_kind = tokens.iter().zip(&kinds).filter(|(_, kind)| wanted.contains(kind));
        // A token of a vocabulary is found as it stands, also where a normalizer would change it.
        of_kind.map(|(token, _)| AddedToken::from(*token, special).normalized(false)).collect()
    };
    tokenizer.add_tokens(&added(&[TokenKind::Added], false));
    tokenizer.add_special_tokens(&added(&[TokenKind::Unknown, TokenKind::Control], true));
    Ok(tokenizer)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Normal,
    Unknown,
    Control,
    Added,
}

fn kinds(gguf: &Gguf) -> Vec<TokenKind> {
    let kinds = gguf.array("tokenizer.ggml.token_type").unwrap_or_default();
    let kind = |value: &candle_core::quantized::gguf_file::Value| match value.to_i32() {
        Ok(2) => TokenKind::Unknown,
        Ok(3) => TokenKind::Control,
        Ok(4) => TokenKind::Added,
        _ => TokenKind::Normal,
    };
    kinds.iter().map(kind).collect()
}

fn tokens(gguf: &Gguf) -> Result<Vec<&str>, ModelsError> {
    const KEY: &str = "tokenizer.ggml.tokens";
    let tokens = gguf.array(KEY).ok_or_else(|| gguf.missing(KEY))?;
    tokens.iter().map(|token| token.to_string().map(String::as_str).map_err(|_| gguf.missing(KEY))).collect()
}

fn vocabulary(tokens: &[&str]) -> Vocab {
    tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id)).collect()
}

/// Byte-level BPE. What differs between families is how text is cut before merging.
fn byte_level(gguf: &Gguf, tokens: &[&str]) -> Result<Tokenizer, ModelsError> {
    const KEY: &str = "tokenizer.ggml.merges";
    let pair = |merge: &str| merge.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned()));
    let merges: Option<Vec<(String, String)>> =
        gguf.array(KEY).and_then(|merges| merges.iter().map(|merge| pair(merge.to_string().ok()?)).collect());
    let family = gguf.text("tokenizer.ggml.pre").unwrap_or("gpt-2");
    let bpe = BPE::builder()
        .vocab_and_merges(vocabulary(tokens), merges.ok_or_else(|| gguf.missing(KEY))?)
        // These vocabularies hold whole words that no merge reaches.
        .ignore_merges(matches!(family, "llama-bpe" | "llama3"))
        .build()
        .map_err(|error| ModelsError::damaged(&gguf.path, error))?;
    let mut tokenizer = Tokenizer::new(bpe);
    let cut = match family {
        "smollm" => vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()],
        "gpt-2" => vec![ByteLevel::new(false, true, true).into()],
        "llama-bpe" | "llama3" => {
            vec![split(gguf, r"\p{N}{1,3}")?, ByteLevel::new(false, true, false).into()]
        }
        "qwen2" => {
            tokenizer.with_normalizer(Some(NFC));
            vec![split(gguf, r"\p{N}")?, ByteLevel::new(false, true, false).into()]
        }
        other => {
            return Err(unsupported(gguf, &format!("pre-tokenizer {other:?} is not supported")));
        }
    };
    tokenizer.with_pre_tokenizer(Some(PreTokenizerSequence::new(cut)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    Ok(tokenizer)
}

/// Cuts into contractions, words with the character before them, numbers, punctuation and white space.
fn split(gguf: &Gguf, number: &str) -> Result<PreTokenizerWrapper, ModelsError> {
    let pattern = format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    Split::new(SplitPattern::Regex(pattern), SplitDelimiterBehavior::Isolated, false)
        .map(Into::into)
        .map_err(|error| ModelsError::damaged(&gguf.path, error))
}

/// BPE as `SentencePiece` does it: the vocabulary's scores order the merges, bytes stand in for characters it lacks.
fn sentence_piece(gguf: &Gguf, tokens: &[&str]) -> Result<Tokenizer, ModelsError> {
    const KEY: &str = "tokenizer.ggml.scores";
    let scores: Option<Vec<f32>> =
        gguf.array(KEY).and_then(|scores| scores.iter().map(|score| score.to_f32().ok()).collect());
    let scores = scores.filter(|scores| scores.len() == tokens.len()).ok_or_else(|| gguf.missing(KEY))?;
    let vocabulary = vocabulary(tokens);
    let mut merges = Vec::new();
    for (token, score) in tokens.iter().zip(&scores) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&a), Some(&b)) = (vocabulary.get(left), vocabulary.get(right)) {
                merges.push((*score, a, b, (left.to_owned(), right.to_owned())));
            }
        }
    }
    // The best score first; among equals the earlier tokens.
    merges.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
    let merges = merges.into_iter().map(|(.., pair)| pair).collect::<Vec<_>>();
    let unknown = gguf.integer("tokenizer.ggml.unknown_token_id").unwrap_or(0);
    let damaged = |error| ModelsError::damaged(&gguf.path, error);
    let mut bpe = BPE::builder().vocab_and_merges(vocabulary, merges).byte_fallback(true).fuse_unk(true);
    if let Some(token) = tokens.get(unknown as usize) {
        bpe = bpe.unk_token((*token).to_owned());
    }
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(damaged)?);
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let mut decoders: Vec<DecoderWrapper> =
        vec![Replace::new("▁", " ").map_err(damaged)?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if !matches!(gguf.value("tokenizer.ggml.add_space_prefix").map(|value| value.to_bool()), Some(Ok(false)))
    {
        normalizers.push(Prepend::new("▁".into()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    normalizers.push(Replace::new(" ", "▁").map_err(damaged)?.into());
    tokenizer.with_normalizer(Some(NormalizerSequence::new(normalizers)));
    tokenizer.with_decoder(Some(Sequence::new(decoders)));
    Ok(tokenizer)
}

fn unsupported(gguf: &Gguf, problem: &str) -> ModelsError {
    let problem = format!("{problem}; use the model's folder with safetensors and tokenizer.json instead");
    ModelsError::unsupported(&gguf.path, problem)
}

#[cfg(test)]
mod tests {
    use crate::models::tests::{TinyGguf, round_trip};

    #[test]
    fn scores_order_the_merges_and_bytes_stand_in_for_characters() {
        let tokenizer = TinyGguf::sentence_piece().tokenizer().unwrap();
        let pieces = |text: &str| tokenizer.encode(text, false).unwrap().get_tokens().to_vec();
        // "he" + "llo" has the better score than "hell" + "o".
        assert_eq!(pieces("hello"), ["▁", "he", "llo"]);
        assert_eq!(pieces("</s>hell"), ["</s>", "▁", "he", "l", "l"]);
        assert_eq!(pieces("é"), ["▁", "<0xC3>", "<0xA9>"]);
        for text in ["hello hell", "  é 東", "a\nb", ""] {
            assert_eq!(round_trip(&tokenizer, text), text);
        }
    }

    #[test]
    fn words_of_a_vocabulary_are_found_as_each_family_cuts_text() {
        for (family, pieces) in [
            ("smollm", vec!["Ġ", "1", "2", "3", "4", "Ġ", "ok", "!"]),
            ("gpt-2", vec!["Ġ", "123", "4", "Ġ", "ok", "!"]),
            ("llama-bpe", vec!["Ġ", "123", "4", "Ġ", "ok", "!"]),
            ("qwen2", vec!["Ġ", "1", "2", "3", "4", "Ġ", "ok", "!"]),
        ] {
            let tokenizer = TinyGguf::byte_level(family).tokenizer().unwrap();
            assert_eq!(tokenizer.encode(" 1234 ok!", false).unwrap().get_tokens(), pieces, "{family}");
            assert_eq!(tokenizer.encode("<|end|>", false).unwrap().len(), 1);
            for text in [" 1234 ok!", "naïve 東京 👩‍👩‍👧‍👦", " \t\r\n  x  "] {
                assert_eq!(round_trip(&tokenizer, text), text, "{family}");
            }
        }
    }

    #[test]
    fn a_family_that_is_not_known_is_refused_by_name() {
        let error = TinyGguf::byte_level("deep-thought").tokenizer().unwrap_err().to_string();
        assert!(error.contains("deep-thought") && error.contains("tokenizer.json"), "{error}");
    }
}
