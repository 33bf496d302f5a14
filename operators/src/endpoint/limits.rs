//! When an endpoint wants to be asked: its rate limits as its answers' headers tell them, and waits between tries.
//!
//! Source: OpenAI's rate limits guide (`x-ratelimit-remaining-requests`, `x-ratelimit-reset-tokens`, ...) and RFC 9110
//! (`retry-after`).

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pace at which requests go out.
#[derive(Debug, Default)]
pub(super) struct Pace {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// Nothing goes out before.
    not_before: Option<Instant>,
    /// Tokens that are left, until when.
    tokens: Option<(u64, Instant)>,
}

impl Pace {
    /// Waits until a request of so many tokens may go out.
    pub(super) async fn wait(&self, tokens: u64) {
        while let Some(until) = self.take(tokens, Instant::now()) {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Lets nothing go out for `wait`.
    pub(super) fn hold(&self, wait: Duration) {
        let until = Instant::now() + wait;
        self.with(|state| state.not_before = state.not_before.max(Some(until)));
    }

    /// Takes in what an answer says of what is left; windows are believed to be `longest` at most.
    pub(super) fn heed(&self, headers: &HeaderMap, longest: Duration) {
        let now = Instant::now();
        let left = |kind: &str| {
            let number = |name: String| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
            let reset = headers.get(format!("x-ratelimit-reset-{kind}"))?.to_str().ok()?;
            let reset = span(reset)?.min(longest);
            Some((number(format!("x-ratelimit-remaining-{kind}"))?, now + reset))
        };
        self.with(|state| {
            if let Some((0, until)) = left("requests") {
                state.not_before = state.not_before.max(Some(until));
            }
            if let Some(left) = left("tokens") {
                state.tokens = Some(left);
            }
        });
    }

    /// Takes `tokens` of what is left; says until when to wait where that is too few.
    fn take(&self, tokens: u64, now: Instant) -> Option<Instant> {
        self.with(|state| {
            if let Some(until) = state.not_before.filter(|until| *until > now) {
                return Some(until);
            }
            match &mut state.tokens {
                Some((left, until)) if *until > now && *left < tokens => Some(*until),
                Some((left, until)) if *until > now => {
                    *left -= tokens;
                    None
                }
                _ => None,
            }
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The wait that an answer asks for before the next try.
pub(super) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    if let Some(wait) = text("retry-after-ms").and_then(|wait| wait.trim().parse().ok()) {
        return Some(Duration::from_millis(wait));
    }
    let wait = text("retry-after")?.trim();
    match wait.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => {
            let until = DateTime::parse_from_rfc2822(wait).ok()?.with_timezone(&Utc);
            Some((until - Utc::now()).to_std().unwrap_or_default())
        }
    }
}

/// The wait before a try after `tries` others: twice as long each time, and between half and one and a half of that, by
/// the request, so that requests that failed together do not come back together.
pub(super) fn back_off(first: Duration, tries: u32, body: &Value) -> Duration {
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(body.to_string().as_bytes(), u64::from(tries));
    let spread = 0.5 + (hash >> 11) as f64 / (1u64 << 53) as f64;
    first.saturating_mul(1 << tries.min(16)).mul_f64(spread)
}

/// Reads spans such as `1s`, `6m0s`, `20ms`, `1h2m3.5s`; a bare number is seconds.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        seconds += number
            * match &rest[digits..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" | "" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};
    use serde_json::json;

    const MINUTE: Duration = Duration::from_secs(60);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        pairs.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    #[test]
    fn spans_are_read_as_endpoints_write_them() {
        for (text, seconds) in [
            ("1s", 1.0),
            ("6m0s", 360.0),
            ("20ms", 0.02),
            ("1h2m3.5s", 3723.5),
            ("12", 12.0),
            ("0.5", 0.5),
            ("", 0.0),
        ] {
            assert_eq!(span(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(span("soon"), None);
        assert_eq!(span("1 fortnight"), None);
    }

    #[test]
    fn nothing_goes_out_before_the_window_of_requests_opens() {
        let pace = Pace::default();
        pace.heed(
            &headers(&[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "5s")]),
            MINUTE,
        );
        let now = Instant::now();
        let until = pace.take(1, now).unwrap();
        assert!(until > now + Duration::from_secs(4) && until <= now + Duration::from_secs(5));
        assert_eq!(pace.take(1, until), None);
    }

    #[test]
    fn tokens_that_are_left_are_shared_by_all_requests() {
        let pace = Pace::default();
        pace.heed(
            &headers(&[("x-ratelimit-remaining-tokens", "100"), ("x-ratelimit-reset-tokens", "1m")]),
            MINUTE,
        );
        let now = Instant::now();
        assert_eq!(pace.take(60, now), None);
        let until = pace.take(60, now).unwrap();
        assert_eq!(pace.take(40, now), None, "40 are left");
        assert_eq!(pace.take(1000, until), None, "a new window");
    }

    #[test]
    fn waits_that_are_asked_for_are_found() {
        let wait = |pairs: &[(&'static str, &str)]| asked_wait(&headers(pairs));
        assert_eq!(wait(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(wait(&[("retry-after-ms", "50"), ("retry-after", "7")]), Some(Duration::from_millis(50)));
        assert_eq!(
            wait(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]),
            Some(Duration::ZERO),
            "a time that is past"
        );
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("retry-after", "-3")]), None);
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn waits_double_and_differ_by_request() {
        let first = Duration::from_secs(1);
        for tries in 0..5 {
            let wait = back_off(first, tries, &json!("a")).as_secs_f64() / f64::from(1 << tries);
            assert!((0.5..1.5).contains(&wait), "{wait}");
        }
        assert_ne!(back_off(first, 0, &json!("a")), back_off(first, 0, &json!("b")));
    }
}
