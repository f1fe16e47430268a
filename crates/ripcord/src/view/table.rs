//! Text in columns.

/// Rows in columns as wide as their widest cell; the last column is left as it is.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |text: &str| anstream::adapter::strip_str(text).to_string().chars().count();
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().filter_map(|row| row.get(c)).map(|cell| wide(cell)).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if c + 1 < row.len() {
                let room = widths.get(c).copied().unwrap_or(0).saturating_sub(wide(cell)) + 2;
                line.extend(std::iter::repeat_n(' ', room));
            }
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The lines moved to the right.
pub fn indent(text: &str, by: usize) -> String {
    let margin = " ".repeat(by);
    text.lines().map(|line| format!("{margin}{line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A command as one would type it. For reading: quotes only where a word would fall apart.
pub fn command(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,{}".contains(c);
    let word = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_colour() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let green = crate::screen::paint(crate::screen::GOOD, "ok");
        let text = table(&[row(["a", "long", "x y"]), row(["three", &green, ""])]);
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), "a      long  x y\nthree  ok");
    }

    #[test]
    fn commands_are_quoted_where_they_must_be() {
        let argv = ["cp", "a b", "", "it's"].map(str::to_owned);
        assert_eq!(command(&argv), r"cp 'a b' '' 'it'\''s'");
    }
}
