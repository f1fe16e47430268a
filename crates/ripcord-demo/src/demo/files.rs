//! What the directory of the demonstration holds, written as a user would write it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::DemoError;

/// The configuration: short times, so that a story of hours fits into a minute.
fn configuration(port: u16, exe: &str) -> String {
    let url = format!("http://127.0.0.1:{port}");
    format!(
        r#"# yaml-language-server: $schema=ripcord.schema.json
# The demonstration's shop. Times are short so that it takes a minute; yours would be minutes and hours.
application: shop

components:
  code:
    directory: {{ path: shop/current, releases: shop/releases }}
  settings:
    env-file: {{ path: shop/.env }}
  flags:
    json-file: {{ path: shop/flags.json }}
  orders:
    sqlite: {{ path: shop/orders.db }}
  web:
    command:
      start: ["{exe}", shop, start, --dir, shop, --port, "{port}"]
      stop: ["{exe}", shop, stop, --dir, shop]
      instance: ["{exe}", shop, instance, --dir, shop]
      evidence: [tail, -n, "1000", shop/logs/shop.log]
    needs: [code, settings, flags, orders]
    health:
      - http: {{ url: "{url}/api/health", measure: status }}
        assert: status == 200 && json.version == target.version
        within: 15s
  maintenance:
    http-switch:
      on: {{ post: "{url}/admin/maintenance/enable" }}
      off: {{ post: "{url}/admin/maintenance/disable" }}
      observe: {{ get: "{url}/admin/maintenance", field: /enabled }}
      bearer: {{ dotenv: {{ file: shop/.env, key: ADMIN_TOKEN }} }}

signals:
  errors:
    scrape:
      url: "{url}/metrics"
      measure:
        ratio:
          of: 'http_requests_total{{route="/orders",status="500"}}'
          to: 'http_requests_total{{route="/orders",status!="503"}}'
          window: 3s
    every: 500ms
    timeout: 2s
  latency:
    scrape:
      url: "{url}/metrics"
      measure:
        quantile: {{ metric: http_request_duration_seconds, q: 0.95, window: 3s }}
    every: 500ms
    timeout: 2s
  violations:
    sql:
      path: shop/orders.db
      query: SELECT count(*) FROM orders WHERE customer = '' OR total_cents < 0
    every: 500ms
    timeout: 2s

triggers:
  error-share:
    signal: errors
    above: 5%
    for: 3s
    at-least: 20 requests
    clear: {{ below: 2%, for: 2s }}
    errors: hold
    missing: hold
    severity: p1
    issue: error-spike
  slow:
    signal: latency
    above: 2s
    for: 3s
    at-least: 20 requests
    errors: hold
    missing: hold
    severity: p2
    issue: slow
  corrupt-orders:
    signal: violations
    above: 0
    for: 1s
    errors: hold
    missing: hold
    severity: p0
    issue: data-corruption
    points-at: [code]

severities:
  p0: {{ respond-within: 5m, approve: {{ roles: [incident-lead] }} }}
  p1: {{ respond-within: 5m, approve: automatic }}
  p2: {{ respond-within: 15m, approve: {{ roles: [engineering-lead] }} }}
  p3: {{ respond-within: 1h, approve: {{ roles: [team] }} }}

matrix:
  figures: {{ errors: errors, latency: latency }}
  rows:
    - {{ name: data corruption, issue: [data-corruption], call: rollback, within: immediate, severity: p0, strategy: data }}
    - {{ name: error spike, issue: [error-spike], errors: "> 5%", call: rollback, within: immediate, severity: p1, strategy: standard, automatic: true }}
    - {{ name: slow, issue: [slow], latency: "> 2s", call: evaluate, within: 15m, severity: p2 }}
  otherwise: {{ call: evaluate, within: 1h, severity: p3 }}

strategies:
  standard:
    - {{ level: 1, name: toggles, set: {{ settings: {{ FAST_CHECKOUT: "false" }} }}, budget: 2m, then: automatic }}
    - {{ level: 2, name: code, restore: versioned, budget: 15m, then: ask }}
  data:
    - {{ level: 3, name: full, restore: [code, settings, flags, orders], budget: 45m }}

verify:
  closed:
    - name: orders-answer
      http: {{ url: "{url}/orders?limit=1", measure: status, secret-headers: {{ x-internal: {{ dotenv: {{ file: shop/.env, key: ADMIN_TOKEN }} }} }} }}
      assert: status == 200
      within: 10s

policy:
  suspect-for: 24h
  baseline: 4s
  bake: 10s
  helps-within: 9s
  watch: 6s
"#
    )
}

/// How this shop is deployed: somebody's own script, which knows nothing of Ripcord.
fn deploy_script(port: u16, exe: &str) -> String {
    format!(
        "#!/bin/sh\n# Deploys shop/releases/$1.\nset -eu\n\
         \"{exe}\" shop switch --dir shop --version \"$1\"\n\
         \"{exe}\" shop stop --dir shop\n\
         \"{exe}\" shop start --dir shop --port {port}\n"
    )
}

/// Writes both.
pub(super) fn write(dir: &Path, port: u16, exe: &Path) -> Result<(), DemoError> {
    let exe = exe.display().to_string();
    let files = [("ripcord.yaml", configuration(port, &exe), 0o644), ("deploy.sh", deploy_script(port, &exe), 0o755)];
    for (name, text, mode) in files {
        let path = dir.join(name);
        let wrong = |source| DemoError::Io { what: "cannot write", path: path.clone(), source };
        std::fs::write(&path, text).map_err(wrong)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(wrong)?;
    }
    Ok(())
}
