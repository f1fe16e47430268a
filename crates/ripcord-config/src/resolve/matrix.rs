//! Severities and the decision matrix. That the rows are unambiguous is proven by core; here its faults get their lines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ripcord_core::{
    Authority, Call, Combine, Matrix, MatrixFault, Name, Row, Ruling, Severity, SeverityRule, SignalId, Within,
};

use super::Cx;
use super::parts::Parts;
use crate::read::{At, fields_of, read};
use crate::report::{Findings, Spot, nearest, suggest};
use crate::tree::{Node, What};
use crate::{Kinds, figure, file};

/// The severities, and what they are called.
pub(crate) struct Severities {
    pub rules: BTreeMap<Severity, SeverityRule>,
    names: Vec<String>,
}

impl Severities {
    pub fn of(&self, cx: Cx<'_>, name: &At<String>) -> Option<Severity> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        match names.iter().position(|known| *known == name.value) {
            Some(rank) => Some(Severity(u8::try_from(rank).ok()?)),
            None => {
                let help = suggest(name, names.iter().copied(), "declared");
                cx.findings.error(name.spot, format!("there is no severity `{}`", name.value), help);
                None
            }
        }
    }
    /// The name of a rank, for faults found later.
    fn called(&self, severity: Severity) -> &str {
        self.names.get(usize::from(severity.0)).map_or("", String::as_str)
    }
}

/// What applies where the file says nothing: the response times of a usual on-call rota, one person to approve.
fn default_severities() -> Severities {
    let minutes = [("p0", 5), ("p1", 15), ("p2", 60), ("p3", 7 * 24 * 60)];
    let rules = minutes.iter().zip(0u8..).filter_map(|((name, minutes), rank)| {
        let within = Duration::from_secs(minutes * 60);
        let authority = Authority { automatic: false, roles: BTreeSet::new(), quorum: 1, answer_within: within };
        let name = Name::new(*name).ok()?;
        Some((Severity(rank), SeverityRule { severity: Severity(rank), name, respond_within: within, authority }))
    });
    Severities { rules: rules.collect(), names: minutes.iter().map(|(name, _)| (*name).to_owned()).collect() }
}

pub(crate) fn severities(cx: Cx<'_>) -> Severities {
    let entries = cx.entries("severities");
    if entries.is_empty() {
        return default_severities();
    }
    let mut severities = Severities { rules: BTreeMap::new(), names: vec![] };
    for ((key, node), rank) in entries.iter().zip(0u8..) {
        severities.names.push(key.text().to_owned());
        let name: Option<Name> = cx.name(key.text(), key.spot);
        let Some(written) = read::<file::Severity>(node, key.spot, cx.findings) else { continue };
        let respond_within = cx.positive(Some(written.respond_within), Duration::ZERO);
        let authority = authority(cx, written.approve, respond_within);
        let Some(name) = name else { continue };
        let severity = Severity(rank);
        severities.rules.insert(severity, SeverityRule { severity, name, respond_within, authority });
    }
    severities
}

fn authority(cx: Cx<'_>, approve: Option<At<file::Approve>>, respond_within: Duration) -> Authority {
    let anybody = Authority { automatic: false, roles: BTreeSet::new(), quorum: 1, answer_within: respond_within };
    match approve.map(|approve| approve.value) {
        None => anybody,
        Some(file::Approve::Automatic) => Authority { automatic: true, ..anybody },
        Some(file::Approve::By(by)) => {
            if let Some(quorum) = by.quorum
                && *quorum == 0
            {
                cx.findings.error(
                    quorum.spot,
                    "nobody at all would have to approve",
                    "write `1` or more, or `automatic: true`",
                );
            }
            Authority {
                automatic: by.automatic,
                roles: by.roles.0.iter().filter_map(|role| cx.name(role, role.spot)).collect(),
                quorum: by.quorum.map_or(1, |quorum| quorum.value),
                answer_within: cx.positive(by.within, respond_within),
            }
        }
    }
}

/// The matrix, and which signal feeds which figure.
pub(crate) fn matrix<K: Kinds>(
    cx: Cx<'_>,
    parts: &Parts<K>,
    severities: &Severities,
    strategy: Option<&Name>,
) -> (Option<Matrix>, BTreeMap<Name, SignalId>) {
    let Some((key, node)) = cx.section("matrix") else {
        // The last but one: bad enough to look at soon, not to wake anybody for.
        let rank = severities.rules.len().saturating_sub(2).min(2);
        let ruling = Ruling {
            call: Call::Evaluate,
            severity: Severity(u8::try_from(rank).unwrap_or_default()),
            within: Within::At { most: Duration::from_secs(15 * 60) },
            strategy: strategy.cloned(),
            automatic: false,
        };
        return (Some(Matrix { rows: vec![], otherwise: ruling }), BTreeMap::new());
    };
    let mut reading = Reading { cx, parts, severities, strategy, figures: BTreeMap::new(), named: BTreeMap::new() };
    for (k, _) in node.entries() {
        if !["figures", "rows", "otherwise"].contains(&k.text()) {
            let help = suggest(k.text(), ["figures", "rows", "otherwise"], "possible here");
            cx.findings.error(k.spot, format!("unknown key `{}`", k.text()), help);
        }
    }
    if let What::List(_) | What::Text(_) | What::Number(..) | What::Bool(_) = node.what {
        let what = format!("expected a mapping, found {}", node.called());
        cx.findings.error(node.spot, what, "write `rows:` and `otherwise:`");
        return (None, BTreeMap::new());
    }
    if let Some((key, figures)) = node.get("figures") {
        reading.figures(key.spot, figures);
    }
    let mut rows = vec![];
    for item in node.get("rows").map_or(&[][..], |(_, rows)| cx.items(rows)) {
        rows.extend(reading.row(item));
    }
    let otherwise = match node.get("otherwise") {
        Some((key, otherwise)) => reading.otherwise(key.spot, otherwise),
        None => {
            let help =
                "add `otherwise: { call: evaluate, severity: p2, within: 15m }`: what holds where no row matches";
            cx.findings.error(key.spot, "the matrix has no `otherwise`", help);
            None
        }
    };
    let Some(otherwise) = otherwise else { return (None, BTreeMap::new()) };
    let matrix = Matrix { rows, otherwise };
    reading.faults(&matrix);
    (Some(matrix), reading.figures)
}

struct Reading<'a, K: Kinds> {
    cx: Cx<'a>,
    parts: &'a Parts<K>,
    severities: &'a Severities,
    strategy: Option<&'a Name>,
    figures: BTreeMap<Name, SignalId>,
    /// Where the name of each row stands.
    named: BTreeMap<String, Spot>,
}

impl<K: Kinds> Reading<'_, K> {
    fn figures(&mut self, owner: Spot, node: &Node) {
        let cx = self.cx;
        let Some(figures) = read::<file::Each<At<String>>>(node, owner, cx.findings) else { return };
        for (name, signal) in figures.0 {
            if fields_of::<file::Row>().contains(&name.as_str()) {
                let what = format!("`{}` cannot be a figure: it is a key of the rows", name.value);
                cx.findings.error(name.spot, what, "give it another name");
                continue;
            }
            let id: Option<SignalId> = cx.reference(&signal, &cx.names("signals"), "signal");
            if let (Some(name), Some(id)) = (cx.name(&name, name.spot), id) {
                self.figures.insert(name, id);
            }
        }
    }

    fn row(&mut self, node: &Node) -> Option<Row> {
        let cx = self.cx;
        let What::Map(entries) = &node.what else {
            let what = format!("expected a row, found {}", node.called());
            cx.findings.error(
                node.spot,
                what,
                "write `{ name: outage, issue: [outage], call: rollback, severity: p0 }`",
            );
            return None;
        };
        let fields = fields_of::<file::Row>();
        let (known, cells): (Vec<_>, Vec<_>) =
            entries.iter().cloned().partition(|(key, _)| fields.contains(&key.text()));
        let owner = entries.first().map_or(node.spot, |(key, _)| key.spot);
        let known = Node { spot: node.spot, what: What::Map(known) };
        // A key that is missing because it is misspelt is said once, at the slip.
        let own = Findings::default();
        let written = read::<file::Row>(&known, owner, &own);
        let meant: Vec<String> = cells
            .iter()
            .filter_map(|(key, _)| nearest(key.text(), fields.iter().copied()))
            .map(|field| format!("`{field}` is missing"))
            .collect();
        let said = own.into_inner().into_iter().filter(|finding| !meant.contains(&finding.what));
        said.for_each(|finding| cx.findings.push(finding));
        let cells = self.cells(cells);
        let written = written?;
        if self.named.insert(written.name.value.clone(), written.name.spot).is_some() {
            let what = format!("two rows are called `{}`", written.name.value);
            cx.findings.error(written.name.spot, what, "give one of them another name");
        }
        let ruling = self.ruling(
            written.call,
            written.within,
            &written.severity,
            written.strategy.as_ref(),
            written.automatic.is_some_and(|automatic| automatic.value),
        );
        let issues = written.issue.0.iter().filter_map(|issue| cx.name(issue, issue.spot)).collect();
        if let Some(automatic) = written.automatic.filter(|automatic| automatic.value) {
            self.automatic(automatic.spot, &written, ruling.as_ref());
        }
        Some(Row {
            name: written.name.value.clone(),
            issues,
            cells: cells?,
            combine: written.combine.map_or(Combine::All, Into::into),
            ruling: ruling?,
        })
    }

    /// A row that says it needs no person must be able to go ahead without one.
    fn automatic(&self, spot: Spot, row: &file::Row, ruling: Option<&Ruling>) {
        if *row.call != file::Call::Rollback {
            let help = "take `automatic` away, or write `call: rollback`";
            self.cx.findings.error(spot, "only a rollback can go ahead by itself", help);
        }
        let Some(rule) = ruling.and_then(|ruling| self.severities.rules.get(&ruling.severity)) else { return };
        if !rule.authority.automatic {
            let called = self.severities.called(rule.severity);
            let what = format!("this row needs no person, and severity `{called}` always asks one");
            let help = format!(
                "write `approve: automatic` (or `automatic: true` in it) at severity `{called}`, or take this away"
            );
            self.cx.findings.error(spot, what, help);
        }
    }

    fn cells(&mut self, written: Vec<(Node, Node)>) -> Option<BTreeMap<Name, ripcord_core::Bounds>> {
        let cx = self.cx;
        let mut cells = BTreeMap::new();
        let mut failed = false;
        for (key, value) in written {
            let cell = self.figure(&key).and_then(|(name, signal)| {
                let bounds: At<file::Figure> = read(&value, key.spot, cx.findings)?;
                let unit = self.parts.measured.get(&signal)?.unit;
                Some((name, cx.fault(bounds.spot, figure::bounds(&bounds, unit))?))
            });
            failed |= cell.is_none();
            cells.extend(cell);
        }
        (!failed).then_some(cells)
    }

    /// A figure that is declared, or a signal under its own name.
    fn figure(&mut self, key: &Node) -> Option<(Name, SignalId)> {
        let name: Option<Name> = key.text().parse().ok();
        if let Some(signal) = name.as_ref().and_then(|name| self.figures.get(name)) {
            return Some((name?, signal.clone()));
        }
        let signals = self.cx.names("signals");
        if signals.contains(&key.text()) {
            let (name, signal): (Name, SignalId) = (name?, key.text().parse().ok()?);
            self.figures.insert(name.clone(), signal.clone());
            return Some((name, signal));
        }
        let figures = self.figures.keys().map(Name::as_str);
        let known: Vec<&str> = fields_of::<file::Row>().iter().copied().chain(figures).chain(signals).collect();
        let help = suggest(key.text(), known, "a row has these keys, the figures and the signals");
        self.cx.findings.error(key.spot, format!("`{}` is neither a key of a row nor a figure", key.text()), help);
        None
    }

    fn otherwise(&self, owner: Spot, node: &Node) -> Option<Ruling> {
        let written: file::Otherwise = read(node, owner, self.cx.findings)?;
        self.ruling(written.call, written.within, &written.severity, written.strategy.as_ref(), false)
    }

    fn ruling(
        &self,
        call: At<file::Call>,
        within: Option<At<file::Within>>,
        severity: &At<String>,
        strategy: Option<&At<String>>,
        automatic: bool,
    ) -> Option<Ruling> {
        let cx = self.cx;
        let severity = self.severities.of(cx, severity);
        let strategy = match strategy {
            Some(named) => {
                let mut known = cx.names("strategies");
                if known.is_empty() {
                    known.push(super::strategies::STANDARD);
                }
                Some(cx.reference(named, &known, "strategy")?)
            }
            None => self.strategy.cloned(),
        };
        let call: Call = call.value.into();
        let by_itself = if call == Call::Rollback { Within::Immediate } else { Within::BestEffort };
        let within = within.map_or(by_itself, |within| within.value.into());
        Some(Ruling { call, severity: severity?, within, strategy, automatic })
    }

    fn faults(&self, matrix: &Matrix) {
        if proof(matrix) > MOST {
            let spot = self.named.values().min().copied().unwrap_or(self.cx.top());
            let help = "use fewer rows, or fewer different bounds: rows that differ only in a figure can often be one";
            self.cx.findings.error(spot, "the matrix is too large to be proven free of contradictions", help);
            return;
        }
        for fault in matrix.faults() {
            let (row, help) = match &fault {
                MatrixFault::Empty { row, .. } => (row, "write the smaller figure first: `1% to 5%`"),
                MatrixFault::Unreachable { row, .. } => {
                    (row, "make this row more severe, narrow the other one, or take this one away")
                }
                MatrixFault::Ambiguous { b, .. } => (
                    b,
                    "give them different severities, make them say the same, or narrow their bounds until they do not meet",
                ),
            };
            if let Some(spot) = self.named.get(row) {
                self.cx.findings.error(*spot, fault.to_string(), help);
            }
        }
    }
}

/// More than this would take longer than anybody waits. The largest matrix of a real runbook needs a thousandth.
const MOST: u64 = 30_000_000;

/// How much there is to look at: every pair of rows, for every combination of intervals between the bounds, over all rows.
fn proof(matrix: &Matrix) -> u64 {
    let mut bounds: BTreeMap<&Name, Vec<f64>> = BTreeMap::new();
    for (figure, cell) in matrix.rows.iter().flat_map(|row| &row.cells) {
        bounds.entry(figure).or_default().extend([cell.above, cell.up_to].into_iter().flatten());
    }
    let intervals = bounds.into_values().map(|mut bounds| {
        bounds.sort_unstable_by(f64::total_cmp);
        bounds.dedup();
        bounds.len() as u64 + 1
    });
    let grid = intervals.fold(1u64, u64::saturating_mul);
    let rows = matrix.rows.len() as u64;
    grid.saturating_mul(rows.saturating_pow(3))
}
