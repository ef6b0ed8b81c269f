"""Prints what the package and some of its extras need, for launch/Dockerfile.

python launch/requirements.py EXTRA ... >requirements.txt     # beside pyproject.toml
"""

import pathlib
import sys
import tomllib

project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
unknown = [name for name in sys.argv[1:] if name not in extras]
if unknown:
    sys.exit(f"no extra {unknown[0]!r} in pyproject.toml: {', '.join(extras)}")
lines = project["dependencies"] + [
    need for name in sys.argv[1:] for need in extras[name]
]
print("\n".join(dict.fromkeys(lines)))
