//! C4: rollback or fix forward, by what lies between the live release and the target.

use std::collections::BTreeMap;

use ripcord_core::{
    Application, ComponentSpec, Inventory, Layer, Lean, Loss, Place, Recorded, Revision, RowLoss, Seen, Survey,
    TargetId, advise,
};

use crate::shop::{application, at};

/// Components of these layers: what the target has there, what is there now, how many files are between.
struct Case<'a>(&'a [(&'a str, Layer, &'a str, &'a str, Option<u64>)]);

impl Case<'_> {
    fn weighed(&self, serves: bool, loss: &Loss) -> (Lean, Vec<String>) {
        let stay = self.0.iter().map(|(id, _, _, now, _)| (Place::local(id.parse().unwrap()), Revision::exact(*now)));
        self.weighed_with(&stay.collect(), serves, loss)
    }

    fn weighed_with(&self, ends_at: &BTreeMap<Place, Revision>, serves: bool, loss: &Loss) -> (Lean, Vec<String>) {
        let place = |id: &str| Place::local(id.parse().unwrap());
        let spec = |layer| ComponentSpec {
            kind: "fake".into(),
            layer,
            needs: [].into(),
            hosts: vec![],
            health: vec![],
            step_limit: None,
        };
        let components = self.0.iter().map(|(id, layer, ..)| (id.parse().unwrap(), spec(*layer))).collect();
        let application = Application { components, ..application() };
        let recorded =
            |to: &str| Recorded { revision: Revision::exact(to), label: None, capture: None, flowing: false };
        let target: BTreeMap<Place, Recorded> =
            self.0.iter().map(|(id, _, to, ..)| (place(id), recorded(to))).collect();
        let survey = |(id, layer, to, now, files): &(&str, Layer, &str, &str, Option<u64>)| {
            let mut survey = Survey::new(place(id), Seen::At(Revision::exact(*now)), TargetId(format!("fake:{id}")));
            survey.between = files.iter().map(|files| (Revision::exact(*to), *files)).collect();
            if serves && *layer == Layer::Schema {
                survey.serves = vec![(Revision::exact(*to), "only added to".to_owned())];
            }
            (place(id), survey)
        };
        let seen = Inventory { at: at(0), surveys: self.0.iter().map(survey).collect() };
        let advice = advise(&application, &target, ends_at, &seen, loss);
        (advice.lean, advice.reasons.into_iter().map(|reason| reason.why).collect())
    }
}

const CODE: (&str, Layer, &str, &str, Option<u64>) = ("code", Layer::Code, "v1", "v2", Some(9));
const ENV: (&str, Layer, &str, &str, Option<u64>) = ("env", Layer::Config, "a", "b", None);
const SCHEMA: (&str, Layer, &str, &str, Option<u64>) = ("schema", Layer::Schema, "41", "42", None);

#[test]
fn the_runbooks_rules_hold() {
    let lean = |case: &[_]| Case(case).weighed(false, &Loss::none()).0;
    assert_eq!(lean(&[ENV]), Lean::FixForward, "a slip of configuration is mended");
    assert_eq!(lean(&[CODE, SCHEMA]), Lean::Rollback, "a migration is involved");
    assert_eq!(lean(&[ENV, SCHEMA]), Lean::Rollback, "a migration is involved, whatever else is");
    assert_eq!(lean(&[SCHEMA]), Lean::FixForward, "a migration that failed: the code is where it was");
    assert_eq!(lean(&[("code", Layer::Code, "v1", "v2", Some(1))]), Lean::FixForward, "one file");
    assert_eq!(lean(&[CODE]), Lean::Rollback, "many files");
    assert_eq!(lean(&[CODE, ENV]), Lean::Rollback, "several things");
    let unknown = Case(&[("code", Layer::Code, "v1", "v2", None)]).weighed(false, &Loss::none());
    assert_eq!(unknown.0, Lean::Rollback, "nobody knows the cause");
    assert!(unknown.1[0].contains("30 min"), "{unknown:?}");
    let same = Case(&[("code", Layer::Code, "v1", "v1", None)]).weighed(false, &Loss::none());
    assert_eq!(same.0, Lean::Neither, "{same:?}");
}

#[test]
fn what_speaks_against_it_is_said_too() {
    let rows = BTreeMap::from([("orders".to_owned(), RowLoss { inserted: 7, ..RowLoss::default() })]);
    let (lean, why) = Case(&[CODE, SCHEMA]).weighed(false, &Loss { rows, ..Loss::none() });
    assert_eq!(lean, Lean::Rollback);
    assert_eq!(why.last().unwrap(), "going back gives up 7 rows");
    // A schema that serves the target is no migration to take back, and makes one file no less one file.
    let one = ("code", Layer::Code, "v1", "v2", Some(1));
    let (lean, why) = Case(&[one, SCHEMA]).weighed(true, &Loss::none());
    assert_eq!(lean, Lean::FixForward);
    assert_eq!(why, ["one file differs, of `code`", "`schema` serves the target as it is"]);
    // One that comes back with its database does not stay, whatever it could have served.
    let ends_at = BTreeMap::from([(Place::local("schema".parse().unwrap()), Revision::exact("41"))]);
    let (lean, why) = Case(&[one, SCHEMA]).weighed_with(&ends_at, true, &Loss::none());
    assert_eq!(lean, Lean::Rollback);
    assert_eq!(why[0], "a migration is involved: `schema` goes back too");
}
