"""The templates as CloudFormation gets them, and a pretended AWS that creates them.

SAM's transform turns `template.yaml` into plain CloudFormation. moto then creates it, nested stacks
too. moto lacks some kinds of resources: those are made here as resources without behaviour.
"""

import functools
import json
import pathlib
import unittest.mock

import boto3
import moto
from moto.cloudformation import parsing
from moto.cloudformation.models import Stack
from moto.core.common_models import CloudFormationModel
from samtranslator.public.translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
NESTED = ["network", "data", "observability", "edge"]
REGION = "us-east-1"

# The decisions to make.
DECISIONS = {"AllowedCountries": "US,CA", "OtpAppName": "Acme"}


def read(path):
    """A template with its short forms (`!Ref`) written out."""
    return yaml_parse((ROOT / path).read_text())


@functools.cache
def transformed():
    """`template.yaml` after SAM's transform, as JSON."""
    template = read("template.yaml")
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = "s3://code/function.zip"
    template["Globals"]["Function"].pop("CodeUri")
    with moto.mock_aws():
        policies = ManagedPolicyLoader(boto3.client("iam", region_name=REGION))
        return json.dumps(transform(template, {}, policies), default=str)


def resources():
    return json.loads(transformed())["Resources"]


# Kinds that moto's CloudFormation does not know. DBCluster and DBInstance it knows, without the
# secret that RDS manages.
UNKNOWN = """
    AWS::ApiGatewayV2::Api AWS::ApiGatewayV2::ApiMapping AWS::ApiGatewayV2::DomainName
    AWS::ApiGatewayV2::Integration AWS::ApiGatewayV2::Route AWS::ApiGatewayV2::Stage
    AWS::CloudFront::CachePolicy AWS::CloudFront::Distribution AWS::CloudFront::OriginRequestPolicy
    AWS::CloudWatch::Alarm AWS::CloudWatch::Dashboard AWS::ElastiCache::ParameterGroup AWS::ElastiCache::ReplicationGroup
    AWS::ElastiCache::ServerlessCache AWS::ElastiCache::SubnetGroup AWS::ElastiCache::User
    AWS::ElastiCache::UserGroup AWS::Lambda::Alias AWS::Lambda::Version AWS::RDS::DBCluster
    AWS::RDS::DBClusterParameterGroup AWS::RDS::DBInstance AWS::RDS::DBParameterGroup
    AWS::SNS::Subscription AWS::Scheduler::Schedule AWS::SecretsManager::Secret
    AWS::WAFv2::WebACL
""".split()


def stand_in(kind):
    """A resource that has every attribute and does nothing, in moto's plug-in interface."""

    class StandIn(CloudFormationModel):
        # moto reads a service out of it.
        __module__ = "moto.stand_in"

        def __init__(self, name, properties):
            self.name, self.properties = name, properties

        @property
        def physical_resource_id(self):
            return self.name

        @staticmethod
        def cloudformation_type():
            return kind

        @staticmethod
        def cloudformation_name_type():
            return ""

        @classmethod
        def has_cfn_attr(cls, attr):
            return True

        def get_cfn_attribute(self, attribute):
            if attribute.lower().endswith("arn"):
                return f"arn:aws:service:{REGION}:123456789012:{self.name}"
            return f"{attribute}.{self.name}".lower()

        @classmethod
        def create_from_cloudformation_json(cls, name, json, account_id, region_name, **_):
            return cls(name, json.get("Properties", {}))

        @classmethod
        def delete_from_cloudformation_json(cls, *_):
            pass

    return StandIn


STAND_INS = {kind: stand_in(kind) for kind in UNKNOWN}


def output(stack, attribute):
    """`!GetAtt Stack.Outputs.Name`, which moto does not know."""
    return stack.output_map[attribute.removeprefix("Outputs.")].value


def clean_json(node, resources_map, clean=parsing.clean_json):
    """moto leaves a hole in a list where `AWS::NoValue` stands."""
    cleaned = clean(node, resources_map)
    return [value for value in cleaned if value is not None] if isinstance(node, list) else cleaned


Stack.get_cfn_attribute = output
parsing.clean_json = clean_json


def without_cidr(node):
    """The template without `Fn::Cidr`, which moto does not know: the parts of network.yaml's default."""
    if isinstance(node, dict):
        if "Fn::Cidr" in node:
            return [f"10.83.0.{part}/26" for part in (0, 64, 128, 192)]
        return {key: without_cidr(value) for key, value in node.items()}
    return [without_cidr(value) for value in node] if isinstance(node, list) else node


def create(name="otp-auth", **parameters):
    """Creates the stack in moto, and returns its description. Call it inside `moto.mock_aws()`."""
    s3 = boto3.client("s3", region_name=REGION)
    for bucket in ("code", "templates"):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket="code", Key="function.zip", Body=b"")
    template = json.loads(transformed())
    for nested in NESTED:
        body = json.dumps(without_cidr(read(f"infra/{nested}.yaml")), default=str)
        s3.put_object(Bucket="templates", Key=nested, Body=body)
    for resource in template["Resources"].values():
        url = resource.get("Properties", {}).get("TemplateURL", "")
        if url:
            nested = pathlib.Path(url).stem
            resource["Properties"]["TemplateURL"] = f"https://templates.s3.amazonaws.com/{nested}"
    # moto calls the function behind a custom resource, which cannot run here.
    with unittest.mock.patch.object(parsing, "CustomModel", stand_in("Custom::Setup")):
        cloudformation = boto3.client("cloudformation", region_name=REGION)
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=json.dumps(template),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": key, "ParameterValue": str(value)}
                for key, value in {**DECISIONS, **parameters}.items()
            ],
        )
    return cloudformation.describe_stacks(StackName=name)["Stacks"][0]
