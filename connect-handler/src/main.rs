//! The executable of `connect-handler`.

use connect_handler::{ConnectHandler, config::Config, limit::ConnectionLimit};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use streamer_connections::ConnectionTable;
use streamer_environment::{Environment, aws};
use streamer_telemetry::Telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let Config { table, tenant_shards, identity, access, max_connections_per_user, connect_grace, telemetry } =
        Config::read(Environment::of_process())?;
    let telemetry = Telemetry::start("connect-handler", telemetry);
    identity.log_warnings();
    let aws = aws::load().await;
    let table = ConnectionTable::new(aws_sdk_dynamodb::Client::new(&aws), table).with_shards(tenant_shards);
    let limit = max_connections_per_user.map(|maximum| ConnectionLimit::new(maximum, connect_grace, aws));
    let handler = ConnectHandler::new(table, identity, access, limit, telemetry);
    run(service_fn(async |event: LambdaEvent<_>| Ok::<_, Error>(handler.handle(event.payload).await))).await
}
