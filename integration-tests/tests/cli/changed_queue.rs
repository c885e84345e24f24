//! A route whose queue is to be otherwise than it was made, because the configuration changed while Linkspan was down.

use lapin::BasicProperties;
use linkspan_integration_tests::amqp::Amqp;
use linkspan_integration_tests::process::{Folder, Process, run};

const ROUTE: &str =
    "[[route]]\nmatch = \"jobs\"\npattern = \"competing-consumers\"\nqueue = \"jobs\"\ndead-letter = \"";

fn config(folder: &Folder, dead_letter: &str) -> String {
    folder.write("linkspan.toml", &format!("{ROUTE}{dead_letter}\"\n"))
}

fn start(folder: &Folder, dead_letter: &str) -> Process {
    Process::start(folder.path(), &["--config", &config(folder, dead_letter)])
}

#[tokio::test]
async fn an_empty_queue_is_made_anew_and_one_that_is_not_says_what_to_do_which_works() {
    let folder = Folder::new();
    let mut server = start(&folder, "jobs/dead");
    server.door("amqp");
    server.kill();

    let mut server = start(&folder, "jobs/failed");
    let line = server.line_with(&["an empty queue is made anew"]);
    assert!(line.contains("jobs"), "{line}");
    let amqp = Amqp::confirming(server.door("amqp")).await;
    let durable = BasicProperties::default().with_delivery_mode(2);
    amqp.publish_as("amq.topic", "jobs", "one", durable).await;
    assert_eq!(amqp.counts("jobs").await.0, 1);
    drop(amqp);
    server.kill();

    let (status, said) = start(&folder, "jobs/gone").exit();
    assert!(!status.success());
    for word in ["linkspan.toml:4: route[0].queue", "1 messages that wait", "store delete-queue"] {
        assert!(said.contains(word), "{word} in {said}");
    }

    // As it was: what it holds is there.
    let mut server = start(&folder, "jobs/failed");
    let amqp = Amqp::connect(server.door("amqp")).await;
    assert_eq!(amqp.counts("jobs").await.0, 1);
    let in_the_way = run(folder.path(), &["store", "delete-queue", "linkspan-data", "jobs"]);
    assert!(!in_the_way.status.success(), "a server has it");
    server.kill();

    let output = run(folder.path(), &["store", "delete-queue", "linkspan-data", "job"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("no such queue"), "{text}");
    let output = run(folder.path(), &["store", "delete-queue", "linkspan-data", "jobs"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "deleted jobs, and 1 messages in it\n");
    let mut server = start(&folder, "jobs/gone");
    let amqp = Amqp::connect(server.door("amqp")).await;
    assert_eq!(amqp.counts("jobs").await.0, 0);
    server.kill();
}
