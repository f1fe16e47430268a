//! What containers wrote: the Engine's stream of both outputs, taken apart.
//!
//! Without a terminal each piece has a head of eight bytes: the stream, three zeros, the length. A piece need not be a line. With a
//! terminal there is one stream and no heads.
//! Source: Docker Engine API reference, "Attach to a container", stream format.

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub(crate) error: bool,
    /// When the Engine got it, as it writes it (RFC 3339).
    pub(crate) at: String,
    pub(crate) text: String,
}

/// The lines of an answer, with time stamps. What is cut off at its end is taken as it is.
pub(crate) fn lines(bytes: &[u8], terminal: bool) -> Vec<LogLine> {
    if terminal {
        return split(bytes).map(|line| line_of(false, line)).collect();
    }
    // A line's pieces follow each other within its stream, not in the whole.
    let (mut lines, mut open, mut rest) = (vec![], [Vec::new(), Vec::new()], bytes);
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (piece, next) = after.split_at(length.min(after.len()));
        let stream = usize::from(head[0] == 2);
        open[stream].extend_from_slice(piece);
        while let Some(end) = open[stream].iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = open[stream].drain(..=end).collect();
            lines.push(line_of(stream == 1, &line));
        }
        rest = next;
    }
    for (stream, left) in open.iter().enumerate().filter(|(_, left)| !left.is_empty()) {
        lines.push(line_of(stream == 1, left));
    }
    lines
}

fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn line_of(error: bool, line: &[u8]) -> LogLine {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    let (at, text) = match text.split_once(' ') {
        Some((at, text)) if at.ends_with('Z') && at.len() >= 20 => (at, text),
        _ => ("", text),
    };
    LogLine { error, at: at.to_owned(), text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], &length[..], text.as_bytes()].concat()
    }

    fn told(bytes: &[u8], terminal: bool) -> Vec<String> {
        let sign = |line: &LogLine| if line.error { "!" } else { "." };
        lines(bytes, terminal).iter().map(|line| format!("{}{} {}", sign(line), line.at, line.text)).collect()
    }

    #[test]
    fn both_streams_are_taken_apart() {
        let bytes = [piece(1, "2026-11-21T12:00:00.1Z one\n"), piece(2, "2026-11-21T12:00:00.2Z two\n")].concat();
        assert_eq!(told(&bytes, false), [".2026-11-21T12:00:00.1Z one", "!2026-11-21T12:00:00.2Z two"]);
    }

    #[test]
    fn a_line_may_come_in_pieces_and_the_streams_between_each_other() {
        let bytes = [piece(1, "be"), piece(2, "error\n"), piece(1, "gin\nnext"), piece(1, " line\n")].concat();
        assert_eq!(told(&bytes, false), ["! error", ". begin", ". next line"]);
    }

    #[test]
    fn what_is_cut_off_is_taken_as_it_is() {
        let bytes = [piece(1, "whole\n"), piece(2, "cut off in the middle\n")].concat();
        assert_eq!(told(&bytes[..bytes.len() - 8], false), [". whole", "! cut off in the"]);
        assert_eq!(told(&bytes[..bytes.len() - 26], false), [". whole"]);
        assert_eq!(told(b"", false), Vec::<String>::new());
        // A head that lies about its length takes no more than there is.
        assert_eq!(told(&[&[1, 0, 0, 0, 255, 255, 255, 255], &b"x\n"[..]].concat(), false), [". x"]);
    }

    #[test]
    fn a_terminal_has_one_stream_without_heads() {
        assert_eq!(
            told(b"2026-11-21T12:00:00.1Z one\r\n\r\ntwo\n", true),
            [".2026-11-21T12:00:00.1Z one", ". ", ". two"]
        );
    }

    #[test]
    fn bytes_that_are_no_text_do_not_break_it() {
        let bytes = [&[1, 0, 0, 0, 0, 0, 0, 4][..], &[0xff, 0xfe, b'a', b'\n']].concat();
        assert_eq!(told(&bytes, false), [". \u{fffd}\u{fffd}a"]);
    }
}
