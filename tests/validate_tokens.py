"""Validates access tokens as somebody else's program would: with PyJWT, knowing only the issuer.

    validate_tokens.py ISSUER AUDIENCE < one token a line

Prints the claims of each token as one line of JSON, or the name of the exception that says why not.
"""

import json
import sys
import urllib.request

import jwt


# RFC 9068, and what tells the session.
REQUIRED = ["iss", "sub", "aud", "client_id", "iat", "nbf", "exp", "jti", "sid", "auth_time", "amr"]


def validate(token, issuer, audience, metadata, keys):
    if jwt.get_unverified_header(token).get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("not an access token")
    return jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token).key,
        algorithms=metadata["id_token_signing_alg_values_supported"],
        issuer=issuer,
        audience=audience,
        options={"require": REQUIRED},
    )


def main(issuer, audience):
    with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", timeout=10) as answer:
        metadata = json.load(answer)
    assert metadata["issuer"] == issuer
    keys = jwt.PyJWKClient(metadata["jwks_uri"], timeout=10)
    for token in sys.stdin.read().split():
        try:
            print(json.dumps(validate(token, issuer, audience, metadata, keys)))
        except jwt.PyJWTError as error:
            print(type(error).__name__)


main(*sys.argv[1:])
