//! An application under pm2: whether all its instances are online, how often they were started again, memory and processor time.
//!
//! That pm2's daemon does not run is the subject's state: nothing runs under it. It is never started by a look.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_config::wire::{Span, Text};
use ripcord_config::{KindDoc, Mistake};
use ripcord_core::{Cx, Fut, Layer, Reading, Sample, Signal, SignalId, Unit, between};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{failed, locked};
use crate::components::tool::program_mistake;
use crate::hosts::within;
use crate::pm2::{Pm2, Process, program};
use crate::{BuildCx, BuildError, SignalKind};

/// An application under pm2.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Its name in pm2.
    pub app: Text,
    /// `PM2_HOME`; without it the environment's, else `~/.pm2`.
    #[serde(default)]
    pub home: Option<PathBuf>,
    /// How pm2 is run, such as `[sudo, -n, -u, deploy, pm2]`.
    #[serde(default = "program")]
    pub program: Vec<Text>,
    #[serde(default)]
    pub measure: Measure,
    /// How far back restarts count.
    #[serde(default = "hour")]
    pub window: Span,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// 1 while one of its instances is not online, or none is there.
    #[default]
    Failing,
    /// How often its instances were started again within the window, as far as it was seen.
    Restarts,
    /// Of all its instances together.
    Memory,
    /// Of one processor, all its instances together: more than 100% where they use several.
    Cpu,
}

fn hour() -> Span {
    Span(Duration::from_secs(3600))
}

impl SignalKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "pm2",
        summary: "An application under pm2: whether it is online, its restarts, memory and processor time.",
        example: "app: shop\nhome: /srv/deploy/.pm2\nmeasure: restarts\nwindow: 10m\n",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn check(&self) -> Vec<Mistake> {
        let empty = self.app.as_str().is_empty().then(|| Mistake::new("it does not say which application").at("app"));
        empty.into_iter().chain(program_mistake(&self.program, "program")).collect()
    }

    fn unit(&self) -> Unit {
        match self.measure {
            Measure::Failing => Unit::Failing,
            Measure::Restarts => Unit::Number,
            Measure::Memory => Unit::Bytes,
            Measure::Cpu => Unit::Ratio,
        }
    }

    fn fields(&self) -> &'static [&'static str] {
        &["status", "instances", "restarts", "unstable", "memory_bytes", "cpu"]
    }

    fn build(&self, id: &SignalId, cx: &BuildCx) -> Result<Arc<dyn Signal>, BuildError> {
        let pm2 =
            Pm2::new(&self.program, self.home.as_deref(), &self.app, cx).map_err(|why| BuildError::new(id, why))?;
        Ok(Arc::new(Application { settings: self.clone(), pm2, memory: Mutex::default() }))
    }
}

struct Application {
    settings: Settings,
    pm2: Pm2,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// pm2's own count for each instance at the last look.
    counted: BTreeMap<u64, u64>,
    restarted: VecDeque<(Timestamp, u64)>,
}

impl Memory {
    fn count(&mut self, processes: &[Process], at: Timestamp, window: Duration) -> u64 {
        let mut added = 0;
        for process in processes {
            // Deleted and started anew, an instance counts from the beginning.
            added += match self.counted.insert(process.id, process.restarts) {
                Some(before) if process.restarts >= before => process.restarts - before,
                Some(_) => process.restarts,
                None => 0,
            };
        }
        self.restarted.push_back((at, added));
        self.restarted.retain(|(found, _)| *found <= at && between(*found, at) < window);
        self.restarted.iter().map(|(_, n)| n).sum()
    }
}

impl Application {
    fn measured(&self, processes: &[Process], at: Timestamp) -> Reading {
        let restarts = locked(&self.memory).count(processes, at, self.settings.window.0);
        let online = !processes.is_empty() && processes.iter().all(Process::is_online);
        let memory_bytes: f64 = processes.iter().map(|process| process.memory_bytes).sum();
        let cpu = processes.iter().map(|process| process.cpu_percent).sum::<f64>() / 100.0;
        let value = match self.settings.measure {
            Measure::Failing => f64::from(u8::from(!online)),
            Measure::Restarts => restarts as f64,
            Measure::Memory | Measure::Cpu if processes.is_empty() => return Reading::Empty,
            Measure::Memory => memory_bytes,
            Measure::Cpu => cpu,
        };
        let unstable: u64 = processes.iter().map(|process| process.unstable).sum();
        let status: Vec<Value> = processes.iter().map(|process| process.status.as_str().into()).collect();
        let fields = [
            ("status", status.into()),
            ("instances", processes.len().into()),
            ("restarts", restarts.into()),
            ("unstable", unstable.into()),
            ("memory_bytes", memory_bytes.into()),
            ("cpu", cpu.into()),
        ];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Reading::of(Sample { fields, ..Sample::new(at, value) })
    }
}

impl Signal for Application {
    fn unit(&self) -> Unit {
        SignalKind::unit(&self.settings)
    }

    fn fields(&self) -> &'static [&'static str] {
        SignalKind::fields(&self.settings)
    }

    fn read<'a>(&'a self, cx: &'a Cx) -> Fut<'a, Reading> {
        Box::pin(async move {
            match self.pm2.processes(within(cx.limit)).await {
                Ok(processes) => self.measured(&processes, cx.now),
                Err(failure) => failed(failure.what),
            }
        })
    }

    fn query(&self) -> String {
        let what = match self.settings.measure {
            Measure::Failing => "whether all instances are online".to_owned(),
            Measure::Restarts => format!("restarts over {}", ripcord_core::human(self.settings.window.0)),
            Measure::Memory => "memory".to_owned(),
            Measure::Cpu => "processor time".to_owned(),
        };
        self.pm2.tool.clean(&format!("{what} of `{}` under pm2 in {}", self.pm2.app, self.pm2.home.display()))
    }
}
