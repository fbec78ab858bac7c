//! The bare function: a function that does no more than its stores make it do. `POST /both` runs one
//! small script and one SELECT, `POST /statement` the SELECT alone.

use std::env;

use lambda_http::{Body, Error, Request, RequestExt, run, service_fn};
use redis::Script;
use serde::Deserialize;
use tokio_postgres::{NoTls, types::Type};

/// Stores a code as a first version would: two commands, made one by a script.
const STORE_CODE: &str = "#!lua
redis.call('HSET', KEYS[1], 'code', ARGV[1], 'attempts', 0)
redis.call('PEXPIRE', KEYS[1], 300000)
return 'stored'
";

const IS_REGISTERED: &str = "SELECT EXISTS (SELECT FROM users WHERE phone_number = $1)";

#[derive(Deserialize)]
struct Fields {
    phone_number: String,
}

#[tokio::main(flavor = "current_thread")]
#[expect(
    clippy::disallowed_methods,
    reason = "it has no configuration but this"
)]
async fn main() -> Result<(), Error> {
    let (postgres, driver) = tokio_postgres::connect(&env::var("DATABASE_URL")?, NoTls).await?;
    tokio::spawn(driver);
    let redis = redis::Client::open(env::var("REDIS_URL")?)?;
    let redis = redis.get_multiplexed_async_connection().await?;
    let script = Script::new(STORE_CODE);
    run(service_fn(async |request: Request| {
        let Body::Text(body) = request.body() else {
            return Err(Error::from("not a text"));
        };
        let Fields { phone_number } = serde_json::from_str(body)?;
        if request.raw_http_path() == "/both" {
            let mut call = script.key(format!("{{otp}}:bare:{phone_number}"));
            let _stored: String = call.arg("123456").invoke_async(&mut redis.clone()).await?;
        }
        let rows = postgres
            .query_typed(IS_REGISTERED, &[(&phone_number, Type::TEXT)])
            .await?;
        let is_registered: bool = rows[0].get(0);
        Ok(if is_registered { "registered" } else { "new" })
    }))
    .await
}
