//! A function behind API Gateway, which has checked the access token.

use lambda_http::{
    Error, IntoResponse, Request, RequestExt, request::RequestContext, run, service_fn,
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    run(service_fn(greet)).await
}

async fn greet(request: Request) -> Result<impl IntoResponse, Error> {
    let sub = subject(&request).ok_or("no authorizer has checked the token")?;
    let user_id: i64 = sub.parse()?;
    Ok(json!({"user_id": user_id}))
}

/// An HTTP API passes on the claims of the token, a REST API the context of its authorizer.
fn subject(request: &Request) -> Option<&str> {
    match request.request_context_ref()? {
        RequestContext::ApiGatewayV2(context) => {
            let jwt = context.authorizer.as_ref()?.jwt.as_ref()?;
            jwt.claims.get("sub").map(String::as_str)
        }
        RequestContext::ApiGatewayV1(context) => {
            context.authorizer.fields.get("sub").and_then(Value::as_str)
        }
        _ => None,
    }
}
