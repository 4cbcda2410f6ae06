"""Reads every file named in the list on standard input with the official agent's own parser.

Prints one JSON object a line: the values, or the name of the error.
"""

import json
import logging
import sys

from clearml_agent.external.pyhocon import ConfigFactory

logging.disable(logging.CRITICAL)


def plain(value):
    """Only what JSON has; quotes around keys, which the parser keeps, are gone."""
    if isinstance(value, dict):
        return {str(key).strip('"'): plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return {"no JSON": type(value).__name__}


for path in sys.stdin.read().splitlines():
    try:
        answer = {"values": plain(ConfigFactory.parse_file(path).as_plain_ordered_dict())}
    except BaseException as error:  # noqa: BLE001, the parser raises all sorts
        answer = {"error": type(error).__name__}
    print(json.dumps(answer))
