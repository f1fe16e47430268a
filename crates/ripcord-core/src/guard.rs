//! The one place CEL is evaluated: `when:` guards and assertions of checks.
//!
//! A missing input is its own answer and never reaches CEL, where it would be an error among others or, worse, `false`.
//! Numbers are given as doubles only, so that `value > 5` and `value > 5.0` mean the same.
//! Whatever can be known to be wrong when a guard is loaded is an error then: at night a guard has to answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, operators};
use cel::{Context, Env, IdedExpr, Program, Value as Cel};
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

/// The parser and the interpreter recurse over what they are given and a stack that runs out cannot be caught, so texts are
/// kept to what a person writes: nobody can read a condition of more than these at night either.
const LONGEST: usize = 2_000;
const DEEPEST: usize = 60;

/// What CEL 0.15 knows, called as `f(x)` and as `x.f()`. Anything else would fail only when it is judged.
const FUNCTIONS: [&str; 10] = ["bool", "bytes", "double", "dyn", "int", "matches", "size", "string", "type", "uint"];
const METHODS: [&str; 5] = ["contains", "endsWith", "matches", "size", "startsWith"];

/// Built once: declaring the standard library costs far more than judging a guard.
static STANDARD: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

impl Guard {
    pub fn new(text: impl Into<String>) -> Result<Self, GuardError> {
        let text = text.into();
        let syntax = |why: &str| GuardError::Syntax { text: text.clone(), why: one_line(why) };
        if text.len() > LONGEST {
            return Err(GuardError::Syntax {
                text: format!("{}...", text.chars().take(60).collect::<String>()),
                why: format!("it is longer than {LONGEST} characters"),
            });
        }
        let program = catch_unwind(|| Program::compile(&text))
            .map_err(|_| syntax("the parser broke down over it"))?
            .map_err(|e| syntax(&first_mistake(&e.to_string())))?;
        let mut reading = Inputs::default();
        reading.walk(program.expression(), 0).map_err(|why| syntax(&why))?;
        let inputs = reading.found;
        Ok(Self { text, program: Arc::new(program), inputs })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names it reads: each must be declared where the guard stands. Of `json.a.b` it is `json`; what a macro binds
    /// (`x` in `json.all(x, ...)`) is none.
    pub fn inputs(&self) -> &BTreeSet<String> {
        &self.inputs
    }

    /// Judges the condition over `given`.
    /// # Errors
    /// [`GuardError::Missing`] where an input is not in `given` or is null; [`GuardError::Failed`] where the types do not fit or
    /// the answer is not true or false.
    pub fn holds(&self, given: &BTreeMap<String, Value>) -> Result<bool, GuardError> {
        let mut context = Context::with_env(STANDARD.clone());
        for input in &self.inputs {
            let value = given.get(input).filter(|value| !value.is_null());
            let Some(value) = value else {
                return Err(GuardError::Missing { text: self.text.clone(), input: input.clone() });
            };
            context.add_variable_from_value(input.as_str(), to_cel(value));
        }
        let failed = |why: &str| GuardError::Failed { text: self.text.clone(), why: one_line(why) };
        // A panic in the interpreter is a condition without an answer, not the end of the watch.
        match catch_unwind(AssertUnwindSafe(|| self.program.execute(&context))) {
            Ok(Ok(Cel::Bool(answer))) => Ok(answer),
            Ok(Ok(other)) => Err(failed(&format!("the answer is {other:?}, not true or false"))),
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed("the interpreter broke down over it")),
        }
    }
}

/// Collects the free names of an expression, and refuses what could only fail later.
#[derive(Default)]
struct Inputs {
    found: BTreeSet<String>,
    /// Names bound by the macros around.
    bound: Vec<String>,
    /// How many macros there are around.
    macros: usize,
}

impl Inputs {
    fn walk(&mut self, at: &IdedExpr, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("it is nested more than {DEEPEST} deep"));
        }
        let depth = depth + 1;
        match &at.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                self.name(name);
                Ok(())
            }
            Expr::Select(select) => self.walk(&select.operand, depth),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.walk(element, depth)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| self.entry(&entry.expr, depth)),
            Expr::Struct(made) => Err(format!("there is no type `{}`", made.type_name)),
            Expr::Call(call) => self.call(call, depth),
            Expr::Comprehension(over) => self.comprehension(over, depth),
        }
    }

    fn name(&mut self, name: &str) {
        // A leading dot names what is outside of every macro.
        let (name, bound) = match name.strip_prefix('.') {
            Some(outside) => (outside, false),
            None => (name, self.bound.iter().any(|bound| bound == name)),
        };
        if !bound {
            self.found.insert(name.to_owned());
        }
    }

    fn entry(&mut self, entry: &EntryExpr, depth: usize) -> Result<(), String> {
        match entry {
            EntryExpr::StructField(field) => self.walk(&field.value, depth),
            EntryExpr::MapEntry(entry) => {
                self.walk(&entry.key, depth)?;
                self.walk(&entry.value, depth)
            }
        }
    }

    fn call(&mut self, call: &CallExpr, depth: usize) -> Result<(), String> {
        let name = call.func_name.as_str();
        let known = match &call.target {
            None => FUNCTIONS.contains(&name) || !name.starts_with(|first: char| first.is_alphabetic()),
            Some(_) => METHODS.contains(&name),
        };
        if !known {
            return Err(format!(
                "there is no function `{name}`{}",
                if call.target.is_some() { " of a value" } else { "" }
            ));
        }
        // In `type(x) == string` the right side is a type, not something measured.
        let compares_types =
            matches!(name, operators::EQUALS | operators::NOT_EQUALS) && call.args.iter().any(is_type_of);
        for arg in call.target.as_deref().into_iter().chain(&call.args) {
            match &arg.expr {
                Expr::Ident(name) if compares_types && STANDARD.types().find_type(name).is_some() => {}
                _ => self.walk(arg, depth)?,
            }
        }
        Ok(())
    }

    /// What a macro became: the range and the start are outside of its scope, the rest inside.
    fn comprehension(&mut self, over: &ComprehensionExpr, depth: usize) -> Result<(), String> {
        self.walk(&over.iter_range, depth)?;
        self.walk(&over.accu_init, depth)?;
        // Each binds two or three names. Three macros within each other over a few hundred items are still judged at once; more of
        // them multiply, and nothing bounds how long judging may take.
        const WITHIN_EACH_OTHER: usize = 3;
        self.macros += 1;
        if self.macros > WITHIN_EACH_OTHER {
            return Err(format!(
                "more than {WITHIN_EACH_OTHER} macros (`all`, `exists`, `map` ...) stand within each other"
            ));
        }
        let before = self.bound.len();
        self.bound.push(over.accu_var.clone());
        self.bound.push(over.iter_var.clone());
        self.bound.extend(over.iter_var2.clone());
        let inside = [&over.loop_cond, &over.loop_step, &over.result];
        let walked = inside.into_iter().try_for_each(|part| self.walk(part, depth));
        self.bound.truncate(before);
        self.macros -= 1;
        walked
    }
}

fn is_type_of(at: &IdedExpr) -> bool {
    matches!(&at.expr, Expr::Call(call) if call.target.is_none() && call.func_name == "type")
}

/// The parser's report is a list of mistakes, each with a drawing; for one line the first is enough.
fn first_mistake(report: &str) -> String {
    let first = report.lines().next().unwrap_or_default();
    first.trim_start_matches("ERROR: ").trim_start_matches("<input>:").to_owned()
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
            #[expect(clippy::disallowed_types, reason = "CEL's own map type; nothing is digested from it")]
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

    fn inputs(text: &str) -> String {
        match Guard::new(text) {
            Ok(guard) => guard.inputs().iter().cloned().collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn inputs_are_the_roots_of_what_is_read_and_not_what_macros_bind() {
        let cases = [
            "json.a.b == target.version",
            "json.all(x, x.state == wanted)",
            "json.exists(x, x == x) && x > 1",
            "json.map(x, x * n).filter(y, y > value).size() > 0",
            "json.exists_one(x, others.all(y, y != x))",
            "json.filter(x, x > .x).size() > 0",
            "has(json.a.b) && json['c'][index] == 1",
            "json.all(json, json == 'a')",
            "type(value) == double && type(json) != string",
            "{'a': b, c: 'd'}.size() in [e, 1]",
        ];
        let lines: Vec<String> = cases.iter().map(|text| format!("{text} -> {}", inputs(text))).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        json.a.b == target.version -> json target
        json.all(x, x.state == wanted) -> json wanted
        json.exists(x, x == x) && x > 1 -> json x
        json.map(x, x * n).filter(y, y > value).size() > 0 -> json n value
        json.exists_one(x, others.all(y, y != x)) -> json others
        json.filter(x, x > .x).size() > 0 -> json x
        has(json.a.b) && json['c'][index] == 1 -> index json
        json.all(json, json == 'a') -> json
        type(value) == double && type(json) != string -> json value
        {'a': b, c: 'd'}.size() in [e, 1] -> b c e
        ");
    }

    #[test]
    fn what_could_only_fail_later_is_refused_when_loaded() {
        let deep = format!("{}true{}", "(".repeat(300), ")".repeat(300));
        let chain = format!("value{} > 1.0", " + 1.0".repeat(200));
        let long = format!("value > {}", "1".repeat(3_000));
        let cases = [
            "abs(value) > 1",
            "value.abs() > 1",
            "json.trim() == ''",
            "Point{x: 1} == value",
            "status ==",
            &deep,
            &chain,
            &long,
        ];
        let why = |text: &&str| match Guard::new(*text) {
            Err(GuardError::Syntax { why, .. }) => why,
            other => panic!("{text}: {other:?}"),
        };
        let lines: Vec<String> = cases.iter().map(why).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        there is no function `abs`
        there is no function `abs` of a value
        there is no function `trim` of a value
        there is no type `Point`
        1:10: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}
        1:97: Syntax error: OtherError(ParseError { source: None, pos: (96, -1), msg: "Recursion limit of 96 exceeded", expr_id: 0, source_info: None })
        it is nested more than 60 deep
        it is longer than 2000 characters
        "#);
    }

    /// The list of known functions is CEL's own: each one named here is found by the interpreter.
    #[test]
    fn every_function_we_let_pass_is_known_to_cel() {
        for call in
            FUNCTIONS.map(|f| format!("{f}(x) == 1")).into_iter().chain(METHODS.map(|m| format!("x.{m}(x) == 1")))
        {
            let program = Program::compile(&call).unwrap();
            let mut context = Context::with_env(STANDARD.clone());
            context.add_variable_from_value("x", "text".to_owned());
            if let Err(error) = program.execute(&context) {
                assert!(!error.to_string().contains("Undeclared"), "{call}: {error}");
            }
        }
    }

    /// As deep as the length allows, on a thread with the stack of a runtime's worker.
    #[test]
    fn what_nests_as_deep_as_it_can_does_not_overflow() {
        for (open, middle, close) in [
            ("(", "true", ")"),
            ("[", "1", "]"),
            ("!", "true", ""),
            ("-", "1", ""),
            ("1+", "1", ""),
            ("a.", "a", ""),
            ("", "a", "[0]"),
            ("true?", "true", ":true"),
            ("[1].all(x,", "true", ")"),
            ("a||", "a", ""),
            ("", "a", ".b"),
            ("{1:", "1", "}"),
            ("size(", "a", ")"),
        ] {
            let times = (LONGEST - middle.len()) / (open.len() + close.len());
            let text = format!("{}{middle}{}", open.repeat(times), close.repeat(times));
            let judge = move || {
                Guard::new(text).and_then(|guard| guard.holds(&BTreeMap::from([("a".to_owned(), json!(true))])))
            };
            let judged = std::thread::Builder::new().stack_size(2 << 20).spawn(judge).unwrap().join();
            assert!(judged.is_ok(), "{open}{middle}{close}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in proptest::prop_oneof![
            ".{0,200}",
            r#"([a-z]{1,3}|[0-9.]{1,4}|'[a-z]*'|[ ()\[\]{}.,:?<>=!&|+*/%-]|\.(all|map|exists|filter|size|matches)\(|\$|\\|"){0,40}"#,
        ]) {
            if let Ok(guard) = Guard::new(text) {
                let given = guard.inputs().iter().map(|input| (input.clone(), json!({"a": [1, "b", null]}))).collect();
                let _ = guard.holds(&given);
            }
        }
    }
}
