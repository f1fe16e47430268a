//! Thresholds, bounds and multiples, checked against the unit of what they are compared with.

use std::time::Duration;

use ripcord_core::{Bounds, Unit};

use crate::file::Figure;
use crate::wire;

/// A message and what to do.
pub(crate) type Fault = (String, String);

fn fault<T>(what: String, help: &str) -> Result<T, Fault> {
    Err((what, help.to_owned()))
}

fn two_lines(message: String) -> Fault {
    message.split_once('\n').map(|(what, help)| (what.to_owned(), help.to_owned())).unwrap_or((message, String::new()))
}

/// What values of a unit are called, and how one is written.
fn expected(unit: Unit) -> (&'static str, &'static str) {
    match unit {
        Unit::Ratio => ("a share", "write `5%` or `0.05`"),
        Unit::Seconds => ("a time", "write a number and a unit, such as `2s` or `500ms`"),
        Unit::Bytes => ("a size", "write a number and a unit, such as `500MB`"),
        Unit::Number => ("a plain number", "write a number without a unit, such as `100`"),
        Unit::Failing => ("0 (working) or 1 (failing)", "write `above: 0`, or leave it out"),
    }
}

/// A threshold over a signal of `unit`, in the unit its samples have.
pub(crate) fn threshold(figure: &Figure, unit: Unit) -> Result<f64, Fault> {
    let (called, help) = expected(unit);
    let wrong = || (format!("`{figure}` does not fit: the signal's values are {called}",), help.to_owned());
    let text = match figure {
        Figure::Text(text) => text.trim().to_owned(),
        Figure::Number(number) if matches!(unit, Unit::Number | Unit::Failing) => return finite(*number, figure),
        Figure::Number(number) => number.to_string(),
    };
    match unit {
        Unit::Ratio => wire::share(&text).map_err(|why| match text.ends_with('%') || text.parse::<f64>().is_ok() {
            true => two_lines(why),
            false => wrong(),
        }),
        Unit::Seconds => wire::span(&text).map(|span| span.as_secs_f64()).map_err(|_| wrong()),
        Unit::Bytes => wire::size(&text).map(|size| size as f64).map_err(|_| wrong()),
        Unit::Number | Unit::Failing => text.parse().map_err(|_| wrong()).and_then(|number| finite(number, figure)),
    }
}

fn finite(number: f64, figure: &Figure) -> Result<f64, Fault> {
    match number.is_finite() {
        true => Ok(number),
        false => fault(format!("`{figure}` is no number"), "write a number such as `100`"),
    }
}

/// A multiple: `3x`.
pub(crate) fn multiple(figure: &Figure) -> Result<f64, Fault> {
    let number = match figure {
        Figure::Text(text) => text.trim().strip_suffix(['x', 'X']).and_then(|number| number.trim().parse::<f64>().ok()),
        Figure::Number(_) => None,
    };
    match number {
        Some(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => fault(format!("`{figure}` is not a multiple"), "write how many times: `3x`, `1.5x`"),
    }
}

/// A least number of events: `50 requests`, `50`.
pub(crate) fn events(figure: &Figure) -> Result<f64, Fault> {
    let number = match figure {
        Figure::Number(number) => Some(*number),
        Figure::Text(text) => {
            let (number, word) = text.trim().split_once(' ').unwrap_or((text.trim(), "events"));
            number.parse().ok().filter(|_| word.trim().chars().all(|c| c.is_alphabetic() || c == '-' || c == ' '))
        }
    };
    match number {
        Some(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => fault(format!("`{figure}` is not a number of events"), "write a number, and of what: `50 requests`"),
    }
}

/// `2 times within 10m`.
pub(crate) fn occurs(text: &str) -> Result<(u32, Duration), Fault> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let help = "write `2 times within 10m`";
    match words.as_slice() {
        [count, "times" | "time", "within", window @ ..] if !window.is_empty() => match count.parse() {
            Ok(count) => Ok((count, wire::span(&window.join("")).map_err(two_lines)?)),
            Err(_) => fault(format!("`{count}` is not a number of times"), help),
        },
        _ => fault(format!("`{text}` does not say how often and within which time"), help),
    }
}

/// `3 of 5`.
pub(crate) fn of(text: &str) -> Result<(u32, u32), Fault> {
    let help = "write how many of the last readings must be bad: `3 of 5`";
    let parsed = text.split_once(" of ").and_then(|(k, n)| Some((k.trim().parse().ok()?, n.trim().parse().ok()?)));
    match parsed {
        Some((k, n)) if k >= 1 && k <= n && n <= 1_000 => Ok((k, n)),
        Some((k, n)) => fault(format!("{k} of {n} readings cannot be"), help),
        None => fault(format!("`{text}` does not say how many of how many"), help),
    }
}

/// The bounds of a cell: `> 5%`, `<= 1%`, `1% to 5%`, `any`.
pub(crate) fn bounds(figure: &Figure, unit: Unit) -> Result<Bounds, Fault> {
    let text = match figure {
        Figure::Text(text) => text.trim(),
        Figure::Number(number) => {
            return fault(format!("`{number}` is not a bound"), "write `> 5%`, `<= 1%`, `1% to 5%` or `any`");
        }
    };
    let value = |text: &str| threshold(&Figure::Text(text.trim().to_owned()), unit);
    if text == "any" {
        return Ok(Bounds::default());
    }
    if let Some(rest) = text.strip_prefix("<=") {
        return Ok(Bounds { above: None, up_to: Some(value(rest)?) });
    }
    if let Some(rest) = text.strip_prefix(">=").or_else(|| text.strip_prefix('<')) {
        let instead =
            if text.starts_with('>') { format!("`> {}`", rest.trim()) } else { format!("`<= {}`", rest.trim()) };
        let help = format!(
            "write {instead}: bounds begin above a figure and end with it, so that rows meet without a gap or overlap"
        );
        return fault(format!("`{text}` is not a bound"), &help);
    }
    if let Some(rest) = text.strip_prefix('>') {
        return Ok(Bounds { above: Some(value(rest)?), up_to: None });
    }
    match text.split_once(" to ") {
        Some((above, up_to)) => Ok(Bounds { above: Some(value(above)?), up_to: Some(value(up_to)?) }),
        None => fault(format!("`{text}` is not a bound"), "write `> 5%`, `<= 1%`, `1% to 5%` or `any`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Figure {
        Figure::Text(text.into())
    }

    #[test]
    fn a_threshold_has_the_unit_of_its_signal() {
        assert_eq!(threshold(&text("5%"), Unit::Ratio), Ok(0.05));
        assert_eq!(threshold(&Figure::Number(0.05), Unit::Ratio), Ok(0.05));
        assert_eq!(threshold(&text("500ms"), Unit::Seconds), Ok(0.5));
        assert_eq!(threshold(&text("500MB"), Unit::Bytes), Ok(5e8));
        assert_eq!(threshold(&Figure::Number(3.0), Unit::Number), Ok(3.0));
        let what = |figure: &Figure, unit| threshold(figure, unit).unwrap_err().0;
        assert_eq!(what(&text("5%"), Unit::Seconds), "`5%` does not fit: the signal's values are a time");
        assert_eq!(what(&Figure::Number(2.0), Unit::Seconds), "`2` does not fit: the signal's values are a time");
        assert_eq!(what(&text("2s"), Unit::Ratio), "`2s` does not fit: the signal's values are a share");
        assert_eq!(what(&Figure::Number(5.0), Unit::Ratio), "`5` is not a share: it must lie between 0% and 100%");
        assert_eq!(what(&text("5%"), Unit::Number), "`5%` does not fit: the signal's values are a plain number");
        assert_eq!(what(&text("inf"), Unit::Number), "`inf` is no number");
    }

    #[test]
    fn bounds_are_half_open() {
        assert_eq!(bounds(&text("> 5%"), Unit::Ratio), Ok(Bounds { above: Some(0.05), up_to: None }));
        assert_eq!(bounds(&text("<=2s"), Unit::Seconds), Ok(Bounds { above: None, up_to: Some(2.0) }));
        assert_eq!(bounds(&text("1% to 5%"), Unit::Ratio), Ok(Bounds { above: Some(0.01), up_to: Some(0.05) }));
        assert_eq!(bounds(&text("any"), Unit::Ratio), Ok(Bounds::default()));
        assert!(bounds(&text("< 1%"), Unit::Ratio).unwrap_err().1.starts_with("write `<= 1%`"));
        assert!(bounds(&text(">= 1%"), Unit::Ratio).unwrap_err().1.starts_with("write `> 1%`"));
        assert!(bounds(&Figure::Number(1.0), Unit::Number).is_err());
    }

    #[test]
    fn figures_in_words() {
        assert_eq!(multiple(&text("1.5x")), Ok(1.5));
        assert!(multiple(&text("-1x")).is_err() && multiple(&Figure::Number(3.0)).is_err());
        assert_eq!(events(&text("50 requests")), Ok(50.0));
        assert!(events(&text("50%")).is_err());
        assert_eq!(occurs("2 times within 10m"), Ok((2, Duration::from_secs(600))));
        assert!(occurs("twice a day").is_err());
        assert_eq!(of("3 of 5"), Ok((3, 5)));
        assert!(of("5 of 3").is_err() && of("0 of 3").is_err());
    }
}
