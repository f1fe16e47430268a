//! An answer in words.

use serde::Serialize;

use crate::screen::View;

#[derive(Debug, Serialize)]
pub struct Said {
    pub said: String,
}

impl Said {
    pub fn new(said: impl Into<String>) -> Self {
        Self { said: said.into() }
    }
}

impl View for Said {
    fn text(&self) -> String {
        self.said.clone()
    }
}
