//! The examples of each language, with tokens of the service and with bent ones.
//!
//! The tests are API Gateway: they hand a request's token to the authorizer, and the request, with
//! what the authorizer returned, to the function.
#![allow(
    clippy::large_futures,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use harness::{
    AUDIENCE, Gateway, Key, PATIENCE, Service, changed, decoded, free_port, serve, unsigned,
};
use lambda_simulator::{InvocationStatus, Simulator};
use serde_json::{Map, Value, json};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
};

/// By this text API Gateway knows to respond with a 401. Any other failure is a 500.
const UNAUTHORIZED: &str = "Unauthorized";

#[tokio::test]
async fn the_rust_example_takes_our_tokens_and_no_others() {
    let greet = || Command::new(env!("CARGO_BIN_EXE_greet"));
    let authorize = || Command::new(env!("CARGO_BIN_EXE_authorize"));
    takes_our_tokens_and_no_others(greet, authorize).await;
}

#[tokio::test]
async fn the_python_example_takes_our_tokens_and_no_others() {
    let python = tool("pyjwt").await;
    let run = |function: &str| {
        let mut command = Command::new(&python);
        command.env("PYTHONPATH", folder("python"));
        command.arg(folder("tests/bootstrap.py")).arg(function);
        command
    };
    takes_our_tokens_and_no_others(|| run("greet.greet"), || run("authorize.authorize")).await;
}

#[tokio::test]
async fn the_typescript_example_takes_our_tokens_and_no_others() {
    let npm = tool("npm").await;
    let path = format!("{}:/usr/bin:/bin", npm.parent().unwrap().display());
    for arguments in [&["ci", "--no-audit", "--no-fund"][..], &["run", "build"]] {
        let mut command = Command::new(&npm);
        command.current_dir(folder("typescript")).args(arguments);
        let status = command.env("PATH", &path).status().await.unwrap();
        assert!(status.success(), "npm {arguments:?}");
    }
    let run = |function: &str| {
        let mut command = Command::new(npm.with_file_name("node"));
        command.env("PATH", &path);
        command.arg(folder("tests/bootstrap.mjs"));
        command.arg(folder(&format!("typescript/dist/{function}.mjs")));
        command.arg(function);
        command
    };
    takes_our_tokens_and_no_others(|| run("greet"), || run("authorize")).await;
}

async fn takes_our_tokens_and_no_others(
    greet: impl Fn() -> Command,
    authorize: impl Fn() -> Command,
) {
    let service = Service::start().await;
    let mut greet = Function::start(greet(), &[]).await;
    // An HTTP API takes tokens of the first kind only.
    for key in [Key::rsa(), Key::p256()] {
        let issuer = Issuer::start(&service, key).await;
        let mut authorizer = issuer.authorizer(authorize()).await;

        let context = authorizer.allow(&format!("Bearer {}", issuer.token)).await;
        let claims = as_http_api_passes_them(&decoded(&issuer.token)[1]);
        for (gateway, passed) in [
            (Gateway::Rest, context),
            (
                Gateway::Http,
                json!({"jwt": {"claims": claims, "scopes": null}}),
            ),
        ] {
            let mut event = gateway.event("GET", "/hello");
            event["requestContext"]["authorizer"] = passed;
            let response = greet.invoke(&event).await.unwrap();
            assert_eq!(response["statusCode"], 200);
            let body: Value = serde_json::from_str(response["body"].as_str().unwrap()).unwrap();
            assert_eq!(body, json!({"user_id": issuer.user_id}));
        }

        for (what, authorization) in issuer.bent() {
            let refused = authorizer.ask(&authorization).await;
            assert_eq!(refused, Err(UNAUTHORIZED.to_owned()), "{what}");
        }
        // It has not been confused by them.
        authorizer.allow(&format!("bearer {}", issuer.token)).await;
    }

    // A route that was deployed without an authorizer.
    for gateway in [Gateway::Rest, Gateway::Http] {
        let event = gateway.event("GET", "/hello");
        assert!(greet.invoke(&event).await.is_err(), "{gateway:?}");
    }

    // Without keys nobody can tell whether a token is good.
    let mut issuer = Issuer::start(&service, Key::rsa()).await;
    issuer.url = format!("http://127.0.0.1:{}", free_port());
    let mut authorizer = issuer.authorizer(authorize()).await;
    let fault = authorizer.ask(&format!("Bearer {}", issuer.token)).await;
    assert_ne!(fault.unwrap_err(), UNAUTHORIZED);
}

/// The service, with its keys at a URL, and a token of its own.
struct Issuer {
    url: String,
    key: Key,
    token: String,
    refresh_token: String,
    user_id: Value,
}

impl Issuer {
    async fn start(service: &Service, key: Key) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let own = [
            ("TOKEN_ISSUER", url.as_str()),
            ("TOKEN_PRIVATE_KEY", &key.private_pem()),
        ];
        let functions = service.others(&own);
        let tokens = service.sign_in().await;
        let user_id = service.me(&tokens.access).await.body["data"]["id"].clone();
        let tokens = functions.refreshed(&tokens.refresh).await;
        serve(listener, functions.session);
        Self {
            url,
            key,
            token: tokens.access,
            refresh_token: tokens.refresh,
            user_id,
        }
    }

    async fn authorizer(&self, command: Command) -> Function {
        let settings = [("TOKEN_ISSUER", &*self.url), ("TOKEN_AUDIENCE", AUDIENCE)];
        Function::start(command, &settings).await
    }

    /// Headers `Authorization` that must not get in, and what is wrong with each.
    fn bent(&self) -> Vec<(String, String)> {
        let [header, claims] = decoded(&self.token);
        let (signed, signature) = self.token.rsplit_once('.').unwrap();
        let own = |header: &Value, claims: &Value| self.key.sign(header, claims);
        let none = unsigned(&changed(&header, &json!({"alg": "none"})), &claims);
        let others = if header["alg"] == "RS256" {
            Key::rsa()
        } else {
            Key::p256()
        };
        let mut bent = vec![
            (
                "another signature",
                format!("{signed}.{}", flipped(signature)),
            ),
            ("no signature", format!("{signed}.")),
            ("none", format!("{none}.")),
            ("none, with a signature", format!("{none}.{signature}")),
            ("claims of another user", {
                let forged = unsigned(&header, &changed(&claims, &json!({"sub": "1000000"})));
                format!("{forged}.{signature}")
            }),
            ("another key", others.sign(&header, &claims)),
            (
                "another key, unnamed",
                others.sign(&changed(&header, &json!({"kid": null})), &claims),
            ),
            (
                "the public key as a secret",
                self.signed_by_public_key(&header, &claims),
            ),
            ("a refresh token", self.refresh_token.clone()),
            ("no token", "token".into()),
            ("nothing", String::new()),
        ];
        for (what, change) in [
            ("an unknown key", json!({"kid": "unknown"})),
            ("a JWT of another type", json!({"typ": "JWT"})),
            ("a JWT of no type", json!({"typ": null})),
        ] {
            bent.push((what, own(&changed(&header, &change), &claims)));
        }
        for (what, change) in [
            ("another audience", json!({"aud": "others"})),
            ("no audience", json!({"aud": null})),
            ("another issuer", json!({"iss": "https://evil.example.com"})),
            ("no issuer", json!({"iss": null})),
            (
                "expired",
                json!({"exp": claims["iat"].as_u64().unwrap() - 60}),
            ),
            ("no expiry", json!({"exp": null})),
            (
                "of tomorrow",
                json!({"nbf": claims["iat"].as_u64().unwrap() + 86_400}),
            ),
            ("no subject", json!({"sub": null})),
        ] {
            bent.push((what, own(&header, &changed(&claims, &change))));
        }
        let mut bent: Vec<_> = bent
            .into_iter()
            .map(|(what, token)| (what.to_owned(), format!("Bearer {token}")))
            .collect();
        for scheme in ["", "Basic ", "Bearer"] {
            bent.push((format!("{scheme:?}"), format!("{scheme}{}", self.token)));
        }
        bent
    }

    fn signed_by_public_key(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(&changed(header, &json!({"alg": "HS256"})), claims);
        let secret = hmac::Key::new(hmac::HMAC_SHA256, self.key.public_pem().as_bytes());
        let tag = hmac::sign(&secret, signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
    }
}

/// A process under the Lambda Runtime API.
struct Function {
    simulator: Simulator,
    process: Child,
}

impl Function {
    async fn start(mut command: Command, settings: &[(&str, &str)]) -> Self {
        let simulator = Simulator::builder().build().await.unwrap();
        let process = command
            .envs(simulator.lambda_env_vars())
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { simulator, process }
    }

    /// Its response to an event, or the text of its failure.
    async fn invoke(&mut self, event: &Value) -> Result<Value, String> {
        let id = self.simulator.enqueue_payload(event.clone()).await;
        let state = tokio::select! {
            state = self.simulator.wait_for_invocation_complete(&id, PATIENCE) => state.unwrap(),
            status = self.process.wait() => panic!("{}", status.unwrap()),
        };
        match state.status {
            InvocationStatus::Success => Ok(state.response.unwrap().payload),
            _ => Err(state.error.unwrap().error_message),
        }
    }

    /// The answer of an authorizer to a request with this header.
    async fn ask(&mut self, authorization: &str) -> Result<Value, String> {
        self.invoke(&json!({
            "type": "TOKEN",
            "methodArn": METHOD,
            "authorizationToken": authorization,
        }))
        .await
    }

    /// The context that the authorizer lets the request through with.
    async fn allow(&mut self, authorization: &str) -> Value {
        let mut answer = self.ask(authorization).await.unwrap();
        let statement = &answer["policyDocument"]["Statement"];
        let allowed =
            json!([{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": METHOD}]);
        assert_eq!(*statement, allowed);
        let mut context = answer["context"].take();
        // API Gateway adds it.
        context["principalId"] = answer["principalId"].take();
        context
    }
}

const METHOD: &str = "arn:aws:execute-api:us-east-1:123456789012:a1b2c3d4e5/v1/GET/hello";

/// All as text, and lists between brackets.
fn as_http_api_passes_them(claims: &Value) -> Map<String, Value> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let words: Vec<_> = list.iter().filter_map(Value::as_str).collect();
            format!("[{}]", words.join(" "))
        }
        other => other.to_string(),
    };
    let claims = claims.as_object().unwrap().iter();
    claims
        .map(|(name, value)| (name.clone(), text(value).into()))
        .collect()
}

/// The same with another first character.
fn flipped(signature: &str) -> String {
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{other}{}", &signature[1..])
}

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The path at which `find-tool.sh` found or put a tool.
async fn tool(name: &str) -> PathBuf {
    let found = Command::new(folder("../../scripts/find-tool.sh"))
        .arg(name)
        .stderr(Stdio::inherit())
        .output()
        .await
        .unwrap();
    assert!(found.status.success(), "{name} is missing, see above");
    String::from_utf8(found.stdout).unwrap().trim().into()
}
