//! From where a secret is to the secret: at the moment of use, and taught to the redactor before anybody sees it.
//!
//! Errors name the reference and what to do about it; none of them holds a value.

use std::error::Error;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ripcord_core::{Fut, Redactor, Secret, SecretRef};
use tokio::io::AsyncReadExt;

/// The longest a secret's command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// The most a secret may be: keys and certificates are far below it.
const MOST_BYTES: u64 = 1 << 20;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the secret in {from} is not set: set it for the Ripcord process")]
    NotSet { from: SecretRef },
    #[error("the secret in {from} is empty: put its value there")]
    Empty { from: SecretRef },
    #[error("the secret in {from} is no text")]
    NotText { from: SecretRef },
    #[error("the secret in {from} cannot be read")]
    Unreadable {
        from: SecretRef,
        #[source]
        source: io::Error,
    },
    /// Anybody on the machine could have read it: it is no secret any more.
    #[error("the secret in {from} can be read by everybody (mode {mode:04o}): change it, and `chmod 0600 {}`", .path.display())]
    Exposed { from: SecretRef, path: PathBuf, mode: u32 },
    #[error("the secret in {from} is not there: the file has no such key")]
    NoKey { from: SecretRef },
    #[error("the secret from {from} was not given: {why}")]
    CommandFailed { from: SecretRef, why: String },
    /// Asked of who started this process.
    #[error("the secret from {from} was not given: {why}")]
    NotGiven { from: SecretRef, why: String },
}

/// How a process that has no secrets of its own asks for one.
pub(crate) type Ask = Arc<dyn Fn(SecretRef) -> Fut<'static, Result<String, String>> + Send + Sync>;

static ELSEWHERE: OnceLock<Ask> = OnceLock::new();

/// From now on this process finds no secret by itself, but asks for all of them: it is an agent, and its environment and files are
/// not where the configuration says secrets are. Said once, for the whole process: an agent serves one controller.
pub(crate) fn ask_elsewhere(ask: Ask) {
    if ELSEWHERE.set(ask).is_err() {
        tracing::warn!("this process asks elsewhere for secrets already");
    }
}

/// The secret that `from` names. Relative paths are taken from `base`; `redactor` knows the secret before it is returned.
/// # Errors
/// [`SecretError`] says which reference and what to do; never the value.
pub async fn resolve(from: &SecretRef, base: &Path, redactor: &Redactor) -> Result<Secret, SecretError> {
    let text = match from {
        _ if let Some(ask) = ELSEWHERE.get() => {
            let given = ask(from.clone()).await;
            given.map_err(|why| SecretError::NotGiven { from: from.clone(), why })?
        }
        SecretRef::Env(name) => match std::env::var(name) {
            Ok(text) => text,
            Err(std::env::VarError::NotPresent) => return Err(SecretError::NotSet { from: from.clone() }),
            Err(std::env::VarError::NotUnicode(_)) => return Err(SecretError::NotText { from: from.clone() }),
        },
        SecretRef::File(path) => {
            let path = base.join(path);
            let unreadable = |source| SecretError::Unreadable { from: from.clone(), source };
            let mode = std::fs::metadata(&path).map_err(unreadable)?.mode() & 0o7777;
            if mode & 0o004 != 0 {
                return Err(SecretError::Exposed { from: from.clone(), path, mode });
            }
            one_newline_less(read(from, &path)?)
        }
        SecretRef::Command(argv) => one_newline_less(command(from, argv, base).await?),
        // The application's own file, with the mode the application needs: not ours to refuse.
        SecretRef::Dotenv { file, key } => {
            let text = read(from, &base.join(file))?;
            dotenv(&text, key).ok_or_else(|| SecretError::NoKey { from: from.clone() })?
        }
    };
    if text.is_empty() {
        return Err(SecretError::Empty { from: from.clone() });
    }
    let secret = Secret::new(text);
    redactor.learn(&secret);
    Ok(secret)
}

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        // Some libraries repeat their source in their own text.
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

fn read(from: &SecretRef, path: &Path) -> Result<String, SecretError> {
    use io::Read;
    let unreadable = |source| SecretError::Unreadable { from: from.clone(), source };
    let mut bytes = vec![];
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // A named pipe or a terminal would make the caller wait for somebody who never comes.
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is not a file")));
    }
    file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| SecretError::NotText { from: from.clone() })
}

/// Standard output of a command. Its errors are shown, its output never.
async fn command(from: &SecretRef, argv: &[String], base: &Path) -> Result<String, SecretError> {
    let failed = |why: String| SecretError::CommandFailed { from: from.clone(), why };
    let [program, arguments @ ..] = argv else { return Err(failed("the command is empty".to_owned())) };
    let mut process = tokio::process::Command::new(program);
    process.args(arguments).current_dir(base).process_group(0).kill_on_drop(true);
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = process.spawn().map_err(|error| failed(error.to_string()))?;
    let Some(stdout) = child.stdout.take() else { return Err(failed("it has no output".to_owned())) };
    let ends = async {
        let mut bytes = vec![];
        stdout.take(MOST_BYTES).read_to_end(&mut bytes).await?;
        Ok::<_, io::Error>((bytes, child.wait().await?))
    };
    let ended = tokio::time::timeout(COMMAND_LIMIT, ends).await;
    let (bytes, status) = ended
        .map_err(|_| failed(format!("it was still running after {}", ripcord_core::human(COMMAND_LIMIT))))?
        .map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(format!("{status}: run it by hand to see what it says")));
    }
    String::from_utf8(bytes).map_err(|_| SecretError::NotText { from: from.clone() })
}

fn one_newline_less(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// The value of `key`, as dotenv readers take it: the last definition wins, `export` is allowed, quotes are taken off.
///
/// Nothing is expanded: a secret that needs it would differ from reader to reader.
fn dotenv(text: &str, key: &str) -> Option<String> {
    let mut found = None;
    let mut rest = text;
    while !rest.is_empty() {
        let begins = rest.trim_start_matches([' ', '\t']);
        let begins = begins.strip_prefix("export ").map_or(begins, |after| after.trim_start_matches([' ', '\t']));
        let (line, mut after) = begins.split_once('\n').unwrap_or((begins, ""));
        if let Some((name, _)) = line.split_once('=')
            && !line.starts_with('#')
        {
            // To the end of all the text: a quoted value may go on over several lines.
            let value = begins[name.len() + 1..].trim_start_matches([' ', '\t']);
            let (value, left) = match value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
                Some(quote) => quoted(value, quote).unwrap_or_else(|| (plain(value), after)),
                None => (plain(value), after),
            };
            after = left;
            if name.trim_end() == key {
                found = Some(value);
            }
        }
        rest = after;
    }
    found
}

fn plain(text: &str) -> String {
    let line = text.split('\n').next().unwrap_or_default();
    line.split_once(" #").map_or(line, |(value, _)| value).trim_end().to_owned()
}

/// The value inside the quotes that `text` begins with, and what follows its line. None where the quote is never closed.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((value, text[at..].split_once('\n').map_or("", |(_, after)| after))),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn value(text: &str) -> Option<String> {
        dotenv(text, "KEY")
    }

    #[test]
    fn rf17_a_dotenv_value_is_read_as_its_readers_read_it() {
        let check = |text: &str, expected: &str| assert_eq!(value(text).as_deref(), Some(expected), "{text:?}");
        check("KEY=plain", "plain");
        check("KEY=plain\r\nB=1", "plain");
        check("A=1\nexport KEY = 'it''s'\n", "it");
        check("KEY=first\nKEY=last", "last");
        check("KEY=a=b#c # comment", "a=b#c");
        check(r#"KEY="two\nlines # kept" # comment"#, "two\nlines # kept");
        check("KEY=\"-----BEGIN\nKEY=no\n-----END\"\nB=1", "-----BEGIN\nKEY=no\n-----END");
        check("B='x\ny'\nKEY=after", "after");
        check("KEY='ungeschlossen", "'ungeschlossen");
        check("  KEY=\"ä\\\"ö\"", "ä\"ö");
        assert_eq!(value("#KEY=x\nMYKEY=y\nKEY"), None);
        assert_eq!(value("KEY="), Some(String::new()));
    }

    async fn said(from: &SecretRef, base: &Path) -> String {
        let error = resolve(from, base, &Redactor::default()).await.unwrap_err();
        chain(&error)
    }

    #[tokio::test]
    async fn a_missing_secret_says_which_and_where_to_set_it() {
        let dir = tempfile::tempdir().unwrap();
        let env = SecretRef::Env("SURELY_NOT_SET_ANYWHERE".into());
        insta::assert_snapshot!(said(&env, dir.path()).await, @"the secret in environment variable `SURELY_NOT_SET_ANYWHERE` is not set: set it for the Ripcord process");
        let file = SecretRef::File("absent".into());
        insta::assert_snapshot!(said(&file, dir.path()).await, @"the secret in file `absent` cannot be read: No such file or directory (os error 2)");
        fs::write(dir.path().join(".env"), "A=1\n").unwrap();
        let key = SecretRef::Dotenv { file: ".env".into(), key: "B".into() };
        insta::assert_snapshot!(said(&key, dir.path()).await, @"the secret in `B` of `.env` is not there: the file has no such key");
        let command = SecretRef::Command(vec!["false".into()]);
        insta::assert_snapshot!(said(&command, dir.path()).await, @"the secret from command `false` was not given: exit status: 1: run it by hand to see what it says");
    }

    #[tokio::test]
    async fn rf29_a_secret_everybody_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "canary-5f1d\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let from = SecretRef::File("token".into());
        let text = said(&from, dir.path()).await;
        assert!(text.contains("(mode 0644): change it, and `chmod 0600 "), "{text}");
        assert!(!text.contains("canary"), "{text}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(resolve(&from, dir.path(), &Redactor::default()).await.unwrap().reveal(), "canary-5f1d");
    }

    #[tokio::test]
    async fn a_resolved_secret_is_known_to_the_redactor() {
        let dir = tempfile::tempdir().unwrap();
        let redactor = Redactor::default();
        fs::write(dir.path().join(".env"), "TOKEN='canary-77aa'\n").unwrap();
        let dotenv = SecretRef::Dotenv { file: ".env".into(), key: "TOKEN".into() };
        let command = SecretRef::Command(vec!["printf".into(), "canary-88bb\n\n".into()]);
        assert_eq!(resolve(&dotenv, dir.path(), &redactor).await.unwrap().reveal(), "canary-77aa");
        assert_eq!(resolve(&command, dir.path(), &redactor).await.unwrap().reveal(), "canary-88bb\n");
        assert_eq!(redactor.clean("a canary-77aa b canary-88bb c"), "a [redacted] b [redacted] c");
    }
}
