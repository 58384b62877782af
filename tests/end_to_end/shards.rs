//! The number of a tenant's shards grows while clients are connected, the worker's first, and shrinks again.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_lambda::{Client, types::Environment};
use futures::{StreamExt, TryStreamExt, stream};
use streamer_cli::stack::{Stack, deploy::Overrides, socket::Socket};
use streamer_connections::{Scope, TenantShards};
use streamer_producer::Message;
use streamer_tests::{emulator::connect, eventually};

use crate::arrivals::Arrivals;

/// Clients that connect with each number.
const CLIENTS: usize = 12;

/// Sets a function's number of shards.
async fn set(stack: &Stack, function: &str, count: u16) -> anyhow::Result<()> {
    let (lambda, name) = (Client::new(&stack.config), &stack.deployed.functions[function]);
    let configuration = lambda.get_function_configuration().function_name(name).send().await?;
    let mut variables = configuration.environment.and_then(|now| now.variables).unwrap_or_default();
    variables.insert("TENANT_SHARDS".to_owned(), count.to_string());
    let environment = Environment::builder().set_variables(Some(variables)).build();
    lambda.update_function_configuration().function_name(name).environment(environment).send().await?;
    Ok(())
}

/// Connects clients. A function that is being replaced may reject a handshake, which is then repeated.
async fn clients(stack: &Stack) -> anyhow::Result<Vec<Socket>> {
    stream::iter(0..CLIENTS).then(|_| connect(stack, "acme", "anna")).try_collect().await
}

#[tokio::test]
async fn changed_number_reaches_open_sockets() -> anyhow::Result<()> {
    let stack = Stack::start("shards", &Overrides::default()).await?;
    let mut sockets = clients(&stack).await?;
    set(&stack, "delivery", 256).await?;
    set(&stack, "connect", 256).await?;
    sockets.extend(clients(&stack).await?);
    set(&stack, "connect", 8).await?;
    sockets.extend(clients(&stack).await?);

    let scope = Scope::Tenant("acme".try_into()?);
    let list = async |shards: TenantShards| {
        let (table, mut ids, mut cursor) = (stack.table().with_shards(shards), BTreeSet::new(), None);
        loop {
            let page = table.live(&scope, cursor.as_ref(), std::time::SystemTime::now()).await?;
            ids.extend(page.connections.into_iter().map(|live| live.connection.connection_id));
            cursor = page.next;
            if cursor.is_none() {
                return anyhow::Ok(ids);
            }
        }
    };
    eventually("the index has every row", async || Ok(list(TenantShards::MAX).await?.len() == sockets.len()))
        .await?;
    let in_first_8 = list(TenantShards::DEFAULT).await?.len();
    assert!((2 * CLIENTS..sockets.len()).contains(&in_first_8), "{in_first_8}: rows have both numbers");

    let mut arrivals = Arrivals::of(sockets);
    stack.producer().send(Message::tenant("acme").payload(&"all")?).await?;
    let mut counts = HashMap::<usize, usize>::new();
    while counts.len() < 3 * CLIENTS {
        let arrived = counts.len();
        let (index, _) = arrivals.next(|| format!("{arrived} of {} arrived", 3 * CLIENTS)).await?;
        *counts.entry(index).or_default() += 1;
    }
    eventually("the queue is empty", async || stack.is_empty(&stack.deployed.queue_url).await).await?;
    assert!(arrivals.try_next().is_none() && counts.values().all(|count| *count == 1), "{counts:?}");
    stack.end().await
}
