#!/usr/bin/env python3
"""Checks the lists in the manual pages against what the program says of itself.

    check_man.py HUGFS SOURCE_ROOT

Verbs and their words, and options with value, default and variable: hugfs.1 against `hugfs --help`. Patterns that
are not published and extended attributes: hugfs.7 against fs/ignore.c and fs/ops_xattr.c. Prints every
difference; exits 1 if there is any.
"""
import os
import re
import subprocess
import sys


def words_of(macros):
    """The text of an mdoc line's words: `Cm poll Ns = Ns Ar SECONDS` is `poll=SECONDS`."""
    text, glue, flag = "", True, False
    for word in macros.split():
        if word in ("Cm", "Ar", "Li", "Ev", "or"):
            flag = False
        elif word == "Ns":
            glue = True
        elif word == "Oo":
            text, glue = text + ("" if glue else " ") + "[", True
        elif word == "Oc":
            text, glue = text + "]", False
        elif word == "Fl":
            flag = True
        elif word == "Pq":
            text, glue = text + " (or", False
        else:
            text += ("" if glue else " ") + ("-" if flag else "") + word
            flag = False
            glue = word == "="
    return text + (")" if " (or" in text else "")


def items(page, heading):
    """[(first line's text, [lines])] of the first list below a heading."""
    body = page.split(heading, 1)[1].split(".Bl ", 1)[1].split("\n", 1)[1]
    found, depth = [], 0
    for line in body.split("\n"):
        if line.startswith(".El"):
            if depth == 0:
                return found
            depth -= 1
        elif line.startswith(".Bl "):
            depth += 1
        elif line.startswith(".It ") and depth == 0:
            found.append((words_of(line[4:]), []))
        elif found:
            found[-1][1].append(line)
    raise ValueError(f"the list below {heading} has no end")


def options_of_page(page):
    found = {}
    for name, lines in items(page, ".Ss Mount options"):
        preset = next((line[len("Default: "):-1] for line in lines if line.startswith("Default: ")), None)
        variable = next((line.split()[1] for line in lines if line.startswith(".Ev ") and lines[-1] == line), None)
        found[name] = (preset, variable)
    return found


def options_of_help(text):
    found = {}
    body = text.split("\nOptions of a mount", 1)[1]
    for match in re.finditer(r"^  (\S.*)\n        (.*)$", body, re.M):
        help_text, variable = match[2], None
        if "  $" in help_text:
            help_text, variable = help_text.rsplit("  $", 1)
        preset = re.search(r" \[([^\[\]]*)\]$", help_text)
        found[match[1]] = (preset and preset[1], variable)
    return found


def verbs_of_help(text):
    usages = re.findall(r"^  hugfs (\w.*)$", text.split("\nOptions of a mount", 1)[0], re.M)
    return {usage: None for usage in usages if not usage.startswith("SOURCE")}


def compare(what, page, program):
    """Two dictionaries; the differences as lines."""
    for name in sorted(page.keys() | program.keys()):
        if name not in program:
            yield f"{what}: the page has {name!r}, the program does not"
        elif name not in page:
            yield f"{what}: the program has {name!r}, the page does not"
        elif page[name] != program[name]:
            yield f"{what} {name}: the page says {page[name]}, the program {program[name]}"


def strings_of(path, array):
    """The strings in a C array's initializer."""
    with open(path, encoding="utf-8") as file:
        body = re.search(re.escape(array) + r"\[\] = \{(.*?)\};", file.read(), re.S)[1]
    return {text: None for text in re.findall(r'"((?:[^"\\]|\\.)*)"', body)}


def main():
    hugfs, root = sys.argv[1:]
    text = subprocess.run([hugfs, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout
    pages = {}
    for name in ("hugfs.1", "hugfs.7"):
        with open(os.path.join(root, "man", name), encoding="utf-8") as file:
            pages[name] = file.read()
    patterns = pages["hugfs.7"].split("until they get another name:", 1)[1].split(".Ed", 1)[0]
    findings = [
        *compare("option", options_of_page(pages["hugfs.1"]), options_of_help(text)),
        *compare("verb", {name: None for name, _ in items(pages["hugfs.1"], ".Ss Verbs")}, verbs_of_help(text)),
        *compare("pattern", {name: None for name in re.findall(r"^\.Pa (\S+)$", patterns, re.M)},
                 strings_of(os.path.join(root, "fs/ignore.c"), "builtin")),
        *compare("attribute", {name: None for name in re.findall(r"^\.It Va user\.hugfs\.(\w+)$", pages["hugfs.7"], re.M)},
                 strings_of(os.path.join(root, "fs/ops_xattr.c"), "names")),
    ]
    print("\n".join(findings or ["the pages say what the program says"]))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
