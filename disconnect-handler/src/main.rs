//! The executable of `disconnect-handler`.

use disconnect_handler::{DisconnectHandler, config::Config};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use streamer_connections::ConnectionTable;
use streamer_environment::{Environment, aws};
use streamer_telemetry::Telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let Config { table, telemetry } = Config::read(Environment::of_process())?;
    let telemetry = Telemetry::start("disconnect-handler", telemetry);
    let table = ConnectionTable::new(aws_sdk_dynamodb::Client::new(&aws::load().await), table);
    let handler = DisconnectHandler::new(table, telemetry);
    run(service_fn(async |event: LambdaEvent<_>| Ok::<_, Error>(handler.handle(event.payload).await))).await
}
