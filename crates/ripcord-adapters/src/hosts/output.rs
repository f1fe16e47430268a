//! What is kept of an output: its beginning and its end, never more than a bound, never part of a secret.

use std::collections::VecDeque;

use ripcord_core::Redactor;

/// The beginning says what was attempted, the end how it went wrong.
const HEAD: usize = 64 << 10;
const TAIL: usize = 192 << 10;
/// How far a cut is moved to a line's end, so that no half of a secret stands at it unrecognised.
const LINE: usize = 4 << 10;

#[derive(Default)]
pub(super) struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    cut: bool,
}

impl Kept {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(bytes.len().min(HEAD - self.head.len()));
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        if self.tail.len() > TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
            self.cut = true;
        }
    }

    /// The text without secrets, and whether its middle is missing.
    pub(super) fn text(&self, redactor: &Redactor) -> (String, bool) {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if !self.cut {
            let whole = [self.head.as_slice(), &tail].concat();
            return (redactor.clean(&String::from_utf8_lossy(&whole)), false);
        }
        let edge = self.head.len().saturating_sub(LINE);
        let head_ends = self.head[edge..].iter().rposition(|b| *b == b'\n').map_or(edge, |at| edge + at + 1);
        let edge = tail.len().min(LINE);
        let tail_begins = tail[..edge].iter().position(|b| *b == b'\n').map_or(edge, |at| at + 1);
        let clean = |bytes: &[u8]| redactor.clean(&String::from_utf8_lossy(bytes));
        (format!("{}[... cut ...]\n{}", clean(&self.head[..head_ends]), clean(&tail[tail_begins..])), true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ripcord_core::Secret;

    #[test]
    fn a_long_output_keeps_its_beginning_and_its_end() {
        let mut kept = Kept::default();
        for n in 0..100_000 {
            kept.push(format!("line {n}\n").as_bytes());
        }
        let (text, cut) = kept.text(&Redactor::default());
        assert!(cut && text.starts_with("line 0\n") && text.ends_with("line 99999\n"), "{}", &text[..80]);
        assert!(text.len() <= HEAD + TAIL + 20, "{}", text.len());
        assert!(text.lines().all(|line| line.starts_with("line ") || line == "[... cut ...]"), "only whole lines");
    }

    #[test]
    fn up_to_the_bound_nothing_is_cut() {
        let mut kept = Kept::default();
        kept.push(&vec![b'x'; HEAD + TAIL]);
        assert_eq!(kept.text(&Redactor::default()), ("x".repeat(HEAD + TAIL), false));
        kept.push(b"x");
        assert!(kept.text(&Redactor::default()).1);
    }

    #[test]
    fn rf29_a_secret_at_the_cut_leaves_no_half_behind() {
        let redactor = Redactor::default();
        redactor.learn(&Secret::new("swordfish-0815"));
        for shift in 0..15 {
            let mut kept = Kept::default();
            kept.push(&vec![b'x'; HEAD - shift]);
            kept.push(b"swordfish-0815");
            kept.push(&vec![b'y'; TAIL]);
            kept.push(b"swordfish-0815");
            kept.push(&vec![b'z'; TAIL - shift]);
            let (text, cut) = kept.text(&redactor);
            assert!(cut && !text.contains("swor") && !text.contains("0815"), "cut {shift} into the secret");
        }
    }
}
