// The Lambda authorizer of a REST API: lets requests with a valid access token through.
//
// `TOKEN_ISSUER` and `TOKEN_AUDIENCE` say who signs the tokens, and for whom.

import type { APIGatewayAuthorizerResult, APIGatewayTokenAuthorizerEvent } from "aws-lambda";
import { createRemoteJWKSet, errors, jwtVerify, type JWTPayload } from "jose";

const issuer = process.env.TOKEN_ISSUER!;
const audience = process.env.TOKEN_AUDIENCE!;

// Once per process: it caches the keys.
const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`), { timeoutDuration: 3000 });

// The keys could not be fetched.
const FAULTS = ["ERR_JOSE_GENERIC", "ERR_JWKS_TIMEOUT", "ERR_JWKS_INVALID"];

export async function authorize(event: APIGatewayTokenAuthorizerEvent): Promise<APIGatewayAuthorizerResult> {
  let claims: JWTPayload;
  try {
    claims = await verify(event.authorizationToken);
  } catch (error) {
    // The token may be good. API Gateway responds with a 500.
    if (!(error instanceof errors.JOSEError) || FAULTS.includes(error.code)) throw error;
    // By this text API Gateway knows to respond with a 401.
    throw new Error("Unauthorized", { cause: error });
  }
  return {
    principalId: claims.sub!,
    policyDocument: {
      Version: "2012-10-17",
      Statement: [{ Action: "execute-api:Invoke", Effect: "Allow", Resource: event.methodArn }],
    },
    // The function finds it in `event.requestContext.authorizer`.
    context: { sub: claims.sub!, sid: claims.sid as string },
  };
}

/** The claims of the token in the header `Authorization`. */
async function verify(authorization: string): Promise<JWTPayload> {
  const [, token] = /^bearer (.+)$/i.exec(authorization) ?? [];
  if (!token) throw new errors.JWTInvalid("not a bearer token");
  const { payload } = await jwtVerify(token, keys, {
    algorithms: ["RS256", "ES256"],
    typ: "at+jwt",
    issuer,
    audience,
    clockTolerance: 30,
    requiredClaims: ["sub", "exp", "sid"],
  });
  return payload;
}
