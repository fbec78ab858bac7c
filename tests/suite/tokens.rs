//! Access tokens: what gets in, and all that does not.

use std::{convert::Infallible, net::TcpListener, process::Stdio, sync::Arc};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use harness::{
    AUDIENCE, Functions, ISSUER, Key, Response, Service, Tokens, changed, decoded, event,
    fresh_phone,
    outcome::{INVALID_TOKEN, UNAUTHENTICATED},
    serve, signing_key, since_1970, token_settings, unsigned,
};
use lambda_http::{
    Body,
    request::from_str,
    service_fn,
    tower::{Layer, ServiceExt},
};
use serde_json::{Value, json};
use shared::{
    api::{Authenticated, BearerLayer},
    config::Env,
    token::{Signer, Verifier},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// The challenge to a refused token.
const INVALID: &str = r#"Bearer realm="otp-auth", error="invalid_token""#;

/// Somebody who knows a good token, and may even have its key.
struct Forger {
    service: Service,
    token: String,
    header: Value,
    claims: Value,
}

impl Forger {
    async fn new() -> Self {
        let service = Service::start().await;
        let token = service.sign_in().await.access;
        let [header, claims] = decoded(&token);
        Self {
            service,
            token,
            header,
            claims,
        }
    }

    /// A token signed with the right key that differs in these members; null leaves a member out.
    fn signed_with(&self, header: &Value, claims: &Value) -> String {
        signing_key().sign(
            &changed(&self.header, header),
            &changed(&self.claims, claims),
        )
    }

    async fn assert_gets_in(&self, token: &str) {
        self.service.me(token).await.assert_ok();
    }

    async fn assert_refused(&self, token: &str) {
        let response = self.service.me(token).await;
        assert_eq!(response.outcome(), UNAUTHENTICATED, "{token}");
        assert_eq!(response.headers["www-authenticate"], INVALID, "{token}");
    }
}

fn now() -> u64 {
    since_1970().as_secs()
}

#[tokio::test]
async fn a_token_says_what_rfc_9068_asks_for() {
    let forger = Forger::new().await;
    let header = format!("bearer {}", forger.token);
    let me = forger.service.me_with(Some(&header)).await;
    me.assert_ok();
    assert_eq!(me.body["success"], true);
    let keys = forger.service.get("/.well-known/jwks.json").await;
    assert_eq!(
        forger.header,
        json!({"alg": "ES256", "typ": "at+jwt", "kid": keys.body["keys"][0]["kid"]})
    );
    let at = forger.claims["iat"].as_u64().unwrap();
    assert!(at <= now() && now() - at < 60);
    assert_eq!(
        forger.claims,
        json!({
            "iss": ISSUER,
            "sub": me.body["data"]["id"].to_string(),
            "aud": AUDIENCE,
            "client_id": AUDIENCE,
            "iat": at,
            "nbf": at,
            "exp": at + 900,
            "jti": forger.claims["jti"],
            "sid": forger.claims["sid"],
            "auth_time": forger.claims["auth_time"],
            "amr": ["otp", "sms"]
        })
    );
    for id in ["jti", "sid"] {
        assert_eq!(forger.claims[id].as_str().unwrap().len(), 32);
    }
    let opened = forger.claims["auth_time"].as_u64().unwrap();
    assert!(opened.abs_diff(at) < 60);
}

#[tokio::test]
async fn me_returns_the_user_that_verification_returned() {
    let service = Service::start().await;
    let verified = service.register(&fresh_phone()).await;
    let me = service.me(&Tokens::of(&verified).access).await;
    me.assert_ok();
    let expected = json!({"success": true, "data": verified.body["data"]});
    assert_eq!(me.body, expected);
    assert_eq!(me.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn without_a_token_me_is_401_and_told_no_error() {
    let service = Service::start().await;
    for header in [None, Some(""), Some("Basic YTpi"), Some("Bearer")] {
        let response = service.me_with(header).await;
        assert_eq!(response.outcome(), UNAUTHENTICATED, "{header:?}");
        let challenge = &response.headers["www-authenticate"];
        assert_eq!(challenge, r#"Bearer realm="otp-auth""#, "{header:?}");
    }
}

/// Which other services of a workspace use.
#[tokio::test]
async fn a_service_behind_the_bearer_layer_gets_the_claims_of_a_valid_token_and_no_other_request() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    let env = Env::from(token_settings());
    let verifier = Verifier::beside(&Signer::from_env(&env).unwrap(), &env).unwrap();
    let greeting = service_fn(async |request: Authenticated| {
        let body = json!({"path": request.uri().path(), "user": request.claims().user_id()});
        Ok::<_, Infallible>(lambda_http::Response::new(Body::from(body.to_string())))
    });
    let behind = BearerLayer::new(Arc::new(verifier), "/greeting").layer(greeting);
    let ask = async |token: &str| {
        let mut event = event("GET", "/greeting", "");
        event["headers"]["authorization"] = format!("Bearer {token}").into();
        let request = from_str(&event.to_string()).unwrap();
        let Ok(response) = behind.clone().oneshot(request).await;
        Response::of_handler(response)
    };
    let user = service.me(&tokens.access).await.body["data"]["id"].clone();
    let response = ask(&tokens.access).await;
    assert_eq!(response.body, json!({"path": "/greeting", "user": user}));
    for token in ["", "no token", &tokens.access[1..]] {
        assert_eq!(ask(token).await.outcome(), UNAUTHENTICATED, "{token}");
    }
}

#[tokio::test]
async fn a_good_token_of_a_user_who_is_gone_is_401() {
    let forger = Forger::new().await;
    forger.service.database.run("DELETE FROM users").await;
    forger.assert_refused(&forger.token).await;
}

#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    let forger = Forger::new().await;
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = changed(&forger.header, &json!({"alg": alg}));
        let unsigned = unsigned(&header, &forger.claims);
        forger.assert_refused(&format!("{unsigned}.")).await;
        forger.assert_refused(&unsigned).await;
        let signature = forger.token.rsplit('.').next().unwrap();
        forger
            .assert_refused(&format!("{unsigned}.{signature}"))
            .await;
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret_to_sign_with() {
    let forger = Forger::new().await;
    let key = signing_key();
    let keys = forger.service.get("/.well-known/jwks.json").await.body;
    let header = changed(&forger.header, &json!({"alg": "HS256"}));
    let unsigned = unsigned(&header, &forger.claims);
    let pem = key.public_pem();
    for secret in [
        pem.as_bytes(),
        pem.trim_end().as_bytes(),
        &key.public_der(),
        &key.public_der()[26..],
        keys.to_string().as_bytes(),
        keys["keys"][0]["x"].as_str().unwrap().as_bytes(),
        b"",
    ] {
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, secret),
            unsigned.as_bytes(),
        );
        let signature = BASE64_URL_SAFE_NO_PAD.encode(tag);
        forger
            .assert_refused(&format!("{unsigned}.{signature}"))
            .await;
    }
}

/// A key of the forger's own, wherever the token says that it is to be found.
#[tokio::test]
async fn another_key_is_refused_and_nothing_is_fetched_because_a_token_says_so() {
    let forger = Forger::new().await;
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", trap.local_addr().unwrap());
    let own = Key::p256();
    let pem = own.private_pem();
    let others = forger.service.others(&[("TOKEN_PRIVATE_KEY", &pem)]);
    let own_jwk = others.get("/.well-known/jwks.json").await.body["keys"][0].clone();
    for change in [
        json!({}),
        json!({"kid": own_jwk["kid"]}),
        json!({"kid": null}),
        json!({"kid": ""}),
        json!({"kid": "../../dev/null"}),
        json!({"kid": "' OR 1=1 --"}),
        json!({"jwk": own_jwk}),
        json!({"kid": own_jwk["kid"], "jwk": own_jwk}),
        json!({"jku": url}),
        json!({"kid": own_jwk["kid"], "jku": url}),
        json!({"x5u": url}),
        json!({"kid": null, "x5u": url}),
        json!({"x5c": [BASE64_URL_SAFE_NO_PAD.encode(own.public_der())]}),
    ] {
        let token = own.sign(&changed(&forger.header, &change), &forger.claims);
        forger.assert_refused(&token).await;
    }
    assert!(trap.accept().is_err(), "somebody asked for {url}");
}

#[tokio::test]
async fn a_token_that_was_signed_for_something_else_is_refused() {
    let forger = Forger::new().await;
    let good = forger.signed_with(&json!({}), &json!({}));
    forger.assert_gets_in(&good).await;
    for header in [
        json!({"typ": "JWT"}),
        json!({"typ": "id+jwt"}),
        json!({"typ": null}),
        json!({"alg": "RS256"}),
        json!({"alg": "ES384"}),
        json!({"alg": null}),
        json!({"crit": ["exp"]}),
        json!({"crit": ["b64"], "b64": false}),
    ] {
        let token = forger.signed_with(&header, &json!({}));
        forger.assert_refused(&token).await;
    }
    let yours = forger.service.sign_in().await.access;
    let yours = decoded(&yours)[1]["sid"].clone();
    for claims in [
        json!({"aud": "others"}),
        json!({"aud": ""}),
        json!({"aud": null}),
        json!({"aud": ["others"]}),
        json!({"iss": "https://evil.example.com"}),
        json!({"iss": format!("{ISSUER}/")}),
        json!({"iss": null}),
        json!({"sub": null}),
        json!({"sub": "somebody"}),
        json!({"sub": 1}),
        json!({"sub": "1; DROP TABLE users"}),
        json!({"exp": null}),
        json!({"exp": "9999999999"}),
        json!({"exp": -1}),
        json!({"nbf": null}),
        json!({"client_id": null}),
        json!({"sid": null}),
        json!({"sid": ""}),
        json!({"sid": "\0"}),
        json!({"sid": "0".repeat(32)}),
        json!({"sid": yours}),
        json!({"auth_time": null}),
    ] {
        let token = forger.signed_with(&json!({}), &claims);
        forger.assert_refused(&token).await;
    }
}

/// The exact second stands beside the code, where the test chooses the time; here it is that the
/// clock is asked at all, and that the leeway is what was written down.
#[tokio::test]
async fn a_token_is_refused_once_it_has_expired_and_the_leeway_is_over() {
    let forger = Forger::new().await;
    for (claims, is_good) in [
        (json!({"exp": now() - 5}), true),
        (json!({"exp": now() - 30}), false),
        (json!({"exp": 0}), false),
        (json!({"nbf": now() + 25}), true),
        (json!({"nbf": now() + 90}), false),
        (json!({"nbf": u64::MAX}), false),
        (json!({"exp": u64::MAX}), true),
    ] {
        let token = forger.signed_with(&json!({}), &claims);
        if is_good {
            forger.assert_gets_in(&token).await;
        } else {
            forger.assert_refused(&token).await;
        }
    }
}

#[tokio::test]
async fn a_token_that_was_cut_short_or_changed_anywhere_is_refused() {
    let forger = Forger::new().await;
    let token = &forger.token;
    for length in 1..token.len() {
        forger.assert_refused(&token[..length]).await;
    }
    for (at, character) in token.char_indices() {
        let other = if character == 'A' { 'B' } else { 'A' };
        let token = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        forger.assert_refused(&token).await;
    }
    for other in [
        format!("{token}."),
        format!("{token}="),
        format!("{token}.e30"),
        format!(".{token}"),
        format!("{token} {token}"),
        format!("\"{token}\""),
        ".".into(),
        "..".into(),
        "e30.e30.".into(),
    ] {
        forger.assert_refused(&other).await;
    }
}

#[tokio::test]
async fn a_refresh_token_is_no_access_token_and_the_other_way_round() {
    let forger = Forger::new().await;
    let tokens = forger.service.sign_in().await;
    forger.assert_refused(&tokens.refresh).await;
    let response = forger.service.refresh(&tokens.access).await;
    response.assert_is(INVALID_TOKEN);
}

#[tokio::test]
async fn keys_are_rotated_without_signing_anybody_out() {
    let service = Service::start().await;
    let tokens = service.sign_in().await;
    let old = signing_key().public_pem();
    let new = Key::rsa();
    let (new_private, new_public) = (new.private_pem(), new.public_pem());
    // First the new key is published, then it signs, then the old one goes.
    let own = [("TOKEN_PUBLIC_KEYS", &*new_public)];
    let published = service.others(&own);
    let own = [
        ("TOKEN_PRIVATE_KEY", &*new_private),
        ("TOKEN_PUBLIC_KEYS", &old),
    ];
    let signs = service.others(&own);
    let own = [own[0], ("TOKEN_PUBLIC_KEYS", &new_public)];
    let alone = service.others(&own);

    let renewed = signs.refreshed(&tokens.refresh).await;
    assert_eq!(decoded(&renewed.access)[0]["alg"], "RS256");
    for (functions, takes_old, takes_new) in [
        (&*service, true, false),
        (&published, true, true),
        (&signs, true, true),
        (&alone, false, true),
    ] {
        for (token, taken) in [(&tokens.access, takes_old), (&renewed.access, takes_new)] {
            let status = functions.me(token).await.status;
            assert_eq!(status, if taken { 200 } else { 401 });
        }
    }

    let kids = async |functions: &Functions| -> Vec<Value> {
        let keys = functions.get("/.well-known/jwks.json").await.body;
        let keys = keys["keys"].as_array().unwrap().iter();
        keys.map(|key| key["kid"].clone()).collect()
    };
    let (before, after) = (kids(&published).await, kids(&signs).await);
    assert_eq!(before.len(), 2);
    assert_eq!(after, before.into_iter().rev().collect::<Vec<_>>());
    assert_eq!(decoded(&renewed.access)[0]["kid"], after[0]);
}

#[tokio::test]
async fn the_public_pages_hold_what_verifiers_need_and_may_be_cached() {
    let service = Service::start().await;
    let rsa = Key::rsa().public_pem();
    let others = service.others(&[("TOKEN_PUBLIC_KEYS", &rsa)]);
    let keys = others.get("/.well-known/jwks.json").await;
    let metadata = others.get("/.well-known/openid-configuration").await;
    for response in [&keys, &metadata] {
        response.assert_ok();
        assert_eq!(response.headers["content-type"], "application/json");
        let cached = format!("public, max-age={}", shared::api::CACHE_LIFE.as_secs());
        assert_eq!(response.headers["cache-control"], cached);
    }
    let members = |key: &Value| -> Vec<String> {
        let object = key.as_object().unwrap();
        object.keys().cloned().collect()
    };
    let [p256, rsa] = [0, 1].map(|at| &keys.body["keys"][at]);
    assert_eq!(members(p256), ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    assert_eq!(members(rsa), ["alg", "e", "kid", "kty", "n", "use"]);
    assert_eq!((&p256["kty"], &rsa["kty"]), (&json!("EC"), &json!("RSA")));
    assert_eq!(rsa["e"], "AQAB");
    assert_eq!(
        metadata.body,
        json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}/.well-known/jwks.json"),
            "response_types_supported": [],
            "grant_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256"]
        })
    );
}

/// A program in another language, with a library that has nothing to do with ours, and nothing but
/// the issuer's URL.
#[tokio::test]
async fn pyjwt_takes_our_tokens_through_the_published_keys_and_no_others() {
    let service = Service::start().await;
    for key in [Key::rsa(), Key::p256()] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let own = [
            ("TOKEN_ISSUER", issuer.as_str()),
            ("TOKEN_PRIVATE_KEY", &key.private_pem()),
        ];
        let others = service.others(&own);
        let refresh_token = service.sign_in().await.refresh;
        let token = others.refreshed(&refresh_token).await.access;
        serve(listener, others.session);

        let [header, claims] = decoded(&token);
        let forged = Key::p256().sign(&header, &claims);
        let expired = key.sign(&header, &changed(&claims, &json!({"exp": 1})));
        let printed = pyjwt(&issuer, &[&token, &forged, &expired]).await;
        let [accepted, forged, expired] = &printed[..] else {
            panic!("{printed:?}")
        };
        assert_eq!(serde_json::from_str::<Value>(accepted).unwrap(), claims);
        assert!(
            [
                "InvalidSignatureError",
                "InvalidAlgorithmError",
                "InvalidKeyError"
            ]
            .contains(&forged.as_str()),
            "{forged}"
        );
        assert_eq!(expired, "ExpiredSignatureError");
    }
}

/// The line that `validate_tokens.py` prints for each of these tokens.
async fn pyjwt(issuer: &str, tokens: &[&str]) -> Vec<String> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let found = Command::new(format!("{folder}/../scripts/find-tool.sh"))
        .arg("pyjwt")
        .stderr(Stdio::inherit())
        .output()
        .await
        .unwrap();
    assert!(
        found.status.success(),
        "PyJWT was not found and could not be installed, see above: without it nobody but \
         ourselves has validated our tokens"
    );
    let mut python = Command::new(String::from_utf8(found.stdout).unwrap().trim())
        .arg(format!("{folder}/validate_tokens.py"))
        .args([issuer, AUDIENCE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    input.write_all(tokens.join("\n").as_bytes()).await.unwrap();
    drop(input);
    let mut printed = String::new();
    let mut output = python.stdout.take().unwrap();
    output.read_to_string(&mut printed).await.unwrap();
    assert!(python.wait().await.unwrap().success());
    printed.lines().map(str::to_owned).collect()
}
