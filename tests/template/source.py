"""What the code says about itself: the variables that each function reads, and its routes.

Variables are read by Rust functions that have an `Env`. This follows their calls, from the files of
a Lambda function into `shared`, by the names of types and functions. It compiles nothing; it relies
on the code being formatted, so that a block ends where its first line begins.
"""

import dataclasses
import functools
import re
import tomllib

from stack import ROOT

VARIABLE = r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+"


@dataclasses.dataclass(frozen=True)
class Reader:
    """A Rust function that has an `Env`."""

    path: str
    owner: str
    name: str
    body: str
    reads: frozenset
    requires: frozenset

    def calls(self, other):
        if other.name == "from_env":
            owner = "Self" if other.owner == self.owner else other.owner
            return f"{owner}::from_env(" in self.body
        if self.path != other.path and not other.body.lstrip().startswith("pub"):
            return False
        return re.search(rf"\b{other.name}(?:::<\w+>)?\(", self.body)


def blocks(text, start):
    """Each line that `start` matches, with the lines up to the end of its block."""
    pattern = rf"^(?P<indent> *)(?:{start}).*?^(?P=indent)}}$"
    return re.finditer(pattern, text, re.MULTILINE | re.DOTALL)


@functools.cache
def readers(folder):
    found = []
    for path in sorted((ROOT / folder).rglob("*.rs")):
        text = path.read_text().split("#[cfg(test)]\nmod tests")[0]
        text = re.sub(r"//.*", "", text)
        # `const NAME: &str = "OTP_PEPPER"`, `Self::Phone => ("LIMIT_PHONE", …)`
        names = dict(re.findall(rf'const (\w+): &str = "({VARIABLE})"', text))
        names |= dict(re.findall(rf'Self::(\w+) => \("({VARIABLE})"', text))
        owned = [(block["owner"], block[0]) for block in blocks(text, r"impl(?:<.*?>)? (?:\w+ for )?(?P<owner>\w+)")]
        free = functools.reduce(lambda rest, block: rest.replace(block[1], ""), owned, text)
        for owner, code in [*owned, ("", free)]:
            for block in blocks(code, r"(?:pub(?:\(\w+\))? )?(?:async )?fn (?P<name>\w+)"):
                body = block[0]
                if not re.search(r"\benv\b", body):
                    continue
                own = names | dict(re.findall(rf'const (\w+): &str = "({VARIABLE})"', body))
                words = [own.get(word) for word in re.findall(r"\w+", body)]
                required = re.findall(rf'required\((?:"({VARIABLE})"|(\w+))\)', body)
                found.append(
                    Reader(
                        str(path),
                        owner,
                        block["name"],
                        body,
                        frozenset(filter(None, words)) | frozenset(re.findall(f'"({VARIABLE})"', body)),
                        frozenset(literal or own.get(name) for literal, name in required),
                    )
                )
    return found


def variables(function):
    """The variables that a Lambda function reads, and those that it cannot do without."""
    known = readers("shared/src")
    reached = list(readers(f"functions/{function}/src"))
    for reader in reached:
        reached += [other for other in known if other not in reached and reader.calls(other)]
    reads = frozenset().union(*(reader.reads for reader in reached))
    return reads, frozenset().union(*(reader.requires for reader in reached)) & reads


def routes():
    """The function behind each path, as `make dev` routes them."""
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    return cargo["workspace"]["metadata"]["lambda"]["watch"]["router"]


def script_commands():
    """The commands that the Lua scripts call."""
    scripts = (ROOT / "shared/src").rglob("*.lua")
    return {name.lower() for path in scripts for name in re.findall(r"redis\.call\('(\w+)'", path.read_text())}


def headers():
    """The headers of a request that the functions read, in lower case."""
    code = "".join(path.read_text().split("#[cfg(test)]")[0] for path in (ROOT / "shared/src/api").rglob("*.rs"))
    code += (ROOT / "shared/src/api.rs").read_text().split("#[cfg(test)]")[0]
    read = re.findall(r'headers(?:\(\))?\s*\.get\((?:"([a-z-]+)"|([A-Z_]+))\)', code)
    return {literal or constant.lower().replace("_", "-") for literal, constant in read}


def metrics():
    """The words of the line of a request, which its metrics are among."""
    return set(re.findall(r'"([a-z][a-z_]+)"', (ROOT / "shared/src/telemetry/request_log.rs").read_text()))
