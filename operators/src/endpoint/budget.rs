//! What may be spent, and what was.
//!
//! Before a request goes out, what it may cost is set aside (its bytes over three, and the longest answer), so that
//! requests under way together do not spend more than there is; its answer says what it cost. One that fails costs
//! nothing here, whatever the endpoint counts. A request that would be one too many waits for the answers to
//! those under way, which mostly cost less.

use super::Failure;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// What one run may spend. By default anything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Tokens, of questions and answers. Absent: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money, in the currency of the prices. Absent: any sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money: Option<f64>,
    /// The price of a million tokens of questions. Absent: money is not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_price: Option<f64>,
    /// The price of a million tokens of answers. Absent: money is not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_price: Option<f64>,
}

impl Budget {
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let numbers =
            [("money", self.money), ("input_price", self.input_price), ("output_price", self.output_price)];
        for (key, number) in numbers {
            if number.is_some_and(|number| !number.is_finite() || number < 0.0) {
                return Err(Error::setting(format!("{name}.{key}"), "expected a number, 0 or more"));
            }
        }
        if self.money.is_some() && self.input_price.is_none() && self.output_price.is_none() {
            let reason =
                "money is counted by prices: give input_price or output_price, a million tokens each";
            return Err(Error::setting(format!("{name}.money"), reason));
        }
        Ok(())
    }

    /// What so many tokens of questions and of answers cost; nothing where there are no prices.
    pub fn price_of(&self, input_tokens: f64, output_tokens: f64) -> Option<f64> {
        let of = |tokens: f64, price: Option<f64>| tokens * price.unwrap_or(0.0) / 1e6;
        let is_priced = self.input_price.is_some() || self.output_price.is_some();
        is_priced.then(|| of(input_tokens, self.input_price) + of(output_tokens, self.output_price))
    }

    fn price(&self, tokens: (u64, u64)) -> f64 {
        self.price_of(tokens.0 as f64, tokens.1 as f64).unwrap_or(0.0)
    }
}

/// What was asked, answered and spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Requests that went out.
    pub calls: u64,
    /// Those of them that repeated one which had failed.
    pub retries: u64,
    /// Answers that were kept from before: no request went out.
    pub kept: u64,
    /// Tokens of questions.
    pub input_tokens: u64,
    /// Tokens of answers.
    pub output_tokens: u64,
    /// Money, in the currency of the prices; nothing where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money: Option<f64>,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.calls, if self.calls == 1 { "call" } else { "calls" })?;
        if self.retries > 0 {
            write!(f, " ({} of them again)", self.retries)?;
        }
        write!(f, ", {} kept answers, {} + {} tokens", self.kept, self.input_tokens, self.output_tokens)?;
        self.money.map_or(Ok(()), |money| write!(f, ", {money:.4} spent"))
    }
}

/// Tokens set aside for a request: of its question, of its answer. They come back when it fails.
pub(super) struct Reserved<'p> {
    purse: &'p Purse,
    tokens: (u64, u64),
}

/// Whether there is room for a request.
enum Room<'p> {
    Now(Reserved<'p>),
    /// Once a request under way has its answer.
    Later,
    Never(Failure),
}

/// A budget, and what is left of it.
#[derive(Debug)]
pub(super) struct Purse {
    budget: Budget,
    state: Mutex<State>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    usage: Usage,
    reserved: (u64, u64),
}

impl Purse {
    pub(super) fn new(budget: Budget) -> Self {
        Self { budget, state: Mutex::default(), settled: Notify::new() }
    }

    /// Sets tokens aside, as soon as there are so many.
    pub(super) async fn reserve(&self, tokens: (u64, u64)) -> std::result::Result<Reserved<'_>, Failure> {
        loop {
            // Listens before it looks, so that no answer comes between.
            let settled = self.settled.notified();
            match self.try_reserve(tokens) {
                Room::Later => settled.await,
                Room::Now(reserved) => return Ok(reserved),
                Room::Never(failure) => return Err(failure),
            }
        }
    }

    fn try_reserve(&self, tokens: (u64, u64)) -> Room<'_> {
        self.with(|State { usage, reserved }| {
            let sum =
                |spent: u64, reserved: u64, more: u64| spent.saturating_add(reserved).saturating_add(more);
            let after = (
                sum(usage.input_tokens, reserved.0, tokens.0),
                sum(usage.output_tokens, reserved.1, tokens.1),
            );
            let spent = |budget: String, next: String, left: String| match *reserved {
                (0, 0) => Room::Never(Failure::Budget(format!(
                    "the next question may take {next}, and of the budget of {budget} {left} are left"
                ))),
                _ => Room::Later,
            };
            if let Some(most) = self.budget.tokens.filter(|most| after.0.saturating_add(after.1) > *most) {
                let left = most.saturating_sub(usage.input_tokens.saturating_add(usage.output_tokens));
                let next = tokens.0.saturating_add(tokens.1);
                return spent(format!("{most} tokens"), format!("{next} tokens"), left.to_string());
            }
            if let Some(most) = self.budget.money.filter(|most| self.budget.price(after) > *most) {
                let left = (most - self.budget.price((usage.input_tokens, usage.output_tokens))).max(0.0);
                let next = self.budget.price(tokens);
                return spent(format!("{most}"), format!("{next:.4}"), format!("{left:.4}"));
            }
            *reserved = (reserved.0 + tokens.0, reserved.1 + tokens.1);
            Room::Now(Reserved { purse: self, tokens })
        })
    }

    /// Counts what an answer cost by its own word, or else what was set aside for it.
    pub(super) fn settle(&self, reserved: Reserved<'_>, answer: &Value) {
        let said = |key: &str| answer["usage"][key].as_u64();
        let input = said("prompt_tokens").unwrap_or(reserved.tokens.0);
        let output = match said("completion_tokens") {
            Some(tokens) => tokens,
            // Vectors have none.
            None if answer["usage"].is_object() => 0,
            None => reserved.tokens.1,
        };
        self.with(|state| {
            let Usage { input_tokens, output_tokens, .. } = &mut state.usage;
            // An endpoint may say any number.
            (*input_tokens, *output_tokens) =
                (input_tokens.saturating_add(input), output_tokens.saturating_add(output));
        });
    }

    pub(super) fn note_call(&self, is_retry: bool) {
        self.with(|state| {
            state.usage.calls += 1;
            state.usage.retries += u64::from(is_retry);
        });
    }

    pub(super) fn note_kept(&self) {
        self.with(|state| state.usage.kept += 1);
    }

    pub(super) fn usage(&self) -> Usage {
        let usage = self.with(|state| state.usage);
        let money = self.budget.price_of(usage.input_tokens as f64, usage.output_tokens as f64);
        Usage { money, ..usage }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.purse.with(|state| {
            state.reserved.0 -= self.tokens.0;
            state.reserved.1 -= self.tokens.1;
        });
        self.purse.settled.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now(room: Room<'_>) -> Reserved<'_> {
        match room {
            Room::Now(reserved) => reserved,
            Room::Later | Room::Never(_) => panic!("there is no room"),
        }
    }

    #[test]
    fn requests_under_way_never_spend_more_than_there_is() {
        let purse = Purse::new(Budget { tokens: Some(100), ..Budget::default() });
        let first = now(purse.try_reserve((40, 20)));
        assert!(matches!(purse.try_reserve((40, 20)), Room::Later));
        purse.settle(first, &json!({ "usage": { "prompt_tokens": 30, "completion_tokens": 5 } }));
        let second = now(purse.try_reserve((40, 20)));
        drop(second);
        drop(now(purse.try_reserve((40, 25))));
        let most = purse.try_reserve((40, 26));
        assert!(matches!(most, Room::Never(Failure::Budget(told)) if told.contains("100 tokens")));
        let usage = purse.usage();
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.money), (30, 5, None));
    }

    #[tokio::test]
    async fn one_too_many_waits_for_those_under_way() {
        let purse = Purse::new(Budget { tokens: Some(100), ..Budget::default() });
        let first = purse.reserve((60, 0)).await.unwrap();
        let (second, ()) = tokio::join!(purse.reserve((60, 0)), async {
            tokio::task::yield_now().await;
            purse.settle(first, &json!({ "usage": { "prompt_tokens": 10 } }));
        });
        assert!(second.is_ok());
        drop(second);
        assert!(matches!(purse.reserve((95, 0)).await, Err(Failure::Budget(_))));
    }

    #[test]
    fn money_is_counted_by_prices() {
        let prices = Budget { input_price: Some(2.0), output_price: Some(10.0), ..Budget::default() };
        let purse = Purse::new(Budget { money: Some(0.001), ..prices });
        let reserved = now(purse.try_reserve((100, 50)));
        purse.settle(reserved, &json!({ "usage": { "prompt_tokens": 100, "completion_tokens": 50 } }));
        assert!((purse.usage().money.unwrap() - 0.0007).abs() < 1e-12);
        assert!(matches!(purse.try_reserve((100, 50)), Room::Never(Failure::Budget(_))));
        let error = Budget { money: Some(1.0), ..Budget::default() }.check("budget").unwrap_err();
        assert!(error.to_string().contains("input_price"));
    }

    #[test]
    fn an_answer_that_does_not_say_costs_what_was_set_aside() {
        let purse = Purse::new(Budget::default());
        purse.settle(now(purse.try_reserve((7, 3))), &json!({}));
        purse.settle(now(purse.try_reserve((7, 3))), &json!({ "usage": { "prompt_tokens": 5 } }));
        assert_eq!((purse.usage().input_tokens, purse.usage().output_tokens), (12, 3));
        let hostile = json!({ "usage": { "prompt_tokens": u64::MAX, "completion_tokens": u64::MAX } });
        purse.settle(now(purse.try_reserve((1, 1))), &hostile);
        assert_eq!(purse.usage().input_tokens, u64::MAX);
    }
}
