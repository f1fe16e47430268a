//! What goes wrong with services: each time it is said what, and what to do, and nothing is half done unseen.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use ripcord_core::{Action, Available, Holds, Outcome, Retry, Seen, Wanted};

use super::daemon::small;
use super::{Stack, With, api, bad, each, failed, settings};
use crate::contract::{Site, capture_step, restore_step, run_cx};
use crate::support::{proof, step};
use ripcord_core::CapturePurpose;

async fn without_an_engine_nothing_is_known_and_nothing_done(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad());
    let container = stack.id();
    let gone = format!("unix://{}/nobody.sock", stack.site.dir.path().display());
    let blind = stack.under(&settings(&gone, &stack.project, &with.program(), "30s"));
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let survey = blind.component().survey(&run_cx(1), &crate::support::place(), std::slice::from_ref(&wanted)).await;
    let Seen::Unreachable { why } = survey.seen else { panic!("{:?}", survey.seen) };
    assert!(why.contains(&gone), "{why}");
    assert!(matches!(survey.available[0].1, Available::Missing { .. }));
    assert_eq!(survey.running, None);
    for step in [
        capture_step(CapturePurpose::Protective),
        restore_step(&id, &made),
        step("stop", Action::Stop),
        step("start", Action::Start),
    ] {
        let failure = failed(blind.apply(2, &step).await);
        assert!(failure.what.contains("cannot be asked") && failure.retry == Retry::Later, "{failure:?}");
    }
    assert_eq!(stack.id(), container);
}

/// Found when somebody asks, and not at three in the morning.
async fn an_image_that_is_gone_is_found_beforehand(with: With) {
    let stack = Stack::new(with);
    let name = format!("{}/gone", stack.project);
    stack.engine.image(&name, "v1");
    let tag = format!("{name}:v1");
    fs::write(stack.site.at("compose.yaml"), api("shop/api:v1").file().replacen("shop/api:v1", &tag, 1)).unwrap();
    stack.up(&[]);
    let image = stack.inspect(&stack.id(), "{{.Image}}");
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad());
    let container = stack.id();
    let keeper =
        stack.engine.says(&["ps", "-aq", "--filter", &format!("label=dev.ripcord.keep={}/api", stack.project)]);
    stack.engine.says(&["rm", &keeper]);
    stack.engine.says(&["rmi", "--force", &image]);
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let Available::Missing { why } = stack.site.available(wanted).await else { panic!("it is gone") };
    assert!(why.contains("is not on this machine"), "{why}");
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    for step in [prove, restore_step(&id, &made)] {
        let failure = failed(stack.site.apply(2, &step).await);
        assert!(failure.what.contains(&format!("({tag}) is not on this machine any more")), "{failure:?}");
        assert!(failure.advice.unwrap().contains("load it from where it was built"));
    }
    assert_eq!((stack.id(), stack.version().as_deref()), (container, Some("v2")), "refused before anything stops");
}

async fn a_damaged_capture_is_refused_before_anything_stops(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad());
    let container = stack.id();
    stack.site.damage_vault();
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    assert!(matches!(stack.site.available(wanted).await, Available::Missing { .. }));
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    for step in [prove, restore_step(&id, &made)] {
        let outcome = stack.site.apply(2, &step).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    }
    assert_eq!((stack.id(), stack.version().as_deref()), (container, Some("v2")));
}

async fn a_port_that_is_taken_is_named(with: With) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stack = Stack::new(with);
    let file = api("shop/api:v1").file().replacen("127.0.0.1::8080", &format!("127.0.0.1:{port}:8080"), 1);
    fs::write(stack.site.at("compose.yaml"), &file).unwrap();
    stack.up(&[]);
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad());
    proof(stack.site.apply(2, &step("stop", Action::Stop)).await);
    let other = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let failure = failed(stack.site.apply(2, &prove).await);
    let us = format!("(process {})", std::process::id());
    assert!(
        failure.what.starts_with(&format!("port {port} is in use by ")) && failure.what.ends_with(&us),
        "{failure:?}"
    );
    stack.site.restore(2, &id, &made).await;
    let start = step("start", Action::Start);
    let failure = failed(stack.site.apply(2, &start).await);
    assert!(failure.what.contains("could not be started") && failure.what.ends_with(&us), "{failure:?}");
    assert!(failure.advice.unwrap().contains("stop what has the port") && failure.retry == Retry::Later);
    drop(other);
    // Another container has it, and not the one that is to have it.
    let (name, publish) = (format!("{}-squatter", stack.project), format!("127.0.0.1:{port}:8080"));
    let network = format!("{}_default", stack.project);
    stack.engine.says(&[
        "run",
        "--detach",
        "--network",
        &network,
        "--name",
        &name,
        "--publish",
        &publish,
        "shop/api:v3",
    ]);
    let failure = failed(stack.site.apply(2, &prove).await);
    assert_eq!(failure.what, format!("port {port} is in use by container `{name}`"));
    let failure = failed(stack.site.apply(2, &start).await);
    assert!(failure.what.ends_with(&format!("port {port} is in use by container `{name}`")), "{failure:?}");
    stack.engine.says(&["rm", "--force", &name]);
    // The same step once it is free.
    proof(stack.site.apply(2, &start).await);
    assert_eq!(stack.version().as_deref(), Some("v1"));
}

/// A release captured and then made impossible from outside, so that coming back to it meets the fault.
async fn coming_back_to(with: With, release: super::Api, ready: &str) -> (Stack, ripcord_core::Failure) {
    let stack = Stack::deployed(with, &release);
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&api("shop/api:v2"));
    let site = stack.under(&settings(&stack.engine.endpoint(), &stack.project, &with.program(), ready));
    proof(site.apply(2, &step("stop", Action::Stop)).await);
    proof(site.apply(2, &restore_step(&id, &made)).await);
    let failure = failed(site.apply(2, &step("start", Action::Start)).await);
    (stack, failure)
}

async fn what_never_becomes_healthy_is_said_with_its_checks(with: With) {
    let (_stack, failure) = coming_back_to(with, api("shop/api:v1").env("FAIL: \"1\""), "3s").await;
    assert!(
        failure.what.contains("was not well within 3 s: it runs, and its health check fails: not well: HTTP/1.0 503"),
        "{failure:?}"
    );
    let output = failure.output.unwrap();
    assert!(output.contains("level=info version v1 begins") && output.contains("health check at 20"), "{output}");
}

async fn a_check_that_hangs_is_a_check_that_fails(with: With) {
    let (_stack, failure) = coming_back_to(with, api("shop/api:v1").env("HANG_HEALTH: \"1\""), "4s").await;
    assert!(failure.what.contains("was not well within 4 s: it runs, and its health check"), "{failure:?}");
}

async fn what_keeps_ending_is_given_up_at_once(with: With) {
    let looping =
        api("shop/api:v1").env("EXIT: \"3\"").env("DB_PASSWORD: swordfish-0815").line("restart: always").unchecked();
    let (_stack, failure) = coming_back_to(with, looping, "50s").await;
    assert!(
        failure.what.contains("keeps ending (exit code 3) and was restarted") || failure.what.contains("runs"),
        "{failure:?}"
    );
    let output = failure.output.unwrap();
    assert!(output.contains("level=error cannot go on, secret [redacted]"), "{output}");
    assert!(!output.contains("swordfish"), "{output}");
}

async fn what_ends_is_said_with_its_exit_code(with: With) {
    let (_stack, failure) = coming_back_to(with, api("shop/api:v1").env("EXIT: \"4\"").unchecked(), "50s").await;
    assert!(failure.what.ends_with("ended with exit code 4"), "{failure:?}");
}

async fn what_needs_more_memory_than_it_may_have_is_said(with: With) {
    let release = api("shop/api:v1").env("MEM: \"128\"").line("mem_limit: 24m").line("memswap_limit: 24m").unchecked();
    let (_stack, failure) = coming_back_to(with, release, "50s").await;
    assert!(failure.what.contains("was killed because it needed more memory than it may have (24 MiB)"), "{failure:?}");
    assert!(failure.advice.unwrap().contains("mem_limit"));
}

/// What is broken may be the very file: it is not needed for the way back, only for what reads it.
async fn a_broken_compose_file_is_no_hindrance(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad());
    fs::write(stack.site.at("compose.yaml"), "services:\n  api:\n    image: [what\n").unwrap();
    let survey = stack.survey(&[]).await;
    assert!(survey.facts["on disk"].starts_with("the Compose file cannot be read"), "{:?}", survey.facts);
    let (_, broken) = stack.site.capture(2).await;
    assert_ne!(broken.revision, made.revision, "the bad one can be captured too");
    stack.rolled_back(3, &id, &made).await;
    assert_eq!(stack.version().as_deref(), Some("v1"));
    // A run that did not restore it has nothing but the file to go by.
    proof(stack.site.apply(4, &step("stop", Action::Stop)).await);
    let failure = failed(stack.site.apply(4, &step("start", Action::Start)).await);
    assert!(failure.what.contains("config` ended with exit code"), "{failure:?}");
    assert!(failure.advice.unwrap().contains("put the Compose file right"));
}

async fn a_volume_that_is_gone_is_no_empty_one(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let (id, made) = stack.site.capture(1).await;
    let volume = format!("{}_data", stack.project);
    stack.engine.says(&["rm", "--force", &stack.id()]);
    stack.engine.says(&["volume", "rm", &volume]);
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let failure = failed(stack.site.apply(2, &prove).await);
    assert_eq!(failure.what, format!("volume `{volume}` is gone, and its data with it"));
    stack.engine.says(&["volume", "create", &volume]);
    // A network that is gone holds nothing: it is made again.
    let back = format!("{}_back", stack.project);
    stack.engine.says(&["network", "rm", &back]);
    stack.site.restore(2, &id, &made).await;
    proof(stack.site.apply(2, &step("start", Action::Start)).await);
    assert_eq!(stack.site.seen().await, Seen::At(made.revision));
    // And it is the project's own again, which Compose goes on with.
    stack.up(&[]);
}

async fn without_compose_it_is_said_what_was_looked_for(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1"));
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad());
    let site: Site = stack.under(&settings(&stack.engine.endpoint(), &stack.project, "no-such-compose", "30s"));
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    for step in [prove, restore_step(&id, &made)] {
        let failure = failed(site.apply(2, &step).await);
        assert!(
            failure.what.contains("there is no Compose here: `no-such-compose` could not be started"),
            "{failure:?}"
        );
    }
    assert_eq!(stack.version().as_deref(), Some("v2"));
}

async fn what_would_bring_a_newer_image_by_itself_is_said(with: With) {
    let label = "labels: { com.centurylinklabs.watchtower.enable: \"true\" }";
    let stack = Stack::deployed(with, &api("shop/api:v1").line(label));
    let (id, made) = stack.site.capture(1).await;
    assert_eq!(stack.survey(&[]).await.facts["updated by"], "Watchtower is told to put a newer image there by itself");
    stack.deploy(&api("shop/api:v2").line(label));
    stack.site.restore(2, &id, &made).await;
    let back = stack.survey(&[]).await.puts_back;
    assert!(back.iter().any(|what| what.starts_with("Watchtower is told to put a newer image there")), "{back:?}");
}

/// B11: what would put the bad release back is said beforehand and afterwards, and is left as it is.
async fn what_would_put_the_bad_release_back_is_said(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1").line("restart: always"));
    let (id, made) = stack.site.capture(1).await;
    let wanted = [Wanted { revision: made.revision.clone(), capture: Some(id.clone()) }];
    assert_eq!(stack.survey(&wanted).await.puts_back, Vec::<String>::new(), "it is where it is to be");
    stack.deploy(&api("shop/api:v2").line("restart: always"));
    let file = "the Compose files on disk still say what is live now (shop/api:v2): the next `up` applies that, unless they go back too";
    assert_eq!(stack.survey(&wanted).await.puts_back, [file]);
    assert_eq!(stack.survey(&[]).await.puts_back, Vec::<String>::new(), "nobody asked to go elsewhere");
    proof(stack.site.apply(2, &step("stop", Action::Stop)).await);
    let stopped = "it is stopped, and starts again when the Engine does (`restart: always`)";
    assert_eq!(stack.survey(&wanted).await.puts_back, [file, stopped]);
    stack.site.restore(2, &id, &made).await;
    proof(stack.site.apply(2, &step("start", Action::Start)).await);
    let back = stack.survey(&[]).await.puts_back;
    assert_eq!(back.len(), 1, "{back:?}");
    assert!(back[0].starts_with("the Compose file on disk names shop/api:v2 (sha256:"), "{back:?}");
    assert!(back[0].ends_with("the next `up` applies that"), "{back:?}");
    // Once somebody has put the file right, there is nothing left to say.
    stack.write(&api("shop/api:v1").line("restart: always"));
    assert_eq!(stack.survey(&[]).await.puts_back, Vec::<String>::new());
}

/// A full disk is found beforehand; one that fills up meanwhile ends the step, which goes on once there is room.
async fn a_full_disk_of_the_engine_is_no_half_restore(with: With) {
    let stack = Stack::on(small("160m"), with);
    stack.deploy(&api("shop/api:v1"));
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad());
    let container = stack.id();
    let filler = stack.engine.data().join("filler");
    let fill = || {
        let mut file = fs::File::create(&filler).unwrap();
        // Until it is full: the rest of the last piece too.
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    };
    fill();
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let failure = failed(stack.site.apply(2, &prove).await);
    assert!(failure.what.starts_with("the Engine's disk is full: 0 MiB are free on "), "{failure:?}");
    assert!(failure.advice.unwrap().contains("nothing was changed"));
    assert_eq!((stack.id(), stack.version().as_deref()), (container, Some("v2")));
    fs::remove_file(&filler).unwrap();
    proof(stack.site.apply(2, &prove).await);
    proof(stack.site.apply(2, &step("stop", Action::Stop)).await);
    fill();
    let restore = restore_step(&id, &made);
    let failure = failed(stack.site.apply(2, &restore).await);
    assert!(failure.what.contains("no space left on device"), "{failure:?}");
    assert!(failure.advice.unwrap().contains("free space under the Engine's directory"));
    let holds = stack.site.component().holds(&run_cx(2), &restore, None).await.holds;
    assert!(!matches!(holds, Holds::Target | Holds::CannotTell { .. }), "it is not taken for done: {holds:?}");
    fs::remove_file(&filler).unwrap();
    proof(stack.site.apply(2, &restore).await);
    proof(stack.site.apply(2, &step("start", Action::Start)).await);
    assert_eq!(stack.site.seen().await, Seen::At(made.revision));
    assert_eq!((stack.ids("api").len(), stack.version().as_deref()), (1, Some("v1")));
}

/// It ends in the middle of a run: each step says so and does nothing, and each goes on when it is there again.
async fn an_engine_that_ends_meanwhile_is_waited_for_by_whoever_retries(with: With) {
    let stack = Stack::on(small("160m"), with);
    stack.deploy(&api("shop/api:v1"));
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad());
    proof(stack.site.apply(2, &step("stop", Action::Stop)).await);
    let (restore, start) = (restore_step(&id, &made), step("start", Action::Start));
    let component = stack.site.component();
    let mark = component.holds(&run_cx(2), &restore, None).await.mark;
    let before = crate::contract::before(2, &restore, mark);
    stack.engine.end();
    let failure = failed(component.apply(&run_cx(2), &restore, &before).await);
    assert!(failure.what.contains("cannot be asked") && failure.retry == Retry::Later, "{failure:?}");
    let holds = component.holds(&run_cx(2), &restore, Some(&before)).await.holds;
    assert!(matches!(holds, Holds::CannotTell { .. }), "nobody knows meanwhile: {holds:?}");
    stack.engine.begin();
    assert_eq!(component.holds(&run_cx(2), &restore, Some(&before)).await.holds, Holds::Origin);
    proof(component.apply(&run_cx(2), &restore, &before).await);
    stack.engine.end();
    let failure = failed(stack.site.apply(2, &start).await);
    assert!(failure.what.contains("cannot be asked") && failure.retry == Retry::Later, "{failure:?}");
    stack.engine.begin();
    proof(stack.site.apply(2, &start).await);
    assert_eq!(stack.site.seen().await, Seen::At(made.revision));
    assert_eq!((stack.ids("api").len(), stack.version().as_deref()), (1, Some("v1")));
}

/// RF29: a value of the environment is in the vault and in the container, and nowhere else.
async fn rf29_values_of_the_environment_are_shown_nowhere(with: With) {
    let stack = Stack::deployed(with, &api("shop/api:v1").env("DB_PASSWORD: swordfish-0815").env("PLAIN: trout-4711"));
    let (id, made) = stack.site.capture(1).await;
    stack.deploy(&bad().env("DB_PASSWORD: swordfish-0816"));
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let mut said = format!("{:?} {:?}", made, stack.survey(&[wanted]).await);
    for proof in stack.rolled_back(2, &id, &made).await {
        said.push_str(&format!("{proof:?}"));
    }
    assert!(!said.contains("swordfish") && !said.contains("trout"), "{said}");
    let grep = Command::new("grep")
        .args(["-rl", "-e", "swordfish-0815", "-e", "trout-4711"])
        .arg(stack.site.dir.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "not in the clear on the disk");
}

each! {
    without_an_engine_nothing_is_known_and_nothing_done
    an_image_that_is_gone_is_found_beforehand
    a_damaged_capture_is_refused_before_anything_stops
    a_port_that_is_taken_is_named
    what_never_becomes_healthy_is_said_with_its_checks
    a_check_that_hangs_is_a_check_that_fails
    what_keeps_ending_is_given_up_at_once
    what_ends_is_said_with_its_exit_code
    what_needs_more_memory_than_it_may_have_is_said
    a_broken_compose_file_is_no_hindrance
    a_volume_that_is_gone_is_no_empty_one
    without_compose_it_is_said_what_was_looked_for
    what_would_bring_a_newer_image_by_itself_is_said
    what_would_put_the_bad_release_back_is_said
    a_full_disk_of_the_engine_is_no_half_restore
    an_engine_that_ends_meanwhile_is_waited_for_by_whoever_retries
    rf29_values_of_the_environment_are_shown_nowhere
}
