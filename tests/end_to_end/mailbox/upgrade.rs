//! A deployment that gets a mailbox while a message that is to be kept is on its queue.

use std::collections::BTreeMap;

use aws_sdk_lambda::types::Environment;
use streamer_cli::stack::{
    build::build,
    deploy::{Overrides, deploy_delivery},
};
use streamer_producer::Message;
use streamer_tests::{
    DEADLINE,
    command::Streamer,
    emulator::{VISIBILITY, producer, stack},
    eventually,
};

use super::{
    HOUR,
    device::{Device, State},
    listing,
};
use crate::{TENANT, redrive::Deployment};

/// Without a mailbox, the worker rejects the message. A redrive after the upgrade keeps and delivers it.
#[tokio::test]
async fn upgraded_worker_keeps_redriven_message() -> anyhow::Result<()> {
    const USER: &str = "kept-upgrade";
    let stack = stack().await?;
    let without = BTreeMap::from([("MAILBOX_TABLE", String::new())]);
    let overrides = Overrides {
        visibility_timeout: Some(VISIBILITY),
        environment: BTreeMap::from([("delivery", without)]),
        ..Overrides::default()
    };
    let (suffix, endpoint) =
        (format!("-kept-upgrade-{}", std::process::id()), &stack.deployed.management_endpoint);
    let delivery = deploy_delivery(&stack.config, &suffix, &overrides, &build().await?, endpoint).await?;
    let (sqs, streamer) = (aws_sdk_sqs::Client::new(&stack.config), Streamer::new("kept-upgrade").await?);
    let deployment = Deployment { stack, sqs, delivery, streamer };
    let Deployment { stack, delivery, .. } = &deployment;

    let mut device = Device::connect(stack, USER, State::default()).await?;
    assert!(device.step(DEADLINE).await?);
    let message = Message::user(TENANT, USER).keep(HOUR).id("upgraded").payload(&1)?;
    producer(&stack.config, &delivery.queue_url).send(message).await?;
    eventually("the message is a dead letter", async || Ok(deployment.dead_letters().await?.0 == 1)).await?;
    let listed = deployment.redrive(["--json"]).await?;
    assert!(
        listed.out.contains(r#""reason":"rejected""#) && listed.out.contains("MAILBOX_TABLE"),
        "{listed:?}"
    );
    assert_eq!(listing(stack, USER).await?.unwrap().top, 0);

    let lambda = aws_sdk_lambda::Client::new(&stack.config);
    let configuration = lambda.get_function_configuration().function_name(&delivery.function).send().await?;
    let mut variables = configuration.environment.and_then(|environment| environment.variables).unwrap();
    variables.insert("MAILBOX_TABLE".to_owned(), stack.deployed.mailbox_table.clone());
    let update = lambda.update_function_configuration().function_name(&delivery.function);
    update.environment(Environment::builder().set_variables(Some(variables)).build()).send().await?;

    let sent = deployment.redrive(["--reason", "rejected", "--send"]).await?;
    assert!(sent.success && sent.out.contains("sent back: 1"), "{sent:?}");
    let state = device.read_until(1).await?;
    assert_eq!((state.read[0].seq, state.read[0].id.as_str()), (1, "upgraded"));
    assert_eq!(deployment.dead_letters().await?, (0, 0));
    Ok(())
}
