//! The gate: what a fit must reach for its model to be written.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The numbers that can be asked for: those of [`crate::model::Model::metrics`], and how many topics there are.
pub const GATED: [&str; 9] = [
    "npmi",
    "topic_diversity",
    "dbcv",
    "stability",
    "outlier_share",
    "mean_persistence",
    "neighbour_recall",
    "coverage_reached",
    "topics",
];

/// The one of them that is better if it is smaller.
const SMALLER_IS_BETTER: &str = "outlier_share";

/// What a fit must reach. Nothing by default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateConfig {
    /// Numbers that must not be smaller.
    pub at_least: BTreeMap<String, f64>,
    /// Numbers that must not be larger.
    pub at_most: BTreeMap<String, f64>,
    /// By how much each number may be worse than that of the model that is there already.
    pub not_worse_by: BTreeMap<String, f64>,
}

impl GateConfig {
    /// Fails for a number that no fit has, with the choices.
    pub fn check(&self) -> Result<()> {
        for (name, bounds) in
            [("at_least", &self.at_least), ("at_most", &self.at_most), ("not_worse_by", &self.not_worse_by)]
        {
            for (metric, bound) in bounds {
                let setting = format!("fit.gate.{name}.{metric}");
                if !GATED.contains(&metric.as_str()) {
                    let reason = format!("is no number of a fit, expected one of {}", GATED.join(", "));
                    return Err(Error::setting(setting, reason));
                }
                if !bound.is_finite() {
                    return Err(Error::setting(setting, format!("{bound}, expected a number")));
                }
            }
        }
        Ok(())
    }

    /// What `found` does not reach, in words; `serving` are the numbers of the model that is there already, if any is.
    ///
    /// A number that a fit does not have (no two topics: no DBCV) reaches nothing.
    pub fn failures(
        &self,
        found: &BTreeMap<String, f64>,
        serving: Option<&BTreeMap<String, f64>>,
    ) -> Vec<String> {
        let mut failures = Vec::new();
        let mut ask = |metric: &str, holds: &dyn Fn(f64) -> bool, wanted: String| match found.get(metric) {
            Some(value) if holds(*value) => {}
            Some(value) => failures.push(format!("{metric} is {value:.4}, {wanted}")),
            None => failures.push(format!("{metric} is not there, {wanted}")),
        };
        for (metric, bound) in &self.at_least {
            ask(metric, &|value| value >= *bound, format!("asked for: at least {bound}"));
        }
        for (metric, bound) in &self.at_most {
            ask(metric, &|value| value <= *bound, format!("asked for: at most {bound}"));
        }
        for (metric, slack) in &self.not_worse_by {
            let Some(before) = serving.and_then(|serving| serving.get(metric)) else { continue };
            let holds = |value: f64| match metric == SMALLER_IS_BETTER {
                true => value <= before + slack,
                false => value >= before - slack,
            };
            ask(metric, &holds, format!("the model that is there has {before:.4}, and may lose {slack}"));
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|(name, value)| ((*name).to_string(), *value)).collect()
    }

    #[test]
    fn what_is_not_reached_is_told_with_both_numbers() {
        let gate = GateConfig {
            at_least: numbers(&[("npmi", 0.1), ("dbcv", 0.2)]),
            at_most: numbers(&[("outlier_share", 0.4)]),
            not_worse_by: numbers(&[("npmi", 0.05), ("outlier_share", 0.1), ("topics", 3.0)]),
        };
        gate.check().unwrap();
        let found = numbers(&[("npmi", 0.12), ("outlier_share", 0.35), ("topics", 20.0)]);
        assert_eq!(gate.failures(&found, None), ["dbcv is not there, asked for: at least 0.2"]);
        let serving = numbers(&[("npmi", 0.2), ("outlier_share", 0.2), ("topics", 22.0)]);
        let failures = gate.failures(&found, Some(&serving));
        assert_eq!(
            failures[1..],
            [
                "npmi is 0.1200, the model that is there has 0.2000, and may lose 0.05",
                "outlier_share is 0.3500, the model that is there has 0.2000, and may lose 0.1",
            ]
        );
        assert!(GateConfig::default().failures(&numbers(&[]), Some(&serving)).is_empty());
    }

    #[test]
    fn a_number_that_no_fit_has_is_refused_with_the_choices() {
        let gate = GateConfig { at_most: numbers(&[("perplexity", 1.0)]), ..GateConfig::default() };
        let error = gate.check().unwrap_err().to_string();
        assert!(error.contains("fit.gate.at_most.perplexity") && error.contains("dbcv"), "{error}");
        assert!(GateConfig { at_least: numbers(&[("npmi", f64::NAN)]), ..gate }.check().is_err());
    }
}
