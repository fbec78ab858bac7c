//! The bare function: no more than its stores make it do.
//!
//! `POST /both` runs one small script and one SELECT, `/statement` the SELECT alone. `/sign-in` runs
//! the script and the statement of a verification, `/refresh` and `/me` the statements of these.

use std::env;

use lambda_http::{Body, Error, Request, RequestExt, run, service_fn};
use redis::Script;
use serde::Deserialize;
use tokio_postgres::{
    NoTls,
    types::{ToSql, Type},
};

/// Stores a code as a first version would: two commands, made one by a script.
const STORE_CODE: &str = "#!lua
redis.call('HSET', KEYS[1], 'code', ARGV[1], 'attempts', 0)
redis.call('PEXPIRE', KEYS[1], 300000)
return 'stored'
";

const SIGN_IN: &str = include_str!("../../shared/src/sign_in.sql");
const REFRESH: &str = include_str!("../../shared/src/sessions/refresh.sql");
const OF_SESSION: &str = include_str!("../../shared/src/users/of_session.sql");
const IS_REGISTERED: &str = "SELECT EXISTS (SELECT FROM users WHERE phone_number = $1)";

type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

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
        let path = request.raw_http_path();
        if matches!(path, "/both" | "/sign-in") {
            let mut call = script.key(format!("{{otp}}:bare:{phone_number}"));
            let _stored: String = call.arg("123456").invoke_async(&mut redis.clone()).await?;
        }
        // A challenge's id, a number and a session's id of nobody. `/sign-in` registers them.
        let own = format!("bare {phone_number}");
        let digest: &[u8] = &[0; 32];
        let rows = match path {
            "/sign-in" => {
                let parameters: Parameters = &[
                    (&own, Type::TEXT),
                    (&"signup", Type::TEXT),
                    (&"Ada Lovelace", Type::TEXT),
                    (&own, Type::TEXT),
                    (&own, Type::TEXT),
                    (&digest, Type::BYTEA),
                    (&30_i32, Type::INT4),
                ];
                postgres.query_typed(SIGN_IN, parameters).await?
            }
            "/refresh" => {
                let parameters: Parameters = &[
                    (&own, Type::TEXT),
                    (&digest, Type::BYTEA),
                    (&vec![digest], Type::BYTEA_ARRAY),
                    (&30_i32, Type::INT4),
                    (&180_i32, Type::INT4),
                ];
                postgres.query_typed(REFRESH, parameters).await?
            }
            "/me" => {
                let parameters: Parameters = &[(&0_i64, Type::INT8), (&own, Type::TEXT)];
                postgres.query_typed(OF_SESSION, parameters).await?
            }
            _ => {
                let parameters: Parameters = &[(&phone_number, Type::TEXT)];
                postgres.query_typed(IS_REGISTERED, parameters).await?
            }
        };
        Ok(if rows.is_empty() { "no row" } else { "ok" })
    }))
    .await
}
