"""A sceptical look at the YAML block at the top of a README.md.

Python's standard library has no YAML parser. This finds the mistakes that people (and the official
client's tests) make: a block that never ends, tabs, a line that is no `key: value`, a second colon
in a plain value, brackets or quotes that are not closed, a key given twice. What it lets through is
not promised to be valid YAML.
"""

import re

KEY = re.compile(r"""(?:[^\s#:'"\[\]{}&*!|>%@`-][^:#]*|"[^"]*"|'[^']*')\s*:(?:\s|$)""")


def check(text):
    """A list of complaints, empty if there is nothing to complain about."""
    if not re.match(r"---[ \t]*\r?\n", text):
        return []
    lines = text.splitlines()[1:]
    ends = [number for number, line in enumerate(lines) if line.rstrip() == "---"]
    if not ends:
        return ["the metadata block is not closed by a line ---"]
    return _check_lines(lines[: ends[0]])


def _check_lines(lines):
    problems, keys, open_flow = [], set(), ""
    for number, line in enumerate(lines, 2):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if "\t" in line[: len(line) - len(line.lstrip())]:
            problems.append(f"line {number}: a tab in the indentation")
        top_level = not line[0].isspace() and line[0] not in "-]}" and not open_flow
        match = KEY.match(line) if top_level else None
        if top_level and not match:
            problems.append(f"line {number}: not a key and a value")
        if match:
            key = match[0].rstrip().rstrip(":").strip()
            if key in keys:
                problems.append(f"line {number}: duplicated mapping key {key}")
            keys.add(key)
            value = line[match.end() :].strip()
            if re.match(r"""[^\s'"\[{|>#][^#]*:\s""", value):
                problems.append(f"line {number}: a mapping inside a plain value")
        open_flow = _flow(open_flow, line[match.end() :] if match else line)
    if open_flow:
        problems.append("a bracket is not closed")
    return problems


def _flow(stack, text):
    """The brackets open after `text`; quoted parts and comments are skipped."""
    text = re.sub(r"""("(?:[^"\\]|\\.)*"|'[^']*'|\s#.*)""", "", text)
    if not stack and not text.lstrip().startswith(("[", "{", "- [", "- {")):
        return ""
    for char in text:
        if char in "[{":
            stack += char
        elif char in "]}":
            stack = stack[:-1]
    return stack
