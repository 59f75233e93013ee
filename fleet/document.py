"""The Systems Manager document that runs `certrail-install`, with the installer in it.

The installer travels inside the document: an instance needs no right to fetch it from anywhere, and
who may run the document on instances cannot change what it does there. The build writes it beside
this file, and `template.yaml` includes it.

    python -m fleet.document FILE

https://docs.aws.amazon.com/systems-manager/latest/userguide/documents-schemas-features.html
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

INSTALLER = Path(__file__).with_name("certrail_install.py")
# What a document may have (docs.aws.amazon.com/general/latest/gr/ssm.html).
LIMIT = 64_000
END = "END_OF_CERTRAIL_INSTALL"
# Seconds, and more than a run may take that has to go back.
TIMEOUT = 900

# Name, what the installer calls it, what it may be, and what it is. SSM puts values into the script
# as they are: no pattern lets a quote through.
PARAMETERS = (
    ("Secret", "--secret", "^[A-Za-z0-9/_+=.@:-]{1,2048}$", "Name or ARN of the secret."),
    ("Stage", "--stage", "^[A-Za-z0-9]*$", "Staging label of the secret."),
    ("Region", "--region", "^[a-z0-9-]*$", "Region of the secret."),
    ("Fingerprint", "--fingerprint", "^[0-9a-f]*$", "The certificate that is wanted, SHA-256."),
    ("Fleet", "--report", "^[a-z0-9-]*$", "Name under which the inventory says what happened."),
    ("Fields", "--fields", "^[A-Za-z0-9_.,=-]*$", "What the secret calls its parts."),
    ("Directory", "--directory", "^[A-Za-z0-9/._-]*$", "Where the files go, below `live/`."),
    ("Service", "--service", "^(nginx|apache|haproxy|none|)$", "What serves it."),
    ("Formats", "--format", "^[a-z0-9,]*$", "Files besides the PEM ones."),
    ("PasswordFile", "--password-file", "^[A-Za-z0-9/._-]*$", "Has the keystores' password."),
    ("Owner", "--owner", "^[a-z0-9_-]*$", "User whose the files are."),
    ("Group", "--group", "^[a-z0-9_-]*$", "Group that may read them."),
    ("Connect", "--connect", "^[A-Za-z0-9.:\\[\\]-]*$", "Where to see that it is served."),
    ("ServerName", "--server-name", "^[A-Za-z0-9.-]*$", "What to ask for there."),
)


def document() -> dict[str, Any]:
    """As CreateDocument takes it. Raises ValueError where the installer does not fit in."""
    made = {
        "schemaVersion": "2.2",
        "description": "Fetch a certificate from its secret, install it, reload, and see that it "
        "is served; or put the one before back.",
        "parameters": {
            name: {
                "type": "String",
                "description": what,
                "allowedPattern": pattern,
                **({} if name == "Secret" else {"default": ""}),
            }
            for name, _, pattern, what in PARAMETERS
        },
        "mainSteps": [
            {
                "name": "install",
                "action": "aws:runShellScript",
                "precondition": {"StringEquals": ["platformType", "Linux"]},
                "inputs": {"timeoutSeconds": str(TIMEOUT), "runCommand": script().splitlines()},
            }
        ],
    }
    if (size := len(as_text(made))) > LIMIT:
        raise ValueError(f"the document has {size:,} characters, and SSM takes {LIMIT:,}")
    return made


def as_text(made: dict[str, Any]) -> str:
    return json.dumps(made, separators=(",", ":"))


def script() -> str:
    installer = INSTALLER.read_text()
    # SSM takes these for parameters, wherever they stand.
    if "{{" in installer or END in installer:
        raise ValueError(f"{INSTALLER.name} must have neither `{{{{` nor {END} in it")
    options = "\n".join(
        f"[ -z '{{{{ {name} }}}}' ] || set -- \"$@\" {option} '{{{{ {name} }}}}'"
        for name, option, _, _ in PARAMETERS
    )
    return f"""\
set -eu
umask 077
for minor in '' .14 .13 .12 .11 .10 .9 .8 none
do
  python=python3$minor
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && break
done
[ "$python" != python3none ] || {{ echo 'certrail-install needs Python 3.8 or newer' >&2; exit 1; }}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/certrail-install" <<'{END}'
{installer}
{END}
set --
{options}
"$python" "$folder/certrail-install" --instance-id "$AWS_SSM_INSTANCE_ID" "$@"
"""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(as_text(document()))
