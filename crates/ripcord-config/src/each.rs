//! `each:` - a block that stands for several components of one kind, alike but for one setting: the services of a Compose project,
//! the units of a host.
//!
//! ```yaml
//! components:
//!   stack:
//!     compose: { project: shop }
//!     each:
//!       service:
//!         api: {}
//!         worker: { needs: [api] }
//! ```
//!
//! is `api: { compose: { project: shop, service: api } }` and the same for `worker`. It is written out before anything is read, so
//! that what reads components knows nothing of it, and what is wrong is said where it stands.

use crate::report::Findings;
use crate::tree::{Node, What};

const EACH: &str = "each";

/// The file with every block of components written out.
pub(crate) fn written_out(root: &Node, kinds: &[&str], findings: &Findings) -> Node {
    let mut root = root.clone();
    let What::Map(sections) = &mut root.what else { return root };
    for (key, section) in sections.iter_mut().filter(|(key, _)| key.text() == "components") {
        let What::Map(written) = &section.what else { continue };
        let mut components: Vec<(Node, Node)> = vec![];
        for (name, node) in written {
            let members = match node.get(EACH) {
                None => vec![(name.clone(), node.clone())],
                Some(_) => members(node, kinds, findings),
            };
            for member in members {
                if let Some((first, _)) = components.iter().find(|(other, _)| other.text() == member.0.text()) {
                    let what = format!("there are two components `{}`", first.text());
                    findings.error(member.0.spot, what, "each component has one name; take one of them away");
                    continue;
                }
                components.push(member);
            }
        }
        *section = Node { spot: key.spot, what: What::Map(components) };
    }
    root
}

/// The components that a block stands for; none where it is wrong, which is said.
fn members(block: &Node, kinds: &[&str], findings: &Findings) -> Vec<(Node, Node)> {
    let Some((each, of)) = block.get(EACH) else { return vec![] };
    let What::Map(entries) = &block.what else { return vec![] };
    let shared: Vec<(Node, Node)> = entries.iter().filter(|(key, _)| key.text() != EACH).cloned().collect();
    let Some(kind) = shared.iter().find(|(key, _)| kinds.contains(&key.text())).map(|(key, _)| key.clone()) else {
        let help = "write the kind beside `each`, with the settings that all of them share";
        findings.error(each.spot, "the components of `each` have no kind", help);
        return vec![];
    };
    let [(field, named)] = of.entries() else {
        let help = format!(
            "`each: {{ service: {{ api: {{}} }} }}`: the one setting of `{}` in which they differ",
            kind.text()
        );
        findings.error(each.spot, "`each` names one setting, and under it the components", help);
        return vec![];
    };
    if named.entries().is_empty() {
        findings.error(field.spot, "no components are named", "write one for each, by its name: `api: {}`");
        return vec![];
    }
    let shared = Node { spot: block.spot, what: What::Map(shared) };
    let one = |(name, own): &(Node, Node)| {
        let own = match &own.what {
            What::Null => Node { spot: name.spot, what: What::Map(vec![]) },
            _ => own.clone(),
        };
        let setting = Node { spot: name.spot, what: What::Map(vec![(field.clone(), name.clone())]) };
        let setting = Node { spot: name.spot, what: What::Map(vec![(kind.clone(), setting)]) };
        // A kind that stands there without settings has none to lay anything on.
        (name.clone(), shared.overlaid(&setting).overlaid(&own))
    };
    named.entries().iter().map(one).collect()
}
