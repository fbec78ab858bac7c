// A function behind API Gateway, which has checked the access token.

import type {
  APIGatewayProxyEventV2WithJWTAuthorizer,
  APIGatewayProxyWithLambdaAuthorizerEvent,
  APIGatewayProxyResult,
} from "aws-lambda";

type HttpEvent = APIGatewayProxyEventV2WithJWTAuthorizer;
type RestEvent = APIGatewayProxyWithLambdaAuthorizerEvent<{ sub: string }>;

export async function greet(event: HttpEvent | RestEvent): Promise<APIGatewayProxyResult> {
  const { authorizer } = event.requestContext;
  // An HTTP API passes on the claims of the token, a REST API the context of its authorizer.
  const { sub } = "jwt" in authorizer ? authorizer.jwt.claims : authorizer;
  if (!sub) throw new Error("no authorizer has checked the token");
  return {
    statusCode: 200,
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user_id: Number(sub) }),
  };
}
