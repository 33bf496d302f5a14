//! Why an endpoint gave no answer, and what follows from it.

use super::limits::asked_wait;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::time::Duration;

/// Characters of an endpoint's own words that are shown.
const SHOWN_CHARACTERS: usize = 300;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing will be answered: the key, the model or the place is wrong.
    #[error("{0}")]
    Denied(String),
    /// Nothing will be answered until someone pays.
    #[error("{0}")]
    Quota(String),
    /// What may be spent is spent.
    #[error("{0}")]
    Budget(String),
    /// The endpoint or the way to it failed, as often as it was tried.
    #[error("{0}")]
    Down(String),
    /// What answers there is no such API.
    #[error("{0}")]
    NoApi(String),
    /// This request is refused; others may not be.
    #[error("{place} refuses: {words}")]
    Refused {
        /// Where it was sent to.
        place: String,
        /// The endpoint's own words.
        words: String,
    },
    /// This answer is of no use: refused by the model, cut off, or not of the schema.
    #[error("{0}")]
    Useless(String),
}

impl Failure {
    /// Whether all other requests would fail in the same way.
    pub fn is_general(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Useless(_))
    }
}

/// What went wrong with one try.
#[derive(Debug, PartialEq)]
pub(super) enum Trouble {
    /// Another try may succeed, after the wait that the endpoint asks for.
    Passing { reason: String, wait: Option<Duration> },
    /// No other try will.
    Lasting(Failure),
}

impl Trouble {
    pub(super) fn of_network(error: &reqwest::Error) -> Self {
        let reason = match error {
            error if error.is_timeout() => "no answer in time".into(),
            // The innermost cause says it: "connection refused".
            error => {
                let mut cause: &dyn std::error::Error = error;
                while let Some(inner) = cause.source() {
                    cause = inner;
                }
                format!("cannot be reached: {cause}")
            }
        };
        Self::Passing { reason, wait: None }
    }

    pub(super) fn of_status(url: &str, status: StatusCode, headers: &HeaderMap, body: &str) -> Self {
        let (words, code) = said(body);
        let told = format!("{url} answers {}: {words}", status.as_u16());
        // Such a 429 does not pass, and each further try may count.
        let is_quota = ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"]
            .iter()
            .any(|quota| code.contains(quota));
        match status {
            _ if is_quota || status == StatusCode::PAYMENT_REQUIRED => Self::Lasting(Failure::Quota(told)),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT => {
                Self::Passing { reason: told, wait: asked_wait(headers) }
            }
            _ if status.is_server_error() => Self::Passing { reason: told, wait: asked_wait(headers) },
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED => Self::Lasting(Failure::Denied(told)),
            _ if status.is_redirection() => {
                Self::Lasting(Failure::NoApi(format!("{told}; give the place it leads to")))
            }
            _ => Self::Lasting(Failure::Refused { place: url.into(), words }),
        }
    }
}

/// An endpoint's own words in the body of an error, and its code and type.
fn said(body: &str) -> (String, String) {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let error = json.get("error").filter(|error| error.is_object()).unwrap_or(&json);
    let text = |key: &str| error.get(key).and_then(Value::as_str);
    let words = text("message").or_else(|| text("error")).or_else(|| text("detail"));
    let is_empty = matches!(&json, Value::Object(fields) if fields.is_empty());
    let mut words = words.unwrap_or(if is_empty { "" } else { body }).to_string();
    if let Some(parameter) = text("param").filter(|parameter| !words.contains(parameter)) {
        words = format!("{words} ({parameter})");
    }
    let words = match shown(&words) {
        words if words.is_empty() => "nothing else".to_string(),
        words => words,
    };
    (words, format!("{} {}", text("code").unwrap_or_default(), text("type").unwrap_or_default()))
}

/// Words of others as they are shown: in one line, without control characters, and not too long.
pub(super) fn shown(words: &str) -> String {
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    match crate::text::cut(&line, SHOWN_CHARACTERS) {
        cut if cut.len() < line.len() => format!("{cut}..."),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> Trouble {
        Trouble::of_status("http://a/v1", StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body)
    }

    #[test]
    fn quota_is_told_from_rate() {
        let quota = r#"{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}"#;
        assert!(
            matches!(of(429, quota), Trouble::Lasting(Failure::Quota(told)) if told.contains("exceeded"))
        );
        assert!(matches!(of(402, ""), Trouble::Lasting(Failure::Quota(_))));
        let rate = r#"{"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}"#;
        assert!(
            matches!(of(429, rate), Trouble::Passing { reason, .. } if reason.contains("Rate limit reached"))
        );
    }

    #[test]
    fn what_passes_is_told_from_what_lasts() {
        for status in [408, 429, 500, 502, 503, 504, 529] {
            assert!(matches!(of(status, "{}"), Trouble::Passing { .. }), "{status}");
        }
        for status in [401, 403, 404] {
            assert!(matches!(of(status, "{}"), Trouble::Lasting(Failure::Denied(_))), "{status}");
        }
        for status in [400, 413, 422] {
            assert!(matches!(of(status, "{}"), Trouble::Lasting(Failure::Refused { .. })), "{status}");
        }
        assert!(matches!(of(307, ""), Trouble::Lasting(Failure::NoApi(_))));
    }

    #[test]
    fn words_of_any_server_are_found() {
        for (body, words) in [
            (r#"{"message": "bad model", "code": 404}"#, "bad model"),
            (r#"{"error": "overloaded", "error_type": "Overloaded"}"#, "overloaded"),
            (r#"{"detail": "Not Found"}"#, "Not Found"),
            (r#"{"detail": [{"loc": ["body", "top_p"]}]}"#, r#"{"detail": [{"loc": ["body", "top_p"]}]}"#),
            (
                r#"{"error": {"message": "not supported", "param": "temperature"}}"#,
                "not supported (temperature)",
            ),
            ("a\u{1b}[31mb", "a[31mb"),
            ("<html>\n  <b>502</b>", "<html> <b>502</b>"),
            ("{}", "nothing else"),
        ] {
            assert_eq!(said(body).0, words);
        }
        assert_eq!(said(&"x".repeat(1000)).0.len(), SHOWN_CHARACTERS + 3);
    }
}
