"""What must be true of the templates, whoever changes them."""

import json
import re
import unittest

import moto
import source
import stack

FUNCTIONS = ["signup", "verify", "session", "migrate"]

# Set by Lambda or the runtime, or meant for a machine of one's own only.
NOT_OURS = {"AWS_REGION", "AWS_SAM_LOCAL", "AWS_LAMBDA_RUNTIME_API"}

# Commands that the client sends itself: to run a script, and while it connects.
OF_THE_CLIENT = {"evalsha", "script|load", "ping", "client|setinfo", "cluster|slots", "asking"}

NETWORK = {
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
}
TRACE = {"xray:PutTelemetryRecords", "xray:PutTraceSegments"}
LOG = {"logs:CreateLogStream", "logs:PutLogEvents"}
SECRET = {"secretsmanager:GetSecretValue"}

# With every option. Without them there is less: see `nothing_of_the_network_without_a_vpc`.
RIGHTS = {
    "signup": LOG | NETWORK | TRACE | SECRET | {"elasticache:Connect", "rds-db:connect", "sns:Publish"},
    "verify": LOG | NETWORK | TRACE | SECRET | {"elasticache:Connect", "rds-db:connect"},
    "session": LOG | NETWORK | TRACE | SECRET | {"rds-db:connect"},
    "migrate": LOG
    | NETWORK
    | TRACE
    | SECRET
    | {
        "iam:PassRole",
        "secretsmanager:PutSecretValue",
        "sns:CheckIfPhoneNumberIsOptedOut",
        "sns:GetSMSAttributes",
        "sns:GetSMSSandboxAccountStatus",
        "sns:ListOriginationNumbers",
        "sns:ListSMSSandboxPhoneNumbers",
        "sns:SetSMSAttributes",
    },
}


def properties(function, kind="Function"):
    return stack.resources()[function.capitalize() + kind]["Properties"]


def with_every_option(node):
    """Takes the first branch of each `Fn::If`, which is the one that grants something."""
    if isinstance(node, dict):
        if "Fn::If" in node:
            return with_every_option(node["Fn::If"][1])
        return {key: with_every_option(value) for key, value in node.items()}
    return [with_every_option(value) for value in node] if isinstance(node, list) else node


def statements(function):
    """What a function's role says, with every option."""
    role = with_every_option(properties(function, "Role"))
    attached = [stack.resources()[policy["Ref"]]["Properties"] for policy in role["ManagedPolicyArns"]]
    policies = [policy["PolicyDocument"] for policy in [*role["Policies"], *attached]]
    return [statement for policy in policies for statement in policy["Statement"]]


def actions(statement):
    return {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])


class Variables(unittest.TestCase):
    def test_a_function_gets_no_variable_that_it_does_not_read(self):
        for function in FUNCTIONS:
            reads, _ = source.variables(function)
            self.assertEqual(set(properties(function)["Environment"]["Variables"]) - reads, set(), function)

    def test_a_function_gets_every_variable_that_it_needs(self):
        for function in FUNCTIONS:
            _, requires = source.variables(function)
            given = set(properties(function)["Environment"]["Variables"])
            self.assertEqual(requires - NOT_OURS - given, set(), function)

    def test_nothing_deployed_is_local(self):
        self.assertNotIn("OTP_LOCAL", stack.transformed())

    def test_time_outs_nest(self):
        for function in ["signup", "verify", "session"]:
            variables, timeout = properties(function)["Environment"]["Variables"], properties(function)["Timeout"]
            self.assertLessEqual(2 * int(variables["STORE_TIMEOUT_MS"]), int(variables["REQUEST_TIMEOUT_MS"]))
            self.assertLessEqual(int(variables["REQUEST_TIMEOUT_MS"]) + 500, timeout * 1000)
            self.assertLess(timeout, 30, "API Gateway gives up after half a minute")
        setup = stack.resources()["Setup"]["Properties"]
        self.assertLess(properties("migrate")["Timeout"], setup["ServiceTimeout"])


class Rights(unittest.TestCase):
    def test_a_role_allows_what_its_function_does_and_no_more(self):
        for function in FUNCTIONS:
            allowed = [actions(statement) for statement in statements(function) if statement["Effect"] == "Allow"]
            self.assertEqual(set().union(*allowed), RIGHTS[function], function)

    def test_only_what_has_no_resource_is_allowed_on_all(self):
        for function in FUNCTIONS:
            for statement in statements(function):
                if statement.get("Resource") == "*":
                    without_resource = NETWORK | TRACE | RIGHTS["migrate"] - SECRET - LOG - {"iam:PassRole"}
                    self.assertLessEqual(actions(statement), without_resource)

    def test_signup_cannot_read_the_signing_key(self):
        self.assertNotIn("SignInSecret", json.dumps(properties("signup", "Role")))
        self.assertNotIn("SignupSecret", json.dumps(properties("verify", "Role")))

    def test_each_function_has_its_own_user_of_the_database(self):
        for function in ["signup", "verify", "session"]:
            user = f"otp_auth_{function}"
            self.assertIn(f":dbuser:${{Id}}/{user}", json.dumps(properties(function, "Role")))
            self.assertIn(f"postgres://{user}@", json.dumps(properties(function)["Environment"]))

    def test_nothing_of_the_network_without_a_vpc(self):
        self.assertEqual(stack.resources()["RunInVpc"]["Condition"], "InVpc")
        for function in FUNCTIONS:
            self.assertNotIn("ec2:", json.dumps(properties(function, "Role")))

    def test_the_cache_takes_the_commands_of_the_scripts_and_the_client(self):
        user = stack.read("infra/data.yaml")["Resources"]["CacheUser"]["Properties"]["AccessString"].split()
        commands = {word[1:] for word in user if word.startswith("+")}
        self.assertEqual(commands, source.script_commands() | OF_THE_CLIENT)
        self.assertIn("~{otp}:*", user)
        self.assertIn("-@all", user)


class Routes(unittest.TestCase):
    def test_routes_are_those_of_the_code(self):
        found = {}
        for route in stack.resources().values():
            if route["Type"] == "AWS::ApiGatewayV2::Route":
                key = route["Properties"]["RouteKey"].removeprefix("ANY ")
                found[key] = route["Properties"]["Target"]["Fn::Sub"]
        expected = {}
        for path, function in source.routes().items():
            key = {"/": "$default", "/{*rest}": "$default"}.get(path, path.replace("{*rest}", "{proxy+}"))
            expected[key] = f"integrations/${{{function.capitalize()}Integration}}"
        self.assertEqual(found, expected)

    def test_no_route_leads_to_migrate(self):
        for name, resource in stack.resources().items():
            if resource["Type"] in ("AWS::ApiGatewayV2::Integration", "AWS::Lambda::Permission"):
                self.assertNotIn("Migrate", json.dumps(resource), name)
        self.assertNotIn("AWS::Lambda::Url", stack.transformed())

    def test_the_access_log_holds_no_path(self):
        log = json.dumps(stack.resources()["ApiStage"]["Properties"]["AccessLogSettings"])
        for variable in ["$context.path", "$context.rawPath", "queryString", "authorizer"]:
            self.assertNotIn(variable, log)


class Edge(unittest.TestCase):
    def test_cloudfront_passes_on_or_adds_each_header_that_the_code_reads(self):
        resources = stack.read("infra/edge.yaml")["Resources"]
        cache = resources["CachePolicy"]["Properties"]["CachePolicyConfig"]
        origin = resources["OriginRequestPolicy"]["Properties"]["OriginRequestPolicyConfig"]
        passed = cache["ParametersInCacheKeyAndForwardedToOrigin"]["HeadersConfig"]["Headers"]
        passed = passed + origin["HeadersConfig"]["Headers"] + ["x-edge-secret"]
        self.assertLessEqual(source.headers(), {header.lower() for header in passed})


class Order(unittest.TestCase):
    def test_functions_come_after_the_set_up(self):
        for function in ["signup", "verify", "session"]:
            self.assertEqual(stack.resources()[function.capitalize() + "Function"]["DependsOn"], "Setup")

    def test_each_release_of_migrate_is_a_set_up_of_its_own(self):
        release = stack.resources()["Setup"]["Properties"]["Release"]["Ref"]
        self.assertEqual(stack.resources()[release]["Type"], "AWS::Lambda::Version")


class Observability(unittest.TestCase):
    def setUp(self):
        self.resources = stack.read("infra/observability.yaml")["Resources"]

    def test_the_dashboard_is_json(self):
        body = self.resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
        self.assertTrue(json.loads(re.sub(r"\$\{\w+\}", "1", body))["widgets"])

    def test_alarms_and_dashboard_use_metrics_that_the_code_has(self):
        text = (stack.ROOT / "infra/observability.yaml").read_text()
        named = r'Namespace: OtpAuth\n +MetricName: (\w+)|"OtpAuth", "(\w+)"|MetricName=\\"(\w+)'
        names = {name for found in re.findall(named, text) for name in found if name}
        self.assertGreater(len(names), 8)
        self.assertEqual(names - source.metrics(), set())

    def test_each_alarm_is_explained(self):
        page = (stack.ROOT / "docs/operations.md").read_text()
        for name, resource in self.resources.items():
            if resource["Type"] == "AWS::CloudWatch::Alarm":
                alarm = resource["Properties"]["AlarmName"]["Fn::Sub"].removeprefix("${Name}-")
                self.assertIn(f"`{alarm}`", page, name)


class Parameters(unittest.TestCase):
    def test_nobody_types_a_secret(self):
        for path in ["template.yaml", *(f"infra/{nested}.yaml" for nested in stack.NESTED)]:
            for name, parameter in stack.read(path)["Parameters"].items():
                self.assertNotIn("NoEcho", parameter, name)

    def test_there_are_two_decisions_to_make(self):
        groups = stack.read("template.yaml")["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        self.assertEqual(groups[0]["Parameters"], ["AllowedCountries", "OtpAppName"])
        undecided = [
            name for name, parameter in stack.read("template.yaml")["Parameters"].items() if "Default" not in parameter
        ]
        self.assertEqual(undecided, ["AllowedCountries"])

    def test_each_is_described_checked_and_in_a_group(self):
        template = stack.read("template.yaml")
        groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        self.assertEqual(
            sorted(name for group in groups for name in group["Parameters"]), sorted(template["Parameters"])
        )
        for name, parameter in template["Parameters"].items():
            self.assertIn("Description", parameter, name)
            if parameter["Type"] == "String":
                self.assertTrue({"AllowedPattern", "AllowedValues", "MinLength"} & set(parameter), name)


class Stack(unittest.TestCase):
    """moto creates the whole of it, in each shape."""

    SHAPES = {
        "as it is": {},
        "the smallest": {
            "Database": "small",
            "Cache": "small",
            "Standby": "false",
            "Protection": "false",
            "Alarms": "false",
            "AccessLog": "false",
        },
        "with your own stores": {
            "Network": "none",
            "Database": "own",
            "DatabaseHost": "db.example.com",
            "DatabaseAdminSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:admin-abcdef",
            "Cache": "own",
        },
        "with Twilio, CloudFront and all options": {
            "SmsProvider": "sns,twilio",
            "TwilioAccountSid": "AC" + 32 * "0",
            "TwilioFrom": "Acme",
            "Edge": "cloudfront",
            "Tracing": "Active",
            "CorsOrigins": "https://example.com",
            "SignupConcurrency": 20,
            "SmsSpendLimit": 50,
            "SmsDeliverySample": 100,
            "AlarmEmail": "ops@example.com",
        },
        "with a domain": {
            "Edge": "domain",
            "DomainName": "auth.example.com",
            "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000",
        },
    }

    def test_an_empty_account_gets_everything(self):
        for shape, parameters in self.SHAPES.items():
            with self.subTest(shape), moto.mock_aws(), self.assertNoLogs("moto", "WARNING"):
                description = stack.create(**parameters)
                self.assertEqual(description["StackStatus"], "CREATE_COMPLETE")
                outputs = {output["OutputKey"]: output["OutputValue"] for output in description["Outputs"]}
                self.assertTrue(outputs["ApiUrl"])


if __name__ == "__main__":
    unittest.main()
