"""The templates as CloudFormation gets them, and a pretended AWS that creates them.

SAM's transform turns `template.yaml` into plain CloudFormation. moto then creates it, nested stacks
too. moto lacks some kinds of resources: those are made here as resources without behaviour.
"""

import functools
import ipaddress
import json
import os
import pathlib
import types

import boto3
from moto.cloudformation import parsing
from moto.cloudformation.models import Stack
from moto.core.common_models import CloudFormationModel
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
NESTED = ["network", "data", "observability", "edge"]
REGION = "us-east-1"

# The transform and the clients ask for them.
os.environ |= {
    "AWS_DEFAULT_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
}

# The decisions to make.
DECISIONS = {"AllowedCountries": "US,CA", "OtpAppName": "Acme"}


def read(path):
    """A template with its short forms (`!Ref`) written out."""
    return yaml_parse((ROOT / path).read_text())


def plain(template):
    """A template after SAM's transform, as JSON."""
    no_managed_policies = types.SimpleNamespace(load=dict)
    return json.dumps(transform(template, {}, no_managed_policies), default=str)


@functools.cache
def transformed():
    """`template.yaml` after SAM's transform, as JSON."""
    template = read("template.yaml")
    template["Globals"]["Function"]["CodeUri"] = "s3://code/function.zip"
    return plain(template)


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
    AWS::S3::BucketPolicy AWS::SNS::Subscription AWS::Scheduler::Schedule AWS::SecretsManager::Secret
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
    """moto does not know `Fn::Cidr`, and leaves a hole in a list where `AWS::NoValue` stands."""
    if isinstance(node, dict) and "Fn::Cidr" in node:
        block, count, bits = clean(node["Fn::Cidr"], resources_map)
        subnets = ipaddress.ip_network(block).subnets(new_prefix=32 - int(bits))
        return [str(subnet) for subnet in subnets][: int(count)]
    cleaned = clean(node, resources_map)
    return [value for value in cleaned if value is not None] if isinstance(node, list) else cleaned


Stack.get_cfn_attribute = output
parsing.clean_json = clean_json
# moto would call the function behind a custom resource, which cannot run here.
parsing.CustomModel = stand_in("Custom::Setup")


def create(name="otp-auth", **parameters):
    """Creates the stack in moto, and returns its description. Call it inside `moto.mock_aws()`."""
    s3 = boto3.client("s3", region_name=REGION)
    for bucket in ("code", "templates"):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket="code", Key="function.zip", Body=b"")
    template = json.loads(transformed())
    for nested in NESTED:
        body = json.dumps(read(f"infra/{nested}.yaml"), default=str)
        s3.put_object(Bucket="templates", Key=nested, Body=body)
    for resource in template["Resources"].values():
        url = resource.get("Properties", {}).get("TemplateURL", "")
        if url:
            nested = pathlib.Path(url).stem
            resource["Properties"]["TemplateURL"] = f"https://templates.s3.amazonaws.com/{nested}"
    cloudformation = boto3.client("cloudformation", region_name=REGION)
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps(template),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": key, "ParameterValue": str(value)} for key, value in {**DECISIONS, **parameters}.items()
        ],
    )
    return cloudformation.describe_stacks(StackName=name)["Stacks"][0]
