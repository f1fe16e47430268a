//! The shop by itself, without Ripcord: the same commands, for tests and for looking at it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's own output")]
use ripcord_demo::shop::{Program, ShopError, USAGE, parse, run};
use std::{env, error::Error, process::ExitCode};

#[tokio::main]
async fn main() -> ExitCode {
    match shop().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  cause: {error}");
                cause = error.source();
            }
            if matches!(error, ShopError::Usage { .. }) {
                eprintln!("usage: shop COMMAND\n{USAGE}");
                return ExitCode::from(2);
            }
            ExitCode::FAILURE
        }
    }
}

async fn shop() -> Result<ExitCode, ShopError> {
    let args: Vec<String> = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let exe =
        env::current_exe().map_err(|source| ShopError::File { doing: "find", path: "this program".into(), source })?;
    let outcome = run(parse(&args)?, Program { exe, prefix: Vec::new() }).await?;
    if !outcome.text.is_empty() {
        println!("{}", outcome.text);
    }
    Ok(ExitCode::from(outcome.code))
}
