"""The templates of `examples/`."""

import json
import unittest

import stack


class ProtectedApi(unittest.TestCase):
    def setUp(self):
        template = stack.read("examples/protected-api/template.yaml")
        for resource in template["Resources"].values():
            if resource["Type"] == "AWS::Serverless::Function":
                resource["Properties"]["CodeUri"] = "s3://code/function.zip"
        self.resources = json.loads(stack.plain(template))["Resources"]

    def routes(self, api):
        """The authorizer of each route."""
        paths = self.resources[api]["Properties"]["Body"]["paths"]
        return {
            path: [name for scheme in route["security"] for name in scheme]
            for path, methods in paths.items()
            for route in methods.values()
        }

    def test_no_route_of_the_http_api_is_open(self):
        routes = self.routes("HttpApi")
        self.assertEqual(routes, {path: ["OtpAuth"] for path in ("/python", "/typescript", "/rust")})
        body = self.resources["HttpApi"]["Properties"]["Body"]
        authorizer = body["components"]["securitySchemes"]["OtpAuth"]["x-amazon-apigateway-authorizer"]
        self.assertEqual(
            authorizer["jwtConfiguration"],
            {"issuer": {"Ref": "TokenIssuer"}, "audience": [{"Ref": "TokenAudience"}]},
        )

    def test_no_route_of_the_rest_api_is_open_and_no_result_outlives_its_token(self):
        routes = self.routes("RestApi")
        self.assertEqual(routes, {"/python": ["Python"], "/typescript": ["TypeScript"], "/rust": ["Rust"]})
        schemes = self.resources["RestApi"]["Properties"]["Body"]["securityDefinitions"]
        for name in ("Python", "TypeScript", "Rust"):
            authorizer = schemes[name]["x-amazon-apigateway-authorizer"]
            self.assertEqual((authorizer["type"], authorizer["authorizerResultTtlInSeconds"]), ("token", 0))
            self.assertEqual(
                authorizer["authorizerUri"]["Fn::Sub"][1],
                {"__FunctionArn__": {"Fn::GetAtt": [f"Authorize{name}", "Arn"]}},
            )
