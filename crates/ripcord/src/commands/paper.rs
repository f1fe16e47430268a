//! What is made from the program itself: schema, reference, completions, manual pages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::CommandFactory;
use ripcord_adapters::Adapters;

use crate::args::Cli;
use crate::exit::Exit;
use crate::problem::Problem;
use crate::screen::Screen;

pub fn schema(screen: &Arc<Screen>) -> Result<Exit, Problem> {
    let schema = ripcord_config::schema::<Adapters>();
    let text = serde_json::to_string_pretty(&schema)
        .map_err(|error| Problem::new(Exit::Internal, "the schema cannot be written").cause(error.to_string()))?;
    screen.result(&text)?;
    Ok(Exit::Done)
}

pub fn reference(screen: &Arc<Screen>) -> Result<Exit, Problem> {
    screen.result(ripcord_config::reference::<Adapters>().trim_end())?;
    Ok(Exit::Done)
}

pub fn completions(shell: clap_complete::Shell, screen: &Arc<Screen>) -> Result<Exit, Problem> {
    let mut text = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "ripcord", &mut text);
    screen.result(String::from_utf8_lossy(&text).trim_end())?;
    Ok(Exit::Done)
}

pub fn man(dir: Option<PathBuf>, screen: &Arc<Screen>) -> Result<Exit, Problem> {
    let failed = |path: &Path, error: &std::io::Error| Problem::io("write manual pages to", path, error);
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(&dir).map_err(|error| failed(&dir, &error))?;
            clap_mangen::generate_to(Cli::command(), &dir).map_err(|error| failed(&dir, &error))?;
        }
        None => {
            let mut page = vec![];
            let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
            rendered.map_err(|error| failed(Path::new("standard output"), &error))?;
            screen.result(String::from_utf8_lossy(&page).trim_end())?;
        }
    }
    Ok(Exit::Done)
}
