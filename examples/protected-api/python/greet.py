"""A function behind API Gateway, which has checked the access token."""

import json


def greet(event, context):
    authorizer = event["requestContext"]["authorizer"]
    # An HTTP API passes on the claims of the token, a REST API the context of its authorizer.
    claims = authorizer["jwt"]["claims"] if "jwt" in authorizer else authorizer
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"user_id": int(claims["sub"])}),
    }
