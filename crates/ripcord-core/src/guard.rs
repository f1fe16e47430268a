//! The one place CEL is evaluated: `when:` guards and assertions of checks.
//!
//! A missing input is its own answer and never reaches CEL, where it would be an error among others or, worse, `false`.
//! Numbers are given as doubles only, so that `value > 5` and `value > 5.0` mean the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use cel::{Context, Program, Value as Cel};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A condition in CEL, compiled. Written and compared as its text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Guard {
    text: String,
    program: Arc<Program>,
    inputs: BTreeSet<String>,
}

/// Why a guard has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    #[error("`{text}` is not a condition: {why}")]
    Syntax { text: String, why: String },
    #[error("`{text}` needs `{input}`, of which there is no data")]
    Missing { text: String, input: String },
    #[error("`{text}` cannot be judged: {why}")]
    Failed { text: String, why: String },
}

impl Guard {
    pub fn new(text: impl Into<String>) -> Result<Self, GuardError> {
        let text = text.into();
        let program = Program::compile(&text)
            .map_err(|e| GuardError::Syntax { text: text.clone(), why: one_line(&e.to_string()) })?;
        let references = program.references();
        let inputs = references.variables().into_iter().map(str::to_owned).collect();
        Ok(Self { text, program: Arc::new(program), inputs })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names it reads: each must be declared where the guard stands.
    pub fn inputs(&self) -> &BTreeSet<String> {
        &self.inputs
    }

    /// Judges the condition over `given`.
    /// # Errors
    /// [`GuardError::Missing`] where an input is not in `given` or is null; [`GuardError::Failed`] where the types do not fit or
    /// the answer is not true or false.
    pub fn holds(&self, given: &BTreeMap<String, Value>) -> Result<bool, GuardError> {
        let mut context = Context::default();
        for input in &self.inputs {
            let value = given.get(input).filter(|value| !value.is_null());
            let Some(value) = value else {
                return Err(GuardError::Missing { text: self.text.clone(), input: input.clone() });
            };
            context.add_variable_from_value(input.as_str(), to_cel(value));
        }
        let failed = |why: String| GuardError::Failed { text: self.text.clone(), why: one_line(&why) };
        match self.program.execute(&context) {
            Ok(Cel::Bool(answer)) => Ok(answer),
            Ok(other) => Err(failed(format!("the answer is {other:?}, not true or false"))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => Cel::Float(n.as_f64().unwrap_or(f64::NAN)),
        Value::String(s) => Cel::String(Arc::new(s.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(map) => {
            let map: std::collections::HashMap<String, Cel> = map.iter().map(|(k, v)| (k.clone(), to_cel(v))).collect();
            Cel::Map(map.into())
        }
    }
}

impl PartialEq for Guard {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Guard {}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({})", self.text)
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Guard {
    type Error = GuardError;
    fn try_from(text: String) -> Result<Self, GuardError> {
        Self::new(text)
    }
}

impl From<Guard> for String {
    fn from(guard: Guard) -> String {
        guard.text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judge(text: &str, given: Value) -> Result<bool, String> {
        let given = given.as_object().unwrap().clone().into_iter().collect();
        Guard::new(text).and_then(|guard| guard.holds(&given)).map_err(|e| e.to_string())
    }

    #[test]
    fn conditions_are_judged_over_numbers_texts_and_json() {
        assert_eq!(
            judge("status == 200 && json.version == 'v1'", json!({"status": 200, "json": {"version": "v1"}})),
            Ok(true)
        );
        assert_eq!(judge("value > 5", json!({"value": 5.5})), Ok(true));
        assert_eq!(judge("value + 1.0 > 5", json!({"value": 4})), Ok(false));
        assert_eq!(judge("json.all(x, x == 'healthy')", json!({"json": ["healthy", "down"]})), Ok(false));
    }

    #[test]
    fn a_missing_input_is_not_false() {
        assert_eq!(judge("value > 5", json!({})), Err("`value > 5` needs `value`, of which there is no data".into()));
        assert_eq!(
            judge("value > 5", json!({"value": null})),
            Err("`value > 5` needs `value`, of which there is no data".into())
        );
        assert!(judge("json.version == 'v1'", json!({"json": {}})).is_err());
    }

    #[test]
    fn nonsense_is_an_error_with_its_text() {
        assert!(judge("status ==", json!({})).unwrap_err().starts_with("`status ==` is not a condition"));
        assert!(judge("status", json!({"status": 200})).unwrap_err().contains("not true or false"));
    }
}
