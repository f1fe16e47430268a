//! What a program says: whether it fails, its exit code, a number it prints, or a number in the JSON it prints.
//!
//! A program that cannot be started, or that is still running at the limit, is a failure of the observer: nothing was measured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ripcord_config::wire::{SecretFrom, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Command, Cx, Fut, Host, Layer, Output, Reading, Sample, Signal, SignalId, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{UnitName, failed};
use crate::hosts::{Local, said, within};
use crate::http::{number_at, pointer_mistake, shorten};
use crate::{BuildCx, BuildError, SignalKind};

/// The most of an output that is kept in a sample's fields.
const SHOWN: usize = 4 << 10;

/// A program that is run for each reading.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Program and arguments; no shell reads them.
    pub run: Vec<Text>,
    /// What is measured: `failing` (the default), `exit`, `number`, or `{ json: /pointer }`.
    #[serde(default)]
    pub measure: Measure,
    /// What a number is, where it is more than a plain one.
    #[serde(default)]
    pub unit: Option<UnitName>,
    #[serde(default)]
    pub directory: Option<PathBuf>,
    #[serde(default)]
    pub environment: BTreeMap<String, Text>,
    /// Environment variables whose values are secrets.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretFrom>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// 1 when its exit code is not 0.
    #[default]
    Failing,
    /// Its exit code.
    Exit,
    /// The number it prints, and nothing else; its exit code must be 0.
    Number,
    /// The number at this pointer of the JSON it prints; its exit code must be 0.
    Json(String),
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "command",
        summary: "A program: whether it fails, its exit code, or a number it prints.",
        example: "\
run: [pytest, -m, smoke, -q]
measure: failing
directory: tests
secrets: { API_TOKEN: { env: SMOKE_TOKEN } }
",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let mut mistakes = vec![];
        if self.run.is_empty() {
            mistakes.push(Mistake::new("there is nothing to run").at("run").help("write `run: [program, argument]`"));
        }
        if let Measure::Json(pointer) = &self.measure {
            mistakes.extend(pointer_mistake(pointer, "measure.json"));
        }
        if self.unit.is_some() && matches!(self.measure, Measure::Failing | Measure::Exit) {
            mistakes.push(Mistake::new("only a number has a unit").at("unit"));
        }
        mistakes
    }

    fn unit(&self) -> Unit {
        match (&self.measure, self.unit) {
            (Measure::Failing, _) => Unit::Failing,
            (Measure::Number | Measure::Json(_), Some(unit)) => unit.into(),
            _ => Unit::Number,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["exit", "stdout", "stderr", "json", "took_ms"]
    }

    fn build(&self, _: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let text = |(name, value): (&String, &Text)| (name.clone(), value.to_string());
        let command = Command {
            argv: self.run.iter().map(ToString::to_string).collect(),
            directory: self.directory.clone(),
            environment: self.environment.iter().map(text).collect(),
            secrets: self.secrets.iter().map(|(name, from)| (name.clone(), from.0.clone())).collect(),
            input: None,
        };
        let host = Local::new(&cx.base, cx.redactor.clone());
        Ok(Arc::new(Program { settings: self.clone(), command, host }))
    }
}

struct Program {
    settings: Settings,
    command: Command,
    host: Local,
}

impl Program {
    fn measured(&self, cx: &Cx, output: &Output) -> Reading {
        let Some(exit) = output.status else { return failed("a signal ended the program") };
        let json: Option<Value> = serde_json::from_str(&output.stdout).ok().filter(|_| !output.cut);
        let number = || match (&self.settings.measure, &json) {
            _ if exit != 0 => Err(format!("the program failed with exit code {exit}: {}", output.tail())),
            (Measure::Json(pointer), Some(json)) => number_at(json, pointer),
            (Measure::Json(_), None) => {
                Err(format!("the program printed no JSON: `{}`", shorten(output.stdout.trim(), 60)))
            }
            _ => {
                let text = output.stdout.trim();
                text.parse::<f64>().map_err(|_| format!("the program printed no number: `{}`", shorten(text, 60)))
            }
        };
        let value = match self.settings.measure {
            Measure::Failing => Ok(f64::from(u8::from(exit != 0))),
            Measure::Exit => Ok(f64::from(exit)),
            Measure::Number | Measure::Json(_) => number(),
        };
        let end = |text: &str| text[text.ceil_char_boundary(text.len().saturating_sub(SHOWN))..].to_owned();
        match value {
            Err(why) => failed(why),
            Ok(value) => {
                let small = json.filter(|_| output.stdout.len() <= 16 * SHOWN).unwrap_or(Value::Null);
                let fields = [
                    ("exit", exit.into()),
                    ("stdout", end(&output.stdout).into()),
                    ("stderr", end(&output.stderr).into()),
                    ("json", small),
                    ("took_ms", (output.took.as_secs_f64() * 1000.0).into()),
                ];
                let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                Reading::of(Sample { fields, ..Sample::new(cx.now, value) })
            }
        }
    }
}

impl Signal for Program {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            match self.host.run(&self.command, within(cx.limit)).await {
                Ok(output) => self.measured(cx, &output),
                Err(error) => failed(said(&error)),
            }
        })
    }

    fn query(&self) -> String {
        let measure = match &self.settings.measure {
            Measure::Failing => "failing",
            Measure::Exit => "exit code",
            Measure::Number => "number printed",
            Measure::Json(pointer) => pointer,
        };
        self.host.redactor().clean(&format!("{measure} of `{}`", self.command.argv.join(" ")))
    }
}
