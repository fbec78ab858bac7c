"""The Lambda authorizer of a REST API: lets requests with a valid access token through.

`TOKEN_ISSUER` and `TOKEN_AUDIENCE` say who signs the tokens, and for whom.
"""

import os

import jwt

ISSUER = os.environ["TOKEN_ISSUER"]
AUDIENCE = os.environ["TOKEN_AUDIENCE"]

# Once per process: it caches the keys.
keys = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json", timeout=3)


def authorize(event, context):
    try:
        claims = verify(event["authorizationToken"])
    except jwt.PyJWKClientConnectionError:
        # The token may be good. API Gateway responds with a 500.
        raise
    except jwt.PyJWTError as error:
        # By this text API Gateway knows to respond with a 401.
        raise Exception("Unauthorized") from error
    return {
        "principalId": claims["sub"],
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": event["methodArn"]}],
        },
        # The function finds it in `event["requestContext"]["authorizer"]`.
        "context": {"sub": claims["sub"], "sid": claims["sid"]},
    }


def verify(authorization):
    """The claims of the token in the header `Authorization`."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise jwt.InvalidTokenError("not a bearer token")
    if jwt.get_unverified_header(token).get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("not an access token")
    return jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=["RS256", "ES256"],
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway=30,
        options={"require": ["iss", "sub", "aud", "exp", "sid"]},
    )
