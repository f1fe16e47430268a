//! The other end of a connection to a host, on its standard streams. See `docs/hosts.md`.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use ripcord_adapters::hosts::far::serve;

use crate::exit::Exit;
use crate::problem::Problem;

pub async fn agent() -> Result<Exit, Problem> {
    let failed = |error: io::Error| {
        Problem::new(Exit::Unavailable, "the standard streams cannot be used").cause(error.to_string())
    };
    // As files of our own: nothing of the terminal's buffering stands between.
    let read = stream(&io::stdin()).map_err(failed)?;
    let write = stream(&io::stdout()).map_err(failed)?;
    serve(read, write).await.map_err(failed)?;
    // At once: a thread that still reads standard input must not keep this process here.
    std::process::exit(0)
}

fn stream(of: &impl AsFd) -> io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(File::from(of.as_fd().try_clone_to_owned()?)))
}
