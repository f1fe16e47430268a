//! The person at the terminal.
//!
//! Messages quote what programs said: control characters, which could move the cursor or forge a prompt, are shown as text.

use std::fmt::Write as _;
use std::sync::Arc;

use ripcord_config::KindDoc;
use ripcord_core::{Channel, ChannelId, Cx, Fut, Layer, Message, NotDelivered, Redactor, Retry};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{BuildCx, BuildError, ChannelKind, Sink};

/// The terminal that Ripcord was started in.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Rings the terminal's bell with each message.
    #[serde(default)]
    pub bell: bool,
}

impl ChannelKind for Settings {
    const DOC: KindDoc = KindDoc {
        name: "terminal",
        summary: "The terminal that Ripcord was started in.",
        example: "bell: true\n",
        layer: Layer::Code,
        schema: || schemars::schema_for!(Settings),
    };

    fn build(&self, _: &ChannelId, cx: &BuildCx) -> Result<Arc<dyn Channel>, BuildError> {
        Ok(Arc::new(Terminal { bell: self.bell, sink: Arc::clone(&cx.terminal), redactor: cx.redactor.clone() }))
    }
}

struct Terminal {
    bell: bool,
    sink: Sink,
    redactor: Redactor,
}

impl Terminal {
    fn text(&self, message: &Message) -> String {
        let mut text = String::new();
        if self.bell {
            text.push('\u{7}');
        }
        if let Some(severity) = message.severity {
            let _ = write!(text, "[{severity}] ");
        }
        let _ = writeln!(text, "{}", shown(&self.redactor.clean(&message.title)).replace('\n', " "));
        for line in shown(&self.redactor.clean(&message.body)).lines() {
            let _ = writeln!(text, "  {line}");
        }
        text
    }
}

fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push('\n'),
            '\t' => shown.push_str("    "),
            c if c.is_control() => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

impl Channel for Terminal {
    fn send<'a>(&'a self, _: &'a Cx, message: &'a Message) -> Fut<'a, Result<(), NotDelivered>> {
        Box::pin(async move {
            let written = (self.sink)(&self.text(message));
            written.map_err(|error| NotDelivered { why: format!("the terminal is gone: {error}"), retry: Retry::Never })
        })
    }
}
