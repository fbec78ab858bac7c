"""`make deploy` and guided mode, over a terminal, into moto in place of AWS.

The functions are empty files: `sam build` is not part of it, nor is what runs in them.
"""

import io
import logging
import os
import pathlib
import re
import shutil
import tempfile
import unittest
import urllib.request

import pexpect
import stack
from moto.cloudformation import models
from moto.server import ThreadedMotoServer
from samtranslator.yaml_helper import yaml_parse


def create_change_set(self, *, template, create=models.CloudFormationBackend.create_change_set, **rest):
    """moto knows neither SAM's transform nor `Fn::Cidr`."""
    parsed = yaml_parse(template)
    if "Transform" in parsed:
        template = stack.plain(parsed)
    return create(self, template=template, **rest)


def apply(change_set):
    """moto updates an empty stack, and stumbles over what refers to what."""
    created = change_set.stack
    created.template, created.parameters = change_set.template, change_set.parameters
    created._parse_template()
    created.resource_map = created._create_resource_map()
    created.output_map = created._create_output_map()
    created.create_resources()


class Deploy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        logging.getLogger("werkzeug").disabled = True
        models.CloudFormationBackend.create_change_set = create_change_set
        models.ChangeSet.apply = apply
        cls.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        cls.server.start()
        cls.addClassCleanup(cls.server.stop)
        cls.endpoint = f"http://localhost:{cls.server.get_host_and_port()[1]}"

    def setUp(self):
        request = urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        urllib.request.urlopen(request).close()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        shutil.copytree(stack.ROOT / "infra", self.folder / "infra")
        # Whoever deploys keeps the decisions in it.
        settings = (stack.ROOT / "samconfig.toml").read_text()
        settings = re.sub(r'"(AllowedCountries|OtpAppName)=.*"', r'"\1=\\"\\""', settings)
        (self.folder / "samconfig.toml").write_text(settings)
        (self.folder / "code").mkdir()
        (self.folder / "code/bootstrap").touch()
        # moto finds buckets in paths, not in names of hosts.
        (self.folder / ".aws").mkdir()
        (self.folder / ".aws/config").write_text("[default]\ns3 =\n  addressing_style = path\n")
        template = (stack.ROOT / "template.yaml").read_text()
        (self.folder / "template.yaml").write_text(template.replace("CodeUri: .", "CodeUri: code"))

    def run_in_terminal(self, command, *arguments, **environment):
        """Starts a command that takes our template and settings."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        arguments = [*arguments, "--template-file", str(self.folder / "template.yaml")]
        terminal = pexpect.spawn(
            str(stack.ROOT / command),
            arguments,
            cwd=str(stack.ROOT),
            env=kept
            | {
                "HOME": str(self.folder),
                "SAM_CLI_TELEMETRY": "0",
                "SAM_CONFIG": str(self.folder / "samconfig.toml"),
                "AWS_ENDPOINT_URL": self.endpoint,
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_REGION": stack.REGION,
            }
            | environment,
            encoding="utf-8",
            timeout=120,
            dimensions=(50, 200),
        )
        terminal.logfile_read = io.StringIO()
        self.addCleanup(terminal.close, force=True)
        return terminal

    def assert_deployed(self, terminal, name):
        terminal.expect(pexpect.EOF)
        said = terminal.logfile_read.getvalue()
        self.assertRegex(said, r"Key +ApiUrl")
        self.assertIn(f"Successfully created/updated stack - {name} in", said)
        return said

    def test_one_command_asks_two_questions_and_prints_the_url(self):
        terminal = self.run_in_terminal("scripts/deploy.sh")
        terminal.expect("Countries that get codes.*: ")
        terminal.sendline("us")
        terminal.expect("Countries that get codes.*: ")
        terminal.sendline("US,CA")
        terminal.expect("Name in the message.*: ")
        terminal.sendline("Ada's Bank & Co")
        self.assert_deployed(terminal, "otp-auth")

    def test_decisions_are_kept_and_not_asked_again(self):
        first = self.run_in_terminal("scripts/deploy.sh", COUNTRIES="US,CA", NAME="Ada's Bank & Co", STAGE="dev")
        self.assert_deployed(first, "otp-auth-dev")
        second = self.run_in_terminal("scripts/deploy.sh", STAGE="dev")
        second.expect("Parameter overrides.*US,CA.*Ada's Bank & Co")

    def test_guided_mode_takes_a_return_for_everything_but_the_countries(self):
        arguments = ["--guided", "--config-file", str(self.folder / "samconfig.toml"), "--config-env", "prod"]
        terminal = self.run_in_terminal("scripts/sam.sh", "deploy", *arguments)
        questions = []
        while terminal.expect([r"(?m)^\t[^\r\n]*(?:\]|:): ?(?:\x1b\[0m)?(?!\r)", pexpect.EOF]) == 0:
            question = re.sub(r"\x1b\[\d*m", "", terminal.after).strip()
            self.assertNotIn(question, questions, "asked twice")
            self.assertNotIn("authentication", question)
            questions.append(question)
            terminal.sendline("US,CA" if "AllowedCountries" in question else "")
        asked = [question for question in questions if question.startswith("Parameter ")]
        self.assertEqual(len(asked), len(stack.read("template.yaml")["Parameters"]))
        self.assert_deployed(terminal, "otp-auth")


if __name__ == "__main__":
    unittest.main()
