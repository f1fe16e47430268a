//! The one printer of problems.

use crate::problem::{Problem, Told};
use crate::screen::{Screen, paint, strong};

/// Prints a problem, to be read by a person or, with `--json`, by a program.
pub fn report(screen: &Screen, problem: &Problem) {
    let text = match (problem, screen.json()) {
        (Problem::Told(told), false) => in_lines(told),
        (Problem::Told(told), true) => json(&**told),
        (Problem::Configuration(report), false) => {
            let mistakes = match report.errors() {
                1 => "1 mistake".to_owned(),
                n => format!("{n} mistakes"),
            };
            format!("{}\n\n{mistakes}; nothing was changed", report.render(screen.colour()))
        }
        (Problem::Configuration(report), true) => json(report),
    };
    screen.line(&text);
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

fn in_lines(told: &Told) -> String {
    let mut lines = vec![format!("{} {}", paint(crate::screen::BAD, "error:"), strong(&told.error))];
    let mut add = |label: &str, text: &str| {
        // What goes on over several lines stays in its column.
        let text = text.replace('\n', "\n         ");
        lines.push(format!("{label:>7}: {text}"));
    };
    for cause in &told.cause {
        add("cause", cause);
    }
    if let Some(place) = &told.place {
        add("where", place);
    }
    add("state", &told.state);
    if let Some(help) = &told.help {
        add("help", help);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_problem_says_what_why_where_in_what_state_and_what_to_do() {
        let problem = Problem::new(Exit::Refused, "the plan cannot start: capture `cap-12` is not restorable")
            .cause("data/3f/3f9a1c: checksum differs from the one recorded")
            .cause("cap-12")
            .place("ripcord.yaml, components.orders")
            .state("nothing was changed; traffic is on")
            .help("choose another capture with `ripcord capture list`\nor page the owner");
        let Problem::Told(told) = problem else { panic!("it was told") };
        insta::assert_snapshot!(anstream::adapter::strip_str(&in_lines(&told)).to_string(), @r"
        error: the plan cannot start: capture `cap-12` is not restorable
          cause: data/3f/3f9a1c: checksum differs from the one recorded
          where: ripcord.yaml, components.orders
          state: nothing was changed; traffic is on
           help: choose another capture with `ripcord capture list`
                 or page the owner
        ");
    }
}
