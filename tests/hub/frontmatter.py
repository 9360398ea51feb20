"""The metadata at the top of a README.md: is it YAML, and does it obey the Hub's rules?

Python's standard library has no YAML parser. `check` finds the mistakes that people (and the official
client's tests) make: a block that never ends, tabs, a line that is no `key: value`, a second colon in a
plain value, brackets that are not closed, a key given twice. `fields` reads what stands at the top level:
scalars and lists of scalars; anything deeper is only known to be there. What is let through is not promised
to be valid. Texts are those of the real Hub, as far as reports quote them.
"""

import re

KEY = re.compile(r"""(?:[^\s#:'"\[\]{}&*!|>%@`-][^:#]*|"[^"]*"|'[^']*')\s*:(?:\s|$)""")
MODEL_ID = re.compile(r"[\w.-]+(?:/[\w.-]+)?\Z", re.ASCII)
NESTED = object()  # a value that is neither a scalar nor a list of scalars
EMPTY = "empty or missing yaml metadata in repo card"
LICENSES = """apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc
cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research
lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql
ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2
llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown other""".split()
TASKS = """text-classification token-classification table-question-answering question-answering
zero-shot-classification translation summarization feature-extraction text-generation fill-mask
sentence-similarity text-to-speech text-to-audio automatic-speech-recognition audio-to-audio
audio-classification voice-activity-detection depth-estimation image-classification object-detection
image-segmentation text-to-image image-to-text image-to-image image-to-video
unconditional-image-generation video-classification reinforcement-learning robotics
tabular-classification tabular-regression tabular-to-text table-to-text multiple-choice text-ranking
text-retrieval time-series-forecasting text-to-video image-text-to-text visual-question-answering
document-question-answering zero-shot-image-classification graph-ml mask-generation
zero-shot-object-detection text-to-3d image-to-3d image-feature-extraction video-text-to-text
keypoint-detection visual-document-retrieval any-to-any video-to-video other""".split()
SIZES = """n<1K 1K<n<10K 10K<n<100K 100K<n<1M 1M<n<10M 10M<n<100M 100M<n<1B 1B<n<10B 10B<n<100B 100B<n<1T
n>1T""".split()
COLORS = ["red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"]
SDKS = ["gradio", "streamlit", "docker", "static"]


def judge(text, repo_type):
    """(errors, warnings) about the README.md of a repository of this type."""
    problems = check(text)
    if problems:
        return problems, []
    values = fields(text)
    if not values:
        return [], [EMPTY]
    errors, warnings = [], []
    for rule in RULES["all"] + RULES.get(repo_type, []):
        rule(values, errors, warnings)
    return errors, warnings


# Rules: each looks at one field


def _one_of(name, allowed, may_be_array=False):
    def rule(values, errors, warnings):
        value = values.get(name)
        found = value if isinstance(value, list) and may_be_array else [value]
        if value is not None and any(item not in allowed for item in found):
            errors.append(f'"{name}" must be one of [{", ".join(allowed + ["array"] * may_be_array)}]')

    return rule


def _array(name):
    def rule(values, errors, warnings):
        if values.get(name) is not None and not isinstance(values[name], list):
            errors.append(f'"{name}" must be an array')

    return rule


def _each(name, fits, complaint, as_warning=False):
    """Every value of a field that is a scalar or an array; `complaint` may use {label} and {value}."""

    def rule(values, errors, warnings):
        value = values.get(name)
        items = (
            [(f"{name}[{n}]", item) for n, item in enumerate(value)]
            if isinstance(value, list)
            else [(name, value)]
        )
        for label, item in items:
            if item not in (None, NESTED) and not fits(str(item)):
                (warnings if as_warning else errors).append(complaint.format(label=label, value=item))

    return rule


def _not_empty(name):
    def rule(values, errors, warnings):
        if values.get(name) == "":
            errors.append(f'"{name}" is not allowed to be empty')

    return rule


RULES = {
    "all": [
        _one_of("license", LICENSES, may_be_array=True),
        _each(
            "language", lambda text: text == text.lower(), '"{label}" must only contain lowercase characters'
        ),
        _each(
            "language",
            lambda text: re.match(r"[a-zA-Z]{2,3}\Z|code\Z|multilingual\Z", text),
            '"{label}" with value "{value}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code '
            '(two/three letters), or a special value like "code", "multilingual". If you want to use BCP-47 '
            "identifiers, you can specify them in language_bcp47.",
        ),
        _array("tags"),
    ],
    "model": [
        _not_empty("base_model"),
        _each(
            "base_model",
            lambda text: not text or MODEL_ID.match(text),
            '"{label}" with value "{value}" is not valid. Use a model id from https://hf.co/models.',
        ),
        _each(
            "pipeline_tag",
            lambda text: text in TASKS,
            'The pipeline tag "{value}" is not in the official list: ' + ", ".join(TASKS),
            as_warning=True,
        ),
    ],
    "dataset": [
        _array("size_categories"),
        _each(
            "size_categories",
            lambda text: text in SIZES,
            '"{label}" must be one of [' + ", ".join(SIZES) + "]",
        ),
        _each(
            "task_categories",
            lambda text: text in TASKS,
            'The task_categories "{value}" is not in the official list: ' + ", ".join(TASKS),
            as_warning=True,
        ),
    ],
    "space": [_one_of("sdk", SDKS), _one_of("colorFrom", COLORS), _one_of("colorTo", COLORS)],
}


# The text


def _block(text):
    """The lines between the two `---`, None without a block or without its end."""
    if not re.match(r"---[ \t]*\r?\n", text):
        return None
    lines = text.splitlines()[1:]
    ends = [number for number, line in enumerate(lines) if line.rstrip() == "---"]
    return lines[: ends[0]] if ends else None


def check(text):
    """A list of complaints about the syntax, empty if there is nothing to complain about."""
    lines = _block(text)
    if lines is None:
        return ["the metadata block is not closed by a line ---"] if re.match(r"---[ \t]*\r?\n", text) else []
    return _check_lines(lines)


def fields(text):
    """{key: scalar, list of scalars or NESTED} of the top level."""
    values, key, items = {}, None, None
    for line in _block(text) or ():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = KEY.match(line) if not line[0].isspace() and line[0] not in "-]}" else None
        if match:
            key, items = match[0].rstrip().rstrip(":").strip().strip("'\""), None
            values[key] = _value(line[match.end() :].strip())
        elif key is not None and line.lstrip().startswith("- ") and values[key] in (None, items):
            items = (items or []) + [_scalar(line.lstrip()[2:].strip())]
            values[key] = items
        elif key is not None and values[key] is not items:
            values[key] = NESTED
    return values


def _value(text):
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(item.strip()) for item in text[1:-1].split(",") if item.strip()]
    return NESTED if text[:1] in ("[", "{", "|", ">") else _scalar(text)


def _scalar(text):
    if text[:1] in ("'", '"') and text[-1:] == text[:1] and len(text) > 1:
        return text[1:-1]
    if KEY.match(text) or text[:1] in ("[", "{"):
        return NESTED
    return re.sub(r"\s+#.*", "", text) or None


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
