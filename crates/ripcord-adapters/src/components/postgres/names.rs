//! The names of databases of ours, beside the live one: made from its name, cut where PostgreSQL would cut them, told apart by a
//! digest where they were cut.

use ripcord_core::{Digest, Key};

/// The longest name PostgreSQL keeps.
const LONGEST: usize = 63;

/// Settings of ours on databases, all `ripcord.<name>`.
pub(super) const RESTORED: &str = "restored";
pub(super) const ASIDE: &str = "aside";
pub(super) const BUILDING: &str = "building";

/// What our names for a database begin with, followed by `suffix`.
fn named(live: &str, suffix: &str) -> String {
    let whole = format!("{live}_{suffix}");
    if whole.len() <= LONGEST {
        return whole;
    }
    let digest = &Digest::of(live.as_bytes()).hex()[..8];
    let mut room = LONGEST.saturating_sub(suffix.len() + digest.len() + 2);
    while !live.is_char_boundary(room) {
        room -= 1;
    }
    format!("{}_{digest}_{suffix}", &live[..room])
}

/// What stands for a step in a name.
fn short(key: &Key) -> String {
    Digest::of(key.to_string().as_bytes()).hex()[..12].to_owned()
}

/// Where the capture is restored, before it takes the live name.
pub(super) fn building(live: &str, key: &Key) -> String {
    named(live, &format!("ripcord_{}", short(key)))
}

/// Where a capture is restored on trial.
pub(super) fn trial(live: &str, key: &Key) -> String {
    named(live, &format!("ripcord_proof_{}", short(key)))
}

/// Where the former database is kept.
pub(super) fn aside(live: &str, run: &str, number: usize) -> String {
    let plain: String = run.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let plain = &plain[plain.len().saturating_sub(30)..];
    let number = if number == 1 { String::new() } else { format!("_{number}") };
    named(live, &format!("before_{plain}{number}"))
}

/// What the names of all databases of ours beside a live one begin with; those of others may, too.
pub(super) fn prefix(live: &str) -> &str {
    let mut room = live.len().min(LONGEST - 53);
    while !live.is_char_boundary(room) {
        room -= 1;
    }
    &live[..room]
}

/// Whether it is a name that [`building`] or [`trial`] makes.
pub(super) fn is_scratch(live: &str, name: &str) -> bool {
    let Some((_, end)) = name.rsplit_once("_ripcord_") else { return false };
    let digits = end.strip_prefix("proof_").unwrap_or(end);
    let hex = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    hex && name == named(live, &format!("ripcord_{end}"))
}

/// Whether it is a name that [`aside`] makes.
pub(super) fn is_aside(live: &str, name: &str) -> bool {
    name.rsplit_once("_before_").is_some_and(|(_, end)| name == named(live, &format!("before_{end}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        serde_json::from_value(serde_json::Value::String(text.to_owned())).unwrap()
    }

    #[test]
    fn names_are_ours_whatever_the_database_is_called() {
        for live in ["shop", "a b\"c", &"x".repeat(63), &"ü".repeat(31), "shop_before_1"] {
            let (one, other) = (key("shop/test/run-1/restore"), key("shop/test/run-2/restore"));
            for name in [building(live, &one), trial(live, &one)] {
                assert!(name.len() <= 63 && is_scratch(live, &name) && !is_aside(live, &name), "{name}");
                assert!(name.starts_with(prefix(live)), "{name}");
            }
            let kept = aside(live, "run-42", 2);
            assert!(kept.len() <= 63 && is_aside(live, &kept) && !is_scratch(live, &kept), "{kept}");
            assert!(kept.starts_with(prefix(live)), "{kept}");
            assert_ne!(building(live, &one), building(live, &other));
            assert!(!is_scratch("other", &building(live, &one)) && !is_aside("other", &kept));
        }
        assert_eq!(aside("shop", "run-42", 1), "shop_before_run_42");
        let (a, b) = (format!("{}a", "x".repeat(62)), format!("{}b", "x".repeat(62)));
        assert_ne!(aside(&a, "run-1", 1), aside(&b, "run-1", 1), "cut, and still told apart");
    }
}
