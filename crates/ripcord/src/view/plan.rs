//! A plan before it is agreed to: where to and why, what every level costs, each step with its commands, what is left alone and
//! what is lost.

use std::collections::BTreeSet;

use jiff::Timestamp;
use ripcord_core::{
    Advice, Climb, Estimate, Lean, Ledger, Loss, Means, Name, NoTarget, Plan, ReleaseId, Rung, Step, Verdict, human,
};
use ripcord_engine::{NoProposal, Proposal, Wanted, World, propose};
use serde::Serialize;

use super::table::{command, indent, table};
use crate::screen::{BAD, FAINT, GOOD, View, WARN, paint, strong};
use crate::words;

#[derive(Debug, Serialize)]
pub struct PlanView {
    pub at: Timestamp,
    pub target: Target,
    /// Empty where no strategy is climbed (an undo).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Name>,
    pub ladder: Vec<Level>,
    pub digest: String,
    pub estimate: Option<Estimate>,
    /// Rollback or fix forward, where something is gone back from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
    /// Why it may not run without a person, whatever the policy says.
    pub attended: Option<String>,
    pub gives_data_up: bool,
    pub plan: Plan,
}

/// Where it goes, and why there.
#[derive(Debug, Default, Serialize)]
pub struct Target {
    pub release: Option<ReleaseId>,
    pub version: Option<String>,
    pub why: String,
    /// Newer releases that are no target.
    pub passed_over: Vec<PassedOver>,
}

#[derive(Debug, Serialize)]
pub struct PassedOver {
    pub version: String,
    pub why: String,
}

/// One level of the ladder, with its price.
#[derive(Debug, Serialize)]
pub struct Level {
    pub level: u8,
    pub name: Name,
    pub means: String,
    pub climb: Climb,
    pub chosen: bool,
    pub estimate: Option<Estimate>,
    pub loss: Option<Loss>,
    /// Why it cannot be planned, or has nothing to do.
    pub problem: Option<String>,
}

/// Why a rollback goes where it goes.
pub fn target(ledger: &Ledger, typed: Option<&str>, plan: &Plan, now: Timestamp) -> Target {
    let found = plan.to.as_ref().and_then(|id| ledger.find(id));
    let mut target = Target { release: plan.to.clone(), version: plan.to_version.clone(), ..Target::default() };
    target.why = match (&plan.rung.means, typed, found.map(|release| &release.verdict)) {
        (Means::Set { .. }, None, _) => "it stays within the live release: only values are set".to_owned(),
        (_, Some(typed), Some(verdict)) => format!("you named `{typed}`, which is {}", words::verdict(verdict)),
        (_, Some(typed), None) => format!("you named `{typed}`"),
        (_, None, Some(Verdict::Good { by, at })) => {
            format!("the newest release known to be good, other than what is live: {by}, {}", words::when(*at))
        }
        (_, None, _) => "the state captured before".to_owned(),
    };
    if typed.is_none() && matches!(plan.rung.means, Means::Restore { .. }) {
        target.passed_over = passed_over(ledger, plan, now);
    }
    target
}

fn passed_over(ledger: &Ledger, plan: &Plan, now: Timestamp) -> Vec<PassedOver> {
    let newer = ledger.releases.iter().rev().take_while(|release| Some(&release.id) != plan.to.as_ref());
    let mut seen = BTreeSet::new();
    newer
        .filter(|release| Some(&release.id) != plan.from.as_ref())
        .filter_map(|release| {
            let why = match (ledger.quarantined.get(&release.version), &release.verdict) {
                (Some(quarantine), _) => format!("quarantined: {}", quarantine.why),
                (None, Verdict::Undecided) => "never judged good".to_owned(),
                (None, Verdict::Bad { why, .. }) => format!("bad: {why}"),
                (None, Verdict::Good { at, .. }) if *at > now => "judged good only later".to_owned(),
                (None, Verdict::Good { .. }) => "it is what is live".to_owned(),
            };
            seen.insert((release.version.clone(), why.clone()))
                .then(|| PassedOver { version: release.version.clone(), why })
        })
        .collect()
}

/// Prices every level of a strategy by planning it.
pub async fn ladder(world: &World, strategy: &Name, to: Option<&str>, chosen: &Proposal) -> Vec<Level> {
    let mut levels = vec![];
    for rung in world.application.strategies.get(strategy).into_iter().flatten() {
        let chosen_plan = &chosen.priced.plan;
        if chosen_plan.rung == *rung {
            let loss = Some(chosen.priced.estimate.loss_now.clone());
            levels.push(Level { chosen: true, estimate: Some(chosen.priced.estimate.clone()), loss, ..level(rung) });
            continue;
        }
        let wanted = Wanted::Rollback { to: to.map(str::to_owned), rung: rung.clone(), partial: false };
        levels.push(match propose(world, &wanted).await {
            Ok(proposal) => Level {
                loss: Some(proposal.priced.estimate.loss_now.clone()),
                estimate: Some(proposal.priced.estimate),
                ..level(rung)
            },
            Err(error) => Level { problem: Some(problem(&error)), ..level(rung) },
        });
    }
    levels
}

fn problem(error: &NoProposal) -> String {
    match error {
        NoProposal::NoPlan(ripcord_core::NoPlan::NothingToDo { .. }) => "nothing to do".to_owned(),
        NoProposal::NoTarget(NoTarget::NothingRecorded) => "nothing is recorded yet".to_owned(),
        error => error.to_string(),
    }
}

fn level(rung: &Rung) -> Level {
    Level {
        level: rung.level,
        name: rung.name.clone(),
        means: words::means(&rung.means),
        climb: rung.climb,
        chosen: false,
        estimate: None,
        loss: None,
        problem: None,
    }
}

impl View for PlanView {
    fn text(&self) -> String {
        let plan = &self.plan;
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "an unknown version".to_owned());
        let mut out = vec![strong(match &plan.rung.means {
            Means::Restore { .. } => format!(
                "{} of {}: from {} to {}",
                words::purpose(&plan.purpose),
                plan.app,
                version(&plan.from_version),
                version(&plan.to_version)
            ),
            Means::Set { .. } => {
                format!(
                    "{} of {}: {}, within {}",
                    words::purpose(&plan.purpose),
                    plan.app,
                    words::means(&plan.rung.means),
                    version(&plan.from_version)
                )
            }
        })];
        out.push(format!("  why      {}", self.target.why));
        for passed in &self.target.passed_over {
            out.push(format!("           not {}: {}", passed.version, passed.why));
        }
        if !self.ladder.is_empty() {
            let strategy = self.strategy.as_ref().map(ToString::to_string).unwrap_or_default();
            out.push(format!("\n{}", strong(format!("levels of strategy {strategy}"))));
            out.push(indent(&self.levels(), 2));
        }
        out.push(format!("\n{}", strong(format!("steps of level {} ({})", plan.rung.level, plan.rung.name))));
        out.extend(plan.steps.iter().enumerate().map(|(n, step)| in_lines(n + 1, step)));
        if !plan.left_alone.is_empty() {
            out.push(format!("\n{}", strong("left alone")));
            let rows: Vec<_> =
                plan.left_alone.iter().map(|left| vec![left.component.to_string(), left.why.clone()]).collect();
            out.push(indent(&table(&rows), 2));
        }
        if !plan.puts_back.is_empty() {
            out.push(format!("\n{}", strong("would undo it afterwards: for you to see to")));
            for (what, places) in plan.undone_by() {
                let at: Vec<String> = places.iter().map(ToString::to_string).collect();
                out.push(format!("  {what}\n    {}", paint(FAINT, format!("at {}", at.join(", ")))));
            }
        }
        out.push(String::new());
        out.extend(self.price());
        out.join("\n")
    }
}

impl PlanView {
    fn levels(&self) -> String {
        let mut rows = vec![["", "level", "", "time", "downtime", "loss", ""].map(|c| paint(FAINT, c)).to_vec()];
        for level in &self.ladder {
            let mark = if level.chosen { paint(GOOD, ">") } else { String::new() };
            let mut row = vec![mark, level.level.to_string(), level.name.to_string()];
            match (&level.estimate, &level.problem) {
                (Some(estimate), _) => row.extend([
                    human(estimate.duration),
                    downtime(estimate),
                    level.loss.as_ref().map(|loss| words::loss(loss, self.at)).unwrap_or_default(),
                    paint(FAINT, &level.means),
                ]),
                (None, problem) => {
                    row.extend(["-".to_owned(), "-".to_owned(), "-".to_owned(), problem.clone().unwrap_or_default()])
                }
            }
            rows.push(row);
        }
        table(&rows)
    }

    fn price(&self) -> Vec<String> {
        let plan = &self.plan;
        let mut lines = vec![];
        if let Some(estimate) = &self.estimate {
            let measured = format!("{} of {} steps measured before", estimate.from_past, estimate.of_steps);
            lines.push(format!(
                "  time     {}, downtime {} ({measured})",
                human(estimate.duration),
                downtime(estimate)
            ));
        }
        // What is lost by now where that was counted; the ceiling is what a yes is given to.
        let now = self.estimate.as_ref().map_or(&plan.loss_at_most, |estimate| &estimate.loss_now);
        let loss = words::loss(now, self.at);
        let loss = if self.gives_data_up { paint(BAD, loss) } else { loss };
        lines.push(format!("  loss     {loss}"));
        if let Some(how) = &now.how {
            lines.push(format!("           {how}"));
        }
        for (table, rows) in now.rows.iter().filter(|(_, rows)| rows.total() > 0) {
            let parts = [(rows.inserted, "inserted"), (rows.updated, "updated"), (rows.deleted, "deleted")];
            let parts: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
            lines.push(format!("           {table}: {}", parts.join(", ")));
        }
        if now.total_rows() < plan.loss_at_most.total_rows() {
            let most = words::count(plan.loss_at_most.total_rows(), "row");
            lines.push(format!(
                "           at most {most}: users go on writing until it begins, and it stops if it would be more"
            ));
        }
        if let Some(advice) = &self.advice {
            lines.push(format!("  advice   {}", lean(advice.lean)));
            lines.extend(advice.reasons.iter().map(|reason| {
                let against = if reason.lean == advice.lean { "" } else { "but " };
                format!("           {against}{}", reason.why)
            }));
        }
        if let Some(why) = &self.attended {
            lines.push(format!("  needs    {}", paint(WARN, format!("a person: {why}"))));
        }
        lines.push(format!("  plan     {}", self.digest));
        lines
    }
}

fn lean(lean: Lean) -> &'static str {
    match lean {
        Lean::Rollback => "roll back",
        Lean::FixForward => "fix forward",
        Lean::Neither => "look for another cause",
    }
}

fn downtime(estimate: &Estimate) -> String {
    match estimate.downtime.is_zero() {
        true => "none".to_owned(),
        false => human(estimate.downtime),
    }
}

fn in_lines(n: usize, step: &Step) -> String {
    let mut lines = vec![format!("  {n:>2}  {:<13} {}", words::phase(step.phase), step.shown.words)];
    lines.extend(step.shown.commands.iter().map(|argv| paint(FAINT, format!("      $ {}", command(argv)))));
    if let Some(destroys) = words::destroys(step.destroys) {
        lines.push(paint(FAINT, format!("      {destroys}")));
    }
    lines.join("\n")
}
