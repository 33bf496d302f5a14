//! How data travels inside a page: numbers as base64 typed arrays, text as JSON that no HTML parser can mistake for
//! markup.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes turned into text at a time: a multiple of 3, so that only the last piece is padded.
const PIECE_BYTES: usize = 12_288;

/// Writes bytes as base64 (RFC 4648, padded) without holding them all.
pub(super) fn write_base64(bytes: impl Iterator<Item = u8>, out: &mut impl Write) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let mut text = Vec::with_capacity(PIECE_BYTES / 3 * 4);
    let mut bytes = bytes.peekable();
    while bytes.peek().is_some() {
        piece.clear();
        text.clear();
        piece.extend(bytes.by_ref().take(PIECE_BYTES));
        for group in piece.chunks(3) {
            let word =
                group.iter().enumerate().fold(0_u32, |word, (i, &b)| word | u32::from(b) << (16 - 8 * i));
            for i in 0..4 {
                // A group of n bytes fills n + 1 letters; the rest is padding.
                let letter = ALPHABET[(word >> (18 - 6 * i) & 63) as usize];
                text.push(if i <= group.len() { letter } else { b'=' });
            }
        }
        out.write_all(&text)?;
    }
    Ok(())
}

/// Writes a value as JSON that is safe inside `<script>`: `<`, `>`, `&` and the line separators of JavaScript are
/// escaped.
pub(super) fn write_json<T: Serialize + ?Sized>(value: &T, out: &mut impl Write) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, ScriptSafe)).map_err(io::Error::from)
}

/// How many bytes a value takes as such JSON.
pub(crate) fn json_bytes<T: Serialize + ?Sized>(value: &T) -> io::Result<u64> {
    let mut counted = Counted(0);
    write_json(value, &mut counted)?;
    Ok(counted.0)
}

/// Counts what is written, and keeps none of it.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns text that is safe between tags and inside quoted attributes.
pub(super) fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

struct ScriptSafe;

impl Formatter for ScriptSafe {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let unsafe_in_script = |c| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        let mut rest = fragment;
        while let Some((at, found)) = rest.char_indices().find(|&(_, c)| unsafe_in_script(c)) {
            out.write_all(&rest.as_bytes()[..at])?;
            write!(out, "\\u{:04x}", u32::from(found))?;
            rest = &rest[at + found.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write_base64(bytes.iter().copied(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn base64_gives_the_vectors_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in vectors {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn base64_has_no_seam_between_pieces() {
        let bytes: Vec<u8> = (0..PIECE_BYTES + 5).map(|i| (i * 31 % 251) as u8).collect();
        let text = base64(&bytes);
        assert_eq!(text.len(), bytes.len().div_ceil(3) * 4);
        assert_eq!(text.find('='), Some(text.len() - 1));
        assert_eq!(text[..PIECE_BYTES / 3 * 4], base64(&bytes[..PIECE_BYTES]));
    }

    #[test]
    fn json_is_as_long_as_was_counted() {
        let texts = ["a \"quote\" \\frac <b>", "", "שלום"];
        let mut out = Vec::new();
        write_json(&texts, &mut out).unwrap();
        assert_eq!(json_bytes(&texts).unwrap(), out.len() as u64);
    }

    #[test]
    fn json_keeps_every_text_and_ends_no_script() {
        let texts = [
            "</script><script>alert(1)</script>",
            "<!-- <script> ]]> &amp; \"quoted\" 'single' \\ \u{0} \n",
            "שלום \u{202e}abc مرحبا 👩‍🔬 \u{2028}\u{2029}",
        ];
        let mut out = Vec::new();
        write_json(&texts, &mut out).unwrap();
        let json = String::from_utf8(out).unwrap();
        assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}', '\n']), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), texts);
    }

    #[test]
    fn html_text_cannot_open_a_tag_or_leave_an_attribute() {
        assert_eq!(escape_html(r#"<a b="c" d='e'>&"#), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
    }
}
