//! Channels, and who is told what.

use std::collections::BTreeMap;

use ripcord_core::{ChannelId, Notify};
use serde::Deserialize;

use super::Cx;
use super::matrix::Severities;
use super::parts::{mistakes, split};
use crate::read::{read, read_with};
use crate::{Kinds, file};

/// Channels have nothing in common beside their kind.
#[derive(Deserialize)]
struct NoKeys {}

pub(crate) fn channels<K: Kinds>(cx: Cx<'_>) -> BTreeMap<ChannelId, K::Channel> {
    let mut channels = BTreeMap::new();
    for (key, node) in cx.entries("channels") {
        let id: Option<ChannelId> = cx.name(key.text(), key.spot);
        let (Some(split), _) = split::<NoKeys>(cx, (key, node), K::channel_kinds(), false) else { continue };
        let name = split.kind.name;
        let settings = read_with(&split.settings, split.key, cx.findings, |reader| K::channel(name, reader));
        let Some(settings) = settings else { continue };
        mistakes(cx, &split, K::check_channel(&settings));
        channels.extend(id.map(|id| (id, settings)));
    }
    channels
}

pub(crate) fn notify(cx: Cx<'_>, severities: &Severities) -> Vec<Notify> {
    let Some((_, node)) = cx.section("notify") else { return vec![] };
    let known = cx.names("channels");
    let mut all = vec![];
    for item in cx.items(node) {
        let owner = item.entries().first().map_or(item.spot, |(key, _)| key.spot);
        let Some(written) = read::<file::Notify>(item, owner, cx.findings) else { continue };
        if written.to.0.is_empty() {
            cx.findings.error(written.to.spot, "this goes nowhere", "name the channels: `to: [ops]`");
        }
        all.push(Notify {
            about: written.about.into_iter().map(Into::into).collect(),
            at_least: written.at_least.as_ref().and_then(|name| severities.of(cx, name)),
            channels: written.to.0.iter().filter_map(|to| cx.reference(to, &known, "channel")).collect(),
        });
    }
    all
}
