//! Cost of `$connect` without the network: the whole handler, with a table that answers immediately, and the
//! verification alone with `jsonwebtoken`.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use connect_handler::{
    ConnectHandler,
    config::Access,
    keys::PublicKey,
    rules::{Audience, Rules},
    verify::{Keys, Verifier},
};
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde_json::{Value, json};
use streamer_connections::ConnectionTable;
use streamer_tests::{
    doubles::ManagementDouble,
    event::connect,
    signer::{ALGORITHMS, Signer},
    worker::{ENDPOINT, telemetry},
};

const CALLS: usize = 2000;

/// Prints microseconds: the first call, the median and the 99th percentile of the others, and the median of the
/// verification alone.
pub(crate) async fn run(name: &str) -> anyhow::Result<()> {
    let (_, algorithm) =
        ALGORITHMS.into_iter().find(|(known, _)| *known == name).context("unknown algorithm")?;
    let signer = Signer::new(algorithm, "bench")?;
    let expiry = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 3600;
    let claims = json!({ "iss": "https://a.example.com", "sub": "anna", "tenant_id": "acme", "exp": expiry });
    let token = signer.sign(&claims)?;

    let immediate = aws_sdk_dynamodb::Client::new(&ManagementDouble::new(|_| 200).config());
    let key = PublicKey::from_pem(&signer.pem).context("not a public key")?;
    let verifier = Verifier::new(Keys::One(key), Rules::of("https://a.example.com", Audience::None));
    let access = Access { endpoint: Some(ENDPOINT.to_owned()), ..Access::default() };
    let table = ConnectionTable::new(immediate, "connections");
    let handler = ConnectHandler::new(table, verifier, access, None, telemetry("connect-handler"));
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..=CALLS {
        let event = connect(Some(&token));
        let started = Instant::now();
        let response = handler.handle(event).await;
        times.push(started.elapsed());
        ensure!(response.status_code == 200, "rejected: {:?}", response.body);
    }
    let first = times.remove(0);
    times.sort_unstable();

    let read = match name.split_at(2).0 {
        "ES" => DecodingKey::from_ec_pem,
        "Ed" => DecodingKey::from_ed_pem,
        _ => DecodingKey::from_rsa_pem,
    };
    let (key, mut rules) = (read(signer.pem.as_bytes())?, Validation::new(algorithm));
    rules.set_issuer(&["https://a.example.com"]);
    let mut alone = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let started = Instant::now();
        decode::<Value>(&token, &key, &rules)?;
        alone.push(started.elapsed());
    }
    alone.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    for time in [first, times[CALLS / 2], times[CALLS * 99 / 100], alone[CALLS / 2]] {
        println!("{:.1}", micros(time));
    }
    Ok(())
}
