//! The registry.

use ripcord_adapters::Adapters;
use ripcord_config::Kinds;

use crate::support::{channel, component, signal};

#[test]
fn every_kind_s_example_is_read_and_has_no_mistakes() {
    for doc in Adapters::component_kinds() {
        component(doc.name, doc.example);
    }
    for doc in Adapters::signal_kinds() {
        signal(doc.name, doc.example);
    }
    for doc in Adapters::channel_kinds() {
        channel(doc.name, doc.example);
    }
}

#[test]
fn kinds_are_listed_in_order_and_described() {
    for docs in [Adapters::component_kinds(), Adapters::signal_kinds(), Adapters::channel_kinds()] {
        assert!(docs.is_sorted_by_key(|doc| doc.name) && docs.windows(2).all(|two| two[0].name != two[1].name));
        for doc in docs {
            assert!(doc.summary.ends_with('.') && doc.summary.len() < 140, "{}: {}", doc.name, doc.summary);
            let schema = (doc.schema)();
            let properties = schema.get("properties").and_then(|p| p.as_object()).unwrap();
            assert!(!properties.is_empty(), "{}", doc.name);
            assert_eq!(schema.get("additionalProperties"), Some(&false.into()), "{} takes unknown keys", doc.name);
        }
    }
}
